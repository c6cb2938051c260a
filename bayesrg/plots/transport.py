# SPDX-License-Identifier: Apache-2.0
"""Plots of residual networks: paths of points, and how far and how straight layers move them."""

from collections.abc import Sequence

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from .. import _checks
from ._curves import (
    SAMPLE,
    canvas,
    curves,
    decorate,
    draw,
    group_of,
    line,
    lines_and_points,
    mark,
    ticks,
    with_others,
)
from ._matplotlib import equal_scales

_HEAD, _LARGEST = 0.3, 0.04  # length of an arrowhead over that of the arrow; over the panel's side
_EQUAL = 1e-9  # relative difference of draws that counts as none
_NAMES = {"loss": "loss", "transport": "transport cost T", "lambda": "multiplier lambda"}
_AXES = {
    "transport_cost": "transport cost T",
    "kinetic_energy": "kinetic energy E",
    "displacement": "displacement D",
    "straightness": "straightness D/E",
    "head_norm": "norm of the head",
}


def plot_paths(
    dt: xr.DataTree,
    *,
    features: Sequence[int] = (0, 1),
    draw: int = 0,
    max_points: int = 200,
    group: str = "transport",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the paths of points through the layers, in the plane of two features.

    Lines are paths, and dots mark where they end. Each class has a colour.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable trajectory
        (..., state, point, feature), as `bayesrg.diagnostics.transport.measure` makes it on
        request. The coordinate label (point), if there is one, gives the classes. Each group has
        a panel.
    features : pair of int
        The columns on the horizontal and the vertical axis.
    draw : int
        Which of the draws is shown, counted over all chains.
    max_points : int
        At most this number of points is shown: the first ones.
    """
    sheets, classes = _by_class(dt, with_others(group, also), draw, features, max_points)
    lines = {g: {c: _joined(x) for c, x in parts.items()} for g, parts in sheets.items()}
    ends = {g: {c: _columns(x[-1]) for c, x in parts.items()} for g, parts in sheets.items()}
    pc = _plane(sheets, classes, lines, backend, pc_kwargs, width=0.8, alpha=0.5)
    _draw(pc, "label", ends, scatter=True, size=14, legend=False)
    return _name_plane(pc, sheets, features, "lines: paths of points; dots: their ends")


def plot_displacement(
    dt: xr.DataTree,
    *,
    features: Sequence[int] = (0, 1),
    draw: int = 0,
    max_points: int = 200,
    group: str = "transport",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot an arrow from the first to the last state of each point, in the plane of two features.

    Each class has a colour.

    Parameters
    ----------
    dt, features, draw, max_points, group, also, backend, pc_kwargs
        As for `plot_paths`, which also says what is returned.
    """
    sheets, classes = _by_class(dt, with_others(group, also), draw, features, max_points)
    arrows = {
        g: {c: _joined(_arrows(x[0], x[-1])) for c, x in parts.items()}
        for g, parts in sheets.items()
    }
    pc = _plane(sheets, classes, arrows, backend, pc_kwargs, width=1.2, alpha=0.8)
    return _name_plane(pc, sheets, features, "from the first to the last state")


def _by_class(dt, groups, chosen, features, max_points):
    """Return the states (state, point, 2) of each class in each group, and the classes of all."""
    pair = _checks.sequence("features", features, "two numbers of columns")
    pair = [_checks.whole("features", feature, least=0) for feature in pair]
    if len(pair) != 2:
        raise ValueError(f"features has {len(pair)} entries; give two numbers of columns")
    chosen = _checks.whole("draw", chosen, least=0)
    max_points = _checks.whole("max_points", max_points)
    sheets, classes = {}, {}
    for group in groups:
        x = group_of(dt, group, "trajectory")["trajectory"].isel(point=slice(max_points))
        sampled = [axis for axis in SAMPLE if axis in x.dims]
        x = x.stack(all_draws=sampled) if sampled else x.expand_dims(all_draws=1)
        if chosen >= x.sizes["all_draws"]:
            raise ValueError(
                f"draw is {chosen} and group {group!r} has {x.sizes['all_draws']} draws; count "
                "them from 0"
            )
        if max(pair) >= x.sizes["feature"]:
            raise ValueError(
                f"features are {pair[0]}, {pair[1]} and group {group!r} has "
                f"{x.sizes['feature']} features; count them from 0"
            )
        x = x.isel(all_draws=chosen).transpose("state", "point", "feature")
        values = x.to_numpy()[:, :, pair]
        labels = x["label"].to_numpy() if "label" in x.coords else np.full(x.sizes["point"], "all")
        found = {label: values[:, labels == label] for label in np.unique(labels)}
        sheets[group] = {_class_name(label): part for label, part in found.items()}
        classes |= dict.fromkeys(found)
    return sheets, [_class_name(label) for label in sorted(classes)]


def _class_name(label):
    """Return the name of a class in a legend."""
    return str(label) if isinstance(label, str) else f"class {label:g}"


def _joined(states):
    """Return lines (state, point, 2) as one line with gaps."""
    gaps = np.concatenate([states, np.full_like(states[:1], np.nan)])
    return _columns(gaps.swapaxes(0, 1).reshape(-1, 2))


def _columns(points):
    """Return points (point, 2) as a part."""
    return {"x": points[:, 0], "y": points[:, 1]}


def _arrows(start, end):
    """Return arrows from ``start`` to ``end`` (point, 2) as lines of five corners each."""
    move = end - start
    length = np.linalg.norm(move, axis=1, keepdims=True)
    both = np.concatenate([start, end])
    head = np.minimum(_HEAD * length, _LARGEST * np.ptp(both, axis=0).max())
    along = move * np.divide(head, length, out=np.zeros_like(head), where=length > 0)
    aside = 0.5 * np.stack([-along[:, 1], along[:, 0]], 1)
    return np.stack([start, end, end - along + aside, end, end - along - aside])


def _plane(sheets, classes, lines, backend, pc_kwargs, **how):
    """Return a new plot of lines in a plane, with a panel per group and a colour per class."""
    panels = list(sheets) if len(sheets) > 1 else []
    if not panels:
        pc_kwargs.setdefault("figure_kwargs", {"figsize": (6.0, 5.0)})
    pc = canvas(classes, "label", panels=panels, styles=False, backend=backend, **pc_kwargs)
    return _draw(pc, "label", lines, **how)


def _draw(pc, by, sheets, **how):
    """Draw parts of several groups in their panels, or of one group in the only panel."""
    return draw(pc, by, sheets if len(sheets) > 1 else next(iter(sheets.values())), **how)


def _name_plane(pc, sheets, features, title):
    """Write titles and axes of a plot in the plane of two features."""
    equal_scales(pc)
    x, y = (f"feature {feature}" for feature in features)
    title = {name: name for name in sheets} if len(sheets) > 1 else title
    return decorate(pc, x=x, y=y, title=title, log="")


def plot_layer_action(
    dt: xr.DataTree,
    *,
    relative: bool = False,
    group: str = "transport",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the action of each layer as bars, with their intervals if there are draws.

    Bars of equal height are what least action gives.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable layer_action
        (..., layer), as `bayesrg.diagnostics.transport.measure` makes it.
    relative : bool
        Whether to divide by the mean over the layers, to compare networks of different transport
        cost. A dashed line marks 1.

    References
    ----------
    arXiv 2009.08372.
    """
    relative = _checks.flag("relative", relative)
    groups, parts = with_others(group, also), {}
    for name in groups:
        action = _one_or_draws(group_of(dt, name, "layer_action")["layer_action"])
        parts[name] = line(action / action.mean("layer") if relative else action)
    width = 0.8 / len(parts)
    bars, tops = {}, {}
    for i, (name, part) in enumerate(parts.items()):
        centre = part["x"] + width * (i - (len(parts) - 1) / 2)
        left, right = centre - 0.45 * width, centre + 0.45 * width
        none = np.zeros_like(centre)
        x = np.stack([left, left, right, right], 1).ravel()
        y = np.stack([none, part["y"], part["y"], none], 1).ravel()
        bars[name] = {"x": x, "y": y, "y_bottom": np.zeros_like(y), "y_top": y}
        if "y_bottom" in part:
            tops[name] = part | {"x": centre}
    pc = canvas(groups, "series", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "series", bars, width=1)
    if tops:
        draw(pc, "series", tops, scatter=True, legend=False)
    layers = max((part["x"] for part in parts.values()), key=len)
    shown = layers[:: -(-len(layers) // 16)]
    ticks(pc, {layer: f"{layer:g}" for layer in shown})
    if relative:
        mark(pc, "equal", y=1.0)
    y = "action / mean over the layers" if relative else "action of the layer"
    return decorate(pc, x="layer", y=y, title="action by layer", log="")


def _one_or_draws(values):
    """Return values over draws, without the axes of draws if there is one draw only."""
    one = {axis: 0 for axis in SAMPLE if values.sizes.get(axis) == 1}
    return values.isel(one) if len(one) == len(set(SAMPLE) & set(values.dims)) else values


def plot_action_ladder(
    dt: xr.DataTree,
    *,
    group: str = "transport",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    r"""Plot kinetic energy E, displacement D and squared distance W2^2, which fall in this order.

    Paths are bent, or points move at changing speed, where D is below E. Paths cross where W2^2 is
    below D: other pairs of first and last states would be closer.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables kinetic_energy
        and displacement, as `bayesrg.diagnostics.transport.measure` makes it. If there is a group
        ``{group}_distance`` with w2, the distance is drawn too; it may belong to fewer points.

    References
    ----------
    arXiv 2009.08372.
    """
    lines, points, rungs = {}, {}, ["kinetic energy E", "displacement D"]
    for name in with_others(group, also):
        found = group_of(dt, name, *_RUNGS)
        values = [_one_or_draws(found[variable]) for variable in _RUNGS]
        distance = f"{name}_distance"
        if distance in dt.children:
            values.append(_one_or_draws(group_of(dt, distance, "w2")["w2"]) ** 2)
            rungs = [*rungs[:2], "squared distance W2²"]
        parts = [line(value.expand_dims(rung=[i + 1.0])) for i, value in enumerate(values)]
        keys = set.intersection(*map(set, parts))
        points[name] = {key: np.concatenate([part[key] for part in parts]) for key in keys}
        lines[name] = {axis: points[name][axis] for axis in ("x", "y")}
    pc = lines_and_points(lines, points, "series", backend=backend, **pc_kwargs)
    ticks(pc, {i + 1.0: rung for i, rung in enumerate(rungs)})
    title = "E to D: bent or uneven paths; D to W2²: crossing paths"
    return decorate(pc, x="", y="mean squared length", title=title, log="y")


_RUNGS = "kinetic_energy", "displacement"


def plot_least_action(
    dt: xr.DataTree,
    *,
    group: str = "dynamics",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot loss, transport cost and multiplier against the step of training, a panel for each.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by `bayesrg.io.trajectory`
        of a run of `bayesrg.dynamics.least_action`: it has the variable loss (chain, each_step),
        and transport and lambda if the run computed them. With several chains the median is
        drawn, and a band; chains whose loss is not always finite are left out, if others are.
        Other numbers that are not finite are left out too.

    References
    ----------
    arXiv 2009.08372.
    """
    groups, sheets = with_others(group, also), {}
    for name in groups:
        found = _not_diverged(group_of(dt, name, "loss"))
        for variable, panel in _NAMES.items():
            if variable in found:
                values = found[variable].where(np.isfinite(found[variable])).dropna("each_step")
                if values.size:
                    sheets.setdefault(panel, {})[name] = line(_one_or_draws(values))
    if not sheets:
        raise ValueError(
            f"'loss' of group {groups[0]!r} has no finite value, so there is nothing to plot; give "
            "the group of a run that did not diverge at once"
        )
    pc = canvas(groups, "series", panels=list(sheets), styles=False, backend=backend, **pc_kwargs)
    draw(pc, "series", sheets)
    return decorate(pc, x="step", y=dict(zip(sheets, sheets, strict=True)), title="", log="y")


def _not_diverged(found):
    """Return a group without the chains whose loss is not always finite, or all if all are such."""
    if "chain" not in found["loss"].dims:
        return found
    sound = np.isfinite(found["loss"]).all("each_step").to_numpy()
    return found.isel(chain=sound) if sound.any() else found


def plot_accuracy_against_cost(
    dt: xr.DataTree,
    *,
    group: str = "accuracy_against_cost",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the accuracy of runs against their transport cost, with the rank correlation.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.diagnostics.transport.accuracy_against_cost`: accuracy (run), transport_cost (run),
        Spearman's correlation spearman, and low and high, the ends of its interval. Each group has
        a panel.
    """
    needed = "accuracy", "transport_cost", "spearman", "low", "high"
    sheets, titles = {}, {}
    for name in with_others(group, also):
        found = group_of(dt, name, *needed)
        y, x, *numbers = (found[variable].to_numpy() for variable in needed)
        sheets[name] = {"runs": {"x": x, "y": y}}
        titles[name] = "correlation {:.2f} ({:.2f} to {:.2f})".format(*map(float, numbers))
    names = list(sheets)
    panels = names if len(names) > 1 else []
    if not panels:
        pc_kwargs.setdefault("figure_kwargs", {"figsize": (6.0, 4.5)})
    pc = canvas(["runs"], "series", panels=panels, styles=False, backend=backend, **pc_kwargs)
    _draw(pc, "series", sheets, scatter=True)
    if panels:
        heights = np.concatenate([part["runs"]["y"] for part in sheets.values()])
        room = 0.05 * max(np.ptp(heights), 1e-3)
        limits = heights.min() - room, heights.max() + room  # accuracies of panels are compared
        pc.map(visuals.set_ylim, "ylim", ignore_aes="all", limits=limits, store_artist=False)
    title = {n: f"{n}: {text}" for n, text in titles.items()} if panels else titles[names[0]]
    return decorate(pc, x="transport cost T", y="accuracy", title=title, log="x")


def plot_action_posterior(
    dt: xr.DataTree,
    *,
    var_name: str = "transport_cost",
    group: str = "transport",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the density of the transport cost under posteriors, such as of several strengths.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable (chain, draw), as
        `bayesrg.diagnostics.transport.measure` makes it. Values that are not finite are left out.
    var_name : str
        The variable: transport_cost, kinetic_energy, displacement, straightness or head_norm.
    """
    parts = {}
    for name in with_others(group, also):
        values = group_of(dt, name, var_name)[var_name].to_numpy().ravel()
        values = values[np.isfinite(values)]
        if not values.size or np.ptp(values) <= _EQUAL * np.abs(values).max():
            raise ValueError(
                f"{var_name!r} of group {name!r} has fewer than two different finite values, so "
                "there is no density to plot; give a group of draws"
            )
        curve = az.kde(xr.DataArray(values[None], dims=SAMPLE))
        parts[name] = {axis: curve.sel(plot_axis=axis).to_numpy() for axis in ("x", "y")}
    pc = curves(parts, "series", backend=backend, **pc_kwargs)
    text = _AXES.get(var_name, var_name)
    return decorate(pc, x=text, y="density", title="density over the draws", log="")
