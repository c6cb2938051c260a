# SPDX-License-Identifier: Apache-2.0
"""Plots of weight spectra: levels in time, spacings, densities, widths, and temperatures."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ..ensembles import Brody, WignerSurmise, marchenko_pastur
from ._curves import (
    SAMPLE,
    canvas,
    curves,
    decorate,
    draw,
    group_of,
    line,
    mark,
    split,
    steps,
    ticks,
)

_SMALL = 1e-3  # of the edge of the law
_RANDOM, _INDEPENDENT = 0.5307, 0.3863  # mean ratio of spacings: random matrices, Poisson
_BINS, _LONGEST = 25, 3.5  # of a histogram of spacings, in units of their mean
_MANY = 8  # curves of which no legend is drawn


def plot_weight_spectrum(
    dt: xr.DataTree, *, group: str = "weight_spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    r"""Plot the levels of weight matrices against their rank, with one panel per layer.

    The law of Marchenko and Pastur shows what independent entries of the same standard deviation
    would have. Levels below a thousandth of its edge are not drawn.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.diagnostics.weights.spectra` of weights W, or by ``report``: variables levels
        (..., layer, level), rows (layer), columns (layer), and edge (..., layer) or s (layer). If
        there is an axis besides chain and draw, such as step, each of its entries is one curve,
        and the law is that of the first.

    References
    ----------
    arXiv 2411.13512.
    """
    found = group_of(dt, group, "levels", "rows", "columns")
    levels = found["levels"].assign_coords(level=found["levels"]["level"] + 1)
    sheets = {}
    for layer in found["layer"].to_numpy():
        here = found.sel(layer=layer)
        sides = int(here["rows"]), int(here["columns"])
        spread = _spread(here)
        least = _SMALL * float(marchenko_pastur.edges(*sides, spread)[1])
        own = levels.sel(layer=layer, drop=True)
        parts = split(own.where(own > least), "level")
        parts = {name or "levels": part for name, part in parts.items() if part["x"].size}
        rank = np.arange(1, min(sides) + 1)
        share = 1 - (rank - 0.5) / rank.size
        white = marchenko_pastur.ppf(share, *sides, spread)
        law = {"x": rank, "y": np.where(white > least, white, np.nan)}
        sheets[str(layer)] = parts | {"Marchenko-Pastur": law}

    names = list({name: None for parts in sheets.values() for name in parts})
    several = list(sheets) if len(sheets) > 1 else []
    pc = canvas(names, "matrix", panels=several, backend=backend, **pc_kwargs)
    draw(pc, "matrix", sheets if several else next(iter(sheets.values())))
    title = {name: name for name in several} or "levels of the weights"
    return decorate(pc, x="rank", y="level", title=title)


def _spread(found):
    """Return the standard deviation of the entries of a matrix, the first of several."""
    if "s" in found:
        return float(found["s"])
    edge = found["edge"].median([d for d in SAMPLE if d in found["edge"].dims])
    sides = np.sqrt(float(found["rows"])) + np.sqrt(float(found["columns"]))
    return float(np.sqrt(edge.to_numpy().ravel()[0]) / sides)


def plot_level_paths(
    dt: xr.DataTree, *, group: str = "level_paths", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the levels of weights against the time of training, and dashed what they settle at.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable levels (...,
        step, level), with chains a median and a band. With a coordinate time (step), as
        `bayesrg.io.trajectory` makes it, this is the horizontal axis, else step. If the group has
        targets, with any axes, dashed lines mark them.

    References
    ----------
    arXiv 2407.16427.
    """
    found = group_of(dt, group, "levels")
    levels = found["levels"]
    x = levels["time"] if "time" in levels.coords else levels["step"]
    parts = {f"level {i}": line(levels.sel(level=i, drop=True), x) for i in levels["level"].values}
    pc = canvas(list(parts), "series", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "series", parts, legend=len(parts) <= _MANY)
    title = "levels of the weights"
    if "targets" in found:
        title += "; dashed: targets"
        for i, target in enumerate(np.unique(found["targets"].to_numpy())):
            mark(pc, f"target {i}", y=float(target))
    text = "time (learning rate x steps)" if x.name == "time" else "step"
    return decorate(pc, x=text, y="level", title=title, log="")


def plot_spacings(
    dt: xr.DataTree, *, group: str = "spacings", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the density of spacings as points, and as lines the Wigner surmise and Poisson's law.

    Bars are one standard error of independent spacings.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable spacings (run,
        ...), in units of their mean, as `bayesrg.ensembles.unfold` returns them. Each run has a
        colour. Without the axis run all spacings are one histogram.

    References
    ----------
    arXiv 2407.16427.
    """
    spacings = group_of(dt, group, "spacings")["spacings"]
    spacings = spacings if "run" in spacings.dims else spacings.expand_dims(run=["spacings"])
    s = np.linspace(1e-3, _LONGEST, 200)
    laws = {"Wigner surmise": WignerSurmise(1.0), "Poisson": Brody(0.0)}
    lines = {name: {"x": s, "y": np.exp(law.log_prob(s))} for name, law in laws.items()}
    points = {str(run): _points(spacings.sel(run=run)) for run in spacings["run"].to_numpy()}
    pc = canvas([*lines, *points], "law", backend=backend, **pc_kwargs)
    draw(pc, "law", lines, legend=False)
    draw(pc, "law", points, scatter=True)
    title = "spacings of levels: lines: laws; points: runs"
    return decorate(pc, x="spacing / its mean", y="density", title=title, log="")


def _points(spacings):
    """Return a histogram as points with bars of one standard error."""
    values = spacings.to_numpy().ravel()
    values = values[np.isfinite(values)]
    counts, edges = np.histogram(values, _BINS, (0.0, _LONGEST))
    unit = values.size * (edges[1] - edges[0])
    y, error = counts / unit, np.sqrt(counts) / unit
    middle = (edges[1:] + edges[:-1]) / 2
    return {"x": middle, "y": y, "y_bottom": y - error, "y_top": y + error}


def plot_level_density(
    dt: xr.DataTree, *, group: str = "level_density", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the histogram of levels and the density of a law; points mark levels outside of it.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables levels, along
        any axes, and density (grid), for instance of `bayesrg.ensembles.semicircle`,
        ``two_level_density`` or ``marchenko_pastur``. If it has edge (), levels above the edge are
        drawn as points on the axis and counted in the title.

    References
    ----------
    arXiv 2407.16427, 2411.13512.
    """
    found = group_of(dt, group, "levels", "density")
    levels = found["levels"].to_numpy().ravel()
    levels = levels[np.isfinite(levels)]
    outside = levels[levels > float(found["edge"])] if "edge" in found else levels[:0]
    inside = levels[levels <= float(found["edge"])] if "edge" in found else levels
    parts = {"levels": steps(inside, levels.size)}
    parts["law"] = {"x": found["grid"].to_numpy(), "y": found["density"].to_numpy()}
    above = {"above the edge": {"x": outside, "y": np.zeros(outside.size)}} if outside.size else {}
    pc = canvas([*parts, *above], "law", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "law", parts, legend=not above)
    if above:
        draw(pc, "law", above, scatter=True, size=30)
    title = f"{levels.size} levels"
    title += f", {outside.size} of them above the edge" if "edge" in found else ""
    return decorate(pc, x="level", y="density", title=title, log="")


def plot_noise_scaling(
    dt: xr.DataTree, *, group: str = "noise_scaling", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    r"""Plot widths of groups of levels against the noise of training, with bars of their errors.

    The horizontal axis is :math:`\sqrt{\alpha A/B}`, of learning rate, noise amplitude and batch
    size. By the rule of linear scaling widths are proportional to it.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables width (run) and
        noise (run), which is :math:`\alpha A/B`, and if known error (run), the standard error of a
        width. Runs with equal kind (run), a text, share a colour. If it has slope (...), the line
        of this slope is drawn, with a band if there are draws.

    References
    ----------
    arXiv 2407.16427.
    """
    found = group_of(dt, group, "width", "noise")
    points = _kinds(found, np.sqrt(found["noise"]), "width")
    lines = {}
    if "slope" in found:
        noise = np.sqrt(found["noise"].to_numpy())
        end = xr.DataArray(np.geomspace(0.8 * noise.min(), 1.25 * noise.max(), 2), dims="end")
        lines = {"fitted power": line(found["slope"] * end, end)}
    pc = _points_over(lines, points, backend, pc_kwargs)
    x = "square root of learning rate x amplitude / batch size"
    return decorate(pc, x=x, y="width of the levels", title="linear scaling rule")


def plot_spacing_width(
    dt: xr.DataTree, *, group: str = "spacing_width", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    r"""Plot mean spacings of pairs of levels against what their widths predict, and the diagonal.

    The gas of two levels has the mean spacing :math:`\sqrt\pi\,\sigma`.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables spacing (run)
        and sigma (run), and if known error (run), the standard error of a spacing. Runs with equal
        kind (run), a text, share a colour.

    References
    ----------
    arXiv 2407.16427.
    """
    found = group_of(dt, group, "spacing", "sigma")
    predicted = np.sqrt(np.pi) * found["sigma"]
    points = _kinds(found, predicted, "spacing")
    ends = np.array([0.0, 1.05 * float(predicted.max())])
    pc = _points_over({"gas of two levels": {"x": ends, "y": ends}}, points, backend, pc_kwargs)
    title = "mean spacings of pairs"
    return decorate(pc, x="square root of pi x width", y="mean spacing", title=title, log="")


def _kinds(found, x, variable):
    """Return points of a variable over x, with bars if there are errors, a part per kind of run."""
    kinds = found["kind"].to_numpy() if "kind" in found else np.full(x.size, "runs")
    parts = {}
    for kind in dict.fromkeys(kinds.tolist()):
        rows = np.flatnonzero(kinds == kind)
        y = found[variable].to_numpy()[rows]
        parts[kind] = {"x": x.to_numpy()[rows], "y": y}
        if "error" in found:
            error = found["error"].to_numpy()[rows]
            parts[kind] |= {"y_bottom": y - error, "y_top": y + error}
    return parts


def _points_over(lines, points, backend, pc_kwargs):
    """Return a new plot of lines, if there are any, and points."""
    pc = canvas([*lines, *points], "kind", backend=backend, **pc_kwargs)
    if lines:
        draw(pc, "kind", lines, legend=False)
    return draw(pc, "kind", points, scatter=True, size=30)


def plot_spacing_ratios(
    dt: xr.DataTree,
    *,
    along: str = "layer",
    group: str = "spacing_ratios",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot mean ratios of neighbouring spacings against depth or time.

    Dashed lines mark .5307 of large random matrices, and .3863 of independent levels.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable r (..., along),
        and if known error on the same axes. With r_null (along, tail), as of
        `bayesrg.diagnostics.weights.report`, bars show the interval of the null.
    along : str
        Name of the horizontal axis, such as "layer", "epoch" or "step".
    """
    found = group_of(dt, group, "r")
    _checks.choice("along", along, found["r"].dims)
    found, names = _numbered(found, along)
    parts = _over(found, "r", along)
    if "r_null" in found:
        low, high = found["r_null"].transpose("tail", along).to_numpy()
        middle = {"x": found[along].to_numpy(), "y": (low + high) / 2}
        parts = {"null, 5 to 95 %": middle | {"y_bottom": low, "y_top": high}} | parts
    pc = curves(parts, "series", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "random matrices", y=_RANDOM)
    mark(pc, "independent levels", y=_INDEPENDENT)
    if names:
        ticks(pc, names)
    title = "dashed: random matrices (.5307), independent levels (.3863)"
    return decorate(pc, x=along, y="mean ratio of spacings", title=title, log="")


def _numbered(found, axis):
    """Return a group with numbers along an axis, and the texts that stood there, by number."""
    names = found[axis].to_numpy() if axis in found.coords else np.arange(found.sizes[axis])
    if names.dtype.kind not in "UO":
        return found, {}
    numbers = np.arange(1.0, names.size + 1)
    return found.assign_coords({axis: numbers}), dict(zip(numbers, map(str, names), strict=True))


def _over(found, variable, along):
    """Return parts of a variable over an axis, with bars if the group has errors."""
    parts = split(found[variable], along)
    if "error" in found:
        for end, sign in (("y_bottom", -1), ("y_top", 1)):
            ends = split(found[variable] + sign * found["error"], along)
            parts = {name: part | {end: ends[name]["y"]} for name, part in parts.items()}
    return {name or "measured": part for name, part in parts.items()}


def plot_spectral_temperature(
    dt: xr.DataTree, *, group: str = "spectral_temperature", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot spectral temperatures of layers or of chains; a dashed line marks the posterior.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable temperature over
        one axis, such as layer or sampler, whose entries may be texts, and if known error on it,
        as `bayesrg.diagnostics.weights.spectral_temperature` returns them. If it has expected on
        the axis, for instance of ``effective_temperature``, these values are drawn as well.

    References
    ----------
    arXiv 2407.16427.
    """
    found = group_of(dt, group, "temperature")
    (axis,) = found["temperature"].dims
    found, names = _numbered(found, axis)
    parts = _over(found, "temperature", axis)
    if "expected" in found:
        parts = {"expected": line(found["expected"])} | parts
    pc = curves(parts, "series", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "posterior", y=1.0)
    if names:
        ticks(pc, names)
    title = "above 1 (dashed) a chain is hotter than the posterior"
    return decorate(pc, x=axis, y="temperature", title=title, log="")
