# SPDX-License-Identifier: Apache-2.0
"""Deterministic equivalents: what ridge regression on features does, averaged over data sets."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from ..spectrum import Levels
from .averages import averages, log_det, over
from .moments import Moments

_NOISELESS = 1e-12  # share of Ey2 below which a target is held by the features
_PerTarget = Float[Array, " *n_train"] | Float[Array, "*n_train target"]


class Equivalent(eqx.Module):
    r"""Averages over data sets of n rows; see `ridge_equivalent`.

    With moments of c targets, fields that depend on the target have a last axis of length c.

    Attributes
    ----------
    n, ridge : (...) as given, broadcast together
    tau : root of :math:`n = \mathrm{df}_1(\tau) + \lambda/\tau`, in units of the eigenvalues
        n tau is the effective ridge of `bayesrg.rg.effective_ridge`.
    m : mean of the trace of :math:`(XX^T + \lambda)^{-1}` over n, which is 1/(n tau)
    df1, df2 : sums of :math:`\omega/(\omega+\tau)` and of its square
    test : mean squared error on new labels, noise included
    train : mean squared error on the training labels
    excess : test - label_noise; None unless label_noise is given
    weight_norm2 : mean squared norm of the weights
    data_fit : mean of :math:`y^T(XX^T + \lambda)^{-1}y`
    pred_var : posterior variance of a new label, noise included, averaged over inputs
    log_evidence : of all n rows together
    calibration : test / pred_var
    rank : () number of features that count if the ridge is zero
    residual : relative difference of the two sides of the equation for tau
    converged : whether the residual is as small as rounding allows
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

    The weights are :math:`(X^TX + \lambda)^{-1}X^Ty`; the ridge :math:`\lambda` is not multiplied
    by n. With the ``values`` :math:`\omega_k` and the ``projection`` :math:`b_k` of the moments,
    the learnabilities :math:`L_k = \omega_k/(\omega_k+\tau)`, where :math:`\tau` is the effective
    ridge over n, and the part v of the target that no weights explain, the test error is
    :math:`[\sum_k (1-L_k)^2 b_k^2/\omega_k + v]/(1 - \sum_k L_k^2/n)`.

    Parameters
    ----------
    moments : Moments
        From `moments`, `population_moments` or `spectral_moments`.
    n : (...) number of rows, real, zero allowed
    ridge : (...) from zero to infinity; ``n[:, None]`` with ``ridge`` (r,) gives a grid
    label_noise : (...), optional
        Variance of the noise in new labels, one number or one per target. Used only for
        ``excess``; the moments contain it already.
    noise_variance : (...), optional
        Noise variance of the model, positive. The weights have the prior variance
        noise_variance / ridge. By default it is the ridge, with prior variance 1.

    Returns
    -------
    Equivalent
        Without a ridge it describes the solution of minimum norm. Then the evidence is nan if n
        exceeds ``rank``, and the error at n = ``rank`` is infinite unless the features explain the
        whole target.

    Raises
    ------
    ValueError
        If n is negative or not finite, or the ridge is negative or nan.

    Warns
    -----
    UserWarning
        If there is no ridge and n is within 1 % of ``rank``, where the error diverges; and if a
        root has not converged.

    Notes
    -----
    The prediction is exact for Gaussian features in the limit of many rows and features. It is
    right within 3 % for some 200 of each, and within 15 % near n = rank with a small ridge. For
    positive n and finite ridges it can be differentiated in n, the ridge and the arrays of the
    moments. Derivatives in the arguments of `population_moments` exist only if the eigenvalues
    differ.

    References
    ----------
    arXiv 2402.13999 for features of random networks; Hastie et al. (2022), arXiv 1903.08560.
    """
    _checks.warn_32_bits("theory.ridge_equivalent")
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    dtype = moments.values.dtype
    n = _checks.squares("n", _checks.nonnegative("n", n).astype(dtype))
    ridge = _ridge(ridge, dtype)
    shapes = {"n": n.shape, "ridge": ridge.shape}
    if noise_variance is not None:
        noise_variance = _checks.positive("noise_variance", noise_variance).astype(dtype)
        shapes["noise_variance"] = noise_variance.shape
    _checks.fit(**shapes)
    some_zero = not _checks.known(ridge) or bool((np.asarray(ridge) == 0).any())
    result = equivalent(moments, n, ridge, noise_variance, ridgeless=some_zero)
    _warn(result)
    if label_noise is None:
        return result
    label_noise = _checks.nonnegative("label_noise", label_noise)
    shape = _checks.fit(label_noise=label_noise.shape, n=result.test.shape)
    if shape != result.test.shape:
        raise ValueError(
            f"label_noise has shape {label_noise.shape} and the results {result.test.shape}; give "
            "one number, or one per result"
        )
    return dataclasses.replace(result, excess=result.test - label_noise)


def _ridge(ridge, dtype):
    """Check a ridge, which may be infinite."""
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
        warn(
            f"ridge_equivalent: without a ridge the error diverges at n = rank = {rank}, and some "
            "n is within 1 % of it; the tolerance rank_tol of the moments decides what the rank is"
        )
    if not np.asarray(result.converged).all():
        warn(
            "ridge_equivalent: the equation for tau is solved only to a relative residual of "
            f"{float(np.max(result.residual)):.1e}; results have no more digits than that"
        )


@eqx.filter_jit
def equivalent(moments, n, ridge, noise_variance=None, *, ridgeless=True) -> Equivalent:
    """Compute `ridge_equivalent` without checks; ``ridgeless`` says that a ridge may be zero.

    A ridge may be zero, positive or infinite, and n zero or not. Each formula is written for a
    positive ridge, and `over` gives its limit at zero. Limits at infinity come last.
    """
    model = () if noise_variance is None else (noise_variance,)
    n, ridge, *model = jnp.broadcast_arrays(n, ridge, *model)
    values, power, Ey2 = moments.values, moments.power, moments.Ey2
    infinite = jnp.isinf(ridge)
    finite_ridge = jnp.where(infinite, 1.0, ridge)

    def each(x):
        """Share a number (...) among targets, on the last axis."""
        return x[..., None] if power.ndim == 2 else x

    # Without a ridge, modes with eigenvalues of the size of rounding errors count as absent: their
    # part of the target is unexplained. Only then do the modes depend on the ridge, which costs
    # memory: (..., p) values in place of (p,).
    kept, unexplained = 1.0, moments.unexplained
    if ridgeless:
        lost = (ridge == 0)[..., None] & (values <= moments.floor)
        kept, values = jnp.where(lost, 0.0, 1.0), jnp.where(lost, 0.0, values)
        unexplained = unexplained + _over_modes(1.0 - kept, power)
    levels = Levels(values, jnp.ones_like(moments.values))
    a = averages(levels, n, finite_ridge)
    solvable = (a.s == 0) & (n > 0)  # no ridge, and at least as many rows as modes

    # A target that the features explain up to rounding errors has no error there. Without this,
    # rounding errors would be amplified without bound at n = rank.
    explained = each(solvable) & (unexplained <= _NOISELESS * Ey2)
    unexplained = jnp.where(explained, 0.0, unexplained)
    error = _over_modes(kept * a.unlearnt**2, power) + unexplained
    test = over(error, each(a.free))
    diverges = each(a.critical) & (error > 0)
    finite_test = jnp.where(jnp.isfinite(test), test, 0.0)
    train = each(a.share**2) * finite_test

    # multiplied in this order, since the square of ``left`` alone may overflow
    left = values * a.left * a.left
    norm2 = each(n**2) * _over_modes(left, power) + finite_test * each(n * left.sum(-1))
    norm2 = jnp.where(diverges, jnp.inf, norm2)
    noise_fit = over(each(n) * unexplained, each(a.s))
    data_fit = each(n) * _over_modes(kept * a.left, power) + noise_fit

    # noise variance and prior variance of the model, posterior variance of a label
    s2, prior, pred_var = ridge, jnp.ones_like(ridge), a.s
    if model:
        (s2,) = model
        prior, pred_var = over(s2, finite_ridge), over(s2, a.share)

    # labels have the covariance prior (K + ridge), whose log determinant has n log(prior) more
    some = jnp.where(n > 0, n, 1.0)  # there is no evidence for n = 0, even if prior is infinite
    constant = some * jnp.log(prior) + n * np.log(2 * np.pi)
    twice = data_fit / each(prior) + each(log_det(levels, a) + constant)
    impossible = each(jnp.isinf(prior)) | diverges
    evidence = jnp.where(impossible, -jnp.inf, -0.5 * jnp.where(impossible, 0.0, twice))
    if not model:
        evidence = jnp.where(each(solvable & ~a.critical), jnp.nan, evidence)

    def limit(value, otherwise):
        """Take ``value`` where the ridge is infinite."""
        at = each(infinite) if otherwise.ndim > n.ndim else infinite
        return jnp.where(at, value, otherwise)

    # An infinite ridge predicts zero: labels are noise, and Ey2 is their mean square.
    label_var = jnp.where(infinite, s2, 1.0)
    constant = some * jnp.log(label_var) + n * np.log(2 * np.pi)
    noise_only = -0.5 * (each(n) * Ey2 / each(label_var) + each(constant))
    evidence = limit(noise_only, evidence)
    test, pred_var = limit(Ey2, test), limit(s2, pred_var)

    # The ratio is 0 / 0 or inf / inf where both diverge. With a fixed noise variance, it tends to
    # half of unexplained / s2 at n = rank as the ridge falls.
    spread = each(jnp.where(jnp.isinf(pred_var), 0.0, pred_var))
    calibration = jnp.where(each(jnp.isinf(pred_var)), 0.0, over(test, spread))
    if model:
        calibration = jnp.where(diverges, unexplained / each(2 * s2), calibration)

    return Equivalent(
        n=n,
        ridge=ridge,
        tau=limit(jnp.inf, jnp.where(n > 0, a.s / some, jnp.inf)),
        m=limit(0.0, over(1.0, a.s)),
        df1=limit(0.0, a.count),
        df2=limit(0.0, (a.learnt**2).sum(-1)),
        test=test,
        train=limit(Ey2, train),
        excess=None,
        weight_norm2=limit(0.0, norm2),
        data_fit=limit(0.0, data_fit),
        pred_var=pred_var,
        log_evidence=jnp.where(each(n > 0), evidence, 0.0),
        calibration=calibration,
        rank=moments.rank,
        residual=a.residual,
        converged=a.converged,
    )


def _over_modes(weights, power):
    """Sum of ``power`` (p,) or (p, c) over modes with weights (..., p)."""
    if power.ndim == 1:
        return (weights * power).sum(-1)
    return (weights[..., None] * power).sum(-2)
