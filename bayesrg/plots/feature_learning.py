# SPDX-License-Identifier: Apache-2.0
"""Plots of what hidden layers have learnt: kernels, alignments and spectra, beside the prior's."""

from importlib import import_module

import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams, visuals

from .. import _checks
from .._checks import ArrayLike
from ..diagnostics.feature.measure import same_estimator
from ._curves import backend_of, curves, decorate, group_of, has, line, mark
from ._matplotlib import colour_bars

_QUANTITIES = {
    "target_alignment": "alignment with the targets",
    "centred_alignment": "centred alignment with the targets",
    "target_gain": "gain along the targets",
    "kernel_scale": "trace over its prior mean",
    "participation_ratio": "participation ratio",
    "effective_dimension": "effective dimension",
    "top_eigenvalue": "top eigenvalue",
    "lazy_distance": "relative distance from the prior mean",
}
_PANELS = ("prior mean", "posterior mean", "difference")
_LEVELS = 21


def plot_alignment(
    dt: xr.DataTree,
    *,
    quantity: str = "target_alignment",
    theory: ArrayLike | None = None,
    group: str = "feature_learning",
    prior: str | None = "feature_learning_prior",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot a quantity of the layers' kernels against the layer, for posterior and prior.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.diagnostics.feature.measure` or ``measure_deep_linear``.
    quantity : str
        A variable over layer: "target_alignment", "target_gain", "kernel_scale", ...
    theory : (L,), optional
        A further line, one value per layer, such as the gains at a saddle point.
    group : str
        Group of ``dt`` that is plotted.
    prior : str, optional
        Group of the prior, for comparison. It is drawn if it exists.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and credible band.

    Raises
    ------
    ValueError
        If a group or variable is missing, or if the groups were made with different estimators.
    """
    found = _with_prior(dt, group, prior, quantity)
    parts = {name: line(value) for name, value in found.items()}
    if theory is not None:
        theory = np.asarray(_checks.finite("theory", theory, ndim=1), float)
        parts["theory"] = {"x": np.arange(1.0, theory.size + 1), "y": theory}
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    layers = parts["posterior"]["x"].astype(int)
    ticks = {"values": layers.tolist(), "labels": [str(layer) for layer in layers]}
    pc.map(visuals.set_xticks, ignore_aes="all", store_artist=False, **ticks)
    text = _QUANTITIES.get(quantity, quantity)
    title = f"{text}: median and {rcParams['stats.ci_prob']:.0%} band"
    return decorate(pc, x="layer", y=text, title=title, xscale="linear", yscale="linear")


def plot_spectrum_shift(
    dt: xr.DataTree,
    *,
    layer: int | None = None,
    group: str = "feature_learning",
    prior: str | None = "feature_learning_prior",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the eigenvalues of a layer's kernel minus those of its prior mean, mode by mode.

    The kernel of a random network of finite width also differs from the prior mean. The band of the
    prior shows by how much.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.diagnostics.feature.measure` or ``measure_deep_linear``.
    layer : int, optional
        Entry of the coordinate layer; by default the last.
    group : str
        Group of ``dt`` that is plotted.
    prior : str, optional
        Group of the prior, for comparison. It is drawn if it exists.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and credible band.
    """
    found = _with_prior(dt, group, prior, "spectral_shift")
    layer = _layer(found["posterior"], layer)
    parts = {
        name: line(value.sel(layer=layer), value["mode"] + 1.0) for name, value in found.items()
    }
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    mark(pc, "none", y=0.0)
    title = f"spectrum of layer {layer}: shift from the prior mean"
    text = "eigenvalue minus that of the prior mean"
    return decorate(pc, x="mode", y=text, title=title, xscale="linear", yscale="linear")


def plot_kernel_change(
    dt: xr.DataTree,
    *,
    layer: int | None = None,
    group: str = "feature_kernels",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot prior mean and posterior mean of a layer's kernel, and their difference.

    Points are ordered by their first target. Both kernels share one colour scale, the difference
    has its own. A scale ends at the largest entry off the diagonal.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.diagnostics.feature.measure` or ``measure_deep_linear``.
    layer : int, optional
        Entry of the coordinate layer; by default the last.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Three panels. Matplotlib adds colour bars; other backends write the ends of the colour
        scale in the titles.
    """
    kernels = group_of(dt, group, "posterior", "prior_mean")
    layer = _layer(kernels["posterior"], layer)
    before, after = (kernels[v].sel(layer=layer).to_numpy() for v in ("prior_mean", "posterior"))
    order = np.arange(len(before))
    if "targets" in kernels:
        order = np.argsort(kernels["targets"].to_numpy()[:, 0], kind="stable")

    stack = np.stack([before, after, after - before])[:, order][:, :, order]
    dims = ("panel", "point", "point_bis")
    data = xr.Dataset({"curve": (dims, stack)}, coords={"panel": list(_PANELS)})
    backend = backend_of(backend)
    figure = {"figsize": (13.0, 3.6), "figsize_units": "inches"}
    if backend == "matplotlib":
        figure["layout"] = "constrained"
    figure |= pc_kwargs.pop("figure_kwargs", {})
    pc = PlotCollection.wrap(
        data, cols=["panel"], backend=backend, figure_kwargs=figure, **pc_kwargs
    )

    aside = np.where(np.eye(len(before), dtype=bool), 0.0, stack)  # diagonals would hide the rest
    tops = [_largest(aside[:2], stack[:2])] * 2 + [_largest(aside[2], stack[2])]
    top = xr.DataArray(tops, dims="panel", coords={"panel": list(_PANELS)})
    levels = xr.Dataset({"curve": top * xr.DataArray(np.linspace(-1, 1, _LEVELS), dims="level")})
    shown = data.clip(-top, top)
    pc.map(_cells, "curve", data=shown, ignore_aes="all", levels=levels, cmap="RdBu_r")
    colour_bars(pc, "curve")

    text = "point, by target" if "targets" in kernels else "point"
    pc.map(visuals.labelled_x, "xlabel", ignore_aes="all", text=text)
    pc.map(visuals.labelled_y, "ylabel", ignore_aes="all", text=text)
    ends = [f" (to ±{t:.2g})" if backend != "matplotlib" else "" for t in tops]
    titles = [f"layer {layer}: {panel}{end}" for panel, end in zip(_PANELS, ends, strict=True)]
    titles = xr.Dataset({"curve": ("panel", titles)}, coords={"panel": list(_PANELS)})
    pc.map(_title, "title", data=titles, ignore_aes="all")
    return pc


def _largest(*candidates):
    """Return the largest absolute value of the first array that is not all zero, or 1."""
    return next((top for top in (float(np.abs(c).max()) for c in candidates) if top), 1.0)


def _cells(da, target, *, levels, cmap, **_):
    """Draw a matrix as coloured cells, with the filled contours that every backend offers."""
    # each entry twice, at both edges of its cell, so that the colour changes only between cells
    matrix = np.repeat(np.repeat(da.to_numpy(), 2, 0), 2, 1)
    edges = np.stack([np.arange(len(da)) - 0.499, np.arange(len(da)) + 0.499], 1).ravel()
    backend = visuals.backend_from_object(target)
    levels = np.asarray(levels) * (1 + 1e-9)
    return backend.contourf(edges, edges, matrix, target, levels=levels, cmap=cmap)


def _title(da, target, **_):
    """Write the title of a panel."""
    return import_module(visuals.backend_from_object(target).__name__).title(da.item(), target)


def _with_prior(dt, group, prior, quantity):
    """Return the quantity of the posterior, and of the prior if it exists, as a dictionary.

    Raises if the two groups were made with different estimators.
    """
    groups = {"posterior": group_of(dt, group, quantity)}
    if has(dt, prior):
        groups["prior"] = group_of(dt, prior, quantity)
    same_estimator(*groups.values())
    return {name: dataset[quantity] for name, dataset in groups.items()}


def _layer(variable, layer):
    """Return an entry of the coordinate layer, by default the last, after checking it."""
    there = variable["layer"].to_numpy()
    layer = there[-1] if layer is None else _checks.whole("layer", layer, least=0)
    if layer not in there:
        raise ValueError(f"there is no layer {layer!r}, only {there.tolist()}; choose one")
    return int(layer)
