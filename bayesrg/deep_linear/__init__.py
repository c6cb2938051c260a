# SPDX-License-Identifier: Apache-2.0
"""Posterior of a deep linear network for one given data set: exact, and in its limits."""

from .convolution import ConvLinear, order_fourth_moment
from .depth import infinite_depth, leading_log_evidence, wide_and_deep
from .draws import ExactDraws
from .evidence import Evidence, evidence
from .importance import Importance, pareto_k
from .matrix import MatrixSaddle
from .meijer import log_meijer_g
from .perturbative import perturbative_kernel
from .saddle import Saddle, saddle
from .scalar import Exact, exact, prior_density
from .stationary import Stationary

__all__ = [
    "ConvLinear",
    "Evidence",
    "Exact",
    "ExactDraws",
    "Importance",
    "MatrixSaddle",
    "Saddle",
    "Stationary",
    "evidence",
    "exact",
    "infinite_depth",
    "leading_log_evidence",
    "log_meijer_g",
    "order_fourth_moment",
    "pareto_k",
    "perturbative_kernel",
    "prior_density",
    "saddle",
    "wide_and_deep",
]
