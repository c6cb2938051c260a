# SPDX-License-Identifier: Apache-2.0
"""Plots of random networks: eigenvalues of features, and errors of the linearised covariance."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import canvas, decorate, draw, group_of, has
from ._panels import draw_panels, open_panels, scale_and_name

_ZERO = 1e-12  # of the largest eigenvalue


def plot_spectral_density(
    dt: xr.DataTree,
    *,
    group: str = "spectral_density",
    sample: str | None = "sample_spectrum",
    bins: int = 40,
    log: bool = False,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the histogram of eigenvalues of a sample covariance, and their density in theory.

    Parameters
    ----------
    dt : DataTree
        Has the group that `bayesrg.io.label` makes of the result of
        `bayesrg.theory.spectral_density`, and maybe a group with the variable values: all
        eigenvalues of a sample, along any axes, zeros included.
    group : str
        Group of the theory.
    sample : str, optional
        Group of the eigenvalues. It is drawn if it exists.
    bins : int
        Number of bins of the histogram.
    log : bool
        Whether to plot the density of the natural logarithm of eigenvalues. Use it for spectra
        that span several decades.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Eigenvalues of 0 are not drawn; the title has their share.
    """
    bins, log = _checks.whole("bins", bins, most=10**6), _checks.flag("log", log)
    theory = group_of(dt, group, "density")
    x, y = theory["grid"].to_numpy(), theory["density"].to_numpy()
    parts = {}
    title = f"share of zero eigenvalues: {theory.attrs['atom']:.1%} in theory"
    if has(dt, sample):
        values = group_of(dt, sample, "values")["values"].to_numpy().ravel()
        there = values[values > _ZERO * values.max()]
        parts["sample"] = _steps(np.log(there) if log else there, bins, values.size)
        if log:
            parts["sample"]["x"] = np.exp(parts["sample"]["x"])
        title += f", {1 - there.size / values.size:.1%} in the sample"
    # the density of log x is x times the density of x
    parts["theory"] = {"x": x, "y": x * y if log else y}
    pc = canvas(list(parts), "law", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "law", parts)
    scale = "log" if log else "linear"
    text = "density of its logarithm" if log else "density"
    return decorate(pc, x="eigenvalue", y=text, title=title, xscale=scale, yscale="linear")


def _steps(values, bins, count):
    """Return a histogram as a curve of steps over a filled band.

    Its area is the number of values divided by ``count``.
    """
    heights, edges = np.histogram(values, bins=bins)
    y = np.repeat(heights / (count * np.diff(edges)), 2)
    return {"x": np.repeat(edges, 2)[1:-1], "y": y, "y_bottom": np.zeros_like(y), "y_top": y}


def plot_linearisation_error(
    dt: xr.DataTree, *, group: str = "linearisation", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the relative error of a linearised covariance against the width, by layer and method.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable error (method, layer, width): the norm of the difference
        between linearised and true covariance, divided by the norm of the true one.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        One panel per layer.
    """
    error = group_of(dt, group, "error")["error"].sortby("width")
    error = error.transpose("layer", "method", "width")
    panels = [f"layer {layer}" for layer in error["layer"].to_numpy()]
    methods = [str(method) for method in error["method"].to_numpy()]
    pc = open_panels(panels, "method", methods, backend=backend, **pc_kwargs)
    width = error["width"].to_numpy().astype(float)
    parts = {
        panel: {name: {"x": width, "y": y} for name, y in zip(methods, layer, strict=True)}
        for panel, layer in zip(panels, error.to_numpy(), strict=True)
    }
    draw_panels(pc, "method", parts)
    y = dict.fromkeys(panels, "relative error of the covariance")
    title = {panel: panel for panel in panels}
    return scale_and_name(pc, x="width", y=y, title=title, xscale="linear", log_y=panels)
