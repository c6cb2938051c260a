# SPDX-License-Identifier: Apache-2.0
r"""How far the layers of a residual network move points, and how straight.

All functions take `Paths` of n points, and return means over the points, weighted by ``weights``
(n,) if these are given.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import ratio
from .._paths import Paths

_BLOCK = 1024


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
    return _mean(paths, paths.increments, weights, per_feature)


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
    return _mean(paths, paths.increments.sum(-3), weights, per_feature)


def straightness(paths: Paths, *, weights: ArrayLike | None = None) -> Float[Array, "*draw"]:
    r"""Return the straightness D/E, between 0 for closed loops and 1 for equal steps on lines.

    It is nan if no point moves, and 1 by construction if there is one layer.

    Parameters
    ----------
    paths : Paths
        Of n points through K layers.
    weights : (n,), optional
        Weights of the points; a point of weight two counts as two points.
    """
    D, E = displacement(paths, weights=weights), kinetic_energy(paths, weights=weights)
    return ratio(D, E, otherwise=jnp.nan)


def _mean(paths, moves, weights, per_feature):
    """Return the mean over points of the squared lengths of ``moves`` (..., n, d)."""
    squares = (moves**2).sum(-1)
    if _checks.flag("per_feature", per_feature):
        squares = squares / moves.shape[-1]
    if weights is None:
        return squares.mean(-1)
    weights = _checks.shaped("weights", weights, (squares.shape[-1],), "one per point")
    return squares @ (weights / weights.sum())
