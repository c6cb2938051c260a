# SPDX-License-Identifier: Apache-2.0
"""Posteriors of finite-width deep linear networks: exact, at the saddle point, and deep."""

from .depth import infinite_depth, leading_log_evidence, wide_and_deep
from .matrix import MatrixSaddle
from .meijer import log_meijer_g
from .saddle import Saddle, saddle
from .scalar import Exact, exact, prior_density
from .stationary import Stationary

__all__ = [
    "Exact",
    "MatrixSaddle",
    "Saddle",
    "Stationary",
    "exact",
    "infinite_depth",
    "leading_log_evidence",
    "log_meijer_g",
    "prior_density",
    "saddle",
    "wide_and_deep",
]
