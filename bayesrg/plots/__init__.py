# SPDX-License-Identifier: Apache-2.0
"""Plots. Each function draws a group of a DataTree, on any of ArviZ's backends.

All functions have these arguments.

``dt`` : DataTree
    Tree with the group. `bayesrg.io.label` makes groups of results.
``group`` : str
    Name of the group.
``also`` : sequence of str
    Further groups, each drawn as a curve of its own. The names of groups are shown in the legend.
    Only some functions have this argument.
``backend`` : str, optional
    "matplotlib", "bokeh", "plotly" or "none". By default the backend that ArviZ uses.
``**pc_kwargs``
    Passed to ``PlotCollection.wrap``, for instance ``figure_kwargs={"figsize": (9, 4)}``.

They return a ``PlotCollection``: ``pc.savefig(file)`` writes it to a file, and
``pc.get_viz("plot")`` returns its axes. If the group or a variable is missing, ValueError is
raised, with the names of those that exist.

**Draws.** A variable may also have the axes chain and draw, or only draw. Then its median is
drawn, with a band around a curve or a bar at a point. The probability of this interval is
``stats.ci_prob`` of ArviZ.

**Runs.** Some functions draw theory as lines and experiments as points. The group has the theory.
Experiments are in the group called ``{group}_run``, which is drawn if it exists.
"""

from .deep_linear import plot_evidence_by_depth, plot_lazy_to_rich, plot_order_parameter
from .dynamics import plot_mode_residuals, plot_steps_to_tolerance
from .feature_learning import plot_alignment, plot_kernel_change
from .fit import plot_fit
from .flow import (
    plot_evidence,
    plot_flow,
    plot_local_ridge,
    plot_rescaled_ridge,
    plot_spectrum,
)
from .learning_curve import plot_calibration, plot_learning_curve, plot_ridge_criteria
from .modified_kernels import plot_kernel_profile, plot_modified_spectrum, plot_target_power
from .neural_kernels import plot_jacobian_flow, plot_kernel_distance, plot_phase_diagram
from .rainbow import plot_spectral_density
from .resampling import plot_alignment_error
from .transport import (
    plot_accuracy_against_cost,
    plot_action_ladder,
    plot_action_posterior,
    plot_displacement,
    plot_layer_action,
    plot_least_action,
    plot_paths,
)
from .trust import plot_route_agreement, plot_sbc_ranks
from .weights import (
    plot_level_density,
    plot_level_paths,
    plot_noise_scaling,
    plot_spacing_ratios,
    plot_spacing_width,
    plot_spacings,
    plot_spectral_temperature,
    plot_weight_spectrum,
)

__all__ = [
    "plot_accuracy_against_cost",
    "plot_action_ladder",
    "plot_action_posterior",
    "plot_alignment",
    "plot_alignment_error",
    "plot_calibration",
    "plot_displacement",
    "plot_evidence",
    "plot_evidence_by_depth",
    "plot_fit",
    "plot_flow",
    "plot_jacobian_flow",
    "plot_kernel_change",
    "plot_kernel_distance",
    "plot_kernel_profile",
    "plot_layer_action",
    "plot_lazy_to_rich",
    "plot_learning_curve",
    "plot_least_action",
    "plot_level_density",
    "plot_level_paths",
    "plot_local_ridge",
    "plot_mode_residuals",
    "plot_modified_spectrum",
    "plot_noise_scaling",
    "plot_order_parameter",
    "plot_paths",
    "plot_phase_diagram",
    "plot_rescaled_ridge",
    "plot_ridge_criteria",
    "plot_route_agreement",
    "plot_sbc_ranks",
    "plot_spacing_ratios",
    "plot_spacing_width",
    "plot_spacings",
    "plot_spectral_density",
    "plot_spectral_temperature",
    "plot_spectrum",
    "plot_steps_to_tolerance",
    "plot_target_power",
    "plot_weight_spectrum",
]
