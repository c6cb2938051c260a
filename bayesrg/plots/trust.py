# SPDX-License-Identifier: Apache-2.0
"""Plots that test samplers: an identity of layers, agreement of samplers, ranks."""

import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams
from scipy.stats import binom

from .. import _checks
from ..diagnostics.feature import layer_identity
from ._curves import canvas, curves, decorate, draw, group_of, mark


def plot_layer_identity(
    dt: xr.DataTree,
    *,
    group: str = "feature_learning",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the excess of each layer with its Monte Carlo error, and the value that all must equal.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.diagnostics.feature.measure_deep_linear`.
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
    group_of(dt, group, "layer_excess", "drive")
    found = layer_identity(dt, group=group)
    x = found["level"].to_numpy().astype(float)
    excess, error = found["excess"].to_numpy(), found["mcse"].to_numpy()
    points = {"layers": {"x": x, "y": excess} | _around(excess, error)}

    ends = np.array([x[0] - 0.5, x[-1] + 0.5])
    drive = np.full(2, float(found["drive"]))
    line = {"drive": {"x": ends, "y": drive} | _around(drive, float(found["drive_mcse"]))}
    pc = canvas(["drive", "layers"], "side", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "side", line, legend=False)
    draw(pc, "side", points, scatter=True, size=30)
    title = f"layer identity: off by at most {float(found['spread']):.1f} Monte Carlo errors"
    text = "squared weights minus their number"
    return decorate(pc, x="layer", y=text, title=title, xscale="linear", yscale="linear")


def plot_route_agreement(
    dt: xr.DataTree, *, group: str = "routes", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot differences between samplers of one posterior, in units of their Monte Carlo error.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable z (route, quantity): the difference of a quantity between two
        samplers (a route), divided by its Monte Carlo error.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Dashed lines mark -4 and 4.
    """
    z = group_of(dt, group, "z")["z"].transpose("route", "quantity")
    x = np.arange(1.0, z.sizes["quantity"] + 1)
    parts = {str(r): {"x": x, "y": z.sel(route=r).to_numpy()} for r in z["route"].to_numpy()}
    pc = curves(parts, "route", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "high", y=4.0)
    mark(pc, "low", y=-4.0)
    worst = float(np.abs(z).max())
    title = f"agreement of routes: at most {worst:.1f} Monte Carlo errors (dashed: 4)"
    names = ", ".join(f"{i + 1} {q}" for i, q in enumerate(z["quantity"].to_numpy()))
    text = "difference (Monte Carlo errors)"
    return decorate(pc, x=names, y=text, title=title, xscale="linear", yscale="linear")


def plot_sbc_ranks(
    dt: xr.DataTree,
    *,
    bins: int = 20,
    group: str = "sbc",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot histograms of the ranks of true values among draws, and the envelope of uniform ranks.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable rank (simulation), or (simulation, quantity): numbers from 0
        to the attribute draws of the group, as `bayesrg.inference.sbc` returns.
    bins : int
        Number of bins. Take a divisor of draws + 1, so that all bins contain equally many ranks.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        If ranks are uniform, a count lies in the envelope with the probability
        ``stats.envelope_prob`` of ArviZ.
    """
    bins = _checks.whole("bins", bins, most=10**6)
    found = group_of(dt, group, "rank")
    rank = found["rank"]
    if "quantity" not in rank.dims:
        rank = rank.expand_dims(quantity=["rank"])
    top = float(found.attrs["draws"]) if "draws" in found.attrs else float(rank.max())
    share = (rank + 0.5) / (top + 1.0)

    middles, simulations = (np.arange(bins) + 0.5) / bins, rank.sizes["simulation"]
    parts = {}
    for q in rank["quantity"].to_numpy():
        counts, _ = np.histogram(share.sel(quantity=q), bins=bins, range=(0.0, 1.0))
        parts[str(q)] = {"x": middles, "y": counts.astype(float)}

    low, high = binom.interval(rcParams["stats.envelope_prob"], simulations, 1.0 / bins)
    even = np.full(bins, simulations / bins)
    band = {"y_bottom": np.full(bins, low), "y_top": np.full(bins, high)}
    parts["uniform"] = {"x": middles, "y": even} | band
    pc = curves(parts, "quantity", backend=backend, **pc_kwargs)
    title = f"ranks of {simulations} simulations and the envelope of uniform ones"
    text = "simulations in the bin"
    return decorate(pc, x="rank / draws", y=text, title=title, xscale="linear", yscale="linear")


def _around(middle, error):
    """Return the ends of error bars."""
    return {"y_bottom": middle - error, "y_top": middle + error}
