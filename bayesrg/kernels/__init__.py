# SPDX-License-Identifier: Apache-2.0
"""Covariance functions: immutable pytrees that give Gram matrices."""

from .adapter import adapt
from .base import Kernel, MomentKernel
from .network import *  # noqa: F403
from .network import __all__ as _network
from .stationary import *  # noqa: F403
from .stationary import Stationary
from .stationary import __all__ as _stationary

__all__ = ["Kernel", "MomentKernel", "Stationary", *_network, *_stationary, "adapt"]
