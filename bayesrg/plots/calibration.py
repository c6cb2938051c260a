# SPDX-License-Identifier: Apache-2.0
"""Plots of calibration: test error over predictive variance, and the best ridges for two aims."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from .. import _checks
from ._curves import curves, decorate, group_of, mark
from ._panels import open_panels, scale_and_name
from .learning_curve import over_sizes


def plot_calibration(
    dt: xr.DataTree,
    *,
    group: str = "equivalent",
    label: str = "theory",
    also: Mapping[str, str] | None = None,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the test error over the predictive variance against the number of points.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable calibration (n_train), which `bayesrg.io.label` makes of a
        `bayesrg.theory.Equivalent`.
    group : str
        Group of ``dt`` that is plotted.
    label : str
        Name of its line in the legend.
    also : mapping, optional
        Further lines: a dictionary from label to group.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        A dashed line marks 1. Above it the error is larger than the posterior expects.
    """
    names = {label: group} | dict(also or {})
    parts = {name: over_sizes(dt, where, "calibration") for name, where in names.items()}
    pc = curves(parts, "line", backend=backend, **pc_kwargs)
    mark(pc, "calibrated", y=1.0)
    title = "calibration; above 1 (dashed) is overconfident"
    text = "test error / predictive variance"
    return decorate(pc, x="training points", y=text, title=title)


def plot_ridge_criteria(
    dt: xr.DataTree,
    *,
    n: float | int | None = None,
    group: str = "optimal_ridge",
    evidence: str = "optimal_ridge_evidence",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot test error and log evidence against the ridge, and where each is best.

    Parameters
    ----------
    dt : DataTree
        Has two groups that `bayesrg.io.label` makes of results of `bayesrg.theory.optimal_ridge`:
        one for the test error, one for the evidence.
    n : float, optional
        Number of training points. The nearest that the groups have is shown, by default the first.
    group, evidence : str
        Groups for the test error and for the evidence.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        One panel for each criterion. Both best ridges are marked in both panels.
    """
    n = n if n is None else _checks.number("n", n)
    needed = ("grid_value", "ridge")
    panels = {"test error": group_of(dt, group, *needed)}
    panels["log evidence"] = group_of(dt, evidence, *needed)
    for name, found in panels.items():
        at = 0 if n is None else int(np.abs(found["n_train"].to_numpy() - float(n)).argmin())
        panels[name] = found.isel(n_train=at)

    names = list(panels)
    best = {name: float(found["ridge"]) for name, found in panels.items()}
    pc = open_panels(names, "best", names, backend=backend, **pc_kwargs)
    values = [np.stack([found["grid"], found["grid_value"]]) for found in panels.values()]
    shown = xr.concat(
        [xr.DataArray(v, dims=("plot_axis", "entry")) for v in values], "panel"
    ).assign_coords(panel=names, plot_axis=["x", "y"])

    unstyled = {"ignore_aes": "all", "color": "black", "width": 2}
    pc.map(visuals.line_xy, "curve", data=shown.to_dataset(name="curve"), **unstyled)
    marks = np.broadcast_to(list(best.values()), (len(names), len(names)))
    marks = xr.Dataset({"curve": (("panel", "best"), marks)}, {"panel": names, "best": names})
    pc.map(visuals.vline, "optimum", data=marks, width=1.5)
    pc.add_legend("best", title="best ridge for")

    size = float(panels["test error"]["n_train"])
    words = dict(zip(names, ("least", "greatest"), strict=True))
    title = {name: f"{words[name]} at ridge {best[name]:.3g}" for name in names}
    y = dict(zip(names, ("squared error on noisy labels", "log evidence (nats)"), strict=True))
    x = f"ridge, at {size:g} training points"
    return scale_and_name(pc, x=x, y=y, title=title, log_y=names[:1])
