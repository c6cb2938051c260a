# SPDX-License-Identifier: Apache-2.0
"""Random networks with their weights averaged out: learning curves from the inputs' spectrum."""

import warnings
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
from .linearise import resolved, warn_unless_odd

_HALVINGS = 64


class AnnealedCurve(eqx.Module):
    """Averages over data, weights and a teacher on the same features; see `annealed_curve`.

    Attributes
    ----------
    n, ridge, label_noise : (...) as given, broadcast together
    tau : effective ridge over n, in units of the features' eigenvalues
    df1, df2 : degrees of freedom, sums of w/(w + tau) and of its square over eigenvalues w
    test : mean squared error on new noisy labels
    train : the same on the training labels
    residual : relative imbalance of the equation for tau
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


class _Ensemble(NamedTuple):
    """A spectrum of given size, and the layers above it."""

    levels: Levels
    sizes: Array  # of the spectrum and of every layer
    slopes: Array  # k1^2
    noises: Array  # ks2
    variances: Array  # of pre-activations

    @property
    def trace(self):
        """Of the features' covariance."""
        if self.slopes.size == 0:
            return self.levels.variance.sum()
        return self.sizes[-1] * (self.slopes[-1] * self.variances[-1] + self.noises[-1])


def annealed_dimension(
    values: LevelsLike, widths, activations, tau: ArrayLike
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    r"""Degrees of freedom of the features of a random network, whatever its weights.

    :math:`df_l(\tau) = p_l - \tau/(\kappa_1^2 t)`, where t solves
    :math:`p_l t = (\kappa_*^2 + \tau)/\kappa_1^2 + t\,df_{l-1}(p_{l-1}t)`, from the last layer
    down to :math:`df_0 = \sum_k \omega_k/(\omega_k + \tau)`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (p_0,) of the inputs' covariance, zeros included
        Bare eigenvalues may come in any order. Of a spectrum its modes alone count. If rows of the
        first layer have covariance C/p_0, those of the covariance times C.
    widths : sequence of int, (p_1, ..., p_L)
        Of layers with independent weights of variance 1/p_{l-1}.
    activations : name or callable, or a sequence of one per layer
        As in `hermite`.
    tau : (...) positive, in units of the features' eigenvalues

    Returns
    -------
    df1, df2 : (...)
        Sums of w/(w + tau) and of its square over the eigenvalues w of the features' covariance.

    Raises
    ------
    ValueError
        For a tau that is not positive, a bad width, or lengths that differ.

    Warns
    -----
    UserWarning
        For two or more layers of which one's activation is not odd, whose means are forgotten; and
        where k1 is 0, so that nothing of the inputs is left.

    Notes
    -----
    The limit of wide layers; at widths of 200 and 250 it is 0.3 % from single networks. Solutions
    nest in this form; written as a function of the lowest t, the whole is one equation with one
    unknown. Where a layer leaves no noise (linear) and is narrower than the next, a relative
    tau of 1e-9 keeps nine digits.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.annealed_dimension")
    network, tau = _network(values, widths, activations), _checks.positive("tau", tau)
    df1, df2 = _dimensions(_ensemble(*network), tau)
    return df1, _checks.defined("tau", df2)


def annealed_curve(
    values: LevelsLike,
    widths,
    activations,
    n: ArrayLike,
    ridge: ArrayLike,
    label_noise: ArrayLike = 0.0,
) -> AnnealedCurve:
    r"""Predict ridge regression on the features of a random network, whatever its weights.

    :math:`n = df_1(\tau) + \lambda/\tau`, and for a teacher :math:`\theta\cdot x_L + \epsilon` with
    :math:`\theta\sim N(0, 1)` the test error is
    :math:`(\tau(df_1 - df_2) + \sigma^2)/(1 - df_2/n)`.

    Parameters
    ----------
    values, widths, activations : as in `annealed_dimension`
    n : (...) number of points, positive real
    ridge : (...) positive, added to the unnormalised Gram matrix of the features
    label_noise : (...) variance of :math:`\epsilon`

    Returns
    -------
    AnnealedCurve

    Raises
    ------
    ValueError
        For numbers that are not positive, and as in `annealed_dimension`.

    Warns
    -----
    UserWarning
        As in `annealed_dimension`.

    Notes
    -----
    Of a teacher of another variance v the errors are v times those at label noise divided by v.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.annealed_curve")
    network = _network(values, widths, activations)
    n, ridge = _checks.positive("n", n), _checks.positive("ridge", ridge)
    noise = _checks.nonnegative("label_noise", label_noise)
    _checks.fit(n=n.shape, ridge=ridge.shape, label_noise=noise.shape)
    curve = _curve(_ensemble(*network), n, ridge, noise)
    _checks.defined("values, n or ridge", curve.tau)
    return curve


def _network(values, widths, activations):
    """Check the arguments that describe a network: levels of the inputs, widths, activations."""
    levels = without_tail(values, falling=False)
    if not len(levels):
        raise ValueError("values is empty; give at least one eigenvalue")
    widths = _checks.whole_numbers("widths", widths)
    activations = resolved("activations", activations, len(widths))
    warn_unless_odd(activations, "mean", "average over weights with linearise")
    return levels, widths, activations


def _ensemble(levels, widths, activations):
    slopes, noises, variances, after, clipped = _layers(levels, activations)
    warn_clipped(clipped)
    start = 0  # layers below it leave nothing of what they are given
    if _checks.known(after):
        linear, square = np.asarray(variances) * np.asarray(slopes), np.asarray(after)
        for level in np.flatnonzero((np.asarray(variances) > 0) & (linear <= 1e-24 * square)):
            warnings.warn(
                f"k1 = 0 in layer {level + 1}: its activation is even, and nothing of the inputs "
                "is left in the features",
                stacklevel=3,
            )
            start = int(level) + 1
    return _from_layer(levels, np.array(widths, float), (slopes, noises, variances), start)


@jax.jit
def _layers(levels, activations):
    """Per layer k1^2, ks2, variances of pre-activations and of features, and what was clipped."""
    r, layers = levels.variance.sum() / levels.degeneracy.sum(), []
    for activation in activations:
        moments = _activations.gaussian_moments(activation, r, jnp.zeros_like(r))
        after = moments.variance(r)
        layers.append((moments.k1**2, moments.ks2, r, after, moments.clipped))
        r = after
    return [jnp.stack(c) for c in zip(*layers, strict=True)] or [jnp.zeros(0, r.dtype)] * 5


@partial(jax.jit, static_argnames="start")
def _from_layer(levels, widths, columns, start):
    """Keep the layers from ``start`` on; what the one below leaves has one value."""
    widths = widths.astype(levels.values.dtype)
    if start:
        levels = Levels(columns[1][start - 1 : start], widths[start - 1 : start])
    sizes = jnp.concatenate([levels.degeneracy.sum()[None], widths[start:]])
    return _Ensemble(levels, sizes, *(column[start:] for column in columns))


def _climb(ensemble, t):
    """Argument tau at the top, and t there, that belong to t at the bottom; -1 if t is too low."""
    levels, argument = ensemble.levels, ensemble.sizes[0] * t
    df = (levels.variance / (levels.values + argument)).sum()
    valid = jnp.ones((), bool)
    for p, k, c in zip(ensemble.sizes[1:], ensemble.slopes, ensemble.noises, strict=True):
        top = t
        tau = k * t * (p - df) - c
        df = df + c / (k * t)
        valid = valid & (tau > 0)
        tau = jnp.where(valid, tau, -1.0)
        t = jnp.where(valid, tau, 1.0) / p
    return tau, top


def _bottom(ensemble, tau):
    """Logarithm of t at the bottom that belongs to tau at the top."""
    low = high = tau
    levels = (ensemble.sizes[1:], ensemble.sizes[:-1], *ensemble[2:])
    for p, q, k, c, r in reversed(list(zip(*levels, strict=True))):
        low, high = q * (c + low) / (k * p), q * ((c + high) / k + r) / p
    ends = jnp.log(low / ensemble.sizes[0]), jnp.log(high / ensemble.sizes[0])
    ends, fixed, goal = jax.lax.stop_gradient((ends, ensemble, tau))
    u = bisect(lambda u: _climb(fixed, jnp.exp(u))[0] < goal, *ends, _HALVINGS)[1]
    (value, _), (slope, _) = _slopes(fixed, u)
    u = u - (value - goal) / slope  # polishes the last digits
    return implicit(lambda u, at: _climb(at[0], jnp.exp(u))[0] - at[1], u, (ensemble, tau))


def _slopes(ensemble, u):
    return jax.jvp(lambda v: _climb(ensemble, jnp.exp(v)), (u,), (jnp.ones_like(u),))


def _shortfall(ensemble, tau):
    r"""Width less df1, that is :math:`\tau/(\kappa_1^2 t)`, and its slope df1 - df2 in log tau."""
    if ensemble.slopes.size == 0:
        left = tau / (ensemble.levels.values + tau)
        missing = ensemble.levels.degeneracy * left
        return missing.sum(), (missing * (1 - left)).sum()
    (_, top), (slope, top_slope) = _slopes(ensemble, _bottom(ensemble, tau))
    missing = tau / (ensemble.slopes[-1] * top)
    return missing, missing * (1 - tau * top_slope / (top * slope))


@jax.jit
def _dimensions(ensemble, tau):
    found = jax.lax.map(lambda t: _shortfall(ensemble, t), tau.ravel())
    missing, slack = (x.reshape(tau.shape) for x in found)
    df1 = ensemble.sizes[-1] - missing
    return df1, df1 - slack


@jax.jit
def _curve(ensemble, n, ridge, noise):
    n, ridge, noise = jnp.broadcast_arrays(n, ridge, noise)
    found = _at_root(ensemble, n.ravel(), ridge.ravel())
    tau, missing, slack = (x.reshape(n.shape) for x in found)
    df1, free = ensemble.sizes[-1] - missing, ridge / tau
    test = n * (tau * slack + noise) / (free + slack)
    residual = jnp.abs(n - ensemble.sizes[-1] + missing - free) / n
    train = (free / n) ** 2 * test
    return AnnealedCurve(n, ridge, noise, tau, df1, df1 - slack, test, train, residual)


def _at_root(ensemble, n, ridge):
    """Effective ridge tau, and the shortfall and its slope there."""

    def one(given):
        n, ridge = given
        frozen, bare, spare = jax.lax.stop_gradient((ensemble, ridge, n - ensemble.sizes[-1]))

        def newton(tau):
            missing, slack = _shortfall(frozen, tau)
            return (bare + tau * slack) / (spare + missing + slack)

        # tau times the imbalance is convex
        tau, _ = descend(newton, jax.lax.stop_gradient((ridge + ensemble.trace) / n))

        def imbalance(tau, at):
            ensemble, n, ridge = at
            return n - ensemble.sizes[-1] + _shortfall(ensemble, tau)[0] - ridge / tau

        tau = implicit(imbalance, newton(tau), (ensemble, n, ridge))
        return tau, *_shortfall(ensemble, tau)

    return jax.lax.map(one, (n, ridge))
