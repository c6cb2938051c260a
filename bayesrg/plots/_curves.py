# SPDX-License-Identifier: Apache-2.0
"""Curves against one axis, on any of ArviZ's backends."""

from importlib import import_module

import xarray as xr
from arviz import PlotCollection, rcParams, visuals


def group_of(dt: xr.DataTree, group: str) -> xr.Dataset:
    """Read a group as a Dataset, or say which groups there are."""
    if group not in dt.children:
        names = ", ".join(map(repr, dt.children)) or "none"
        raise ValueError(
            f"the tree has no group {group!r}, only {names}; bayesrg.io.flow_to_datatree makes "
            "those of a flow"
        )
    return dt[group].to_dataset()


def curves(
    y: xr.DataArray, along: str, by: str, *, scatter=False, backend=None, **pc_kwargs
) -> PlotCollection:
    """Draw ``y`` (by, along) as one curve for each entry of ``by``, with a legend."""
    x = y[along].astype(float).broadcast_like(y)
    points = xr.concat([x, y], dim="plot_axis").assign_coords(plot_axis=["x", "y"])
    dataset = points.rename("curve").to_dataset()
    backend = rcParams["plot.backend"] if backend is None else backend
    figure = {"figsize": (8.0, 4.5), "figsize_units": "inches"}
    if backend == "matplotlib":
        figure["layout"] = "constrained"  # keeps the legend off the curves
    pc_kwargs.setdefault("aes", {"color": [by]} if scatter else {"color": [by], "linestyle": [by]})
    pc = PlotCollection.wrap(
        dataset.isel({along: 0, "plot_axis": 0}, drop=True),
        cols=[], backend=backend, figure_kwargs=figure | pc_kwargs.pop("figure_kwargs", {}),
        **pc_kwargs,
    )  # fmt: skip
    draw = visuals.scatter_xy if scatter else visuals.line_xy
    pc.map(draw, "curve", data=dataset, **({"size": 9} if scatter else {"width": 2}))
    pc.add_legend(by, title="")
    return pc


def decorate(pc: PlotCollection, *, x: str, y: str, title: str, xscale="log", yscale="log"):
    """Set scales, axis labels and title of a single plot."""
    for axis, scale in ((visuals.set_xscale, xscale), (visuals.set_yscale, yscale)):
        pc.map(axis, ignore_aes="all", scale=scale, store_artist=False)
    texts = {"xlabel": (visuals.labelled_x, x), "ylabel": (visuals.labelled_y, y)}
    for label, (write, text) in (texts | {"title": (visuals.labelled_title, title)}).items():
        pc.map(write, label, ignore_aes="all", text=text)
    return pc


def mark(pc: PlotCollection, label: str, *, x: float | None = None, y: float | None = None):
    """Draw a dashed grey line at ``x`` or ``y``, stored in the collection under ``label``."""
    styles = import_module(f"arviz_plots.backend.{pc.backend}").get_default_aes("linestyle", 2)
    line, value = (visuals.vline, x) if y is None else (visuals.hline, y)
    data = xr.Dataset({"curve": value})
    pc.map(line, label, data=data, ignore_aes="all", color="gray", linestyle=styles[1])
    return pc
