# SPDX-License-Identifier: Apache-2.0
"""Learning curves of Gaussian-process regression, averaged over data sets."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._linalg import ratio
from ..rg.ridges import problem, universal
from ..spectrum.levels import LevelsLike
from .averages import averages, log_det, over


class Curve(eqx.Module):
    r"""Averages over data sets of n points, one per entry of ``n``; see `learning_curve`.

    Attributes
    ----------
    n, ridge, label_noise : (...) as given, broadcast together
    test : mean squared error on new noisy labels
    generalisation : mean squared error on new noiseless labels, test - label_noise
    bias : part of ``generalisation`` that the mean predictor has; the rest is its variance
    train : mean squared error on the training labels
    variance : posterior variance of the function, averaged over inputs
    log_evidence : of the whole data set; nan where ridge and effective ridge are zero
    effective_ridge : root s of the fixed point, a variance
    overfitting : factor by which noise and bias are amplified, at least 1
    learnability : (..., k) mean coefficient of each mode over that of the target
    coefficient_variance : (..., k) variance of each mode's coefficient, for many points
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

    The test error is :math:`[\sum_k (1-L_k)^2 y_k^2 + v_0]/(1-\gamma)`, with
    :math:`\gamma = \sum_k L_k^2/n`, the learnabilities :math:`L_k`, the coefficients :math:`y_k` of
    the target in the modes and the label noise :math:`v_0`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure, falling
    power : (k,)
        Squares :math:`y_k^2` of these coefficients, summed over the modes of a level. Any variance
        of the target outside the modes acts as label noise: add it to ``label_noise``.
    n : () or (s,) number of points, positive real
    ridge : () or (s,) noise variance of the model
    label_noise : () or (s,) true noise variance of the labels
    degeneracy : (k,) modes that each bare eigenvalue stands for, 1 by default
    tail : () prior variance outside the modes; not with Levels, which hold it

    Raises
    ------
    ValueError
        If power and values differ in shape, or numbers are negative.

    Notes
    -----
    The prediction is exact for Gaussian features in the limit of many points and modes. It is right
    within 3 % for 50 points, and within about 10 % for images, if eigenvalues and power are those
    of the population. Eigenvalues of a sample of R rows describe these R rows: the curve from them
    is too low by 5 % at n/R = 0.02 and by some 16 % at 0.1 (MNIST). If the number of points is
    Poisson with mean n, the curve is the same. Without a ridge and with more points than modes the
    regression is ordinary least squares.

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
            f"power has shape {power.shape} and values {shape}; give both (k,), one entry per level"
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
    r"""Predict the learning curve of the coarse model: the first modes and the ridge of ``rule``.

    The eliminated prior variance joins the ridge, and the eliminated target
    :math:`\sum_{k>\kappa} y_k^2` joins the label noise of the low modes.

    Parameters
    ----------
    values, power, n, ridge, label_noise, degeneracy, tail
        The problem before coarse-graining, described at `learning_curve`.
    cutoff : () or (s,) integers, modes kept
    rule : "universal", "dressed" or "truncate", see `bayesrg.rg.Coarse`

    Returns
    -------
    Curve
        Errors are those on the whole target. ``log_evidence`` is that of the coarse model.

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
    coarse_ridge = ridge
    if rule == "universal":
        coarse_ridge = universal(whole, ridge, cutoff)
    elif rule == "dressed":
        coarse_ridge = _fixedpoint.effective_ridge(high, n, ridge).value
    kept = low.degeneracy / whole.degeneracy  # a cutoff may divide a level
    missed = ((1 - kept) * power).sum(-1)
    return _curve(low, kept * power, n, coarse_ridge, ridge, label_noise, missed)


@jax.jit
def _curve(levels, power, n, ridge, own_ridge, label_noise, missed):
    """Learning curve of a model with these levels.

    The noise variance of the model is ``own_ridge``; variance that the levels lack makes it
    ``ridge``. Labels have the noise variance ``label_noise``, and the target has ``missed``
    outside the modes, which acts as more of it.
    """
    arrays = jnp.broadcast_arrays(n, ridge, own_ridge, label_noise, jnp.asarray(missed))
    n, ridge, own_ridge, label_noise, missed = arrays
    a = averages(levels, n, ridge)
    bias = (a.unlearnt**2 * power).sum(-1) + missed
    test = over(bias + label_noise, a.free)

    # sum L^2/n, the share of the test error that is variance over data sets
    gamma = (levels.degeneracy * a.learnt**2).sum(-1) / n
    outside = ratio(n * (label_noise + missed), a.s)
    data_fit = (n[..., None] * power * a.left).sum(-1) + outside
    evidence = -0.5 * (data_fit + log_det(levels, a) + n * np.log(2 * np.pi))
    return Curve(
        n=n,
        ridge=own_ridge,
        label_noise=label_noise,
        test=test,
        generalisation=bias + gamma * test,
        bias=bias,
        train=a.share**2 * jnp.where(a.critical, 0.0, test),
        variance=a.s - own_ridge,
        log_evidence=jnp.where(a.s > 0, evidence, jnp.nan),
        effective_ridge=a.s,
        overfitting=over(1.0, a.free),
        learnability=a.learnt,
        coefficient_variance=test[..., None] * a.learnt**2 / n[..., None],
    )
