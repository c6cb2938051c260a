# SPDX-License-Identifier: Apache-2.0
"""Plot of data and predictions of a fitted model against one input."""

import arviz as az
import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams, visuals

from .. import _checks
from ._curves import SAMPLE, group_of, padded
from ._matplotlib import point_entries
from ._panels import open_panels, scale_and_name

_KINDS = {"f": "the function", "y": "a new observation"}


def plot_fit(
    dt: xr.DataTree,
    *,
    x: str | int | None = None,
    var_name: str = "f",
    site: str | None = None,
    group: str = "predictions",
    observed: str | None = "observed_data",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the data, and mean and credible band of the predictions, against one input.

    Parameters
    ----------
    dt : DataTree
        Result of `bayesrg.fit`, with the groups of `bayesrg.predict` added:
        ``dt.update(predict(dt, ...).children)``.
    x : str or int, optional
        The input on the horizontal axis, needed if X has several columns. Give an entry of the
        coordinate ``feature`` of X (the number of a column, unless you named them), or the name of
        another variable over the points.
    var_name : str
        "f": the function. "y": a new observation; its band contains the noise. The group
        prior_predictive has only the observed site.
    site : str, optional
        Observed site to show, needed if the model has several.
    group : str
        "predictions": at new inputs. "posterior_predictive": at the training inputs.
        "prior_predictive": at the training inputs, drawn from the prior by `bayesrg.fit`.
    observed : str, optional
        Group of the data. With None only predictions are drawn.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        One panel per output. The probability of the band is ArviZ's ``stats.ci_prob``. Each point
        has its own Monte Carlo error; with more draws the curves become smoother.

    Raises
    ------
    ValueError
        If X has several columns and ``x`` is not given, if other columns of X vary as well, or if
        the variables have axes besides points and outputs.
    """
    drawn = group_of(dt, group, var_name)[var_name]
    for what, value in (("site", site), ("observed", observed)):
        _checks.instance(what, value, str | None, "text, or None")
    inputs = "predictions_constant_data" if "point_new" in drawn.dims else "constant_data"
    along, name = _along(dt, inputs, x, curve=True)
    drawn = _by_panel(var_name, drawn, along, SAMPLE).sortby(along)

    band = az.eti(drawn, dim=list(SAMPLE))
    model = f"mean and {rcParams['stats.ci_prob']:.0%} band"
    found = {
        model: {
            "x": along.sortby(along),
            "y": drawn.mean(SAMPLE),
            "y_bottom": band.sel(ci_bound="lower"),
            "y_top": band.sel(ci_bound="upper"),
        }
    }
    what, label = _KINDS.get(var_name, var_name), var_name
    if observed is not None:
        at = _along(dt, "constant_data", x)[0]
        label, values = _data(dt, observed, site)
        values = _by_panel(label, values, at)
        _same_panels(label, values, var_name, drawn)
        found["data"] = {"x": at, "y": values}
        what += " under the prior" if group.startswith("prior") else f" given {at.size} points"

    panels = drawn["panel"].to_numpy().tolist()
    pc = open_panels(panels, "part", list(found), backend=backend, **pc_kwargs)
    unstyled = pc.aes_set - {"color"}
    data = _stacked(found, model, panels, ("x", "y_bottom", "y_top")).rename(plot_axis="kwarg")
    pc.map(visuals.fill_between_y, "band", data=data, ignore_aes=unstyled, alpha=0.25)
    pc.map(visuals.line_xy, "curve", data=_stacked(found, model, panels), width=2)
    if "data" in found:
        data = _stacked(found, "data", panels)
        pc.map(visuals.scatter_xy, "points", data=data, ignore_aes=unstyled, size=18)
        pc.add_legend("part", title=what if len(panels) > 1 else "")
        point_entries(pc, "part", ["data"])
    title = {panel: panel if len(panels) > 1 else what for panel in panels}
    return scale_and_name(pc, x=name, y=dict.fromkeys(panels, label), title=title, xscale="linear")


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
        raise ValueError(
            f"x must name one of the columns of X, {_listed(columns)}, or another variable over "
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


def _listed(names, most=10):
    """Return names as text; of more than ``most`` only the first ones and the last."""
    names = [repr(name) for name in names]
    return ", ".join(names if len(names) <= most else [*names[: most - 1], "..., " + names[-1]])


def _data(dt, group, site):
    """Return name and values of the observed site in a group of the tree."""
    if group not in dt.children:
        raise ValueError(
            f"the tree has no group {group!r}: it has predictions but no data; add the predictions "
            "to the tree of the fit by dt.update(predictions.children) and plot dt, or give "
            "observed=None to draw no data"
        )
    there = group_of(dt, group)
    site = next(iter(there.data_vars)) if site is None and len(there.data_vars) == 1 else site
    if site not in there.data_vars:
        names = ", ".join(map(repr, there.data_vars))
        raise ValueError(f"site must be one of {names}, got {site!r}")
    return site, there[site]


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


def _same_panels(name, values, other, drawn):
    """Raise if data and predictions have different numbers of outputs."""
    if values.sizes["panel"] != drawn.sizes["panel"]:
        raise ValueError(
            f"{name!r} has {values.sizes['panel']} outputs and {other!r} {drawn.sizes['panel']}; "
            "give as site the one that was predicted"
        )


def _stacked(found, part, panels, axes=("x", "y")):
    """Return one part of the plot in every panel, as a Dataset (panel, part, plot_axis, entry)."""
    curves = [
        {axis: v.isel(panel=i, missing_dims="ignore").to_numpy() for axis, v in found[part].items()}
        for i in range(len(panels))
    ]
    data = [padded("part", {part: curve}, axes) for curve in curves]
    return xr.concat(data, xr.DataArray(panels, dims="panel", name="panel"))
