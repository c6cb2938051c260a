# SPDX-License-Identifier: Apache-2.0
"""Plots of what hidden layers have learnt: numbers per layer, and whole kernels."""

import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams, visuals

from .. import _checks
from .._checks import ArrayLike
from ..diagnostics.feature.measure import same_estimator
from ._curves import canvas, curves, decorate, group_of, line, ticks
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
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot a quantity of the layers' kernels against the layer, for posterior and prior.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.diagnostics.feature.measure` or ``measure_deep_linear``. The prior is in
        ``{group}_prior``, which is drawn if it exists.
    quantity : str
        A variable over layer: "target_alignment", "target_gain", "kernel_scale", ...
    theory : (L,), optional
        A further line, one value per layer, such as the gains at a saddle point.

    Raises
    ------
    ValueError
        If a group or variable is missing, or if the groups were made with different estimators.
    """
    found = {"posterior": group_of(dt, group, quantity)}
    if f"{group}_prior" in dt.children:
        found["prior"] = group_of(dt, f"{group}_prior", quantity)
    same_estimator(*found.values())

    parts = {name: line(dataset[quantity]) for name, dataset in found.items()}
    layers = parts["posterior"]["x"].astype(int).tolist()
    if theory is not None:
        theory = np.asarray(_checks.finite("theory", theory, ndim=1), float)
        parts["theory"] = {"x": np.arange(1.0, theory.size + 1), "y": theory}
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    ticks(pc, {layer: str(layer) for layer in layers})
    text = _QUANTITIES.get(quantity, quantity)
    title = f"{text}: median and {rcParams['stats.ci_prob']:.0%} band"
    return decorate(pc, x="layer", y=text, title=title, log="")


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
    has its own. A scale ends at the largest entry off the diagonal. Matplotlib adds colour bars;
    with other backends the titles have the ends of the scale.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.diagnostics.feature.measure` or ``measure_deep_linear``.
    layer : int, optional
        Entry of the coordinate layer; by default the last.
    """
    kernels = group_of(dt, group, "posterior", "prior_mean")
    there = kernels["layer"].to_numpy().tolist()
    layer = there[-1] if layer is None else _checks.whole("layer", layer, least=0)
    if layer not in there:
        raise ValueError(f"there is no layer {layer}, only {there}; choose one")
    before, after = (kernels[v].sel(layer=layer).to_numpy() for v in ("prior_mean", "posterior"))
    order, text = np.arange(len(before)), "point"
    if "targets" in kernels:
        order, text = (
            np.argsort(kernels["targets"].to_numpy()[:, 0], kind="stable"),
            text + ", by target",
        )
    stack = np.stack([before, after, after - before])[:, order][:, :, order]

    # large diagonals would hide the rest, so they do not count for the colours
    aside = np.where(np.eye(len(before), dtype=bool), 0.0, stack)
    ends = [_largest(aside[:2], stack[:2])] * 2 + [_largest(aside[2], stack[2])]
    top = xr.DataArray(ends, dims="panel", coords={"panel": list(_PANELS)})
    levels = top * xr.DataArray(np.linspace(-1, 1, _LEVELS), dims="level")
    shown = xr.DataArray(stack, dims=("panel", "point", "point_bis"), coords=top.coords)
    pc = canvas(["kernel"], "kernel", panels=_PANELS, backend=backend, **pc_kwargs)
    pc.map(
        _cells,
        "curve",
        data=shown.clip(-top, top).to_dataset(name="curve"),
        levels=levels.to_dataset(name="curve"),
        ignore_aes="all",
        cmap="RdBu_r",
    )
    colour_bars(pc, "curve")
    scales = [f" (to ±{end:.2g})" if pc.backend != "matplotlib" else "" for end in ends]
    title = {p: f"layer {layer}: {p}{scale}" for p, scale in zip(_PANELS, scales, strict=True)}
    return decorate(pc, x=text, y=text, title=title, log="")


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
