# SPDX-License-Identifier: Apache-2.0
"""Learning curves: what Gaussian-process regression achieves, averaged over data sets."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from ..rg.ridges import problem, universal
from ..spectrum.levels import LevelsLike
from .averages import averages, log_det


class Curve(eqx.Module):
    r"""Averages over data sets of n points, one an entry of ``n``; see `learning_curve`.

    Attributes
    ----------
    n, ridge, label_noise : (...) as given, broadcast together
    test : mean squared error on new noisy labels
    generalisation : the same on noiseless ones, ``test - label_noise``
    bias : its part from the mean predictor; the rest is variance over data sets
    train : mean squared error on the training labels
    variance : posterior variance of the function, averaged over inputs
    log_evidence : of the whole data set; nan where ridge and effective ridge are zero
    effective_ridge : root s of the fixed point, a variance
    overfitting : factor by which noise and bias are amplified, at least 1
    learnability : (..., k), mean coefficient of a mode over the target's
    coefficient_variance : (..., k)
        Variance over data sets of a mode's coefficient, for many points.
    """

    n: Float[Array, " *n_train"]
    ridge: Float[Array, " *n_train"]
    label_noise: Float[Array, " *n_train"]
    test: Float[Array, " *n_train"]
    generalisation: Float[Array, " *n_train"]
    bias: Float[Array, " *n_train"]
    train: Float[Array, " *n_train"]
    variance: Float[Array, " *n_train"]
    log_evidence: Float[Array, " *n_train"]
    effective_ridge: Float[Array, " *n_train"]
    overfitting: Float[Array, " *n_train"]
    learnability: Float[Array, "*n_train mode"]
    coefficient_variance: Float[Array, "*n_train mode"]


def learning_curve(
    values: LevelsLike,
    power: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    label_noise: ArrayLike = 0.0,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Curve:
    r"""Predict the errors and the evidence of regression on n points drawn at random.

    With L the learnabilities, :math:`\gamma = \sum_k L_k^2/n` and :math:`E_0 = 1/(1-\gamma)` the
    test error is :math:`E_0(\sum_k (1-L_k)^2 y_k^2 + v_0)`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,), as in `bayesrg.rg.effective_ridge`
    power : (k,)
        Squared coefficients of the target in the modes, summed over the modes of a level. What
        the target has outside them acts as label noise: add its variance there.
    n : () or (s,) number of points, positive reals
    ridge : () or (s,), the model's noise variance
    label_noise : () or (s,), true noise variance of the labels
    degeneracy : (k,) modes that a bare eigenvalue stands for, 1 by default
    tail : () prior variance outside the modes; not with Levels, which hold it

    Returns
    -------
    Curve

    Raises
    ------
    ValueError
        For power of another shape than values, or negative numbers.

    Notes
    -----
    Exact for Gaussian features in the limit of many points and modes; within 3 % for 50 points,
    and within about 10 % for images, given eigenvalues and power of the population. Those of a
    sample of R rows describe R rows: the curve from them is too low by 5 % at n/R = 0.02 and by
    some 16 % at 0.1 (MNIST). The same for fixed n and for a Poisson number of mean n.
    With no ridge and more points than modes it is ordinary least squares in the same limit.

    References
    ----------
    arXiv 2405.06008; Sollich (1999); Canatar, Bordelon and Pehlevan (2021); Simon et al. (2023).
    """
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    power, label_noise = _checked(whole, power, n, ridge, label_noise)
    return _curve(whole, power, n, ridge, ridge, label_noise, 0.0)


def _checked(levels, power, n, ridge, label_noise):
    power, shape = _checks.nonnegative("power", power), levels.values.shape
    if len(shape) != 1 or power.shape != shape:
        raise ValueError(
            f"power has shape {power.shape} and values {shape}; give (k,) both, one entry per level"
        )
    label_noise = _checks.nonnegative("label_noise", label_noise)
    _checks.fit(n=n.shape, ridge=ridge.shape, label_noise=label_noise.shape)
    return power, label_noise


def coarse_learning_curve(
    values: LevelsLike,
    power: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    label_noise: ArrayLike = 0.0,
    *,
    rule: str = "universal",
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Curve:
    r"""Learning curve of the coarse model: only the first modes, with the ridge of ``rule``.

    Eliminated prior variance joins the ridge, the eliminated target :math:`\sum_{k>\kappa} y_k^2`
    joins the label noise, and the low modes see the rest as in `learning_curve`.

    Parameters
    ----------
    values, power, n, ridge, label_noise, degeneracy, tail : as in `learning_curve`
    cutoff : () or (s,) integers, modes kept
    rule : "universal", "dressed" or "truncate", see `bayesrg.rg.Coarse`

    Returns
    -------
    Curve
        Errors are those on the whole target. ``log_evidence`` is the coarse model's.

    References
    ----------
    arXiv 2405.06008: regression with the renormalised ridge.
    """
    _checks.choice("rule", rule, ("universal", "dressed", "truncate"))
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    power, label_noise = _checked(whole, power, n, ridge, label_noise)
    return _coarse(whole, power, n, ridge, whole.checked_cutoff(cutoff), label_noise, rule)


@partial(jax.jit, static_argnames="rule")
def _coarse(whole, power, n, ridge, cutoff, label_noise, rule):
    low, high = whole.split(cutoff)
    noise = ridge
    if rule == "universal":
        noise = universal(whole, ridge, cutoff)
    elif rule == "dressed":
        noise = _fixedpoint.effective_ridge(high, n, ridge).value
    share = low.degeneracy / whole.degeneracy
    missed = ((1 - share) * power).sum(-1)
    return _curve(low, share * power, n, noise, ridge, label_noise, missed)


@jax.jit
def _curve(levels, power, n, noise, bare, own_noise, missed):
    """Averages for levels with ``noise`` as ridge, of which ``bare`` is the noise of the model.

    Labels have the variance ``own_noise`` of their own and ``missed`` outside the modes.
    """
    arrays = jnp.broadcast_arrays(n, noise, bare, own_noise, jnp.asarray(missed))
    n, noise, bare, own_noise, missed = arrays
    label_noise = own_noise + missed
    a = averages(levels, n, noise)
    s = a.s
    overfitting = jnp.where(a.critical, jnp.inf, 1.0 / jnp.where(a.critical, 1.0, a.free))
    gamma = (levels.degeneracy * a.learnt**2).sum(-1) / n
    bias = (a.unlearnt**2 * power).sum(-1) + missed
    amplified = bias + own_noise
    silent = a.critical & (amplified == 0)  # interpolation of a target that the modes hold
    test = jnp.where(silent, 0.0, overfitting * jnp.where(silent, 1.0, amplified))
    quad = (n[..., None] * power * a.left).sum(-1) + n * label_noise / jnp.where(s > 0, s, 1.0)
    evidence = -0.5 * (quad + log_det(levels, a) + n * np.log(2 * np.pi))
    finite = jnp.where(jnp.isfinite(test), test, 0.0)
    return Curve(
        n=n, ridge=bare, label_noise=own_noise, test=test,
        generalisation=jnp.where(silent, 0.0, bias + gamma * test), bias=bias,
        train=jnp.where(a.critical, 0.0, a.share**2 * finite),
        variance=s - bare,
        log_evidence=jnp.where(s > 0, evidence, jnp.nan),
        effective_ridge=s, overfitting=overfitting, learnability=a.learnt,
        coefficient_variance=test[..., None] * a.learnt**2 / n[..., None],
    )  # fmt: skip
