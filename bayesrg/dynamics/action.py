# SPDX-License-Identifier: Apache-2.0
r"""How far the layers of a residual network move points, and how straight.

All functions take `Paths` of n points, and return means over the points, weighted by ``weights``
(n,) if these are given. Paths of several draws, stacked along leading axes, give one result per
draw. In 32-bit floats the means of a million points keep six digits.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike, known
from .._linalg import ratio, safe_sqrt
from .._paths import Paths


def layer_action(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw layer"]:
    r"""Return the action of each layer, :math:`A_k = \langle|\Delta_k|^2\rangle`, (K,).

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Whether to divide by the number of features.

    References
    ----------
    arXiv 2009.08372.
    """
    paths, weights, per_feature = _checked(paths, weights, per_feature)
    return _mean_square(paths.increments, weights, per_feature)


def transport_cost(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the transport cost :math:`T = \sum_k A_k`, the sum of `layer_action`.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`.
    """
    return layer_action(paths, weights=weights, per_feature=per_feature).sum(-1)


def kinetic_energy(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the kinetic energy :math:`E = KT`, that of the flow dx/dt = v in unit time.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`.
    """
    T = transport_cost(paths, weights=weights, per_feature=per_feature)
    return jnp.shape(paths.increments)[-3] * T


def displacement(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the displacement :math:`D = \langle|x_K - x_0|^2\rangle`, at most E.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`.
    """
    paths, weights, per_feature = _checked(paths, weights, per_feature)
    return _displacement(paths.increments, weights, per_feature)


def straightness(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the straightness D/E, between 0 for closed loops and 1 for equal steps on lines.

    It is nan if no point moves, and 1 by construction if there is one layer.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`, but the number of features cancels.
    """
    paths, weights, _ = _checked(paths, weights, per_feature)
    return _straightness(paths.increments, weights)


def relative_displacement(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw layer"]:
    r"""Return how far each layer moves, :math:`\langle|\Delta_k|/|x_k|\rangle`, (K,).

    Points at the origin are left out of the mean of that layer, which is nan if all points are.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`, but the number of features cancels.
    """
    paths, weights, _ = _checked(paths, weights, per_feature)
    return _relative(paths.increments, paths.states[..., :-1, :, :], weights)


def alignment_with_descent(
    paths: Paths,
    gradients: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    per_feature: bool = False,
) -> Float[Array, "*draw layer"]:
    r"""Return the cosine between steps and the descent of a loss, per layer, (K,).

    It is the mean over the points of :math:`-\Delta_k\cdot g_k/(|\Delta_k||g_k|)`, where
    :math:`g_k` is the gradient of the loss at :math:`x_k`: 1 if each layer descends the loss as a
    gradient step does. Points that a layer does not move, or without a gradient, are left out of
    its mean, which is nan if all points are.

    Parameters
    ----------
    paths, weights, per_feature
        As for `layer_action`, but the number of features cancels.
    gradients : (K, n, d)
        Gradients :math:`g_k`, as `networks.Residual.state_gradients` returns them. Their lengths
        make no difference.
    """
    paths, weights, _ = _checked(paths, weights, per_feature)
    shape = paths.increments.shape
    slopes = _checks.shaped("gradients", gradients, shape, "one gradient per step of the paths")
    return _cosine(paths.increments, -slopes, weights)


def _checked(paths, weights, per_feature):
    """Return paths of arrays, weights over their largest or None, and ``per_feature``, or raise."""
    per_feature = _checks.flag("per_feature", per_feature)
    paths = _checks.instance(
        "paths", paths, Paths, "Paths, such as networks.Residual.paths returns"
    )
    states = _checks.finite("paths.states", paths.states)
    steps = _checks.finite("paths.increments", paths.increments)
    if not steps.size or not _fit(states.shape, steps.shape):
        raise ValueError(
            f"paths has states of shape {states.shape} and increments of shape {steps.shape}; give "
            "(K + 1, n, d) and (K, n, d), with at least one entry"
        )
    if weights is None:
        return Paths(states, steps), None, per_feature
    weights = _checks.nonnegative("weights", weights)
    weights = _checks.shaped("weights", weights, steps.shape[-2:-1], "one weight per point")
    largest = weights.max()
    if known(largest) and largest == 0:
        raise ValueError("weights are all zero; give at least one point a positive weight")
    return Paths(states, steps), weights / largest, per_feature


def _fit(states, steps):
    """Return whether shapes are those of the states and increments of paths."""
    return len(steps) > 2 and states == (*steps[:-3], steps[-3] + 1, *steps[-2:])


@partial(jax.jit, static_argnames="per_feature")
def _mean_square(moves, weights, per_feature=False):
    """Return the mean over points of the squared lengths of ``moves`` (..., n, d)."""
    return _mean((moves**2).sum(-1) / (moves.shape[-1] if per_feature else 1), weights)


@partial(jax.jit, static_argnames="per_feature")
def _displacement(steps, weights, per_feature=False):
    """Return the mean squared length of the sum of steps (..., K, n, d)."""
    return _mean_square(steps.sum(-3), weights, per_feature)


@jax.jit
def _straightness(steps, weights):
    """Return D/E of steps (..., K, n, d)."""
    # over the largest step, so that no square of a tiny step becomes zero
    steps = _over_largest(steps, (-3, -2, -1))
    E = steps.shape[-3] * _mean_square(steps, weights).sum(-1)
    return ratio(_displacement(steps, weights), E, otherwise=jnp.nan)


@jax.jit
def _relative(steps, starts, weights):
    """Return the mean length of steps (..., n, d) over those of their starts."""
    # in units of the largest coordinate of a start: the squares of others could underflow
    unit = jnp.abs(starts).max(-1, keepdims=True)
    lengths = [_length(ratio(x, unit)) for x in (steps, starts)]
    return _mean(ratio(*lengths), weights, unit[..., 0] > 0)


@jax.jit
def _cosine(steps, slopes, weights):
    """Return the mean cosine between two arrays of vectors (..., n, d)."""
    # over their largest coordinates: gradients at points that are classified well are tiny
    steps, slopes = _over_largest(steps, -1), _over_largest(slopes, -1)
    product = _length(steps) * _length(slopes)
    return _mean(ratio((steps * slopes).sum(-1), product), weights, product > 0)


def _length(x):
    """Return the lengths of vectors (..., d)."""
    return safe_sqrt((x**2).sum(-1))


def _over_largest(x, axes):
    """Return ``x`` over the largest absolute value along ``axes``; zeros stay zero."""
    return ratio(x, jnp.abs(x).max(axes, keepdims=True))


def _mean(values, weights, counted=None):
    """Return the mean of ``values`` (..., n) over the points, of those only that are ``counted``.

    It is written as sums along the last axis, which XLA adds up in a tree. A product of a matrix
    and the weights would add a million numbers one after the other.
    """
    if weights is None and counted is None:
        return values.mean(-1)
    weights = jnp.ones((), values.dtype) if weights is None else weights.astype(values.dtype)
    weights = jnp.broadcast_to(weights, values.shape[-1:])
    weights = weights if counted is None else jnp.where(counted, weights, 0.0)
    return ratio((weights * values).sum(-1), weights.sum(-1), otherwise=jnp.nan)
