# SPDX-License-Identifier: Apache-2.0
"""Data sets as the package uses them: training, test and an independent reference sample."""

from typing import NamedTuple

from jax import Array
from jaxtyping import Float


class Data(NamedTuple):
    """Inputs and targets, split.

    ``X`` (n, d) and ``y`` (n,) or (n, c) train, ``X_test`` (m, d) and ``y_test`` test;
    ``X_ref`` (r, d), disjoint from both, is the reference sample of the inputs' distribution.
    """

    X: Float[Array, "point feature"]
    y: Float[Array, "point *output"]
    X_test: Float[Array, "point_new feature"] | None = None
    y_test: Float[Array, "point_new *output"] | None = None
    X_ref: Float[Array, "reference feature"] | None = None
