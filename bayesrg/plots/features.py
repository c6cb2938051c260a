# SPDX-License-Identifier: Apache-2.0
"""Plots that show how Gaussian mode functions are: pairs, quantiles, kurtosis."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import canvas, curves, decorate, draw, group_of, line, mark


def plot_feature_pair(
    dt: xr.DataTree,
    *,
    modes: Sequence = (0, 1),
    group: str = "features",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot one mode function against another, with the two-sigma circle of a Gaussian pair.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable features (point, mode).
    modes : sequence of int
        Two entries of the coordinate mode.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    features = group_of(dt, group, "features")["features"]
    modes = _chosen(features, modes)
    if len(modes) != 2:
        raise ValueError(f"modes must be two indices, got {modes}; a pair has two mode functions")

    first, second = modes
    x, y = (features.sel(mode=m).to_numpy() for m in (first, second))
    angle = np.linspace(0.0, 2 * np.pi, 200)
    circle = {"x": 2 * np.cos(angle), "y": 2 * np.sin(angle)}
    outside = float((x**2 + y**2 > 4).mean())

    names = ("data points", "two sigma")
    square = {"figsize": (5.5, 5.5), "figsize_units": "inches"}
    pc_kwargs["figure_kwargs"] = square | pc_kwargs.get("figure_kwargs", {})
    pc = canvas(names, "kind", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "kind", {names[1]: circle}, legend=False)
    draw(pc, "kind", {names[0]: {"x": x, "y": y}}, scatter=True, legend=False, alpha=0.6)
    title = f"{outside:.1%} beyond two sigma; of a Gaussian pair {np.exp(-2.0):.1%}"
    text = (f"mode {first + 1}", f"mode {second + 1}")
    return decorate(pc, x=text[0], y=text[1], title=title, xscale="linear", yscale="linear")


def plot_feature_quantiles(
    dt: xr.DataTree,
    *,
    modes: Sequence | None = None,
    group: str = "features",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot quantiles of mode functions against those of a standard normal variable.

    A straight line shows where a Gaussian mode function would lie.

    Parameters
    ----------
    dt : DataTree
        Has the group that `bayesrg.io.label` makes of a `bayesrg.rg.cumulants.FeatureCumulants`.
    modes : sequence of int, optional
        Entries of the coordinate mode; by default four, evenly spread on a logarithmic scale.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    quantiles = group_of(dt, group, "quantiles", "quantile")["quantiles"]
    if modes is None:
        k = quantiles.sizes["mode"]
        spread = np.unique(np.geomspace(1, k, min(4, k)).round().astype(int)) - 1
        modes = quantiles["mode"].to_numpy()[spread]
    parts = {f"mode {m + 1}": line(quantiles.sel(mode=m)) for m in _chosen(quantiles, modes)}
    x = quantiles["quantile"].to_numpy()
    parts["Gaussian"] = {"x": x, "y": x}
    pc = curves(parts, "feature", backend=backend, **pc_kwargs)
    title, text = "quantiles of mode functions", "quantile of the mode (standard deviations)"
    x = "standard normal quantile"
    return decorate(pc, x=x, y=text, title=title, xscale="linear", yscale="linear")


def plot_feature_kurtosis(
    dt: xr.DataTree, *, group: str = "features", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the excess kurtosis of every mode function, with heavy-tailed modes in another colour.

    Parameters
    ----------
    dt : DataTree
        Has the group that `bayesrg.io.label` makes of a `bayesrg.rg.cumulants.FeatureCumulants`.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    features = group_of(dt, group, "excess_kurtosis", "heavy")
    kurtosis, heavy = features["excess_kurtosis"], features["heavy"]
    kinds = {"near Gaussian": ~heavy, "heavy": heavy}
    parts = {
        kind: line(kurtosis.where(those), kurtosis["mode"] + 1) for kind, those in kinds.items()
    }
    pc = curves(parts, "kind", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "gaussian", y=0.0)
    title = f"heavy modes, above 1 in size: {int(heavy.sum())} of {heavy.size}"
    return decorate(pc, x="mode", y="excess kurtosis", title=title, yscale="linear")


def _chosen(variable, modes):
    """Return ``modes`` as a tuple of int, after checking that the variable has these entries."""
    there = variable["mode"].to_numpy()
    modes = _checks.indices("modes", modes)
    for mode in modes:
        if mode not in there:
            raise ValueError(
                f"modes: there is no mode {mode}, only {there.min()} to {there.max()}; count modes "
                "from 0"
            )
    return tuple(int(mode) for mode in modes)
