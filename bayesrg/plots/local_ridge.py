# SPDX-License-Identifier: Apache-2.0
"""The ridge that depends on the input, and how it re-weights the data."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, mark


def plot_local_ridge(
    dt: xr.DataTree, *, group: str = "local_ridge", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot local ridge, over its mean, and data weight, over the inputs.

    Parameters
    ----------
    dt : DataTree
        With a group of the variables ridge (point), weight (point), as `bayesrg.rg.local_ridge`
        and `bayesrg.rg.data_weights` give them, and X (point) or (point, feature), optional:
        ``io.label(local_ridge=xr.Dataset({"ridge": ("point", ridge), ...}))``. With one column
        both are drawn against it, otherwise against the points in order of their ridge.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    title = f"local ridge, a variance of mean {ridge.mean():.3g}"
    return decorate(pc, x=axis, y="relative to the mean", title=title, xscale="linear")
