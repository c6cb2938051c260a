# SPDX-License-Identifier: Apache-2.0
"""Plot of the eigenvalues of features of a random network."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import canvas, decorate, draw, group_of, steps

_ZERO = 1e-12  # of the largest eigenvalue


def plot_spectral_density(
    dt: xr.DataTree, *, group: str = "spectral_density", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the density of the logarithms of eigenvalues in theory, and the histogram of a sample.

    Eigenvalues of 0 are not drawn; the title has their share.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is what
        `bayesrg.theory.spectral_density` returns. The group of runs has the variable values: all
        eigenvalues of samples, along any axes, zeros included.
    """
    theory, runs = group_of(dt, group, "density"), f"{group}_run"
    title = f"share of zero eigenvalues: {theory.attrs['atom']:.1%} in theory"
    parts = {}
    if runs in dt.children:
        values = group_of(dt, runs, "values")["values"].to_numpy().ravel()
        there = values[values > _ZERO * values.max()]
        parts["sample"] = steps(np.log(there), values.size)
        parts["sample"]["x"] = np.exp(parts["sample"]["x"])
        title += f", {1 - there.size / values.size:.1%} in the sample"
    x = theory["grid"].to_numpy()
    # the density of log x is x times the density of x
    parts["theory"] = {"x": x, "y": x * theory["density"].to_numpy()}
    pc = canvas(list(parts), "law", styles=False, backend=backend, **pc_kwargs)
    draw(pc, "law", parts)
    return decorate(pc, x="eigenvalue", y="density of its logarithm", title=title, log="x")
