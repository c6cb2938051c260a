# SPDX-License-Identifier: Apache-2.0
"""Posterior of a deep linear network for one given data set: exact, and in its limits."""

from ..networks import ConvLinear as ConvLinear  # importable from here too
from .convolution import (
    conv_covariance,
    conv_factor,
    conv_log_likelihood,
    conv_sizes,
    order_fourth_moment,
)
from .depth import infinite_depth, leading_log_evidence, wide_and_deep
from .draws import ExactDraws
from .evidence import Evidence, evidence
from .importance import Importance, pareto_k
from .matrix import MatrixSaddle
from .meijer import log_meijer_g
from .observed import check_observed, noiseless
from .order import bartlett_sizes, order_parameter
from .perturbative import perturbative_kernel
from .saddle import Saddle, saddle
from .scalar import Exact, exact, prior_density
from .stationary import Stationary
from .weights import order_of_weights

__all__ = [
    "Evidence",
    "Exact",
    "ExactDraws",
    "Importance",
    "MatrixSaddle",
    "Saddle",
    "Stationary",
    "bartlett_sizes",
    "check_observed",
    "conv_covariance",
    "conv_factor",
    "conv_log_likelihood",
    "conv_sizes",
    "evidence",
    "exact",
    "infinite_depth",
    "leading_log_evidence",
    "log_meijer_g",
    "noiseless",
    "order_fourth_moment",
    "order_of_weights",
    "order_parameter",
    "pareto_k",
    "perturbative_kernel",
    "prior_density",
    "saddle",
    "wide_and_deep",
]
