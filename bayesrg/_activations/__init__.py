# SPDX-License-Identifier: Apache-2.0
"""Activation functions and their Gaussian moments, shared by kernels, networks and theory."""

from .duals import angle_between
from .functions import (
    ACTIVATIONS,
    DUALS,
    SLOPE,
    Activation,
    activation_function,
    is_odd,
    named,
    one_per_layer,
    resolve,
    still_number,
)
from .moments import Moments, gaussian_moments, gaussian_product
from .series import Series, dual_of

__all__ = [
    "ACTIVATIONS",
    "DUALS",
    "SLOPE",
    "Activation",
    "Moments",
    "Series",
    "activation_function",
    "angle_between",
    "dual_of",
    "gaussian_moments",
    "gaussian_product",
    "is_odd",
    "named",
    "one_per_layer",
    "resolve",
    "still_number",
]
