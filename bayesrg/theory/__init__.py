# SPDX-License-Identifier: Apache-2.0
"""Averages over data sets in closed form, and the experiments that test them."""

import sys

from .. import deep_linear
from .._activations import Activation
from .annealed import AnnealedCurve, annealed_curve, annealed_dimension
from .cross_linearise import cross_linearise
from .curves import Curve, coarse_learning_curve, learning_curve
from .density import Density, spectral_density
from .equivalent_kernel import EquivalentKernel, equivalent_kernel
from .equivalents import Equivalent, ridge_equivalent
from .hermite import Hermite, hermite
from .linearise import LayerMoments, linearise
from .moments import Moments, moments, population_moments, spectral_moments
from .monte_carlo import (
    CurveMC,
    FeaturePopulation,
    FinitePopulation,
    GaussianPopulation,
    Population,
    feature_population,
    finite_population,
    gaussian_population,
    learning_curve_mc,
)
from .optimal import Optimum, optimal_ridge
from .resolvents import resolvent, two_resolvents
from .surrogate import surrogate_features
from .validation import gcv

sys.modules[f"{__name__}.deep_linear"] = deep_linear  # one module under both names

__all__ = [
    "Activation",
    "AnnealedCurve",
    "Curve",
    "CurveMC",
    "Density",
    "Equivalent",
    "EquivalentKernel",
    "FeaturePopulation",
    "FinitePopulation",
    "GaussianPopulation",
    "Hermite",
    "LayerMoments",
    "Moments",
    "Optimum",
    "Population",
    "annealed_curve",
    "annealed_dimension",
    "coarse_learning_curve",
    "cross_linearise",
    "deep_linear",
    "equivalent_kernel",
    "feature_population",
    "finite_population",
    "gaussian_population",
    "gcv",
    "hermite",
    "learning_curve",
    "learning_curve_mc",
    "linearise",
    "moments",
    "optimal_ridge",
    "population_moments",
    "resolvent",
    "ridge_equivalent",
    "spectral_density",
    "spectral_moments",
    "surrogate_features",
    "two_resolvents",
]
