# SPDX-License-Identifier: Apache-2.0
"""Averages over data sets in closed form, and the experiments that test them."""

import sys

from .. import deep_linear
from .._activations import Activation
from .annealed import annealed_curve
from .cross_linearise import cross_linearise
from .curves import Curve, coarse_learning_curve, learning_curve
from .density import spectral_density
from .equivalent_kernel import equivalent_kernel
from .equivalents import Equivalent, ridge_equivalent
from .hermite import Hermite, hermite
from .linearise import LayerMoments, linearise, surrogate_features
from .moments import Moments, moments, population_moments, spectral_moments
from .monte_carlo import (
    feature_population,
    finite_population,
    gaussian_population,
    learning_curve_mc,
)
from .optimal import optimal_ridge
from .sample_curve import sample_curve
from .target_power import target_power
from .validation import gcv

sys.modules[f"{__name__}.deep_linear"] = deep_linear  # one module under both names

__all__ = [
    "Activation",
    "Curve",
    "Equivalent",
    "Hermite",
    "LayerMoments",
    "Moments",
    "annealed_curve",
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
    "ridge_equivalent",
    "sample_curve",
    "spectral_density",
    "spectral_moments",
    "surrogate_features",
    "target_power",
]
