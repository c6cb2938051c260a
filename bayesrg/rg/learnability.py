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
    r"""How much of each mode n points determine, :math:`n\lambda_k/(n\lambda_k + s)`, s effective.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    (..., k)
        From 0 to 1: one minus posterior over prior variance of the mode. Zero for a zero value.

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


def running_learnability(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch mode"]:
    r"""Learnability of each mode at the scale where the flow reaches it.

    It is :math:`n\lambda_k/(n\lambda_k + \sigma_k^2)` with the universal ridge
    :math:`\sigma_k^2 = \sigma^2 + \sum_{j>k}\lambda_j`; inside a level, that of its first mode.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    (..., k)

    References
    ----------
    arXiv 2405.06008, equation 37.
    """
    return running(*problem(values, n, ridge, degeneracy, tail))


@partial(jax.jit, static_argnames="last")
def running(levels, n, ridge, last=False):
    """Running learnability of the first mode of each level, or of its last."""
    from_here = jnp.cumsum(levels.variance[..., ::-1], -1)[..., ::-1]
    above = jnp.clip(from_here - (levels.variance if last else levels.values), 0.0)
    noise = (ridge + levels.tail)[..., None] + above
    return signal_share(n[..., None] * levels.values, noise)


def posterior_learnability(
    features: ArrayLike,
    values: ArrayLike,
    ridge: ArrayLike,
    *,
    residual: ArrayLike | None = None,
) -> Float[Array, " mode"]:
    r"""Learnability of each mode on given points, :math:`\lambda_k \phi_k^T (K + \sigma^2)^{-1} \phi_k`.

    Parameters
    ----------
    features : (n, k) mode functions at the points
    values : (k,) prior variances of the modes
    ridge : () or (n,), noise variance, positive unless there are at least n modes
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out.

    Returns
    -------
    (k,)
        One minus posterior over prior variance of each mode; with ``ridge * tr (K + ridge)^-1``
        they sum to n, whatever the points.

    References
    ----------
    arXiv 2405.06008, equation 37, before any average; the conservation law is Simon et al. (2023).
    """  # noqa: E501
    fn = MercerNormal(features, values, ridge, residual=residual)
    return fn.values * (fn.features * fn.solve(fn.features)).sum(0)
