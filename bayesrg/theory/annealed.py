# SPDX-License-Identifier: Apache-2.0
"""Random networks with their weights averaged out: learning curves from the inputs' spectrum."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _activations, _checks
from .._checks import ArrayLike
from .._fixedpoint import bisect, descend, implicit
from ..spectrum.levels import Levels, LevelsLike, without_tail
from .hermite import warn_clipped
from .linearise import resolved, warn_if_even, warn_unless_odd

_HALVINGS = 64


class AnnealedCurve(eqx.Module):
    """Averages over data, weights and a teacher on the same features; see `annealed_curve`.

    Attributes
    ----------
    n, ridge, label_noise : (...) as given, broadcast together
    tau : effective ridge over n, in units of the features' eigenvalues
    df1, df2 : degrees of freedom, sums of w/(w + tau) and of its square over eigenvalues w
    test : mean squared error on new noisy labels
    train : mean squared error on the training labels
    residual : relative difference of the two sides of the equation for tau
    """

    n: Float[Array, " *n_train"]
    ridge: Float[Array, " *n_train"]
    label_noise: Float[Array, " *n_train"]
    tau: Float[Array, " *n_train"]
    df1: Float[Array, " *n_train"]
    df2: Float[Array, " *n_train"]
    test: Float[Array, " *n_train"]
    train: Float[Array, " *n_train"]
    residual: Float[Array, " *n_train"]


def annealed_curve(
    values: LevelsLike,
    widths,
    activations,
    n: ArrayLike,
    ridge: ArrayLike,
    label_noise: ArrayLike = 0.0,
) -> AnnealedCurve:
    r"""Predict ridge regression on the features of a random network, averaged over its weights.

    :math:`n = df_L(\tau) + \lambda/\tau`, and for a teacher :math:`\theta\cdot x_L + \epsilon` with
    :math:`\theta\sim N(0, 1)` the test error is
    :math:`(\tau(df_1 - df_2) + \sigma^2)/(1 - df_2/n)`. From the last layer down,
    :math:`df_l(\tau) = p_l - \tau/(\kappa_1^2 t)`, where t solves
    :math:`p_l t = (\kappa_*^2 + \tau)/\kappa_1^2 + t\,df_{l-1}(p_{l-1}t)`; at the inputs
    :math:`df_0 = \sum_k \omega_k/(\omega_k + \tau)`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (p_0,) of the inputs' covariance, zeros included
        Bare eigenvalues may come in any order. Only the modes of a spectrum count. If rows of the
        first layer have covariance C/p_0, give eigenvalues of the inputs' covariance times C.
    widths : sequence of int, (p_1, ..., p_L)
        Of layers with independent weights of variance 1/p_{l-1}.
    activations : name or callable, or a sequence of one per layer
        Described at `hermite`.
    n : (...) number of points, positive real
    ridge : (...) positive, added to the unnormalised Gram matrix of the features
    label_noise : (...) variance of :math:`\epsilon`

    Returns
    -------
    AnnealedCurve
        For a teacher of another variance v, multiply by v the errors at label noise over v.

    Raises
    ------
    ValueError
        For numbers that are not positive, a bad width, or lengths that differ.

    Warns
    -----
    UserWarning
        For two or more layers and an activation that is not odd, since means are ignored; and
        where k1 is 0, so that nothing of the inputs is left.

    Notes
    -----
    The limit of wide layers; at widths of 200 and 250 the degrees of freedom are within 0.3 % of
    those of single networks. Where a layer leaves no noise (linear) and is narrower than the
    next, a relative tau of 1e-9 keeps nine digits.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.annealed_curve")
    levels = without_tail(values, falling=False)
    if not len(levels):
        raise ValueError("values is empty; give at least one eigenvalue")
    widths = _checks.whole_numbers("widths", widths)
    activations = resolved("activations", activations, len(widths))
    n, ridge = _checks.positive("n", n), _checks.positive("ridge", ridge)
    label_noise = _checks.nonnegative("label_noise", label_noise)
    _checks.fit(n=n.shape, ridge=ridge.shape, label_noise=label_noise.shape)
    warn_unless_odd(activations, "mean", "average over weights with linearise")
    layers, start = _layers(levels, activations), 0
    for level, (_, _, variance, linear, second, clipped) in enumerate(layers):
        warn_clipped(clipped)
        if warn_if_even(level, variance, linear, second):
            start = level + 1  # nothing of the layers below is left
    ensemble = _from_layer(levels, np.array(widths, float), layers, start)
    curve = _curve(ensemble, n, ridge, label_noise)
    _checks.defined("values, n or ridge", curve.tau)
    return curve


class _Ensemble(NamedTuple):
    """Spectrum of some inputs and the random layers above it."""

    levels: Levels
    sizes: Array  # (L + 1,) number of inputs, then width of every layer
    slopes: Array  # (L,) k1^2
    noises: Array  # (L,) ks2
    variances: Array  # (L,) of pre-activations

    @property
    def trace(self):
        """Trace of the covariance of the last layer's features."""
        if self.slopes.size == 0:
            return self.levels.variance.sum()
        return self.sizes[-1] * (self.slopes[-1] * self.variances[-1] + self.noises[-1])


@jax.jit
def _layers(levels, activations):
    """Per layer k1^2, ks2, variance of pre-activations, linear and whole variance of features.

    Last what was clipped of ks2. All units of a wide layer have the same variance.
    """
    r, layers = levels.variance.sum() / levels.degeneracy.sum(), []
    for activation in activations:
        moments = _activations.gaussian_moments(activation, r, jnp.zeros_like(r))
        slope, after = moments.k1**2, moments.variance(r)
        layers.append((slope, moments.ks2, r, r * slope, after, moments.clipped))
        r = after
    return layers


