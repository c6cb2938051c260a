# SPDX-License-Identifier: Apache-2.0
"""Plot of learning curves: theory, experiment, and slopes for comparison."""

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
        Has groups that `bayesrg.io.label` makes of a `bayesrg.theory.Curve` or ``Equivalent``
        and of the result of `bayesrg.theory.learning_curve_mc`.
    group : str
        Group of the theory.
    quantity : str
        A variable of both groups: "generalisation", "test", "train", "log_evidence", ...
    label : str
        Name of the theory in the legend.
    experiment : str or mapping, optional
        Group of the experiment, drawn with bars of one standard error if it exists. Or a
        dictionary from label to group: points have the colour of the line with that label.
    also : mapping, optional
        Further lines: a dictionary from label to group. A group has ``quantity`` over n_train.
    slopes : sequence of numbers
        For each exponent b a line n^-b through the last point of the theory.
    rank : float, optional
        Number of features. A dashed line marks it; without a ridge the error diverges there.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
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
    """Return a quantity of a group over the number of points, with error bars if it has errors."""
    curve = group_of(dt, group, quantity).sortby("n_train")
    y = curve[quantity].to_numpy()
    part = {"x": curve["n_train"].to_numpy().astype(float), "y": y}
    if f"{quantity}_error" in curve:
        error = curve[f"{quantity}_error"].to_numpy()
        # a logarithmic axis cannot show 0: bars end at a tenth of the value, or above
        low = y - error if quantity == "log_evidence" else np.maximum(y - error, 0.1 * y)
        part |= {"y_bottom": low, "y_top": y + error}
    return part
