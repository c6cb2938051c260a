# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes: distributions of observations, and posteriors."""

from .._posterior import LinearPosterior
from .._prior import PriorAt
from .effective import EffectiveNormal
from .laplace import LaplaceMarginal
from .marginal import eigenpairs, marginal, matrix_marginal
from .matrix import MatrixMercerNormal
from .maximise import maximise_evidence
from .mercer import MercerNormal
from .readout import readout_posterior
from .regression import Posterior, condition

__all__ = [
    "EffectiveNormal",
    "LaplaceMarginal",
    "LinearPosterior",
    "MatrixMercerNormal",
    "MercerNormal",
    "Posterior",
    "PriorAt",
    "condition",
    "eigenpairs",
    "marginal",
    "matrix_marginal",
    "maximise_evidence",
    "readout_posterior",
]
