# SPDX-License-Identifier: Apache-2.0
"""Spectra of matrices with independent entries, to compare the weights of a network with."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.linalg import eigvalsh_tridiagonal

from .. import _checks


def marchenko_pastur_null(
    m: int, n: int, draws: int, key: Array | int
) -> Float[Array, "draw level"]:
    r"""Draw the levels of W^T W for matrices W (m, n) of independent standard normal entries.

    Levels of one matrix keep each other at a distance, so distances from the law of Marchenko and
    Pastur are many times smaller than for independent numbers. Compare an observed distance with
    those of these draws.

    Parameters
    ----------
    m, n : int
        Shape of the matrix.
    draws : int
        Number of matrices.
    key : JAX key, or int

    Returns
    -------
    (draws, min(m, n))
        Levels that are not zero by construction, ascending. For entries of standard deviation s
        multiply them by s^2.

    Notes
    -----
    A matrix costs O(min(m, n)^2): its bidiagonal form is drawn, of which the levels are computed
    on the host. No matrix (m, n) is made.

    References
    ----------
    Dumitriu and Edelman (2002).
    """
    rows, few = _checks.whole("m", m), _checks.whole("n", n)
    rows, few = max(rows, few), min(rows, few)
    draws = _checks.whole("draws", draws)
    key = _checks.random_key(key)
    _checks.on_host("marchenko_pastur_null", key)

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    on = rng.chisquare(np.arange(rows, rows - few, -1), (draws, few))
    below = rng.chisquare(np.arange(few - 1, 0, -1), (draws, few - 1))

    # L L^T of the bidiagonal L is tridiagonal: squares on the diagonal, products beside it
    diagonal, beside = on.copy(), np.sqrt(on[:, :-1] * below)
    diagonal[:, 1:] += below
    levels = [eigvalsh_tridiagonal(d, e) for d, e in zip(diagonal, beside, strict=True)]
    return jnp.asarray(np.stack(levels).clip(0.0))
