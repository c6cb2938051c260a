# SPDX-License-Identifier: Apache-2.0
"""Plots of a flow against the cutoff: ridges, rescaled ridge, evidence."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from .. import _checks
from .._checks import ArrayLike
from ._curves import curves, decorate, group_of, line, mark

_LABELS = {
    "universal": "universal",
    "dressed": "dressed",
    "arithmetic": "data, arithmetic mean",
    "harmonic": "data, harmonic mean",
}


def plot_flow(
    dt: xr.DataTree, *, group: str = "flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot every ridge of a flow against the cutoff; a dashed line marks where the flow stops.

    Parameters
    ----------
    dt : DataTree
        Has the groups of `bayesrg.io.flow_to_datatree`, or of
        `bayesrg.diagnostics.posterior_flow`. Draws of the latter are shown by their median and
        credible band.
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
    flow = _kept(group_of(dt, group, "universal"))
    parts = {text: line(flow[name]) for name, text in _LABELS.items() if name in flow}
    pc = curves(parts, "ridge", backend=backend, **pc_kwargs)
    stop = _stop(flow)
    if stop > 0:
        mark(pc, "stop", x=float(stop))
    median = " (median)" if "stop" in flow else ""
    title = f"{flow.attrs['n']:g} points stop the flow at {stop:g} modes{median}"
    return decorate(pc, x="modes kept", y="ridge (variance)", title=title)


def plot_rescaled_ridge(
    dt: xr.DataTree,
    *,
    group: str = "flow",
    alpha: ArrayLike | None = None,
    also: Mapping[str, str] | None = None,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the rescaled ridge, ridge / (cutoff * eigenvalue), against the cutoff.

    For eigenvalues that fall as k^-(1 + alpha) it flows to the fixed point 1 / alpha.

    Parameters
    ----------
    dt : DataTree
        Has the groups of `bayesrg.io.flow_to_datatree`, or of
        `bayesrg.diagnostics.posterior_flow`. Draws of the latter are shown by their median and
        credible band.
    group : str
        Group of ``dt`` that is plotted.
    alpha : float, optional
        Decay exponent of the eigenvalues minus 1. A dashed line marks the fixed point. By default
        the attribute alpha of the group, if it exists.
    also : mapping, optional
        Further flows: a dictionary from label to group.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    flow = group_of(dt, group, "rescaled")
    groups = {_bare(flow): group} | dict(also or {})
    parts = {k: line(_kept(group_of(dt, g, "rescaled"))["rescaled"]) for k, g in groups.items()}
    pc = curves(parts, "flow", backend=backend, **pc_kwargs)
    alpha = flow.attrs.get("alpha") if alpha is None else _checks.number("alpha", alpha, above=0)
    title = "rescaled ridge"
    if alpha is not None:
        mark(pc, "fixed_point", y=1.0 / alpha)
        title += f"; fixed point 1/alpha = {1 / alpha:.3g} (dashed)"
    return decorate(pc, x="modes kept", y="ridge / (modes kept x eigenvalue)", title=title)


def plot_evidence(
    dt: xr.DataTree, *, group: str = "flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the log evidence of the coarse model against the cutoff, one curve per rule.

    The vertical axis covers the values of all rules but truncation, which can be far lower.

    Parameters
    ----------
    dt : DataTree
        Has the groups of `bayesrg.io.flow_to_datatree`, for a flow that was given targets.
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
    flow = _kept(group_of(dt, group, "evidence"))
    evidence = flow["evidence"]
    parts = {str(rule): line(evidence.sel(rule=rule)) for rule in evidence["rule"].values}
    pc = curves(parts, "rule", backend=backend, **pc_kwargs)
    stop = _stop(flow)
    if stop > 0:
        mark(pc, "stop", x=float(stop))
    others = evidence.sel(rule=[rule for rule in parts if rule != "truncate"])
    if others.size:
        low, high = float(others.min()), float(evidence.max())
        margin = 0.05 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        pc.map(visuals.set_ylim, "ylim", ignore_aes="all", limits=limits, store_artist=False)
    title = f"evidence of {flow.attrs['n']:g} points under each rule (dashed: stop)"
    return decorate(pc, x="modes kept", y="log evidence (nats)", title=title, yscale="linear")


def _kept(flow):
    """Return a flow without cutoff 0, which a logarithmic axis cannot show."""
    return flow.isel(cutoff=flow["cutoff"] > 0)


def _stop(flow):
    """Return the cutoff at which the flow stops, the median if it has draws."""
    return float(np.median(flow["stop"])) if "stop" in flow else flow.attrs["stop"]


def _bare(flow):
    """Return a label for a flow: its bare ridge, unless it has draws."""
    if "ridge" in flow:
        return "posterior median and band"
    return f"bare ridge {flow.attrs['ridge']:.3g}"
