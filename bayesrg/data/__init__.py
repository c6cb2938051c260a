# SPDX-License-Identifier: Apache-2.0
"""Data sets: training, test and an independent reference sample."""

from .base import Data
from .images import load

__all__ = ["Data", "load"]
