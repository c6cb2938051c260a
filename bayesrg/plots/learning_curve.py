# SPDX-License-Identifier: Apache-2.0
"""Learning curves: theory, experiment, and slopes to compare with."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import decorate, group_of, has, lines_and_points, mark

_QUANTITIES = {
    "generalisation": "squared error on noiseless labels",
    "test": "squared error on noisy labels",
    "train": "squared error on training labels",
    "log_evidence": "log evidence (nats)",
}


def plot_learning_curve(
    dt: xr.DataTree,
    *,
    group: str = "learning_curve",
    quantity: str = "generalisation",
    label: str = "theory",
    experiment: str | Mapping[str, str] | None = "learning_curve_mc",
    also: Mapping[str, str] | None = None,
    slopes: Sequence = (),
    rank: float | int | None = None,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot an error against the number of points: theory as a line, experiments as points.

    Parameters
    ----------
    dt : DataTree
        Groups that `bayesrg.io.label` makes of a `bayesrg.theory.Curve` or ``Equivalent`` and of
        a `bayesrg.theory.CurveMC`.
    group : str
        The theory.
    quantity : str
        A variable of both: "generalisation", "test", "train", "log_evidence", ...
    label : str
        What the theory is called in the legend.
    experiment : str or mapping, optional
        Group of the experiment, drawn with bars of one standard error if it is there; or from
        labels to groups, whose points have the colour of the line of that label.
    also : mapping, optional
        Further lines: from their label to their group, which holds ``quantity`` over n_train.
    slopes : sequence of numbers
        Exponents b: lines n^-b through the last point of the theory.
    rank : float, optional
        Number of features, marked: without a ridge the error diverges there.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    slopes = np.asarray(_checks.finite("slopes", slopes, ndim=1))
    rank = rank if rank is None else _checks.number("rank", rank, above=0)
    lines = {
        name: over_sizes(dt, where, quantity)
        for name, where in ({label: group} | dict(also or {})).items()
    }
    theory = lines[label]
    for slope in slopes:
        last = theory["y"][-1] * (theory["x"] / theory["x"][-1]) ** -float(slope)
        lines[f"slope {-slope:.3g}"] = {"x": theory["x"], "y": last}
    if not isinstance(experiment, Mapping):
        experiment = {"experiment": experiment} if has(dt, experiment) else {}
    points = {name: over_sizes(dt, where, quantity) for name, where in experiment.items()}
    pc = lines_and_points(lines, points, "line", backend=backend, **pc_kwargs)
    text = _QUANTITIES.get(quantity, quantity)
    title = "points: experiments with their standard errors" if points else "learning curve"
    if rank is not None:
        mark(pc, "rank", x=float(rank))
        title += f" (dashed: {rank:g} features)"
    scale = "linear" if quantity == "log_evidence" else "log"
    return decorate(pc, x="training points", y=text, title=title, yscale=scale)


def over_sizes(dt, group, quantity):
    """A curve of a group, sorted by the number of points, with bars where there are errors."""
    curve = group_of(dt, group, quantity).sortby("n_train")
    y = curve[quantity].to_numpy()
    part = {"x": curve["n_train"].to_numpy().astype(float), "y": y}
    if f"{quantity}_error" in curve:
        error = curve[f"{quantity}_error"].to_numpy()
        # a bar that would reach zero ends at a tenth of its point, which a logarithm can show
        low = y - error if quantity == "log_evidence" else np.maximum(y - error, 0.1 * y)
        part |= {"y_bottom": low, "y_top": y + error}
    return part
