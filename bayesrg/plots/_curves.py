# SPDX-License-Identifier: Apache-2.0
"""Curves, points and bands in one plot, on any of ArviZ's backends."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams, visuals

from .. import _checks
from ._matplotlib import point_entries, short_axes

SAMPLE = ("chain", "draw")


def group_of(dt: xr.DataTree, group: str, *variables: str) -> xr.Dataset:
    """Return a group of a tree as a Dataset; raise if the group or one of the variables is missing.

    The message lists the groups, or variables, that exist.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if not isinstance(group, str) or group not in dt.children:
        names = ", ".join(map(repr, dt.children)) or "none"
        raise ValueError(
            f"the tree has no group {_checks.shown(group)}, only {names}; make groups of results "
            "with bayesrg.io.label, those of a flow with bayesrg.io.flow_to_datatree"
        )
    dataset = dt[group].to_dataset()
    for name in variables:
        _checks.instance("the name of a variable", name, str, "text")
        if name not in dataset.variables:
            names = ", ".join(map(repr, dataset.variables)) or "nothing"
            raise ValueError(
                f"group {group!r} has no variable {name!r}, only {names}; add it, or give the "
                "group that has it"
            )
    return dataset


def has(dt: xr.DataTree, group: str | None) -> bool:
    """Return whether the tree has an optional group; False if ``group`` is None."""
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if group is not None:
        _checks.instance("the name of a group", group, str, "text")
    return group in dt.children


def backend_of(backend: str | None) -> str:
    """Return the name of a backend after checking that it is installed; by default ArviZ's own."""
    if backend is None:
        return rcParams["plot.backend"]
    _checks.choice("backend", backend, ("matplotlib", "plotly", "bokeh", "none"))
    if backend != "none" and find_spec(backend) is None:
        raise ValueError(
            f"backend {backend!r} is not installed; pip install 'bayesrg[{backend}]', or choose "
            'backend="matplotlib"'
        )
    return backend


def line(y: xr.DataArray, x=None) -> dict[str, np.ndarray]:
    """Return ``y`` (entry) as a curve, or as median and credible band if it has draws.

    The result has keys x and y, and y_bottom and y_top for a band. By default x is the coordinate
    of y's axis.
    """
    sampled = [axis for axis in SAMPLE if axis in y.dims]
    middle = y.median(sampled)
    if x is None:
        x = middle[middle.dims[0]]
    part = {"x": np.asarray(x, float), "y": middle.to_numpy()}
    if sampled:
        band = az.eti(y, dim=sampled)
        part["y_bottom"] = band.sel(ci_bound="lower").to_numpy()
        part["y_top"] = band.sel(ci_bound="upper").to_numpy()
    return part


def canvas(
    names: Sequence[str], by: str, *, styles=True, backend=None, **pc_kwargs
) -> PlotCollection:
    """Return an empty plot in which each of ``names`` has a colour.

    ``by`` is the name of the axis of names. With ``styles`` each name also has a line style.
    """
    backend = backend_of(backend)
    figure = {"figsize": (8.0, 4.5), "figsize_units": "inches"}
    if backend == "matplotlib":
        figure["layout"] = "constrained"  # keeps the legend off the curves
    pc_kwargs.setdefault("aes", {"color": [by], "linestyle": [by]} if styles else {"color": [by]})
    start = xr.Dataset({"curve": (by, np.zeros(len(names)))}, coords={by: list(names)})
    figure |= pc_kwargs.pop("figure_kwargs", {})
    return PlotCollection.wrap(start, cols=[], backend=backend, figure_kwargs=figure, **pc_kwargs)


