# SPDX-License-Identifier: Apache-2.0
"""Posterior of a deep linear network for one given data set: exact, and in its limits."""

from ..networks import ConvLinear as ConvLinear  # importable from here too
from .convolution import conv_covariance, conv_factor, conv_sizes
from .depth import infinite_depth, leading_log_evidence, wide_and_deep
from .evidence import evidence
from .observed import check_observed, noiseless
from .order import bartlett_sizes, order_parameter
from .perturbative import perturbative_kernel
from .saddle import Saddle, saddle
from .scalar import Exact, exact, prior_density
from .weights import order_of_weights

__all__ = [
    "Exact",
    "Saddle",
    "bartlett_sizes",
    "check_observed",
    "conv_covariance",
    "conv_factor",
    "conv_sizes",
    "evidence",
    "exact",
    "infinite_depth",
    "leading_log_evidence",
    "noiseless",
    "order_of_weights",
    "order_parameter",
    "perturbative_kernel",
    "prior_density",
    "saddle",
    "wide_and_deep",
]
