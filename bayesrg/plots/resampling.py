# SPDX-License-Identifier: Apache-2.0
"""Plot of resampled networks: errors of aligned features."""

import xarray as xr
from arviz import PlotCollection

from ._curves import decorate, group_of, lines_and_points, split


def plot_alignment_error(
    dt: xr.DataTree, *, group: str = "resampling", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the alignment error of resampled features against the width, one line per layer.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable errors (width,
        layer), a field of what `bayesrg.networks.resample` returns. If it also has held_out on
        these axes, lines show held_out, and points show errors on the inputs that determined the
        rotations.
    """
    found = group_of(dt, group, "errors")
    lines, points = split(found["errors"], "width"), {}
    title = "alignment error"
    if "held_out" in found:
        lines, points = split(found["held_out"], "width"), lines
        title += " on held-out inputs; points: on those that fixed the rotation"
    pc = lines_and_points(lines, points, "layer", backend=backend, **pc_kwargs)
    return decorate(pc, x="width", y="error over mean square of the features", title=title)
