# SPDX-License-Identifier: Apache-2.0
"""Things that a reader needs and ArviZ leaves to Matplotlib; other backends skip them."""

import numpy as np
from arviz import PlotCollection

_DECADES = 2.5


def short_axes(pc: PlotCollection, scales: dict[str, str]):
    """Label 1, 2 and 5 in each decade of a short logarithmic axis, as plain numbers."""
    if pc.backend != "matplotlib":
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes = pc.get_viz("plot")
    for name, scale in scales.items():
        low, high = getattr(axes, f"get_{name}lim")()
        if scale == "log" and np.log10(high / low) < _DECADES:
            axis = getattr(axes, f"{name}axis")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def point_entries(pc: PlotCollection, by: str, names):
    """Show entries of the legend that are points as points."""
    if pc.backend != "matplotlib":
        return
    legend = pc.viz["legend"][by].item()
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        if text.get_text() in names:
            handle.set(linestyle="none", marker="o")


def colour_bars(pc: PlotCollection, name: str):
    """Put a bar of colours beside each panel of contours drawn as ``name``."""
    if pc.backend != "matplotlib":
        return
    from matplotlib.ticker import MaxNLocator

    for contours in pc.viz[name][name].values.flat:
        contours.axes.figure.colorbar(contours, ax=contours.axes, ticks=MaxNLocator(5))
