# SPDX-License-Identifier: Apache-2.0
"""Plots of a flow against the cutoff: spectrum, ridges, evidence."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from .. import _checks
from ._curves import curves, decorate, group_of, line, mark, split, with_others

_LABELS = {
    "universal": "universal",
    "dressed": "dressed",
    "arithmetic": "data, arithmetic mean",
    "harmonic": "data, harmonic mean",
}


def plot_spectrum(
    dt: xr.DataTree, *, group: str = "spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot eigenvalues, with learnable ones in another colour, and the ridge / n at the stop.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.io.flow_to_datatree`.
    """
    spectrum = group_of(dt, group, "values")
    values = spectrum["values"].where(spectrum["values"] > 0)
    learnt = spectrum["mode"] < spectrum.attrs["stop"]
    kinds = {"learnable": learnt, "not learnable": ~learnt}
    parts = {kind: line(values.where(those), values["mode"] + 1) for kind, those in kinds.items()}
    pc = curves(parts, "kind", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "ridge", y=spectrum.attrs["ridge_at_stop"] / spectrum.attrs["n"])
    title = "eigenvalues and running ridge / n (line)"
    return decorate(pc, x="mode", y="eigenvalue (variance)", title=title)


def plot_flow(
    dt: xr.DataTree, *, group: str = "flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot every ridge of a flow against the cutoff; a dashed line marks where the flow stops.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.io.flow_to_datatree` or `bayesrg.diagnostics.posterior_flow`.
    """
    flow = _kept(group_of(dt, group, "universal"))
    parts = {text: line(flow[name]) for name, text in _LABELS.items() if name in flow}
    pc = curves(parts, "ridge", backend=backend, **pc_kwargs)
    stop = _mark_stop(pc, flow)
    title = f"{flow.attrs['n']:g} points stop the flow at {stop:g} modes"
    title += " (median)" if "stop" in flow else ""
    return decorate(pc, x="modes kept", y="ridge (variance)", title=title)


def plot_rescaled_ridge(
    dt: xr.DataTree,
    *,
    alpha: float | int | None = None,
    group: str = "flow",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the rescaled ridge, ridge / (cutoff * eigenvalue), against the cutoff.

    For eigenvalues that fall as k^-(1 + alpha) it flows to the fixed point 1 / alpha.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The groups are made by
        `bayesrg.io.flow_to_datatree` or `bayesrg.diagnostics.posterior_flow`.
    alpha : float, optional
        Decay exponent of the eigenvalues minus 1. A dashed line marks the fixed point.
    """
    flows = {name: _kept(group_of(dt, name, "rescaled")) for name in with_others(group, also)}
    parts = {name: line(flow["rescaled"]) for name, flow in flows.items()}
    pc = curves(parts, "flow", backend=backend, **pc_kwargs)
    title = "rescaled ridge"
    if alpha is not None:
        fixed_point = 1.0 / _checks.number("alpha", alpha, above=0)
        mark(pc, "fixed_point", y=fixed_point)
        title += f"; fixed point 1/alpha = {fixed_point:.3g} (dashed)"
    return decorate(pc, x="modes kept", y="ridge / (modes kept x eigenvalue)", title=title)


def plot_evidence(
    dt: xr.DataTree, *, group: str = "flow", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the log evidence of the coarse model against the cutoff, one curve per rule.

    The vertical axis covers the values of all rules but truncation, which can be far lower.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.io.flow_to_datatree`, of a flow that was given targets.
    """
    flow = _kept(group_of(dt, group, "evidence"))
    evidence = flow["evidence"]
    pc = curves(split(evidence, "cutoff"), "rule", backend=backend, **pc_kwargs)
    _mark_stop(pc, flow)
    others = evidence.sel(rule=evidence["rule"] != "truncate")
    if others.size:
        low, high = float(others.min()), float(evidence.max())
        margin = 0.05 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        pc.map(visuals.set_ylim, "ylim", ignore_aes="all", limits=limits, store_artist=False)
    title = f"evidence of {flow.attrs['n']:g} points under each rule (dashed: stop)"
    return decorate(pc, x="modes kept", y="log evidence (nats)", title=title, log="x")


def plot_local_ridge(
    dt: xr.DataTree, *, group: str = "local_ridge", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the local ridge divided by its mean, and the weights of the data, against the input.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables ridge (point)
        and weight (point), from `bayesrg.rg.local_ridge` and `bayesrg.rg.data_weights`, and maybe
        the inputs X. If X has one column, it is the horizontal axis. Otherwise points are sorted by
        their ridge.
    """
    local = group_of(dt, group, "ridge", "weight")
    ridge, weight = local["ridge"].to_numpy(), local["weight"].to_numpy()
    if "X" in local and local["X"].size == ridge.size:
        position, axis = local["X"].to_numpy().ravel().astype(float), "input"
    else:
        position, axis = np.argsort(np.argsort(ridge)) + 1.0, "point, in order of its ridge"
    order = np.argsort(position)
    values = {"local ridge / mean": ridge / ridge.mean(), "data weight": weight}
    parts = {name: {"x": position[order], "y": y[order]} for name, y in values.items()}
    pc = curves(parts, "quantity", backend=backend, **pc_kwargs)
    mark(pc, "mean", y=1.0)
    title = f"local ridge (a variance); its mean is {ridge.mean():.3g}"
    return decorate(pc, x=axis, y="relative to the mean", title=title, log="y")


def _kept(flow):
    """Return a flow without cutoff 0, which a logarithmic axis cannot show."""
    return flow.isel(cutoff=flow["cutoff"] > 0)


def _mark_stop(pc, flow):
    """Mark the cutoff at which the flow stops, and return it; if it has draws, their median."""
    stop = float(np.median(flow["stop"])) if "stop" in flow else float(flow.attrs["stop"])
    if stop > 0:
        mark(pc, "stop", x=stop)
    return stop
