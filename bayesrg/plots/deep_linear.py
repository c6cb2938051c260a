# SPDX-License-Identifier: Apache-2.0
"""Plots of deep linear networks: order parameter, growth of features, evidence against depth."""

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from .._checks import ArrayLike
from ..deep_linear import prior_density
from ._curves import (
    SAMPLE,
    curves,
    decorate,
    group_of,
    lines_and_points,
    mark,
    split,
    theory_and_runs,
)


def plot_order_parameter(
    dt: xr.DataTree,
    *,
    saddle: ArrayLike | None = None,
    group: str = "feature_learning",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot posterior and prior density of the logarithm of the order parameter.

    With several outputs each eigenvalue has a curve. At infinite width the logarithm is 0.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is made by
        `bayesrg.diagnostics.feature.measure_deep_linear`. With one output the prior density is
        computed exactly. With several it is that of the draws in ``{group}_prior``, if these exist.
    saddle : () or (c,) positive, optional
        Order parameter at the saddle point, or its eigenvalues. Dashed lines mark them.
    """
    draws = group_of(dt, group, "log_q_eig")
    log_q, prior = draws["log_q_eig"], f"{group}_prior"
    parts = _densities(log_q, "posterior")
    widths = np.atleast_1d(draws.attrs.get("widths", ()))  # netCDF makes one entry a scalar
    if log_q.sizes["output"] == 1 and widths.size:
        sd = np.sqrt((2.0 / widths).sum())
        x = np.linspace(min(float(log_q.min()), -3 * sd), max(float(log_q.max()), 3 * sd), 300)
        parts["prior"] = {"x": x, "y": prior_density(widths.astype(float), x)}
    elif prior in dt.children:
        parts |= _densities(group_of(dt, prior, "log_q_eig")["log_q_eig"], "prior")
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    mark(pc, "infinite_width", x=0.0)
    title = "order parameter; dashed: infinite width (0)"
    if saddle is not None:
        for i, q in enumerate(np.atleast_1d(_checks.positive("saddle", saddle, ndim=(0, 1)))):
            mark(pc, "saddle" if i == 0 else f"saddle_{i + 1}", x=float(np.log(q)))
        title += " and saddle"
    return decorate(pc, x="log order parameter", y="density", title=title, log="")


def _densities(log_q, label):
    """Return kernel density estimates of the eigenvalues that are finite and not constant."""
    parts = {}
    for i in range(log_q.sizes["output"]):
        one = log_q.isel(output=i, drop=True).transpose(*SAMPLE)
        if np.isfinite(one).all() and float(one.std()) > 0:
            curve = az.kde(one)
            name = label if log_q.sizes["output"] == 1 else f"{label}, eigenvalue {i + 1}"
            parts[name] = {axis: curve.sel(plot_axis=axis).to_numpy() for axis in ("x", "y")}
    if not parts:
        raise ValueError(
            f"no order parameter of the {label} moves: all draws are equal or not finite, so there "
            "is no density to plot; check the sampler"
        )
    return parts


def plot_lazy_to_rich(
    dt: xr.DataTree, *, group: str = "lazy_to_rich", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the growth of features against the richness: wide limit as lines, runs as points.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable growth
        (richness), and maybe further axes, such as layer or depth: the limit of wide layers. Runs
        have the growth at finite width.
    """
    lines, points = theory_and_runs(dt, group, "growth", lambda f: split(f["growth"], "richness"))
    pc = lines_and_points(lines, points, "law", backend=backend, **pc_kwargs)
    title = "lines: wide layers; points: finite width" if points else "from lazy (1) to rich"
    return decorate(pc, x="richness", y="growth of the features", title=title)


def plot_evidence_by_depth(
    dt: xr.DataTree, *, group: str = "depth", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the log evidence against the depth, and say where it is greatest.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable log_evidence over
        depth, or over effective_depth (points times depth / width), and maybe one more axis, such
        as width, with a curve for each entry.
    """
    evidence = group_of(dt, group, "log_evidence")["log_evidence"]
    along = "depth" if "depth" in evidence.dims else "effective_depth"
    parts = split(evidence, along)
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    best = [part["x"][np.argmax(part["y"])] for part in parts.values()]
    title = "evidence; greatest at " + ", ".join(f"{x:.3g}" for x in best)
    text = "hidden layers" if along == "depth" else "effective depth, points x layers / width"
    return decorate(pc, x=text, y="log evidence (nats)", title=title, log="x")
