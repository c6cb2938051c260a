# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes: the marginal likelihood as a distribution, and conditioning."""

from .effective import EffectiveNormal
from .laplace import LaplaceMarginal
from .marginal import eigenpairs, eigenpairs_of, marginal
from .matrix import MatrixMercerNormal
from .matrix_marginal import matrix_marginal
from .maximise import Maximum, maximise_evidence
from .mercer import MercerNormal
from .readout import ReadoutPosterior, readout_posterior
from .regression import Posterior, condition

__all__ = [
    "EffectiveNormal",
    "LaplaceMarginal",
    "MatrixMercerNormal",
    "Maximum",
    "MercerNormal",
    "Posterior",
    "ReadoutPosterior",
    "condition",
    "eigenpairs",
    "eigenpairs_of",
    "marginal",
    "matrix_marginal",
    "maximise_evidence",
    "readout_posterior",
]
