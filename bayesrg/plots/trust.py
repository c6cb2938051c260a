# SPDX-License-Identifier: Apache-2.0
"""Plots that test samplers: agreement of several samplers, and ranks of true values."""

import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams
from scipy.stats import binom

from ._curves import curves, decorate, group_of, mark, split, ticks

_BINS = 20


def plot_route_agreement(
    dt: xr.DataTree, *, group: str = "routes", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot differences between samplers of one posterior, in units of their Monte Carlo error.

    Dashed lines mark -4 and 4.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable z (route,
        quantity): the difference between a quantity by one sampler (a route) and its reference,
        divided by its Monte Carlo error.
    """
    z = group_of(dt, group, "z")["z"]
    names = z["quantity"].to_numpy()
    numbered = z.assign_coords(quantity=np.arange(1.0, names.size + 1))
    pc = curves(split(numbered, "quantity"), "route", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "high", y=4.0)
    mark(pc, "low", y=-4.0)
    title = f"agreement of routes: at most {float(abs(z).max()):.1f} Monte Carlo errors (dashed: 4)"
    ticks(pc, {i + 1.0: str(name) for i, name in enumerate(names)})
    return decorate(pc, x="quantity", y="difference (Monte Carlo errors)", title=title, log="")


def plot_sbc_ranks(
    dt: xr.DataTree, *, group: str = "sbc", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot histograms of the ranks of true values among draws, and the envelope of uniform ranks.

    If ranks are uniform, a count lies in the envelope with the probability
    ``stats.envelope_prob`` of ArviZ. There are 20 bins; make draws + 1 a multiple of it, so that
    equally many ranks belong to each.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.inference.sbc`: the variable rank (simulation, quantity), from 0 to the attribute
        draws.
    """
    found = group_of(dt, group, "rank")
    share = (found["rank"] + 0.5) / (found.attrs["draws"] + 1.0)
    middles, simulations = (np.arange(_BINS) + 0.5) / _BINS, share.sizes["simulation"]
    parts = {}
    for name in share["quantity"].to_numpy():
        counts, _ = np.histogram(share.sel(quantity=name), bins=_BINS, range=(0.0, 1.0))
        parts[str(name)] = {"x": middles, "y": counts.astype(float)}

    low, high = binom.interval(rcParams["stats.envelope_prob"], simulations, 1.0 / _BINS)
    flat = {"y": simulations / _BINS, "y_bottom": low, "y_top": high}
    parts["uniform"] = {"x": middles} | {key: np.full(_BINS, v) for key, v in flat.items()}
    pc = curves(parts, "quantity", backend=backend, **pc_kwargs)
    title = f"ranks of {simulations} simulations and the envelope of uniform ones"
    return decorate(pc, x="rank / draws", y="simulations in the bin", title=title, log="")