def draw(
    pc: PlotCollection, by: str, parts: Mapping[str, Mapping], *, scatter=False, legend=True, **how
) -> PlotCollection:
    """Draw every entry of ``parts`` in a plot, as a curve or with ``scatter`` as points.

    An entry has keys x and y. If it also has y_bottom and y_top, these become a band around the
    curve, or an error bar at each point. The drawn objects are stored in the collection under the
    names curve, points, band and error. Returns the plot.
    """
    there = [name for name, part in parts.items() if "y_bottom" in part]
    unstyled = pc.aes_set - {"color"}
    if there and not scatter:
        data = padded(by, {name: parts[name] for name in there}, ("x", "y_bottom", "y_top"))
        data = data.rename(plot_axis="kwarg")
        pc.map(visuals.fill_between_y, "band", data=data, ignore_aes=unstyled, alpha=0.25)
    if there and scatter:
        bars = {name: _bars(parts[name]) for name in there}
        pc.map(visuals.line_xy, "error", data=padded(by, bars), ignore_aes=unstyled, width=1.5)

    data = padded(by, parts)
    if scatter:
        label = "points" if "curve" in pc.viz.children else "curve"
        pc.map(visuals.scatter_xy, label, data=data, ignore_aes=unstyled, **({"size": 18} | how))
    else:
        pc.map(visuals.line_xy, "curve", data=data, **({"width": 2} | how))

    if legend and pc.aes["color"].sizes[by] > 1:
        pc.add_legend(by, title="")
        if scatter:
            point_entries(pc, by, parts)
    return pc


def padded(by, parts, axes=("x", "y")):
    """Return curves of different lengths as one Dataset (by, plot_axis, entry), padded with nan."""
    longest = max(len(part["x"]) for part in parts.values())
    values = np.full((len(parts), len(axes), longest), np.nan)
    for i, part in enumerate(parts.values()):
        for j, axis in enumerate(axes):
            values[i, j, : len(part[axis])] = part[axis]
    return xr.Dataset(
        {"curve": ((by, "plot_axis", "entry"), values)},
        coords={by: list(parts), "plot_axis": list(axes)},
    )


def _bars(part):
    """Return all error bars of a part as one line with gaps, since every backend draws lines."""
    gap = np.full(len(part["x"]), np.nan)
    x, ends = part["x"], (part["y_bottom"], part["y_top"])
    return {"x": np.stack([x, x, gap], 1).ravel(), "y": np.stack([*ends, gap], 1).ravel()}


def curves(parts: Mapping[str, Mapping], by: str, *, scatter=False, **pc_kwargs) -> PlotCollection:
    """Return a new plot of ``parts``, as curves or with ``scatter`` as points.

    Each part has keys x and y, and maybe y_bottom and y_top. ``by`` is the name of their axis.
    """
    pc = canvas(list(parts), by, styles=not scatter, **pc_kwargs)
    return draw(pc, by, parts, scatter=scatter)


def lines_and_points(
    lines: Mapping[str, Mapping], points: Mapping[str, Mapping], by: str, *, size=30, **pc_kwargs
) -> PlotCollection:
    """Return a new plot of ``lines`` (theory) and ``points`` (experiments).

    Points have the colour of the line of their name.
    """
    own = [name for name in points if name not in lines]
    pc = canvas([*lines, *own], by, **pc_kwargs)
    draw(pc, by, lines, legend=not own)
    if points:
        draw(pc, by, points, scatter=True, size=size, legend=bool(own))
    return pc


def decorate(pc: PlotCollection, *, x: str, y: str, title: str, xscale="log", yscale="log"):
    """Set scales, axis labels and title of a plot with one panel, and return it."""
    for axis, scale in ((visuals.set_xscale, xscale), (visuals.set_yscale, yscale)):
        if scale != "linear":
            pc.map(axis, ignore_aes="all", scale=scale, store_artist=False)
    texts = {"xlabel": (visuals.labelled_x, x), "ylabel": (visuals.labelled_y, y)}
    for label, (write, text) in (texts | {"title": (visuals.labelled_title, title)}).items():
        pc.map(write, label, ignore_aes="all", text=text)
    short_axes(pc, {"x": xscale, "y": yscale})
    return pc


def mark(pc: PlotCollection, label: str, *, x: float | None = None, y: float | None = None):
    """Draw a dashed grey line at ``x`` or at ``y``, and return the plot.

    The line is stored in the collection under ``label``.
    """
    styles = import_module(f"arviz_plots.backend.{pc.backend}").get_default_aes("linestyle", 2)
    visual, value = (visuals.vline, x) if y is None else (visuals.hline, y)
    data = xr.Dataset({"curve": value})
    pc.map(visual, label, data=data, ignore_aes="all", color="gray", linestyle=styles[1])
    return pc
