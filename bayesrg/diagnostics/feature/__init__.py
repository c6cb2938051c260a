# SPDX-License-Identifier: Apache-2.0
"""Measures of what the hidden layers of a network have learnt, compared with their prior.

The functions take a DataTree of draws with layer kernels, from any model. `measure_deep_linear`
computes these kernels itself.
"""

from .convergence import diagnose, layer_identity
from .deep_linear import measure_deep_linear
from .kernel import kernels
from .measure import compare, measure

__all__ = [
    "compare",
    "diagnose",
    "kernels",
    "layer_identity",
    "measure",
    "measure_deep_linear",
]
