# SPDX-License-Identifier: Apache-2.0
"""Spectrum of a kernel: what a data set can learn of it."""

import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, mark


def plot_spectrum(
    dt: xr.DataTree, *, group: str = "spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot eigenvalues, learnable ones apart, and the running ridge over n at the stop.

    Parameters
    ----------
    dt : DataTree
        With the groups of `bayesrg.io.flow_to_datatree`.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    spectrum = group_of(dt, group)
    spectrum = spectrum.assign_coords(mode=spectrum["mode"] + 1)
    values = spectrum["values"].where(spectrum["values"] > 0)
    learnt = spectrum["mode"] <= spectrum.attrs["stop"]
    kinds = xr.IndexVariable("kind", ["learnable", "not learnable"])
    both = xr.concat([values.where(learnt), values.where(~learnt)], dim=kinds)
    pc = curves(both, "mode", "kind", scatter=True, backend=backend, **pc_kwargs)
    level = spectrum.attrs["ridge_at_stop"] / spectrum.attrs["n"]
    mark(pc, "ridge", y=level)
    title = "eigenvalues and running ridge / n (line)"
    return decorate(pc, x="mode", y="eigenvalue (variance)", title=title)
