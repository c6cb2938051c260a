# SPDX-License-Identifier: Apache-2.0
"""Deterministic equivalents: what ridge regression on features does, averaged over data sets."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from .. import _checks
from .._checks import ArrayLike
from ..spectrum import Levels
from .averages import averages, log_det
from .moments import Moments

_NOISELESS = 1e-12  # share of Ey2 below which a target is held by the features
_PerTarget = Float[Array, " *n_train"] | Float[Array, "*n_train target"]


class Equivalent(eqx.Module):
    r"""Averages over data sets of n rows; see `ridge_equivalent`.

    If the moments are those of c targets, fields that depend on targets have a last axis of c.

    Attributes
    ----------
    n, ridge : (...) as given, broadcast together
    tau : root of :math:`n = \mathrm{df}_1(\tau) + \lambda/\tau`, in units of the eigenvalues
        The effective ridge of `bayesrg.rg.effective_ridge` is n tau.
    m : mean of the trace of :math:`(XX^T + \lambda)^{-1}` over n, 1/(n tau)
    df1, df2 : sums of :math:`\omega/(\omega+\tau)` and of its square
    test : mean squared error on new labels, noise included
    train : mean squared error on the training labels
    excess : test - label_noise; None unless label_noise is given
    weight_norm2 : mean squared norm of the weights
    data_fit : mean of :math:`y^T(XX^T + \lambda)^{-1}y`
    pred_var : variance of a new label under the posterior, noise included, averaged over inputs
    log_evidence : total, of the whole data set
    calibration : ``test`` over ``pred_var``
    rank : () number of features that count where the ridge is zero
    residual : relative imbalance of the equation for tau
    converged : whether that is round-off
    """

    n: Float[Array, " *n_train"]
    ridge: Float[Array, " *n_train"]
    tau: Float[Array, " *n_train"]
    m: Float[Array, " *n_train"]
    df1: Float[Array, " *n_train"]
    df2: Float[Array, " *n_train"]
    test: _PerTarget
    train: _PerTarget
    excess: _PerTarget | None
    weight_norm2: _PerTarget
    data_fit: _PerTarget
    pred_var: Float[Array, " *n_train"]
    log_evidence: _PerTarget
    calibration: _PerTarget
    rank: Int[Array, ""]
    residual: Float[Array, " *n_train"]
    converged: Bool[Array, " *n_train"]


def ridge_equivalent(
    moments: Moments,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    label_noise: ArrayLike | None = None,
    noise_variance: ArrayLike | None = None,
) -> Equivalent:
    r"""Predict errors, weights and evidence of ridge regression on n rows drawn at random.

    The weights are :math:`(X^TX + \lambda)^{-1}X^Ty`: the ridge multiplies no n. With L the
    learnabilities :math:`\omega_k/(\omega_k+\tau)` the test error is
    :math:`[\sum_k (1-L_k)^2 b_k^2/\omega_k + v]/(1 - \sum_k L_k^2/n)`, v unexplained.

    Parameters
    ----------
    moments : Moments
        From `moments`, `population_moments` or `spectral_moments`.
    n : (...) number of rows, real, zero allowed
    ridge : (...) from zero to infinity; ``n[:, None]`` with ``ridge`` (r,) gives a grid
    label_noise : (...), optional
        Variance of the noise in new labels, one number or one per target; only for ``excess``.
    noise_variance : (...), optional
        Positive; that of the model, whose weights have the prior variance noise_variance over
        ridge. By default the ridge itself, with prior variance 1.

    Returns
    -------
    Equivalent
        With several targets, errors, weights and evidence are those of each. Without a ridge it is
        the minimum-norm solution, which has no evidence above ``rank`` rows (nan) and an infinite
        error at ``rank`` unless the features explain the whole target.

    Raises
    ------
    ValueError
        For n negative or not finite, or a ridge negative or nan.

    Warns
    -----
    UserWarning
        Within 1 % of ``rank`` rows without a ridge, where the error diverges, and for a root
        that is not at round-off.

    Notes
    -----
    Exact for Gaussian features in the limit of many rows and features; within 3 % for some 200 of
    each, and 15 % near n = rank with a small ridge. Differentiable for n > 0 and finite ridges in
    n, the ridge and the arrays of the moments; through an eigendecomposition, as that of
    `population_moments`, only where its values differ.

    References
    ----------
    arXiv 2402.13999 for features of random networks; Hastie et al. (2022), arXiv 1903.08560.
    """
    _checks.warn_32_bits("theory.ridge_equivalent")
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    dtype = moments.values.dtype
    n = _checks.squares("n", _checks.nonnegative("n", n).astype(dtype))
    ridge = _ridge(ridge, dtype)
    _checks.fit(n=n.shape, ridge=ridge.shape)
    if label_noise is not None:
        label_noise = _checks.nonnegative("label_noise", label_noise)
    if noise_variance is not None:
        noise_variance = _checks.positive("noise_variance", noise_variance).astype(dtype)
        _checks.fit(n=n.shape, ridge=ridge.shape, noise_variance=noise_variance.shape)
    some = not _checks.known(ridge) or bool((np.asarray(ridge) == 0).any())
    result = equivalent(moments, n, ridge, noise_variance, ridgeless=some)
    _warn(result)
    if label_noise is None:
        return result
    shape = _checks.fit(label_noise=label_noise.shape, n=result.test.shape)
    if shape != result.test.shape:
        raise ValueError(
            f"label_noise has shape {label_noise.shape} and the results {result.test.shape}; give "
            "one number, or one a result"
        )
    return eqx.tree_at(
        lambda r: r.excess, result, result.test - label_noise, is_leaf=lambda x: x is None
    )


def _ridge(ridge, dtype):
    ridge = jnp.asarray(_checks.numbers("ridge", ridge)).astype(dtype)
    if _checks.known(ridge) and not (np.asarray(ridge) >= 0).all():
        raise ValueError(
            f"ridge must be non-negative, got {np.asarray(ridge).min()}; give a variance, zero for "
            "the minimum-norm solution"
        )
    return ridge


def _warn(result):
    if not (_checks.known(result.n) and _checks.known(result.tau)):
        return
    n, ridge, rank = np.asarray(result.n), np.asarray(result.ridge), int(result.rank)
    if ((ridge == 0) & (n > 0) & (np.abs(n - rank) <= 0.01 * rank)).any():
        warnings.warn(
            f"ridge_equivalent: without a ridge the error diverges at n = rank = {rank}, and some "
            "n lies within 1 % of it; the features' tolerance rank_tol decides what the rank is",
            stacklevel=3,
        )
    if not np.asarray(result.converged).all():
        warnings.warn(
            "ridge_equivalent: a fixed point is not at round-off; its relative residual is "
            f"{float(np.max(result.residual))}",
            stacklevel=3,
        )


@eqx.filter_jit
def equivalent(moments, n, ridge, noise_variance=None, *, ridgeless=True) -> Equivalent:
    """`ridge_equivalent` without checks; ``ridgeless`` says that some ridge may be zero."""
    fixed = () if noise_variance is None else (noise_variance,)
    n, ridge, *fixed = jnp.broadcast_arrays(n, ridge, *fixed)
    values, power, v, Ey2 = moments.values, moments.power, moments.unexplained, moments.Ey2
    infinite = jnp.isinf(ridge)
    bare = jnp.where(infinite, 1.0, ridge)
    kept = 1.0
    if ridgeless:
        lost = (ridge == 0)[..., None] & (values <= moments.floor)
        kept, values = jnp.where(lost, 0.0, 1.0), jnp.where(lost, 0.0, values)
        v = v + _over_modes(1.0 - kept, power)
    several = power.ndim == 2

    def each(x):
        """Share a value among targets, the last axis."""
        return x[..., None] if several else x

    levels = Levels(values, jnp.ones_like(moments.values))
    a = averages(levels, n, bare)
    over = (a.s == 0) & (n > 0)  # no ridge and at least as many rows as features
    critical = each(a.critical)
    v = jnp.where(each(over) & (v <= _NOISELESS * Ey2), 0.0, v)
    missed = _over_modes(kept * a.unlearnt**2, power) + v
    silent = critical & (missed == 0)
    test = jnp.where(critical, jnp.inf, missed / jnp.where(critical, 1.0, each(a.free)))
    test = jnp.where(silent, 0.0, test)
    finite = jnp.where(jnp.isfinite(test), test, 0.0)
    left = values * a.left * a.left  # in this order: the square of one over s may overflow
    norm2 = each(n**2) * _over_modes(left, power) + finite * each(n * left.sum(-1))
    norm2 = jnp.where(critical & ~silent, jnp.inf, norm2)
    train = each(a.share**2) * finite

    s = jnp.where(a.s > 0, a.s, 1.0)
    without = jnp.where(each(over) & (v > 0), jnp.inf, 0.0)
    noise_fit = jnp.where(each(a.s > 0), each(n) * v / each(s), without)
    data_fit = each(n) * _over_modes(kept * a.left, power) + noise_fit
    logs = jnp.log(jnp.where(values > 0, n[..., None] * values, 1.0)).sum(-1) - n
    determinant = jnp.where(silent, each(logs), each(log_det(levels, a)))
    if fixed:
        (s2,) = fixed
        alpha = jnp.where(bare > 0, s2 / jnp.where(bare > 0, bare, 1.0), jnp.inf)
        pred_var = jnp.where(a.share > 0, s2 / jnp.where(a.share > 0, a.share, 1.0), jnp.inf)
    else:
        s2, alpha, pred_var = ridge, jnp.ones_like(bare), a.s
    some = jnp.where(n > 0, n, 1.0)  # n log(alpha) is 0 for n = 0 also where alpha is infinite
    twice = data_fit / each(alpha) + determinant
    twice = twice + each(some * jnp.log(alpha) + n * np.log(2 * np.pi))
    no_evidence = each(jnp.isinf(alpha)) | (critical & ~silent)
    evidence = jnp.where(no_evidence, -jnp.inf, -0.5 * jnp.where(no_evidence, 0.0, twice))
    if not fixed:
        evidence = jnp.where(each(over & ~a.critical), jnp.nan, evidence)
    s2_there = jnp.where(infinite, s2, 1.0)
    no_signal = each(some * jnp.log(s2_there) + n * np.log(2 * np.pi))
    no_signal = each(n) * Ey2 / each(s2_there) + no_signal
    evidence = jnp.where(each(infinite), -0.5 * no_signal, evidence)

    def at_infinity(value, others):
        return jnp.where(infinite, value, others)

    def targets_at_infinity(value, others):
        return jnp.where(each(infinite), value, others)

    test, pred_var = targets_at_infinity(Ey2, test), at_infinity(s2, pred_var)
    tau = jnp.where(n > 0, a.s / some, jnp.inf)
    # at n = rank both diverge as the ridge falls; their ratio tends to half of v / s2
    known, some_var = each((pred_var > 0) & jnp.isfinite(pred_var)), each(pred_var > 0)
    ratio = test / jnp.where(known, each(pred_var), 1.0)
    calibration = jnp.where(
        known, ratio, jnp.where(some_var, 0.0, jnp.where(test > 0, jnp.inf, 0.0))
    )
    if fixed:
        calibration = jnp.where(critical & ~silent, v / each(2 * s2), calibration)
    return Equivalent(
        n=n, ridge=ridge, tau=at_infinity(jnp.inf, tau),
        m=at_infinity(0.0, jnp.where(a.s > 0, 1.0 / s, jnp.inf)),
        df1=at_infinity(0.0, a.count), df2=at_infinity(0.0, (a.learnt**2).sum(-1)),
        test=test, train=targets_at_infinity(Ey2, train), excess=None,
        weight_norm2=targets_at_infinity(0.0, norm2),
        data_fit=targets_at_infinity(0.0, data_fit), pred_var=pred_var,
        log_evidence=jnp.where(each(n > 0), evidence, 0.0), calibration=calibration,
        rank=moments.rank, residual=a.residual, converged=a.converged,
    )  # fmt: skip


def _over_modes(weights, power):
    """Sum of ``power`` (p,) or (p, c) over modes with weights (..., p)."""
    if power.ndim == 1:
        return (weights * power).sum(-1)
    return (weights[..., None] * power).sum(-2)
