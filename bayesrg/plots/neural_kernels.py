# SPDX-License-Identifier: Apache-2.0
"""Kernels of wide networks: critical initialisation, finite width."""

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
    r"""Plot lines of equal growth of gradients in the plane of weight and bias variance.

    Parameters
    ----------
    dt : DataTree
        With a group of chi over weight_var and bias_var: :math:`\chi^*`, the entry of a deep
        layer of `bayesrg.kernels.jacobian_flow`.
    group : str
    levels : sequence of float
        Values of chi to draw; where chi is 1 initialisation is critical, below gradients vanish
        with depth, above they explode.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
            "in between"
        )
    pc = curves(parts, "chi", backend=backend, **pc_kwargs)
    return decorate(
        pc, x="variance of weights", y="variance of biases", xscale="linear", yscale="linear",
        title="chi: growth of squared gradients in a deep layer",
    )  # fmt: skip


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
        With what `bayesrg.io.label` makes of a `bayesrg.kernels.JacobianFlow`: J over layer and
        batch; names of the networks may stand as coordinates of batch.
    group : str
        The theory.
    experiment : str, optional
        Group of J over layer, batch and maybe draw, of `bayesrg.kernels.empirical_apjn`, drawn if
        it is there. As in theory, its layer 0 is that of the first pre-activations.
    backend, **pc_kwargs : as in `plot_phase_diagram`

    Returns
    -------
    PlotCollection
        The first pre-activations stand at depth 1. Draws are shown by their median and an error
        bar.
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
    """Plot the distance of networks' kernels to the infinitely wide one's against the width.

    Parameters
    ----------
    dt : DataTree
        With a group of distance over kernel and width, and maybe draw: a
        `bayesrg.kernels.relative_distance` each.
    group : str
    slope : float, optional
        Exponent of a line that falls with the width through the last point; None for a line
        through all.
    backend, **pc_kwargs : as in `plot_phase_diagram`

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
    """A curve along one axis for each entry of another, which may be absent."""
    found = found.expand_dims(axis) if axis not in found.dims else found
    found = found.assign_coords({along: found[along] + first}).sortby(along)
    names = found[axis].to_numpy() if axis in found.coords else range(found.sizes[axis])
    return {
        str(name): line(found.isel({axis: i}, drop=True).dropna(along))
        for i, name in enumerate(names)
    }
