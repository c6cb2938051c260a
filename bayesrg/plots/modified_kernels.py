# SPDX-License-Identifier: Apache-2.0
"""Plots of modified kernels: eigenvalues, shape over the angle, and the power of a target."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, line, mark
from ._panels import draw_panels, open_panels, scale_and_name

_ROUND_OFF = 1e-15  # of the total power of a target


def plot_modified_spectrum(
    dt: xr.DataTree,
    *,
    group: str = "modified_spectrum",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the eigenvalues of a modified kernel against those of its base kernel.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variables values (mode), eigenvalues of the base kernel, and modified
        (mode), those of a kernel made by `bayesrg.spectrum.modify`, and maybe chain and draw. The
        group may have a cutoff (a variance), as an attribute or over chain and draw. Its median is
        marked.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and credible band. Eigenvalues of 0 are not drawn.
    """
    found = group_of(dt, group, "values", "modified").sortby("values")
    base, new = found["values"], found["modified"]
    modified = line(new, base)
    gone = modified["y"] <= 0
    modified |= {name: np.where(gone, np.nan, part) for name, part in modified.items()}
    parts = {"base kernel": line(base, base), "modified kernel": modified}
    pc = curves(parts, "kernel", backend=backend, **pc_kwargs)
    title = "eigenvalues before and after the map"
    cutoff = found["cutoff"].median() if "cutoff" in found else found.attrs.get("cutoff")
    if cutoff is not None:
        mark(pc, "cutoff", x=float(cutoff))
        title += " (dashed: cutoff)"
    return decorate(pc, x="eigenvalue of the base kernel", y="eigenvalue", title=title)


def plot_kernel_profile(
    dt: xr.DataTree,
    *,
    group: str = "kernel_profile",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot kernels against the angle between two inputs, such as a kernel before and after a map.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable profile (kernel, angle), and maybe chain and draw: the
        covariance of two inputs at that angle, in radians.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Each kernel, and each of its draws, is divided by its own value at the smallest angle. Draws
        are shown by their median and credible band.

    Raises
    ------
    ValueError
        If a kernel is not positive at the smallest angle.
    """
    profile = group_of(dt, group, "profile")["profile"].sortby("angle")
    start = profile.isel(angle=0, drop=True)
    if not bool((start > 0).all()):
        raise ValueError(
            f"profile must be positive at the smallest angle, got {float(start.min()):.3g} at "
            f"{float(profile['angle'][0]):.3g}; give the variance at angle 0"
        )
    shape = profile / start
    parts = {str(name): line(shape.sel(kernel=name)) for name in shape["kernel"].to_numpy()}
    pc = curves(parts, "kernel", backend=backend, **pc_kwargs)
    x, y = "angle between inputs (radians)", "kernel over its value at angle 0"
    title = "shape of the kernel"
    return decorate(pc, x=x, y=y, title=title, xscale="linear", yscale="linear")


def plot_target_power(
    dt: xr.DataTree,
    *,
    group: str = "target_power",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the power of a target in each mode, and the share of the first modes in the total.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variables power (mode), from ``Spectrum.power``, and total (), the mean
        square of the target. With several targets both also have the axis target.
    group : str
        Group of ``dt`` that is plotted.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Two panels. One shows the power; values below 1e-15 of the total are not drawn. The other
        shows the coverage: the sum of the power up to a mode, divided by the total. It is the share
        of the target that a fit by these modes can explain.
    """
    found = group_of(dt, group, "power", "total")
    if "target" not in found["power"].dims:
        found = found.expand_dims(target=["target"])
    power = found["power"].transpose("target", "mode")
    share = power.cumsum("mode") / found["total"]
    x = power["mode"].to_numpy() + 1.0
    names = [str(name) for name in power["target"].to_numpy()]

    seen = power.where(power > _ROUND_OFF * found["total"])
    panels = {"power": seen.to_numpy(), "coverage": share.to_numpy()}
    parts = {
        panel: {name: {"x": x, "y": y} for name, y in zip(names, values, strict=True)}
        for panel, values in panels.items()
    }
    pc = open_panels(list(panels), "target", names, backend=backend, **pc_kwargs)
    draw_panels(pc, "target", parts, points=["power"])
    y = {"power": "mean square in the mode", "coverage": "share of the target"}
    title = {"power": "target by mode", "coverage": "first modes together"}
    return scale_and_name(pc, x="mode", y=y, title=title, log_y=["power"])
