# SPDX-License-Identifier: Apache-2.0
"""How residual networks move points: action of layers, straightness, distances, and judgements."""

from .measure import measure
from .outside import paths_of

__all__ = ["measure", "paths_of"]
