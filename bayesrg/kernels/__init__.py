# SPDX-License-Identifier: Apache-2.0
"""Covariance functions (kernels). Each is an immutable pytree; calling it gives a Gram matrix."""

from .adapter import adapt
from .base import Constant, Kernel, White
from .critical import critical_point, jacobian_flow
from .deq import DEQ
from .empirical import empirical_apjn, empirical_nngp, empirical_ntk, relative_distance
from .network import NNGP, NTK
from .random_features import random_features
from .stationary import *  # noqa: F403
from .stationary import Stationary
from .stationary import __all__ as _stationary

__all__ = [
    "DEQ",
    "NNGP",
    "NTK",
    "Constant",
    "Kernel",
    "Stationary",
    "White",
    *_stationary,
    "adapt",
    "critical_point",
    "empirical_apjn",
    "empirical_nngp",
    "empirical_ntk",
    "jacobian_flow",
    "random_features",
    "relative_distance",
]
