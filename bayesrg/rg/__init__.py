# SPDX-License-Identifier: Apache-2.0
"""The renormalisation group of Gaussian processes: eliminate modes, renormalise the ridge."""

from .._fixedpoint import Root
from .coarse import Coarse, coarsen
from .cumulants import conditional_ridge, feature_cumulants
from .cutoffs import cutoff
from .flow import Flow, flow
from .integrate import integrate_modes
from .learnability import learnability
from .local import (
    data_weights,
    dressed_local_ridge,
    local_ridge,
    reweighted_modes,
    scale_mixture_ridge,
)
from .power_law import power_law
from .ridges import dressed_ridge, effective_ridge, two_stage_ridge, universal_ridge

__all__ = [
    "Coarse",
    "Flow",
    "Root",
    "coarsen",
    "conditional_ridge",
    "cutoff",
    "data_weights",
    "dressed_local_ridge",
    "dressed_ridge",
    "effective_ridge",
    "feature_cumulants",
    "flow",
    "integrate_modes",
    "learnability",
    "local_ridge",
    "power_law",
    "reweighted_modes",
    "scale_mixture_ridge",
    "two_stage_ridge",
    "universal_ridge",
]
