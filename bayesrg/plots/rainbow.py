# SPDX-License-Identifier: Apache-2.0
"""Random networks: eigenvalues of their features, and errors of their linearised covariance."""

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
    """Plot the histogram of a sample covariance's eigenvalues and their density in theory.

    Parameters
    ----------
    dt : DataTree
        With what `bayesrg.io.label` makes of a `bayesrg.theory.Density`, and a group of values:
        eigenvalues along any axes, zeros included.
    group : str
        The theory.
    sample : str, optional
        Group of the eigenvalues, drawn if it is there.
    bins : int
    log : bool
        Whether the density is that of the natural logarithm of eigenvalues, for a spectrum of
        several decades.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Eigenvalues that are zero are counted in the title, and not drawn.
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
    parts["theory"] = {"x": x, "y": x * y if log else y}
    pc = canvas(list(parts), "law", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "law", parts)
    scale = "log" if log else "linear"
    text = "density of its logarithm" if log else "density"
    return decorate(pc, x="eigenvalue", y=text, title=title, xscale=scale, yscale="linear")


def _steps(values, bins, count):
    """Histogram as a curve of steps over a band that fills it; its area is the share of count."""
    heights, edges = np.histogram(values, bins=bins)
    y = np.repeat(heights / (count * np.diff(edges)), 2)
    return {"x": np.repeat(edges, 2)[1:-1], "y": y, "y_bottom": np.zeros_like(y), "y_top": y}


def plot_linearisation_error(
    dt: xr.DataTree, *, group: str = "linearisation", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot how much a linearised covariance errs against the width, by layer and method.

    Parameters
    ----------
    dt : DataTree
        With a group of error over method, layer and width: norms of the difference over that of
        the true covariance.
    group : str
    backend, **pc_kwargs : as in `plot_spectral_density`

    Returns
    -------
    PlotCollection
        With a panel for each layer.
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
