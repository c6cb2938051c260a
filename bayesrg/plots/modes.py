# SPDX-License-Identifier: Apache-2.0
"""Plot of the posterior of the low modes, for one or several models."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from arviz import PlotCollection, rcParams

from .. import _checks
from ._curves import SAMPLE, curves, decorate, group_of, line, mark


def plot_modes(
    dt: xr.DataTree,
    *,
    others: Mapping[str, xr.DataTree] | None = None,
    label: str = "posterior",
    var_name: str = "y_modes",
    modes: int | None = None,
    group: str = "posterior",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot medians and credible intervals of the low modes.

    Parameters
    ----------
    dt : DataTree
        Has the variable ``var_name`` over chain, draw and mode.
    others : mapping, optional
        Further trees to draw beside ``dt``: a dictionary from label to tree, such as
        ``{"coarse": dt_coarse}``.
    label : str
        Name of ``dt`` in the legend, such as "full".
    var_name : str
        Site of the modes.
    modes : int, optional
        Number of modes to show; by default that of the tree with the fewest modes.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection

    Raises
    ------
    ValueError
        If the variable has other axes than chain, draw and one more.
    """
    modes = modes if modes is None else _checks.whole("modes", modes)
    _checks.instance("label", label, str, "text")
    trees = {label: dt} | dict(others or {})
    found = {name: group_of(tree, group, var_name)[var_name] for name, tree in trees.items()}
    for name, variable in found.items():
        if variable.ndim != 3 or not set(SAMPLE) < set(variable.dims):
            raise ValueError(
                f"{var_name!r} of {name!r} has dims {variable.dims}; select down to chain, draw "
                "and one axis of modes"
            )
    found = {name: v.transpose(..., *SAMPLE) for name, v in found.items()}
    fewest = min(v.shape[0] for v in found.values())
    shown = fewest if modes is None else min(modes, fewest)

    middle = (len(found) - 1) / 2  # models stand side by side around the number of the mode
    parts = {
        name: line(v[:shown], np.arange(1, shown + 1) + 0.15 * (i - middle))
        for i, (name, v) in enumerate(found.items())
    }
    pc = curves(parts, "model", scatter=True, backend=backend, **pc_kwargs)
    mark(pc, "prior", y=0.0)
    probability = rcParams["stats.ci_prob"]
    title = f"low modes: median and {probability:.0%} interval; the prior is Normal(0, 1)"
    return decorate(
        pc, x="mode", y="coefficient (prior s.d.)", title=title, xscale="linear", yscale="linear"
    )
