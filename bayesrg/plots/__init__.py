# SPDX-License-Identifier: Apache-2.0
"""Plots: from a DataTree to a ``PlotCollection``, on any of ArviZ's backends.

``pc.savefig(file)`` writes one, ``pc.get_viz("plot")`` gives the axes to decorate further.
"""

from .features import plot_feature_kurtosis, plot_feature_pair, plot_feature_quantiles
from .flow import plot_evidence, plot_flow, plot_rescaled_ridge
from .learning_curve import plot_learning_curve
from .local_ridge import plot_local_ridge
from .modes import plot_modes
from .spectrum import plot_learnability, plot_spectrum

__all__ = [
    "plot_evidence",
    "plot_feature_kurtosis",
    "plot_feature_pair",
    "plot_feature_quantiles",
    "plot_flow",
    "plot_learnability",
    "plot_learning_curve",
    "plot_local_ridge",
    "plot_modes",
    "plot_rescaled_ridge",
    "plot_spectrum",
]
