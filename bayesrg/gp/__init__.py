# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes: marginal likelihoods as distributions, and posteriors."""

from .._posterior import LinearPosterior
from .._prior import PriorAt
from .effective import EffectiveNormal
from .laplace import LaplaceMarginal
from .marginal import eigenpairs, marginal
from .matrix import MatrixMercerNormal
from .matrix_marginal import matrix_marginal
from .maximise import Maximum, maximise_evidence
from .mercer import MercerNormal
from .readout import readout_posterior
from .regression import Posterior, condition

__all__ = [
    "EffectiveNormal",
    "LaplaceMarginal",
    "LinearPosterior",
    "MatrixMercerNormal",
    "Maximum",
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
