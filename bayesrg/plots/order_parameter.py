# SPDX-License-Identifier: Apache-2.0
"""Plot of the posterior of the order parameter of a deep linear network."""

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from .._checks import ArrayLike
from ..deep_linear import prior_density
from ._curves import SAMPLE, curves, decorate, group_of, has, mark


def plot_order_parameter(
    dt: xr.DataTree,
    *,
    saddle: ArrayLike | None = None,
    group: str = "feature_learning",
    prior: str | None = "feature_learning_prior",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot posterior and prior density of the logarithm of the order parameter.

    With several outputs each eigenvalue has a curve. At infinite width the logarithm is 0.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.diagnostics.feature.measure_deep_linear`.
    saddle : () or (c,) positive, optional
        Order parameter at the saddle point, or its eigenvalues. Lines mark them.
    group : str
        Group of ``dt`` that is plotted.
    prior : str, optional
        Group of draws from the prior, used with several outputs. With one output the prior density
        is computed exactly.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    draws, drawn_before = group_of(dt, group, "log_q_eig"), has(dt, prior)
    parts = _densities(draws["log_q_eig"], "posterior")
    widths = np.atleast_1d(draws.attrs.get("widths", ()))  # netCDF makes one entry a scalar
    if draws.sizes["output"] == 1 and widths.size:
        low, high = (float(f(draws["log_q_eig"])) for f in (np.min, np.max))
        sd = np.sqrt((2.0 / np.asarray(widths, float)).sum())
        x = np.linspace(min(low, -3 * sd), max(high, 3 * sd), 300)
        parts["prior"] = {"x": x, "y": prior_density(np.asarray(widths, float), x)}
    elif drawn_before:
        parts |= _densities(group_of(dt, prior, "log_q_eig")["log_q_eig"], "prior")
    pc = curves(parts, "law", backend=backend, **pc_kwargs)
    mark(pc, "infinite_width", x=0.0)
    title = "order parameter; dashed: infinite width (0)"
    if saddle is not None:
        for i, q in enumerate(np.atleast_1d(_checks.positive("saddle", saddle, ndim=(0, 1)))):
            mark(pc, "saddle" if i == 0 else f"saddle_{i + 1}", x=float(np.log(q)))
        title += " and saddle"
    x, y = "log order parameter", "density"
    return decorate(pc, x=x, y=y, title=title, xscale="linear", yscale="linear")


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
