# SPDX-License-Identifier: Apache-2.0
"""Plots. Every function makes a ``PlotCollection`` of a DataTree, on any of ArviZ's backends.

``pc.savefig(file)`` writes a plot to a file, ``pc.get_viz("plot")`` returns its axes.
"""

from .calibration import plot_calibration, plot_ridge_criteria
from .dynamics import plot_mode_residuals, plot_steps_to_tolerance
from .feature_learning import plot_alignment, plot_kernel_change, plot_spectrum_shift
from .features import plot_feature_kurtosis, plot_feature_pair, plot_feature_quantiles
from .fit import plot_fit
from .flow import plot_evidence, plot_flow, plot_rescaled_ridge
from .learning_curve import plot_learning_curve
from .local_ridge import plot_local_ridge
from .modes import plot_modes
from .modified_kernels import plot_kernel_profile, plot_modified_spectrum, plot_target_power
from .networks import plot_evidence_by_depth, plot_lazy_to_rich
from .neural_kernels import (
    plot_jacobian_flow,
    plot_kernel_distance,
    plot_phase_diagram,
)
from .order_parameter import plot_order_parameter
from .rainbow import plot_linearisation_error, plot_spectral_density
from .resampling import plot_alignment_error, plot_weight_spectrum
from .spectrum import plot_learnability, plot_spectrum
from .trust import plot_layer_identity, plot_route_agreement, plot_sbc_ranks

__all__ = [
    "plot_alignment",
    "plot_alignment_error",
    "plot_calibration",
    "plot_evidence",
    "plot_evidence_by_depth",
    "plot_feature_kurtosis",
    "plot_feature_pair",
    "plot_feature_quantiles",
    "plot_fit",
    "plot_flow",
    "plot_jacobian_flow",
    "plot_kernel_change",
    "plot_kernel_distance",
    "plot_kernel_profile",
    "plot_layer_identity",
    "plot_lazy_to_rich",
    "plot_learnability",
    "plot_learning_curve",
    "plot_linearisation_error",
    "plot_local_ridge",
    "plot_mode_residuals",
    "plot_modes",
    "plot_modified_spectrum",
    "plot_order_parameter",
    "plot_phase_diagram",
    "plot_rescaled_ridge",
    "plot_ridge_criteria",
    "plot_route_agreement",
    "plot_sbc_ranks",
    "plot_spectral_density",
    "plot_spectrum",
    "plot_spectrum_shift",
    "plot_steps_to_tolerance",
    "plot_target_power",
    "plot_weight_spectrum",
]
