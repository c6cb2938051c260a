# SPDX-License-Identifier: Apache-2.0
"""Plots of the theory of networks: from lazy to rich features, and evidence against depth."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, lines_and_points


def plot_lazy_to_rich(
    dt: xr.DataTree, *, group: str = "lazy_to_rich", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the growth of features against the richness, for wide layers and at finite width.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable growth (richness), the limit of wide layers, and maybe exact
        (richness), drawn as points. Both may also have the axis layer.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    found = group_of(dt, group, "growth").sortby("richness")
    lines = _by(found["growth"], "layer", "limit of wide layers")
    points = _by(found["exact"], "layer", "exact") if "exact" in found else {}
    pc = lines_and_points(lines, points, "law", backend=backend, **pc_kwargs)
    title = "from lazy (1) to rich"
    return decorate(pc, x="richness", y="growth of the features", title=title)


def plot_evidence_by_depth(
    dt: xr.DataTree, *, group: str = "depth", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the log evidence against the depth, one curve per width.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable log_evidence (depth), or (depth, width). If the group also has
        effective_depth (points times depth / width), it is the horizontal axis.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    found = group_of(dt, group, "log_evidence").sortby("depth")
    scaled = "effective_depth" in found.variables
    x = found["effective_depth"] if scaled else found["depth"]
    evidence, x = xr.broadcast(found["log_evidence"], x)
    parts = _by(evidence, "width", "log evidence", x)
    pc = curves(parts, "width", backend=backend, **pc_kwargs)
    best = {name: part["x"][np.nanargmax(part["y"])] for name, part in parts.items()}
    title = "evidence; greatest at " + ", ".join(f"{value:.3g}" for value in best.values())
    text = "effective depth, points x layers / width" if scaled else "hidden layers"
    return decorate(pc, x=text, y="log evidence (nats)", title=title, yscale="linear")


def _by(variable, axis, label, x=None):
    """Return one curve of a variable per entry of ``axis``, or one curve if it lacks this axis.

    By default x is the coordinate of the other axis.
    """
    entries = variable[axis].to_numpy() if axis in variable.dims else [None]
    parts = {}
    for i, entry in enumerate(entries):
        y = variable if entry is None else variable.isel({axis: i})
        along = y[y.dims[0]] if x is None else x if entry is None else x.isel({axis: i})
        name = label if entry is None else f"{label}, {axis} {entry}"
        parts[name] = {"x": along.to_numpy().astype(float), "y": y.to_numpy().astype(float)}
    return parts
