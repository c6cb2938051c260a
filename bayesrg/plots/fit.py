# SPDX-License-Identifier: Apache-2.0
"""Plot of data and predictions of a fitted model against one input."""

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams

from .. import _checks
from ._curves import SAMPLE, canvas, decorate, draw, group_of
from ._matplotlib import point_entries

_KINDS = {"f": "the function", "y": "a new observation"}


def plot_fit(
    dt: xr.DataTree,
    *,
    x: str | int | None = None,
    var_name: str = "f",
    group: str = "predictions",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the data, and mean and credible band of the predictions, against one input.

    Each output has a panel. Each point has its own Monte Carlo error; with more draws the curves
    become smoother.

    Parameters
    ----------
    dt, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The tree is the result of `bayesrg.fit`,
        with the groups of `bayesrg.predict` added: ``dt.update(predict(dt, ...).children)``. A tree
        without observed_data is drawn without data.
    x : str or int, optional
        The input on the horizontal axis, needed if X has several columns. Give an entry of the
        coordinate ``feature`` of X (the number of a column, unless you named them), or the name of
        another variable over the points.
    var_name : str
        "f": the function. "y": a new observation; its band contains the noise. The group
        prior_predictive has only the observed site.
    group : str
        "predictions": at new inputs. "posterior_predictive": at the training inputs.
        "prior_predictive": at the training inputs, drawn from the prior by `bayesrg.fit`.

    Raises
    ------
    ValueError
        If X has several columns and ``x`` is not given, if other columns of X vary as well, or if
        the variables have axes besides points and outputs.
    """
    drawn = group_of(dt, group, var_name)[var_name]
    inputs = "predictions_constant_data" if "point_new" in drawn.dims else "constant_data"
    along, name = _along(dt, inputs, x, curve=True)
    drawn = _by_panel(var_name, drawn, along, SAMPLE).sortby(along)
    panels = drawn["panel"].to_numpy().tolist()
    band = az.eti(drawn, dim=list(SAMPLE))
    shown = {
        "x": along.sortby(along),
        "y": drawn.mean(SAMPLE),
        "y_bottom": band.sel(ci_bound="lower"),
        "y_top": band.sel(ci_bound="upper"),
    }
    model = f"mean and {rcParams['stats.ci_prob']:.0%} band"
    what, label, points = _KINDS.get(var_name, var_name), var_name, {}
    if "observed_data" in dt.children:
        at = _along(dt, "constant_data", x)[0]
        label, values = _data(dt)
        values = _by_panel(label, values, at)
        if values.sizes["panel"] != len(panels):
            raise ValueError(
                f"{label!r} has {values.sizes['panel']} outputs and {var_name!r} {len(panels)}; "
                "keep in observed_data the site that was predicted"
            )
        points = {"x": at, "y": values}
        what += " under the prior" if group.startswith("prior") else f" given {at.size} points"

    names = [model, "data"] if points else [model]
    pc = canvas(names, "part", panels=panels, backend=backend, **pc_kwargs)
    draw(pc, "part", _sheets(panels, model, shown), legend=False)
    if points:
        draw(pc, "part", _sheets(panels, "data", points), scatter=True, legend=False)
        pc.add_legend("part", title=what if len(panels) > 1 else "")
        point_entries(pc, "part", ["data"])
    title = {panel: panel if len(panels) > 1 else what for panel in panels}
    return decorate(pc, x=name, y=label, title=title, log="")


def _sheets(panels, name, part):
    """Return the part ``name`` of every panel; its arrays may have an axis of panels."""
    return {
        panel: {name: {axis: v.isel(panel=i, missing_dims="ignore") for axis, v in part.items()}}
        for i, panel in enumerate(panels)
    }


def _along(dt, group, x, curve=False):
    """Return the values of the horizontal axis, one per point, and its name.

    With ``curve`` the other columns of X must be constant.
    """
    inputs = group_of(dt, group, "X")
    X = inputs["X"]
    if X.ndim == 1:
        X = X.expand_dims("feature", 1).assign_coords(feature=[0])
    if isinstance(x, str) and x in inputs.variables and inputs[x].dims == X.dims[:1]:
        return inputs[x], x
    columns = X["feature"].to_numpy().tolist()
    if x is None and len(columns) == 1:
        x = columns[0]
    if isinstance(x, bool) or not np.isscalar(x) or x not in columns:
        names = [repr(column) for column in columns]
        names = names if len(names) <= 10 else [*names[:9], "..., " + names[-1]]
        raise ValueError(
            f"x must name one of the columns of X, {', '.join(names)}, or another variable over "
            f"the points of group {group!r}, got {_checks.shown(x)}; choose the one for the "
            "horizontal axis"
        )
    others = X.drop_sel(feature=x)
    if curve and (others != others[0]).any():
        raise ValueError(
            f"a curve along {x!r} would join points that differ in other columns of X too; predict "
            "at rows in which only that column varies, or give as x a variable that orders the rows"
        )
    name = x if isinstance(x, str) else "x" if len(columns) == 1 else f"column {x}"
    return X.sel(feature=x, drop=True), name


def _data(dt):
    """Return name and values of the observed site."""
    there = group_of(dt, "observed_data")
    names = list(there.data_vars)
    if len(names) != 1:
        raise ValueError(
            f"observed_data has the sites {', '.join(map(repr, names))}, and one can be drawn; "
            'keep that one, dt["observed_data"] = dt["observed_data"].to_dataset()[["name"]]'
        )
    return names[0], there[names[0]]


def _by_panel(name, values, along, lead=()):
    """Return ``values`` with the axis of outputs renamed to panel, of length 1 if there is none.

    ``along`` are the values of the horizontal axis, ``lead`` the axes of draws.
    """
    (point,) = along.dims
    own = [d for d in values.dims if d not in lead][-1:]
    if point not in values.dims and [values.sizes[d] for d in own] == [along.size]:
        # the plate of the points may have another name in the model
        values = values.drop_vars(own, errors="ignore").rename({own[0]: point})
    rest = [d for d in values.dims if d not in (*lead, point)]
    missing = {*lead, point} - set(values.dims)
    if missing or len(rest) > 1:
        raise ValueError(
            f"{name!r} has dims {values.dims}; select down to {', '.join((*lead, point))} and at "
            "most one axis of outputs"
        )
    if not rest:
        return values.expand_dims(panel=[name])
    labels = [f"{rest[0]} {entry}" for entry in values[rest[0]].to_numpy()]
    return values.rename({rest[0]: "panel"}).assign_coords(panel=labels)
