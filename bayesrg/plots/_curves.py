# SPDX-License-Identifier: Apache-2.0
"""Curves, points and bands, in one panel or in several, on any of ArviZ's backends."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams, visuals

from .. import _checks
from ._matplotlib import point_entries, short_axes, slanted

SAMPLE = ("chain", "draw")
_WIDE = 60  # characters that fit below an axis

# A part is one curve: a dictionary of arrays x and y, and y_bottom and y_top if it has a band.
# Parts of a plot are a dictionary from name to part; with several panels, one of these per panel.


def group_of(dt: xr.DataTree, group: str, *variables: str) -> xr.Dataset:
    """Return a group of a tree as a Dataset; raise if it or one of the variables is missing."""
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


def with_others(group: str, also: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all groups to draw, after checking that ``also`` is a sequence."""
    return group, *_checks.sequence("also", also, "names of groups")


def theory_and_runs(
    dt: xr.DataTree, group: str, variable: str, read: Callable[[xr.Dataset], Mapping]
) -> tuple[Mapping, Mapping]:
    """Return the parts that ``read`` makes of a group, and of its runs, if there are any."""
    runs = f"{group}_run"
    lines = read(group_of(dt, group, variable))
    return lines, read(group_of(dt, runs, variable)) if runs in dt.children else {}


