# SPDX-License-Identifier: Apache-2.0
"""Flow diagram: the ridge against the cutoff."""

import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, mark

_LABELS = {
    "universal": "universal",
    "dressed": "dressed",
    "arithmetic": "data, arithmetic mean",
    "harmonic": "data, harmonic mean",
}


def plot_flow(
    dt: xr.DataTree, *, group: str = "flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot every ridge of a flow against the cutoff, with the stop marked.

    Parameters
    ----------
    dt : DataTree
        With the groups of `bayesrg.io.flow_to_datatree`.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    flow = group_of(dt, group)
    flow = flow.isel(cutoff=flow["cutoff"] > 0)
    names = [name for name in _LABELS if name in flow]
    labels = xr.IndexVariable("ridge", [_LABELS[name] for name in names])
    ridges = xr.concat([flow[name] for name in names], dim=labels)
    pc = curves(ridges, "cutoff", "ridge", backend=backend, **pc_kwargs)
    stop = flow.attrs["stop"]
    if stop > 0:
        mark(pc, "stop", x=float(stop))
    title = f"{flow.attrs['n']:g} points stop the flow at {stop} modes"
    return decorate(pc, x="modes kept", y="ridge (variance)", title=title)
