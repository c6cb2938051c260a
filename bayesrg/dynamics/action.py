# SPDX-License-Identifier: Apache-2.0
r"""How far the layers of a residual network move points, and how straight.

All functions take `Paths` of n points, and return means over the points, weighted by ``weights``
(n,) if these are given. Paths of several draws, stacked along leading axes, give one result per
draw. In 32-bit floats the means of a million points keep six digits.
"""

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
    return _mean_square(_paths(paths), paths.increments, weights, per_feature)


def transport_cost(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the transport cost :math:`T = \sum_k A_k`, the sum of `layer_action`.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Whether to divide by the number of features.
    """
    return layer_action(paths, weights=weights, per_feature=per_feature).sum(-1)


def kinetic_energy(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the kinetic energy :math:`E = KT`, that of the flow dx/dt = v in unit time.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Whether to divide by the number of features.
    """
    T = transport_cost(paths, weights=weights, per_feature=per_feature)
    return paths.increments.shape[-3] * T


def displacement(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the displacement :math:`D = \langle|x_K - x_0|^2\rangle`, at most E.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Whether to divide by the number of features.
    """
    return _mean_square(_paths(paths), paths.increments.sum(-3), weights, per_feature)


def straightness(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw"]:
    r"""Return the straightness D/E, between 0 for closed loops and 1 for equal steps on lines.

    It is nan if no point moves, and 1 by construction if there is one layer.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Makes no difference: the number of features cancels in a ratio.
    """
    # increments over the largest one, so that no square of a tiny one becomes zero
    unit = Paths(_paths(paths).states, _over_largest(paths.increments, (-3, -2, -1)))
    given = {"weights": weights, "per_feature": per_feature}
    return ratio(displacement(unit, **given), kinetic_energy(unit, **given), otherwise=jnp.nan)


def relative_displacement(
    paths: Paths, *, weights: ArrayLike | None = None, per_feature: bool = False
) -> Float[Array, "*draw layer"]:
    r"""Return how far each layer moves, :math:`\langle|\Delta_k|/|x_k|\rangle`, (K,).

    Points at the origin are left out of the mean of that layer, which is nan if all points are.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Makes no difference: the number of features cancels in a ratio.
    """
    _checks.flag("per_feature", per_feature)
    steps, starts = _paths(paths).increments, paths.states[..., :-1, :, :]

    # lengths in units of the largest coordinate: the squares of others could underflow
    unit = jnp.abs(starts).max(-1, keepdims=True)
    lengths = [safe_sqrt((ratio(x, unit) ** 2).sum(-1)) for x in (steps, starts)]
    return _mean(paths, ratio(*lengths), weights, unit[..., 0] > 0)


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
    paths : Paths
        Of n points through K layers.
    gradients : (K, n, d)
        Gradients :math:`g_k`, as `networks.Residual.state_gradients` returns them. Their lengths
        make no difference.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    per_feature : bool
        Makes no difference: the number of features cancels in a ratio.
    """
    _checks.flag("per_feature", per_feature)
    shape = _paths(paths).increments.shape
    slopes = _checks.shaped("gradients", gradients, shape, "one gradient per step of the paths")

    # of unit largest coordinate: gradients of points that are classified well are tiny
    steps, slopes = (_over_largest(x, -1) for x in (paths.increments, slopes))
    lengths = [safe_sqrt((x**2).sum(-1)) for x in (steps, slopes)]
    product = lengths[0] * lengths[1]
    return _mean(paths, ratio(-(steps * slopes).sum(-1), product), weights, product > 0)


def _paths(paths):
    """Return ``paths`` after checking their kind and shapes."""
    made = "Paths, such as networks.Residual.paths returns"
    states, steps = _checks.instance("paths", paths, Paths, made).states, paths.increments
    few = jnp.ndim(steps) < 3 or jnp.ndim(states) < 3 or not jnp.size(steps)
    expected = None if few else (*steps.shape[:-3], steps.shape[-3] + 1, *steps.shape[-2:])
    if few or states.shape != expected:
        raise ValueError(
            f"paths has states of shape {jnp.shape(states)} and increments of shape "
            f"{jnp.shape(steps)}; give (K + 1, n, d) and (K, n, d), with at least one entry"
        )
    return paths


def _over_largest(x, axes):
    """Return ``x`` over the largest absolute value along ``axes``; zeros stay zero."""
    return ratio(x, jnp.abs(x).max(axes, keepdims=True))


def _mean_square(paths, moves, weights, per_feature):
    """Return the mean over points of the squared lengths of ``moves`` (..., n, d)."""
    squares = (moves**2).sum(-1)
    if _checks.flag("per_feature", per_feature):
        squares = squares / moves.shape[-1]
    return _mean(paths, squares, weights)


def _mean(paths, values, weights, counted=None):
    """Return the mean of ``values`` (..., n) over the points, of those only that are ``counted``.

    It is written as sums along the last axis, which XLA adds up in a tree. A product of a matrix
    and the weights would add a million numbers one after the other.
    """
    if weights is None:
        if counted is None:
            return values.mean(-1)
        weights = jnp.ones(values.shape[-1], values.dtype)
    else:
        n = paths.increments.shape[-2]
        weights = _checks.nonnegative("weights", weights)
        weights = _checks.shaped("weights", weights, (n,), "one weight per point")
        largest = weights.max()
        if known(largest) and largest == 0:
            raise ValueError("weights are all zero; give at least one point a positive weight")
        weights = (weights / largest).astype(values.dtype)
    weights = weights if counted is None else jnp.where(counted, weights, 0.0)
    return ratio((weights * values).sum(-1), weights.sum(-1), otherwise=jnp.nan)
