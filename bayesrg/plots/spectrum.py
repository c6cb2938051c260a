# SPDX-License-Identifier: Apache-2.0
"""Plots of the spectrum of a kernel, and of how much of it a data set can learn."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from .._checks import ArrayLike
from ._curves import curves, decorate, group_of, line, mark


def plot_spectrum(
    dt: xr.DataTree, *, group: str = "spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot eigenvalues, with learnable ones in another colour, and the ridge / n at the stop.

    Parameters
    ----------
    dt : DataTree
        Has the groups of `bayesrg.io.flow_to_datatree`.
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
    spectrum = group_of(dt, group, "values")
    values = spectrum["values"].where(spectrum["values"] > 0)
    learnt = spectrum["mode"] < spectrum.attrs["stop"]
    kinds = {"learnable": learnt, "not learnable": ~learnt}
    parts = {kind: line(values.where(those), values["mode"] + 1) for kind, those in kinds.items()}
    pc = curves(parts, "kind", scatter=True, backend=backend, **pc_kwargs)
    level = spectrum.attrs["ridge_at_stop"] / spectrum.attrs["n"]
    mark(pc, "ridge", y=level)
    title = "eigenvalues and running ridge / n (line)"
    return decorate(pc, x="mode", y="eigenvalue (variance)", title=title)


def plot_learnability(
    dt: xr.DataTree,
    *,
    group: str = "learning_curve",
    threshold: ArrayLike | None = 0.5,
    n: ArrayLike | None = None,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the learnability of every mode, one curve per number of training points.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable learnability. Its axes are (n_train, mode), as
        `bayesrg.io.label` makes of a `bayesrg.theory.Curve`; or (mode), the group spectrum of a
        flow; or (chain, draw, mode), of which median and credible band are shown.
    group : str
        Group of ``dt`` that is plotted.
    threshold : float, optional
        Level that a dashed line marks. With None there is no line.
    n : (s,), optional
        Numbers of training points to show. For each the nearest in the group is drawn. By default
        all are drawn, or six of them, evenly spread.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    threshold = threshold if threshold is None else _checks.number("threshold", threshold)
    n = n if n is None else np.asarray(_checks.positive("n", n, ndim=(0, 1)), float)
    if n is not None and not n.size:
        raise ValueError("n is empty; give a number of points, or leave it out")
    curve = group_of(dt, group, "learnability")
    learnt = curve["learnability"]
    if "n_train" not in learnt.dims:
        count = curve.attrs.get("n", np.nan)
        learnt = learnt.expand_dims(n_train=[float(count)])
    elif n is not None:
        learnt = learnt.sel(n_train=np.atleast_1d(n), method="nearest")
    else:
        size = learnt.sizes["n_train"]
        learnt = learnt.isel(n_train=np.unique(np.linspace(0, size - 1, 6).round().astype(int)))
    parts = {
        f"n = {float(count):g}": line(learnt.isel(n_train=i), learnt["mode"] + 1)
        for i, count in enumerate(learnt["n_train"].values)
    }
    pc = curves(parts, "n", backend=backend, **pc_kwargs)
    title = "how much of each mode the data determine"
    if threshold is not None:
        mark(pc, "threshold", y=float(threshold))
        title += f" (dashed: threshold {threshold:g})"
    return decorate(pc, x="mode", y="learnability", title=title, yscale="linear")
