# SPDX-License-Identifier: Apache-2.0
"""What the hidden layers of a network have learnt, beside what their prior would show.

The functions take a DataTree of draws with layer kernels, of any model, and those that need a
network say so.
"""

from .judge import Diagnosis, diagnose, layer_identity, mcse
from .kernel import kernels
from .measure import compare, measure, measure_deep_linear

__all__ = [
    "Diagnosis",
    "compare",
    "diagnose",
    "kernels",
    "layer_identity",
    "mcse",
    "measure",
    "measure_deep_linear",
]
