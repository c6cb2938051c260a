# SPDX-License-Identifier: Apache-2.0
"""Groups of eigenvalues that a finite sample cannot tell apart."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from .. import _checks
from .._checks import ArrayLike


def groups(values: ArrayLike, n: ArrayLike, width: float = 3.0) -> Int[Array, " mode"]:
    r"""Number the groups of eigenvalues that lie within the sampling error of a neighbour.

    A sample splits a degenerate level: an eigenvalue of n points has a relative error of about
    :math:`1/\sqrt n`. Neighbours belong together unless
    :math:`\lambda_i - \lambda_{i+1} \ge w\,\lambda_i/\sqrt n`.

    Parameters
    ----------
    values : (k,) eigenvalues of a sample, falling
    n : (), rows of the sample
    width : float
        Gap w between groups, in standard errors.

    Returns
    -------
    (k,) integers, rising from 0

    References
    ----------
    arXiv 2307.14531 (the spectra); Koltchinskii and Gine (2000) (their sampling error).
    """
    values = _checks.eigenvalues(values)
    n = _checks.positive("n", n, ndim=0)
    width = _checks.nonnegative("width", width, ndim=0)
    return _groups(values, n, width)


@jax.jit
def _groups(values, n, width):
    gap = values[:-1] - values[1:]
    apart = (gap >= width * values[:-1] / jnp.sqrt(n)) & (gap > 0)
    return jnp.concatenate([jnp.zeros(min(1, len(values)), int), jnp.cumsum(apart)])
