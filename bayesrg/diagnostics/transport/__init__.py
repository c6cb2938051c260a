# SPDX-License-Identifier: Apache-2.0
"""How residual networks move points: action of layers, straightness, distances, and judgements."""

from .judge import accuracy_against_cost, judge
from .measure import measure
from .outside import paths_of

__all__ = ["accuracy_against_cost", "judge", "measure", "paths_of"]
