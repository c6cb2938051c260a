# SPDX-License-Identifier: Apache-2.0
"""Whether samplers can be trusted: an identity of layers, agreement of routes, ranks."""

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
    """Plot the excess of every layer with its Monte Carlo error, and the number all must equal.

    Parameters
    ----------
    dt : DataTree
        Of `bayesrg.diagnostics.feature.measure_deep_linear`.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    text = "squared weights less their number"
    return decorate(pc, x="layer", y=text, title=title, xscale="linear", yscale="linear")


def plot_route_agreement(
    dt: xr.DataTree, *, group: str = "routes", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot by how many Monte Carlo errors different samplers of one posterior disagree.

    Parameters
    ----------
    dt : DataTree
        With a group of z over route and quantity.
    group : str
    backend, **pc_kwargs : as in `plot_layer_identity`

    Returns
    -------
    PlotCollection
        With lines at plus and minus four.
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
    """Plot histograms of ranks of true values among draws, and the envelope of uniform ranks.

    Parameters
    ----------
    dt : DataTree
        With a group of rank over simulation, from 0 to the attribute draws, and maybe over
        quantity.
    bins : int
        A divisor of draws + 1, so that uniform ranks fill them evenly.
    group : str
    backend, **pc_kwargs : as in `plot_layer_identity`

    Returns
    -------
    PlotCollection
        The envelope holds each count with ArviZ's stats.envelope_prob.
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
    parts["uniform"] = {"x": middles, "y": even} | {
        "y_bottom": np.full(bins, low), "y_top": np.full(bins, high)
    }  # fmt: skip
    pc = curves(parts, "quantity", backend=backend, **pc_kwargs)
    title = f"ranks of {simulations} simulations and the envelope of uniform ones"
    text = "simulations in the bin"
    return decorate(pc, x="rank / draws", y=text, title=title, xscale="linear", yscale="linear")


def _around(middle, error):
    return {"y_bottom": middle - error, "y_top": middle + error}
