# SPDX-License-Identifier: Apache-2.0
"""Plots of several panels side by side, with one legend for all."""

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from ._curves import backend_of, padded


def open_panels(
    panels: Sequence[str], by: str, names: Sequence[str], *, backend=None, **pc_kwargs
) -> PlotCollection:
    """Return a plot of empty ``panels``, in which each of ``names`` has a colour and line style.

    Colours and styles are equal in all panels. ``by`` is the name of the axis of names.
    """
    backend = backend_of(backend)
    columns = min(len(panels), pc_kwargs.get("col_wrap", 4))
    size = (max(9.0, 4.5 * columns), 4.2 * -(-len(panels) // columns))
    figure = {"figsize": size, "figsize_units": "inches"}
    if backend == "matplotlib":
        figure["layout"] = "constrained"
    start = xr.Dataset(
        {"curve": (("panel", by), np.zeros((len(panels), len(names))))},
        coords={"panel": list(panels), by: list(names)},
    )
    pc_kwargs = {"aes": {"color": [by], "linestyle": [by]}} | pc_kwargs
    figure |= pc_kwargs.pop("figure_kwargs", {})
    return PlotCollection.wrap(
        start, cols=["panel"], backend=backend, figure_kwargs=figure, **pc_kwargs
    )


def draw_panels(
    pc: PlotCollection,
    by: str,
    parts: Mapping[str, Mapping[str, Mapping]],
    points: Sequence[str] = (),
):
    """Draw curves in panels, with a legend, and return the plot.

    ``parts`` maps a panel and a name to a curve with keys x and y. In the panels ``points`` the
    curves are drawn as points.
    """
    data = [padded(by, curves).expand_dims(panel=[panel]) for panel, curves in parts.items()]
    data = xr.concat(data, "panel")
    dotted = data["panel"].isin(list(points))
    pc.map(visuals.line_xy, "curve", data=data.where(~dotted), width=2)
    if points:
        dots = {"ignore_aes": pc.aes_set - {"color"}, "size": 18}
        pc.map(visuals.scatter_xy, "points", data=data.where(dotted), **dots)
    pc.add_legend(by, title="")
    return pc


def scale_and_name(
    pc: PlotCollection,
    *,
    x: str,
    y: Mapping[str, str],
    title: Mapping[str, str],
    xscale: str = "log",
    log_y: Sequence[str] = (),
):
    """Set scales, axis labels and titles of all panels, and return the plot.

    ``y`` and ``title`` map panels to texts. Panels in ``log_y`` have a logarithmic vertical axis.
    """
    if xscale != "linear":
        pc.map(visuals.set_xscale, ignore_aes="all", scale=xscale, store_artist=False)
    for name in log_y:
        where = {"coords": {"panel": name}, "ignore_aes": "all"}
        pc.map(visuals.set_yscale, scale="log", store_artist=False, **where)
    pc.map(visuals.labelled_x, "xlabel", ignore_aes="all", text=x)
    for label, texts in (("ylabel", y), ("title", title)):
        values, panels = list(texts.values()), list(texts)
        data = xr.Dataset({"curve": ("panel", values)}, coords={"panel": panels})
        pc.map(_set, label, data=data, ignore_aes="all", what=label)
    return pc


def _set(da, target, *, what, **_):
    """Call the function ``what`` of the backend with the text of the panel."""
    backend = import_module(visuals.backend_from_object(target).__name__)
    return getattr(backend, what)(da.item(), target)
