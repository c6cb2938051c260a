# SPDX-License-Identifier: Apache-2.0
"""Activation functions and their Gaussian moments: for kernels, networks and theory alike."""

from .functions import (
    ACTIVATIONS,
    DUALS,
    Activation,
    activation_function,
    is_odd,
    one_a_layer,
    resolve,
)
from .moments import Moments, gaussian_moments, gaussian_product

__all__ = [
    "ACTIVATIONS",
    "DUALS",
    "Activation",
    "Moments",
    "activation_function",
    "gaussian_moments",
    "gaussian_product",
    "is_odd",
    "one_a_layer",
    "resolve",
]
