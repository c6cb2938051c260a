# SPDX-License-Identifier: Apache-2.0
"""Plot of the ridge that depends on the input, and of the weights it gives to the data."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, mark


def plot_local_ridge(
    dt: xr.DataTree, *, group: str = "local_ridge", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the local ridge divided by its mean, and the weights of the data, against the input.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variables ridge (point) and weight (point), from
        `bayesrg.rg.local_ridge` and `bayesrg.rg.data_weights`, and optionally X (point) or
        (point, feature): ``io.label(local_ridge=xr.Dataset({"ridge": ("point", ridge), ...}))``.
        If X has one column, it is the horizontal axis. Otherwise points are sorted by their ridge.
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
    local = group_of(dt, group, "ridge", "weight")
    ridge, weight = local["ridge"].to_numpy(), local["weight"].to_numpy()
    if "X" in local and local["X"].size == ridge.size:
        position, axis = local["X"].to_numpy().ravel().astype(float), "input"
    else:
        position, axis = np.argsort(np.argsort(ridge)) + 1.0, "point, in order of its ridge"
    order = np.argsort(position)
    x = position[order]
    parts = {
        "local ridge / mean": {"x": x, "y": ridge[order] / ridge.mean()},
        "data weight": {"x": x, "y": weight[order]},
    }
    pc = curves(parts, "quantity", backend=backend, **pc_kwargs)
    mark(pc, "mean", y=1.0)
    title = f"local ridge (a variance); its mean is {ridge.mean():.3g}"
    return decorate(pc, x=axis, y="relative to the mean", title=title, xscale="linear")
