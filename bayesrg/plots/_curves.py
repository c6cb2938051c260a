# SPDX-License-Identifier: Apache-2.0
"""Curves against one axis, on any of ArviZ's backends."""

import xarray as xr
from arviz import PlotCollection, visuals


def group_of(dt: xr.DataTree, group: str) -> xr.Dataset:
    """Read a group as a Dataset, or say which groups there are."""
    if group not in dt.children:
        names = ", ".join(map(repr, dt.children))
        raise ValueError(f"the tree has no group {group!r}, only {names}; run `bayesrg run` first")
    return dt[group].to_dataset()


def curves(
    y: xr.DataArray, along: str, by: str, *, scatter=False, backend=None, **pc_kwargs
) -> PlotCollection:
    """Draw ``y`` (by, along) as one curve for each entry of ``by``, with a legend."""
    x = y[along].astype(float).broadcast_like(y)
    points = xr.concat([x, y], dim="plot_axis").assign_coords(plot_axis=["x", "y"])
    dataset = points.rename("curve").to_dataset()
    pc_kwargs.setdefault("aes", {"color": [by]})
    figure = {"figsize": (7.0, 4.5), "figsize_units": "inches"}
    figure = figure | pc_kwargs.pop("figure_kwargs", {})
    pc = PlotCollection.wrap(
        dataset.isel({along: 0, "plot_axis": 0}, drop=True),
        cols=[], backend=backend, figure_kwargs=figure, **pc_kwargs,
    )  # fmt: skip
    draw = visuals.scatter_xy if scatter else visuals.line_xy
    style = {"size": 9} if scatter else {"width": 2}
    pc.map(draw, "curve", data=dataset, **style)
    pc.add_legend(by, title="")
    return pc


def decorate(pc: PlotCollection, *, x: str, y: str, title: str, xscale="log", yscale="log"):
    """Set scales, axis labels and title of a single plot."""
    for axis, scale in ((visuals.set_xscale, xscale), (visuals.set_yscale, yscale)):
        pc.map(axis, ignore_aes="all", scale=scale, store_artist=False)
    pc.map(visuals.labelled_x, "xlabel", ignore_aes="all", text=x)
    pc.map(visuals.labelled_y, "ylabel", ignore_aes="all", text=y)
    pc.map(visuals.labelled_title, "title", ignore_aes="all", text=title)
    return pc


def mark(pc: PlotCollection, label: str, *, x: float | None = None, y: float | None = None):
    """Draw a dashed line at ``x`` or ``y``, stored in the collection under ``label``."""
    value = xr.Dataset({"curve": x if y is None else y})
    line = visuals.vline if y is None else visuals.hline

    pc.map(line, label, data=value, ignore_aes="all", color="gray", alpha=0.8)
    return pc
