# SPDX-License-Identifier: Apache-2.0
"""Posterior of the order parameter of a deep linear network."""

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
    r"""Plot the posterior density of the logarithm of the order parameter over its prior.

    Its eigenvalues have a curve each. Infinite width is at zero.

    Parameters
    ----------
    dt : DataTree
        Of `bayesrg.diagnostics.feature.measure_deep_linear`.
    saddle : () or (c,) positive, optional
        Order parameter at the saddle point, or its eigenvalues: marked.
    group : str
    prior : str, optional
        Group of prior draws, used for several outputs: for one the density is exact.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
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
    """Kernel density of each eigenvalue that is finite and moves."""
    parts = {}
    for i in range(log_q.sizes["output"]):
        one = log_q.isel(output=i, drop=True).transpose(*SAMPLE)
        if np.isfinite(one).all() and float(one.std()) > 0:
            curve = az.kde(one)
            name = label if log_q.sizes["output"] == 1 else f"{label}, eigenvalue {i + 1}"
            parts[name] = {axis: curve.sel(plot_axis=axis).to_numpy() for axis in ("x", "y")}
    if not parts:
        raise ValueError(f"no order parameter of the {label} moves: there is no density to plot")
    return parts
