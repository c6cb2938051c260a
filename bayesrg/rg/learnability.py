# SPDX-License-Identifier: Apache-2.0
"""How much of each mode a data set determines: on average, at the running ridge, and exactly."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _fixedpoint
from .._checks import ArrayLike
from ..gp import MercerNormal
from ..spectrum.levels import LevelsLike, signal_share
from .ridges import problem


def learnability(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch mode"]:
    r"""Share of the prior variance of each mode that n points determine, on average.

    It is :math:`n\lambda_k/(n\lambda_k + s)` with the effective ridge s.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    (..., k)
        From 0 to 1: one minus posterior over prior variance. Zero for a mode of value zero.

    References
    ----------
    arXiv 2405.06008, equation 37; Simon et al. (2023) (eigenlearning).
    """
    return effective(*problem(values, n, ridge, degeneracy, tail))


def effective(levels, n, ridge):
    """`learnability` without checks."""
    return _learnt(levels, n, _fixedpoint.effective_ridge(levels, n, ridge).value)


@jax.jit
def _learnt(levels, n, s):
    return levels.learnt(n, s)


@partial(jax.jit, static_argnames="last")
def running(levels, n, ridge, last=False):
    r"""Learnability of each level (..., k) at the ridge when the flow reaches it.

    It is :math:`n\lambda_k/(n\lambda_k + \sigma_k^2)` with the universal ridge
    :math:`\sigma_k^2 = \sigma^2 + \sum_{j>k}\lambda_j` of the first mode of the level, or of its
    ``last``. See arXiv 2405.06008, equation 37.
    """
    own = levels.variance if last else levels.values
    above = jnp.clip(from_here(levels) - own, 0.0)
    return signal_share(n[..., None] * levels.values, (ridge + levels.tail)[..., None] + above)


def from_here(levels):
    """Variance of each level and of all later ones, (..., k)."""
    return jnp.cumsum(levels.variance[..., ::-1], -1)[..., ::-1]


def posterior(features, values, ridge, residual):
    r"""Learnability of each mode (k,) on given points, from features (n, k) there.

    It is :math:`\lambda_k \phi_k^T (K + \sigma^2)^{-1} \phi_k`. With ``ridge * tr (K + ridge)^-1``
    the entries sum to n for any points, see Simon et al. (2023).
    """
    fn = MercerNormal(features, values, ridge, residual=residual)
    return fn.values * (fn.features * fn.solve(fn.features)).sum(0)
