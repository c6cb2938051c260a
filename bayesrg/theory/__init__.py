# SPDX-License-Identifier: Apache-2.0
"""Averages over data sets in closed form, and the experiments that test them."""

from . import deep_linear
from .curves import Curve, coarse_learning_curve, learning_curve
from .equivalent_kernel import EquivalentKernel, equivalent_kernel
from .monte_carlo import (
    CurveMC,
    FinitePopulation,
    GaussianPopulation,
    Population,
    finite_population,
    gaussian_population,
    learning_curve_mc,
)

__all__ = [
    "Curve",
    "CurveMC",
    "EquivalentKernel",
    "FinitePopulation",
    "GaussianPopulation",
    "Population",
    "coarse_learning_curve",
    "deep_linear",
    "equivalent_kernel",
    "finite_population",
    "gaussian_population",
    "learning_curve",
    "learning_curve_mc",
]