def line(y: xr.DataArray, x=None) -> dict[str, np.ndarray]:
    """Return ``y`` (entry) as a part, with median and credible band if it has draws.

    By default x is the coordinate of y's axis.
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


def split(variable: xr.DataArray, along: str) -> dict[str, dict]:
    """Return a part over the axis ``along`` for each entry of the other axes.

    The names of parts are these entries: a text, or the name of the axis and a number. Values
    that are nan are left out.
    """
    variable = variable.sortby(along)
    axes = [axis for axis in variable.dims if axis not in (along, *SAMPLE)]
    parts = {}
    for place in np.ndindex(*(variable.sizes[axis] for axis in axes)):
        where = dict(zip(axes, place, strict=True))
        entries = {axis: variable[axis][i].item() for axis, i in where.items()}
        named = [v if isinstance(v, str) else f"{axis} {v:g}" for axis, v in entries.items()]
        parts[", ".join(named)] = line(variable.isel(where, drop=True).dropna(along))
    return parts


def steps(values: np.ndarray, count: int, bins: int = 40) -> dict[str, np.ndarray]:
    """Return a histogram of area len(values) / count, as a curve of steps over a filled band."""
    heights, edges = np.histogram(values, bins=bins)
    y = np.repeat(heights / (count * np.diff(edges)), 2)
    return {"x": np.repeat(edges, 2)[1:-1], "y": y, "y_bottom": np.zeros_like(y), "y_top": y}


def canvas(
    names: Sequence[str],
    by: str,
    *,
    panels: Sequence[str] = (),
    styles=True,
    backend=None,
    **pc_kwargs,
) -> PlotCollection:
    """Return an empty plot in which each of ``names`` has a colour, the same in all ``panels``.

    ``by`` is the name of the axis of names. With ``styles`` each name also has a line style.
    """
    start = xr.Dataset({"curve": (by, np.zeros(len(names)))}, coords={by: list(names)})
    size = (8.0, 4.5)
    if panels:
        start = start.expand_dims(panel=list(panels))
        columns = min(len(panels), pc_kwargs.get("col_wrap", 4))
        size = (max(9.0, 4.5 * columns), 4.2 * -(-len(panels) // columns))

    backend = backend_of(backend)
    figure = {"figsize": size, "figsize_units": "inches"}
    if backend == "matplotlib":
        figure["layout"] = "constrained"  # keeps the legend off the curves
    figure |= pc_kwargs.pop("figure_kwargs", {})
    pc_kwargs.setdefault("aes", {"color": [by], "linestyle": [by]} if styles else {"color": [by]})
    cols = ["panel"] if panels else []
    return PlotCollection.wrap(start, cols=cols, backend=backend, figure_kwargs=figure, **pc_kwargs)


def backend_of(backend):
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


def draw(
    pc: PlotCollection, by: str, parts: Mapping, *, scatter=False, legend=True, **how
) -> PlotCollection:
    """Draw parts in a plot, as curves or with ``scatter`` as points, and return the plot.

    The ends of a part become a band around the curve, or an error bar at each point. The drawn
    objects are stored in the collection under the names curve, points, band and error.
    """
    panels = pc.data["panel"].to_numpy().tolist() if "panel" in pc.data.dims else [None]
    sheets = {panel: parts if panel is None else parts.get(panel, {}) for panel in panels}
    banded = {p: {n: c for n, c in sheet.items() if "y_bottom" in c} for p, sheet in sheets.items()}
    unstyled = pc.aes_set - {"color"}
    if any(banded.values()) and not scatter:
        data = padded(by, banded, ("x", "y_bottom", "y_top")).rename(plot_axis="kwarg")
        pc.map(visuals.fill_between_y, "band", data=data, ignore_aes=unstyled, alpha=0.25)
    if any(banded.values()) and scatter:
        bars = {p: {n: _bars(c) for n, c in sheet.items()} for p, sheet in banded.items()}
        pc.map(visuals.line_xy, "error", data=padded(by, bars), ignore_aes=unstyled, width=1.5)

    data = padded(by, sheets)
    if scatter:
        label = "points" if "curve" in pc.viz.children else "curve"
        pc.map(visuals.scatter_xy, label, data=data, ignore_aes=unstyled, **({"size": 18} | how))
    else:
        pc.map(visuals.line_xy, "curve", data=data, **({"width": 2} | how))

    if legend and pc.aes["color"].sizes[by] > 1:
        pc.add_legend(by, title="")
        if scatter:
            point_entries(pc, by, data[by].to_numpy())
    return pc


def padded(by, sheets, axes=("x", "y")):
    """Return parts of different lengths as one Dataset, padded with nan.

    ``sheets`` maps a panel to its parts. The result has the axes (panel, by, plot_axis, entry),
    without panel if the only one is None.
    """
    names = list({name: None for sheet in sheets.values() for name in sheet})
    longest = max(len(part["x"]) for sheet in sheets.values() for part in sheet.values())
    values = np.full((len(sheets), len(names), len(axes), longest), np.nan)
    for rows, sheet in zip(values, sheets.values(), strict=True):
        for name, part in sheet.items():
            for row, axis in zip(rows[names.index(name)], axes, strict=True):
                row[: len(part[axis])] = part[axis]
    data = xr.Dataset(
        {"curve": (("panel", by, "plot_axis", "entry"), values)},
        coords={"panel": list(sheets), by: names, "plot_axis": list(axes)},
    )
    return data.isel(panel=0, drop=True) if None in sheets else data


def _bars(part):
    """Return all error bars of a part as one line with gaps, since every backend draws lines."""
    gap = np.full(len(part["x"]), np.nan)
    x, ends = part["x"], (part["y_bottom"], part["y_top"])
    return {"x": np.stack([x, x, gap], 1).ravel(), "y": np.stack([*ends, gap], 1).ravel()}


def curves(parts: Mapping[str, Mapping], by: str, *, scatter=False, **pc_kwargs) -> PlotCollection:
    """Return a new plot of ``parts`` in one panel, as curves or with ``scatter`` as points."""
    pc = canvas(list(parts), by, styles=not scatter, **pc_kwargs)
    return draw(pc, by, parts, scatter=scatter)


def lines_and_points(
    lines: Mapping[str, Mapping], points: Mapping[str, Mapping], by: str, *, size=30, **pc_kwargs
) -> PlotCollection:
    """Return a new plot of ``lines`` and, in the colours of their names, ``points``."""
    pc = canvas(list({**lines, **points}), by, **pc_kwargs)
    draw(pc, by, lines)
    if points:
        draw(pc, by, points, scatter=True, size=size, legend=False)
    return pc


def decorate(pc: PlotCollection, *, x: str, y, title, log="xy") -> PlotCollection:
    """Write axis labels and titles, set logarithmic scales, and return the plot.

    ``y``, ``title`` and ``log`` are texts, or map each panel to one. ``log`` names the axes that
    are logarithmic: "", "x", "y" or "xy".
    """
    for panel, axes in log.items() if isinstance(log, Mapping) else [(None, log)]:
        where = {} if panel is None else {"coords": {"panel": panel}}
        for axis in axes:
            scale = getattr(visuals, f"set_{axis}scale")
            pc.map(scale, ignore_aes="all", scale="log", store_artist=False, **where)
    for name, text in {"xlabel": x, "ylabel": y, "title": title}.items():
        pc.map(_write, name, data=_texts(pc, text), ignore_aes="all", what=name)
    short_axes(pc)
    return pc


def _texts(pc, text):
    """Return a text as a Dataset, or one text per panel if the plot has several."""
    if "panel" not in pc.data.dims:
        return xr.Dataset({"curve": text})
    panels = pc.data["panel"].to_numpy().tolist()
    texts = [text if isinstance(text, str) else text[panel] for panel in panels]
    return xr.Dataset({"curve": ("panel", texts)}, coords={"panel": panels})


def _write(da, target, *, what, **_):
    """Write a text as axis label or title, with the function ``what`` of the backend."""
    return getattr(visuals.backend_from_object(target), what)(da.item(), target)


def ticks(pc: PlotCollection, labels: Mapping) -> PlotCollection:
    """Write a text at each of some places of the horizontal axis, and return the plot."""
    where = {"values": list(labels), "labels": list(labels.values())}
    pc.map(visuals.set_xticks, ignore_aes="all", store_artist=False, **where)
    if sum(map(len, labels.values())) > _WIDE:
        slanted(pc)
    return pc


def mark(pc: PlotCollection, label: str, *, x: float | None = None, y: float | None = None):
    """Draw a dashed grey line at ``x`` or at ``y``, stored under ``label``, and return the plot."""
    styles = import_module(f"arviz_plots.backend.{pc.backend}").get_default_aes("linestyle", 2)
    visual, value = (visuals.vline, x) if y is None else (visuals.hline, y)
    data = xr.Dataset({"curve": value})
    pc.map(visual, label, data=data, ignore_aes="all", color="gray", linestyle=styles[1])
    return pc
