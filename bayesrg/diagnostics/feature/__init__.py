# SPDX-License-Identifier: Apache-2.0
"""Measures of what the hidden layers of a network have learnt, compared with their prior.

The functions take a DataTree of draws with layer kernels, from any model. `measure_deep_linear`
computes these kernels itself.
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
