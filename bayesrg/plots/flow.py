# SPDX-License-Identifier: Apache-2.0
"""The flow against the cutoff: ridges, rescaled ridge, evidence."""

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
    """Plot every ridge of a flow against the cutoff, with the stop marked.

    Parameters
    ----------
    dt : DataTree
        With the groups of `bayesrg.io.flow_to_datatree` or of `bayesrg.diagnostics.posterior_flow`,
        of whose draws medians and credible bands are shown.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    """Plot the ridge over cutoff times eigenvalue, which a power law drives to 1 / alpha.

    Parameters
    ----------
    dt : DataTree
        As for `plot_flow`.
    group : str
    alpha : float, optional
        Decay exponent of the eigenvalues less one: a line marks the fixed point. By default the
        group's attribute alpha, if it has one.
    also : mapping, optional
        Further flows: from their label to their group.
    backend, **pc_kwargs : as in `plot_flow`

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
    """Plot the log evidence of the coarse model against the cutoff, a curve for each rule.

    The vertical axis leaves out where truncation alone ends up.

    Parameters
    ----------
    dt : DataTree
        With the groups of `bayesrg.io.flow_to_datatree`, of a flow that was given a target.
    group : str
    backend, **pc_kwargs : as in `plot_flow`

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
    """Cutoffs that a logarithmic axis can show."""
    return flow.isel(cutoff=flow["cutoff"] > 0)


def _stop(flow):
    return float(np.median(flow["stop"])) if "stop" in flow else flow.attrs["stop"]


def _bare(flow):
    """Label of a flow by its bare ridge."""
    if "ridge" in flow:
        return "posterior median and band"
    return f"bare ridge {flow.attrs['ridge']:.3g}"
