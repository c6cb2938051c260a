# SPDX-License-Identifier: Apache-2.0
"""Ticks, legends and colour bars that need Matplotlib itself; other backends do without them."""

import numpy as np
from arviz import PlotCollection

_DECADES = 2.5  # an axis of fewer decades is short


def short_axes(pc: PlotCollection):
    """Write plain numbers at 1, 2 and 5 of each decade, on every logarithmic axis that is short."""
    if pc.backend != "matplotlib":
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axes in pc.viz["plot"].values.flat:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            if axis.get_scale() == "log" and np.log10(high / low) < _DECADES:
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())


def slanted(pc: PlotCollection):
    """Slant the labels of the horizontal axes, so that long ones do not overlap."""
    if pc.backend != "matplotlib":
        return
    for axes in pc.viz["plot"].values.flat:
        for label in axes.get_xticklabels():
            label.set(rotation=30, horizontalalignment="right", rotation_mode="anchor")


def point_entries(pc: PlotCollection, by: str, names):
    """Show the entries ``names`` of the legend as points instead of lines."""
    if pc.backend != "matplotlib":
        return
    legend = pc.viz["legend"][by].item()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        if text.get_text() in names:
            handle.set(linestyle="none", marker="o")


def colour_bars(pc: PlotCollection, name: str):
    """Add a colour bar to each panel whose contours are stored as ``name``."""
    if pc.backend != "matplotlib":
        return
    from matplotlib.ticker import MaxNLocator

    for contours in pc.viz[name][name].values.flat:
        contours.axes.figure.colorbar(contours, ax=contours.axes, ticks=MaxNLocator(5))


def equal_scales(pc: PlotCollection):
    """Give both axes of each panel the same scale, so that angles are those of the plane."""
    if pc.backend != "matplotlib":
        return
    for axes in pc.viz["plot"].values.flat:
        axes.set_aspect("equal", adjustable="datalim")
