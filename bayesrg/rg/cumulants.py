# SPDX-License-Identifier: Apache-2.0
"""How far the mode functions are from a Gaussian vector, and the ridge that follows from it."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri
from jaxtyping import Bool, Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import ratio, safe_sqrt
from .local import population, probabilities

QUANTILES = 199
HEAVY = 1.0


class FeatureCumulants(eqx.Module):
    r"""Moments of mode functions under a sample; see `feature_cumulants`.

    Attributes
    ----------
    mean, skewness, excess_kurtosis : (k,)
        Of each mode; the last two are zero for a Gaussian.
    heavy : (k,) whether the absolute excess kurtosis exceeds 1
    third : (high, low)
        :math:`E[\phi_k^2\phi_i]` for each eliminated mode k and each low mode i.
    fourth : (high, low, low)
        :math:`E[\phi_k^2\phi_i\phi_j] - \delta_{ij}`, the joint cumulant where features are
        orthonormal and of mean zero.
    orthonormality : largest absolute entry of the second moments minus the identity
    quantile : (q,) standard normal quantiles
    quantiles : (q, k) those of each mode, centred and of unit variance
    """

    mean: Float[Array, " mode"]
    skewness: Float[Array, " mode"]
    excess_kurtosis: Float[Array, " mode"]
    heavy: Bool[Array, " mode"]
    third: Float[Array, "high low"]
    fourth: Float[Array, "high low low_bis"]
    orthonormality: Float[Array, ""]
    quantile: Float[Array, " quantile"]
    quantiles: Float[Array, "quantile mode"]


def feature_cumulants(
    Phi: ArrayLike, cutoff: int, *, weights: ArrayLike | None = None
) -> FeatureCumulants:
    """Measure skewness, kurtosis and joint cumulants of mode functions on a sample.

    Parameters
    ----------
    Phi : (p, k) mode functions at p inputs
    cutoff : int
        Number of low modes. Joint cumulants are of each eliminated mode with one or two low modes.
    weights : (p,) probability of each row, equal by default

    Returns
    -------
    FeatureCumulants
        Sampling errors are those of plain moments, about ``sqrt(24 / p)`` for the kurtosis of a
        Gaussian mode. Needs ``(k - cutoff) * cutoff**2`` numbers of memory.

    References
    ----------
    arXiv 2405.06008: modes of high index on images are heavy-tailed.
    """
    Phi = _checks.features("Phi", Phi)
    points, k = Phi.shape
    cutoff = _checks.cutoff(cutoff, k)
    return _cumulants(Phi, probabilities(weights, points), cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _cumulants(Phi, w, cutoff):
    points, k = Phi.shape
    mean = w @ Phi
    centred = Phi - mean
    variance = w @ centred**2

    # a mode that varies by rounding errors alone is constant: its higher moments are zero
    varies = variance > points * jnp.finfo(Phi.dtype).eps * (w @ Phi**2)
    white = ratio(centred, safe_sqrt(jnp.where(varies, variance, 0.0)))
    kurtosis = jnp.where(varies, w @ white**4 - 3.0, 0.0)

    low, squares = Phi[:, :cutoff], w[:, None] * Phi[:, cutoff:] ** 2
    second = (w[:, None] * Phi).T @ Phi - jnp.eye(k, dtype=Phi.dtype)
    probability = (jnp.arange(QUANTILES) + 0.5) / QUANTILES
    return FeatureCumulants(
        mean=mean,
        skewness=w @ white**3,
        excess_kurtosis=kurtosis,
        heavy=jnp.abs(kurtosis) > HEAVY,
        third=squares.T @ low,
        fourth=jnp.einsum("pk,pi,pj->kij", squares, low, low) - jnp.eye(cutoff, dtype=Phi.dtype),
        orthonormality=jnp.abs(second).max(initial=0.0),
        quantile=ndtri(probability),
        quantiles=_weighted_quantiles(white, w, probability),
    )


def _weighted_quantiles(columns, w, probability):
    """Quantiles (q, k) of each column under probabilities ``w``, at the middle of each step."""

    def one(column):
        order = jnp.argsort(column)
        middle = jnp.cumsum(w[order]) - 0.5 * w[order]
        return jnp.interp(probability, middle, column[order])

    return jax.vmap(one, in_axes=1, out_axes=1)(columns)


def conditional_ridge(
    features: ArrayLike,
    values: ArrayLike,
    ridge: ArrayLike,
    cutoff: int,
    *,
    modes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Float[Array, " point"]:
    r"""Mean of the local ridge at each input if only the low modes there are known.

    It is :math:`\sigma^2 + \sum_{k>\kappa}\lambda_k E[\phi_k^2|\phi_<]`. The expectation is a least
    squares fit to 1, the low modes and their products; to first order their coefficients are the
    cumulants ``third`` and ``fourth / 2`` of `feature_cumulants`.

    Parameters
    ----------
    features : (p, k) mode functions at p inputs
    values : (k,) their prior variances
    ridge : () noise variance
    cutoff : int, modes kept
    modes : (m,) integers, optional
        Low modes to condition on, all by default. There are m (m + 3) / 2 regressors: keep them
        well below p.
    weights : (p,) probability of each row, equal by default

    Returns
    -------
    (p,)
        Its mean is that of `local_ridge`.

    Raises
    ------
    ValueError
        For as many regressors as rows, or more.

    References
    ----------
    arXiv 2405.06008: third and fourth cumulants make the ridge depend on the input.
    """
    features, values, weights = population(features, values, weights)
    points, k = features.shape
    cutoff = _checks.cutoff(cutoff, k)
    ridge = _checks.nonnegative("ridge", ridge, ndim=0)
    _checks.on_host("rg.conditional_ridge chooses modes: it", modes)
    modes = range(cutoff) if modes is None else _checks.indices("modes", modes, cutoff)
    regressors = 1 + len(modes) * (len(modes) + 3) // 2
    if regressors >= points:
        raise ValueError(
            f"modes: {len(modes)} low modes make {regressors} regressors for {points} rows; choose "
            "fewer with modes="
        )
    return _regressed(features, values, ridge, weights, np.array(modes, int), cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _regressed(features, values, ridge, w, chosen, cutoff):
    low, excess = features[:, chosen], features[:, cutoff:] ** 2 @ values[cutoff:]
    i, j = np.triu_indices(chosen.size)
    design = jnp.concatenate([jnp.ones((len(features), 1)), low, low[:, i] * low[:, j]], 1)
    root = jnp.sqrt(w)
    # lstsq differentiates singular vectors, which is wrong where singular values meet
    solution = jnp.linalg.pinv(root[:, None] * design) @ (root * excess)
    return ridge + design @ solution
