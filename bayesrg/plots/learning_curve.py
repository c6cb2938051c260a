# SPDX-License-Identifier: Apache-2.0
"""Plots of learning curves in theory and experiment, of calibration, and of the best ridges."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection, visuals

from .. import _checks
from ._curves import (
    canvas,
    curves,
    decorate,
    group_of,
    lines_and_points,
    mark,
    padded,
    theory_and_runs,
    with_others,
)

_QUANTITIES = {
    "generalisation": "squared error on noiseless labels",
    "test": "squared error on noisy labels",
    "train": "squared error on training labels",
    "log_evidence": "log evidence (nats)",
}


def plot_learning_curve(
    dt: xr.DataTree,
    *,
    quantity: str = "generalisation",
    rank: float | int | None = None,
    group: str = "learning_curve",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot an error against the number of points: theory as lines, experiments as points.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The groups have ``quantity`` over n_train,
        as of a `bayesrg.theory.Curve` or ``Equivalent``. Experiments are what
        `bayesrg.theory.learning_curve_mc` returns, drawn with bars of one standard error.
    quantity : str
        Variable of all groups: "generalisation", "test", "train", "log_evidence", ...
    rank : float, optional
        Number of features. A dashed line marks it; without a ridge the error diverges there.
    """
    lines, points = {}, {}
    for name in with_others(group, also):

        def read(found, name=name):
            return {name: _over_sizes(found, quantity)}

        theory, runs = theory_and_runs(dt, name, quantity, read)
        lines, points = lines | theory, points | runs
    pc = lines_and_points(lines, points, "line", backend=backend, **pc_kwargs)
    title = "points: experiments with their standard errors" if points else "learning curve"
    if rank is not None:
        mark(pc, "rank", x=_checks.number("rank", rank, above=0))
        title += f" (dashed: {rank:g} features)"
    text = _QUANTITIES.get(quantity, quantity)
    log = "x" if quantity == "log_evidence" else "xy"
    return decorate(pc, x="training points", y=text, title=title, log=log)


def _over_sizes(found, quantity):
    """Return a quantity over the number of points as a part, with error bars if it has errors."""
    found = found.sortby("n_train")
    y = found[quantity].to_numpy()
    part = {"x": found["n_train"].to_numpy().astype(float), "y": y}
    if f"{quantity}_error" in found:
        error = found[f"{quantity}_error"].to_numpy()
        # a logarithmic axis cannot show 0: bars end at a tenth of the value, or above
        low = y - error if quantity == "log_evidence" else np.maximum(y - error, 0.1 * y)
        part |= {"y_bottom": low, "y_top": y + error}
    return part


def plot_calibration(
    dt: xr.DataTree,
    *,
    group: str = "equivalent",
    also: Sequence[str] = (),
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the test error over the predictive variance against the number of points.

    A dashed line marks 1. Above it the error is larger than the posterior expects.

    Parameters
    ----------
    dt, group, also, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The groups have the variable calibration
        (n_train), as of a `bayesrg.theory.Equivalent`.
    """
    groups = {name: group_of(dt, name, "calibration") for name in with_others(group, also)}
    parts = {name: _over_sizes(found, "calibration") for name, found in groups.items()}
    pc = curves(parts, "line", backend=backend, **pc_kwargs)
    mark(pc, "calibrated", y=1.0)
    title = "calibration; above 1 (dashed) is overconfident"
    return decorate(pc, x="training points", y="test error / predictive variance", title=title)


def plot_ridge_criteria(
    dt: xr.DataTree,
    *,
    n: float | int | None = None,
    group: str = "optimal_ridge",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot test error and log evidence against the ridge, in two panels, and where each is best.

    Both best ridges are marked in both panels.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group is what
        `bayesrg.theory.optimal_ridge` returns for the test error; ``{group}_evidence`` is its
        result for the evidence.
    n : float, optional
        Number of training points. The nearest that the groups have is shown, by default the first.
    """
    names = ("test error", "log evidence")
    panels = {}
    for name, where in zip(names, (group, f"{group}_evidence"), strict=True):
        found = group_of(dt, where, "grid_value", "ridge")
        sizes = found["n_train"].to_numpy()
        nearest = 0 if n is None else int(np.abs(sizes - _checks.number("n", n)).argmin())
        panels[name] = found.isel(n_train=nearest)

    best = [float(found["ridge"]) for found in panels.values()]
    pc = canvas(names, "best", panels=names, backend=backend, **pc_kwargs)
    both = {p: {"": {"x": found["grid"], "y": found["grid_value"]}} for p, found in panels.items()}
    black = {"ignore_aes": "all", "color": "black", "width": 2}
    pc.map(visuals.line_xy, "curve", data=padded("curves", both).isel(curves=0, drop=True), **black)
    ends = {"panel": list(names), "best": list(names)}
    marks = xr.Dataset({"curve": (("panel", "best"), [best, best])}, coords=ends)
    pc.map(visuals.vline, "optimum", data=marks, width=1.5)
    pc.add_legend("best", title="best ridge for")

    words = zip(names, ("least", "greatest"), best, strict=True)
    title = {panel: f"{word} at ridge {ridge:.3g}" for panel, word, ridge in words}
    y = dict(zip(names, ("squared error on noisy labels", "log evidence (nats)"), strict=True))
    x = f"ridge, at {float(panels['test error']['n_train']):g} training points"
    return decorate(pc, x=x, y=y, title=title, log={"test error": "xy", "log evidence": "x"})
