# SPDX-License-Identifier: Apache-2.0
"""Networks in theory: from lazy to rich, and evidence by depth."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, lines_and_points


def plot_lazy_to_rich(
    dt: xr.DataTree, *, group: str = "lazy_to_rich", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot how much features grow with the richness, in the limit and at finite width.

    Parameters
    ----------
    dt : DataTree
        With a group of growth over richness (the limit of wide layers) and maybe exact over
        richness, and both maybe over layer.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    """Plot the log evidence against the depth, a curve for each width.

    Parameters
    ----------
    dt : DataTree
        With a group of log_evidence over depth and maybe width; where effective_depth (points
        times depth over width) has the same axes, it is the horizontal axis.
    group : str
    backend, **pc_kwargs : as in `plot_lazy_to_rich`

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
    """Curves of a variable over one axis, a curve for each entry of ``axis`` if there is one."""
    entries = variable[axis].to_numpy() if axis in variable.dims else [None]
    parts = {}
    for i, entry in enumerate(entries):
        y = variable if entry is None else variable.isel({axis: i})
        along = y[y.dims[0]] if x is None else x if entry is None else x.isel({axis: i})
        name = label if entry is None else f"{label}, {axis} {entry}"
        parts[name] = {"x": along.to_numpy().astype(float), "y": y.to_numpy().astype(float)}
    return parts
