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
from .local import probabilities, same_modes

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
    orthonormality : largest entry of the second moments minus the identity, absolute
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
        Low modes; joint cumulants take two of them, or one, with each eliminated mode.
    weights : (p,), optional
        Probability of each row; equal by default.

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
    floor = points * jnp.finfo(Phi.dtype).eps * (w @ Phi**2)
    varies = variance > floor
    white = jnp.where(varies, centred / jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0)
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
    Phi: ArrayLike,
    values: ArrayLike,
    ridge: ArrayLike,
    cutoff: int,
    *,
    rule: str = "regression",
    modes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Float[Array, " point"]:
    r"""Ridge at each input as far as the low modes know it, :math:`\sigma^2 + \sum_{k>\kappa}\lambda_k E[\phi_k^2|\phi_<]`.

    Parameters
    ----------
    Phi : (p, k) mode functions at p inputs
    values : (k,) their prior variances
    ridge : () noise variance
    cutoff : int, modes kept
    rule : "regression" or "cumulants"
        Least squares on 1, the low modes and their products; or the expansion to first order in
        joint cumulants, which needs low modes of mean zero.
    modes : (m,) integers, optional
        Low modes to condition on, all by default. There are m (m + 3) / 2 regressors: keep them
        well below p.
    weights : (p,), optional
        Probability of each row; equal by default.

    Returns
    -------
    (p,)
        Of the same mean as `local_ridge` under regression.

    Raises
    ------
    ValueError
        For more regressors than rows, or "cumulants" with a mode whose mean is above 0.1.

    References
    ----------
    arXiv 2405.06008: third and fourth cumulants make the ridge depend on the input.
    """  # noqa: E501
    _checks.choice("rule", rule, ("regression", "cumulants"))
    _checks.require_x64("rg.conditional_ridge")
    Phi = _checks.features("Phi", Phi)
    points, k = Phi.shape
    cutoff = _checks.cutoff(cutoff, k)
    values = _checks.nonnegative("values", values, ndim=1)
    same_modes(Phi, values)
    ridge = _checks.nonnegative("ridge", ridge, ndim=0)
    w = probabilities(weights, points)
    _checks.on_host("rg.conditional_ridge chooses modes: it", modes)
    given = range(cutoff) if modes is None else _checks.indices("modes", modes)
    chosen = np.asarray(given, int)
    different = chosen.size == np.unique(chosen).size
    if chosen.size and not (different and np.isin(chosen, np.arange(cutoff)).all()):
        raise ValueError(
            f"modes must be different indices below the cutoff {cutoff}, got {chosen.tolist()}"
        )
    chosen = chosen.astype(int)
    if rule == "regression":
        regressors = 1 + chosen.size * (chosen.size + 3) // 2
        if regressors >= points:
            raise ValueError(
                f"modes: {chosen.size} low modes make {regressors} regressors for {points} "
                "rows; choose fewer with modes="
            )
        return _regressed(Phi, values, ridge, w, chosen, cutoff)
    if _checks.known(Phi) and _checks.known(w):
        means = np.abs(np.asarray(w) @ np.asarray(Phi)[:, chosen])
        if (means > 0.1).any():
            bad = chosen[means > 0.1].tolist()
            raise ValueError(
                f"modes {bad} have mean {means[means > 0.1].round(3).tolist()}, and the cumulant "
                'expansion needs mean zero; leave them out of modes=, or use rule="regression"'
            )
    return _expanded(Phi, values, ridge, w, chosen, cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _regressed(Phi, values, ridge, w, chosen, cutoff):
    """`conditional_ridge` by least squares on 1, the chosen modes and their products."""
    low, excess = Phi[:, chosen], Phi[:, cutoff:] ** 2 @ values[cutoff:]
    i, j = np.triu_indices(chosen.size)
    design = jnp.concatenate([jnp.ones((len(Phi), 1)), low, low[:, i] * low[:, j]], 1)
    root = jnp.sqrt(w)
    # lstsq differentiates singular vectors, which is wrong where singular values meet
    solution = jnp.linalg.pinv(root[:, None] * design) @ (root * excess)
    return ridge + design @ solution


@partial(jax.jit, static_argnames="cutoff")
def _expanded(Phi, values, ridge, w, chosen, cutoff):
    """`conditional_ridge` to first order in joint cumulants."""
    low, excess = Phi[:, chosen], Phi[:, cutoff:] ** 2 @ values[cutoff:]
    weight = w * excess
    total = values[cutoff:].sum()
    third = weight @ low
    fourth = (weight[:, None] * low).T @ low - total * jnp.eye(chosen.size)
    quadratic = ((low @ fourth) * low).sum(1) - jnp.trace(fourth)
    return ridge + total + low @ third + 0.5 * quadratic
