# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes: the marginal likelihood as a distribution, and conditioning."""

from .effective import EffectiveNormal
from .laplace import LaplaceMarginal
from .marginal import eigenpairs, eigenpairs_of, marginal
from .maximise import Maximum, maximise_evidence
from .mercer import MercerNormal
from .regression import Posterior, condition

__all__ = [
    "EffectiveNormal",
    "LaplaceMarginal",
    "Maximum",
    "MercerNormal",
    "Posterior",
    "condition",
    "eigenpairs",
    "eigenpairs_of",
    "marginal",
    "maximise_evidence",
]