@partial(jax.jit, static_argnames="start")
def _from_layer(levels, widths, layers, start):
    """Return the ensemble of the layers from ``start`` on.

    If ``start`` is not zero, the layer below passes nothing linear on: its features are noise, with
    the one eigenvalue ks2.
    """
    widths = widths.astype(levels.values.dtype)
    if start:
        levels = Levels(layers[start - 1][1][None], widths[start - 1 : start])
    sizes = jnp.concatenate([levels.degeneracy.sum()[None], widths[start:]])
    none = jnp.zeros(0, widths.dtype)
    columns = zip(*(layer[:3] for layer in layers[start:]), strict=True)
    return _Ensemble(levels, sizes, *([jnp.stack(c) for c in columns] or [none] * 3))


# The degrees of freedom nest: those of layer l at tau need those of layer l - 1 at p_{l-1} t, with
# t from an equation that contains them. Read from the bottom up, nothing is to be solved: t of the
# first layer gives df_0, then tau of the first layer, which is p_1 times t of the second, and so
# on. So the whole is one equation for the lowest t, and the tau at the top rises with it.


def _climb(ensemble, t):
    """Return tau of the last layer, and its t, for ``t`` of the first; tau = -1 if t is too low."""
    levels, argument = ensemble.levels, ensemble.sizes[0] * t
    df = (levels.variance / (levels.values + argument)).sum()
    valid = jnp.ones((), bool)
    for p, k, c in zip(ensemble.sizes[1:], ensemble.slopes, ensemble.noises, strict=True):
        top = t
        tau = k * t * (p - df) - c
        df = df + c / (k * t)  # p - tau/(k t), without its cancellation
        valid = valid & (tau > 0)
        tau = jnp.where(valid, tau, -1.0)
        t = jnp.where(valid, tau, 1.0) / p
    return tau, top


def _bottom(ensemble, tau):
    """Return the logarithm of t of the first layer for ``tau`` of the last."""
    # t lies between (c + tau)/(k p) and that plus r/p, with r the variance of the pre-activations;
    # q t is the tau of the layer below
    low = high = tau
    layers = (ensemble.sizes[1:], ensemble.sizes[:-1], *ensemble[2:])
    for p, q, k, c, r in reversed(list(zip(*layers, strict=True))):
        low, high = q * (c + low) / (k * p), q * ((c + high) / k + r) / p
    ends = jnp.log(low / ensemble.sizes[0]), jnp.log(high / ensemble.sizes[0])
    ends, fixed, goal = jax.lax.stop_gradient((ends, ensemble, tau))
    u = bisect(lambda u: _climb(fixed, jnp.exp(u))[0] < goal, *ends, _HALVINGS)[1]
    (value, _), (slope, _) = _slopes(fixed, u)
    u = u - (value - goal) / slope  # polishes the last digits
    return implicit(lambda u, at: _climb(at[0], jnp.exp(u))[0] - at[1], u, (ensemble, tau))


def _slopes(ensemble, u):
    """Return tau and t of the last layer, and their derivatives in the logarithm u of the first."""
    return jax.jvp(lambda v: _climb(ensemble, jnp.exp(v)), (u,), (jnp.ones_like(u),))


def _shortfall(ensemble, tau):
    r"""Return p - df1 of the last layer, :math:`\tau/(\kappa_1^2 t)`, and its slope in log tau.

    The slope is df1 - df2. Both are sums of positive terms and keep digits where df1 is almost p.
    """
    if ensemble.slopes.size == 0:
        left = tau / (ensemble.levels.values + tau)
        missing = ensemble.levels.degeneracy * left
        return missing.sum(), (missing * (1 - left)).sum()
    (_, top), (slope, top_slope) = _slopes(ensemble, _bottom(ensemble, tau))
    missing = tau / (ensemble.slopes[-1] * top)
    return missing, missing * (1 - tau * top_slope / (top * slope))


@jax.jit
def _curve(ensemble, n, ridge, noise_variance):
    n, ridge, noise_variance = jnp.broadcast_arrays(n, ridge, noise_variance)
    found = jax.lax.map(lambda at: _at_root(ensemble, *at), (n.ravel(), ridge.ravel()))
    tau, missing, slack = (x.reshape(n.shape) for x in found)
    df1, free = ensemble.sizes[-1] - missing, ridge / tau

    # n - df2 = ridge/tau + df1 - df2, a sum of positive terms
    test = n * (tau * slack + noise_variance) / (free + slack)
    return AnnealedCurve(
        n=n,
        ridge=ridge,
        label_noise=noise_variance,
        tau=tau,
        df1=df1,
        df2=df1 - slack,
        test=test,
        train=(free / n) ** 2 * test,
        residual=jnp.abs(n - df1 - free) / n,
    )


def _at_root(ensemble, n, ridge):
    """Return tau, and `_shortfall` there, for one n and one ridge."""
    p = ensemble.sizes[-1]
    fixed, fixed_n, fixed_ridge = jax.lax.stop_gradient((ensemble, n, ridge))

    def newton(tau):
        """Step for tau n - tau df1 - ridge = 0, as a ratio of positive sums."""
        missing, slack = _shortfall(fixed, tau)
        return (fixed_ridge + tau * slack) / (fixed_n - p + missing + slack)

    def imbalance(tau, at):
        ensemble, n, ridge = at
        return n - p + _shortfall(ensemble, tau)[0] - ridge / tau

    # tau times the imbalance is convex, and tau at most what it is if nothing is learnt
    tau, _ = descend(newton, (fixed_ridge + fixed.trace) / fixed_n)
    tau = implicit(imbalance, newton(tau), (ensemble, n, ridge))
    return tau, *_shortfall(ensemble, tau)
