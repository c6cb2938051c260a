# SPDX-License-Identifier: Apache-2.0
"""Plots of kernels of wide networks: critical initialisation and effects of finite width."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection
from contourpy import contour_generator

from .. import _checks
from ._curves import curves, decorate, group_of, has, line, lines_and_points


def plot_phase_diagram(
    dt: xr.DataTree,
    *,
    group: str = "phase_diagram",
    levels: Sequence[float | int] = (0.6, 0.8, 1.0, 1.2, 1.4),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    r"""Plot contours of the growth of gradients in the plane of weight and bias variance.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable chi (weight_var, bias_var): :math:`\chi^*`, the value at a
        deep layer of `bayesrg.kernels.jacobian_flow`.
    group : str
        Group of ``dt`` that is plotted.
    levels : sequence of float
        Values of chi to draw. At chi = 1 the initialisation is critical; gradients vanish with
        depth for smaller chi, and explode for larger.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ValueError
        If chi crosses none of the levels.
    """
    heights = np.asarray(_checks.finite("levels", levels, ndim=1)).tolist()
    chi = group_of(dt, group, "chi")["chi"].sortby(["weight_var", "bias_var"])
    chi = chi.transpose("bias_var", "weight_var")
    trace = contour_generator(chi["weight_var"].values, chi["bias_var"].values, chi.values)
    parts = {}
    for level in heights:
        pieces = trace.lines(float(level))
        if pieces:
            joined = np.concatenate([np.vstack([piece, [[np.nan] * 2]]) for piece in pieces])
            name = f"{level:g}{' (critical)' if level == 1 else ''}"
            parts[name] = {"x": joined[:, 0], "y": joined[:, 1]}
    if not parts:
        low, high = float(chi.min()), float(chi.max())
        raise ValueError(
            f"levels are {tuple(levels)} and chi runs from {low:.4g} to {high:.4g}; give levels "
            "within this range"
        )

    pc = curves(parts, "chi", backend=backend, **pc_kwargs)
    x, y = "variance of weights", "variance of biases"
    title = "chi: growth of squared gradients in a deep layer"
    return decorate(pc, x=x, y=y, title=title, xscale="linear", yscale="linear")


def plot_jacobian_flow(
    dt: xr.DataTree,
    *,
    group: str = "jacobian_flow",
    experiment: str | None = "jacobian_flow_run",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the averaged partial Jacobian norm against depth: theory as lines, networks as points.

    Parameters
    ----------
    dt : DataTree
        Has the group that `bayesrg.io.label` makes of `bayesrg.kernels.jacobian_flow`, with the
        variable J (layer, batch). Coordinates of batch are the names of the networks.
    group : str
        Group of the theory.
    experiment : str, optional
        Group with J (layer, batch), and maybe draw, from `bayesrg.kernels.empirical_apjn`. It is
        drawn if it exists. Layer 0 is that of the first pre-activations, in theory and experiment.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        The first pre-activations are at depth 1. Draws are shown by their median and an error bar.
    """
    lines = _by(group_of(dt, group, "J")["J"], "batch", "layer", first=1)
    points = {}
    if has(dt, experiment):
        points = _by(group_of(dt, experiment, "J")["J"], "batch", "layer", first=1)
    pc = lines_and_points(lines, points, "network", backend=backend, **pc_kwargs)
    title = "lines: infinite width; points: networks" if points else "infinite width"
    return decorate(pc, x="depth", y="mean squared derivative (APJN)", title=title)


def plot_kernel_distance(
    dt: xr.DataTree,
    *,
    group: str = "kernel_distance",
    slope: float | int | None = 0.5,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the distance between kernels of finite and infinite networks against the width.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable distance (kernel, width), and maybe draw, from
        `bayesrg.kernels.relative_distance`.
    group : str
        Group of ``dt`` that is plotted.
    slope : float, optional
        Exponent b of a line width^-b through the last point. With None a line joins all points.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and an error bar.
    """
    points = _by(group_of(dt, group, "distance")["distance"], "kernel", "width")
    lines = {name: {axis: part[axis] for axis in ("x", "y")} for name, part in points.items()}
    title = "kernels of networks and their limit"
    if slope is not None:
        slope = _checks.number("slope", slope)
        for part in lines.values():
            part["y"] = part["y"][-1] * (part["x"][-1] / part["x"]) ** slope
        title = f"points: networks; lines: slope {-slope:g}"
    pc = lines_and_points(lines, points, "kernel", backend=backend, **pc_kwargs)
    return decorate(pc, x="width", y="relative distance", title=title)


def _by(found, axis, along, first=0):
    """Return a curve over ``along`` for each entry of ``axis``, which may be absent.

    ``first`` is added to the coordinate.
    """
    found = found.expand_dims(axis) if axis not in found.dims else found
    found = found.assign_coords({along: found[along] + first}).sortby(along)
    names = found[axis].to_numpy() if axis in found.coords else range(found.sizes[axis])
    return {
        str(name): line(found.isel({axis: i}, drop=True).dropna(along))
        for i, name in enumerate(names)
    }
