# SPDX-License-Identifier: Apache-2.0
"""The renormalisation group of Gaussian processes: eliminate modes, renormalise the ridge."""

from .coarse import Coarse, coarsen
from .flow import Flow, flow
from .integrate import Modes, integrate_modes
from .ridges import (
    cutoff,
    dressed_ridge,
    effective_ridge,
    learnability,
    local_ridge,
    running_learnability,
)

__all__ = [
    "Coarse",
    "Flow",
    "Modes",
    "coarsen",
    "cutoff",
    "dressed_ridge",
    "effective_ridge",
    "flow",
    "integrate_modes",
    "learnability",
    "local_ridge",
    "running_learnability",
]
