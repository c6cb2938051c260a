# SPDX-License-Identifier: Apache-2.0
"""Kernels with another spectrum: eigenvalues, shape over the angle, and what a target asks for."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import curves, decorate, group_of, line, mark
from ._panels import draw_panels, open_panels, scale_and_name

_ROUND_OFF = 1e-15


def plot_modified_spectrum(
    dt: xr.DataTree,
    *,
    group: str = "modified_spectrum",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot eigenvalues after a map against those before it.

    Parameters
    ----------
    dt : DataTree
        With a group of values over mode, those of the base, and modified over mode and maybe
        chain and draw, those of a `bayesrg.spectrum.ModifiedKernel`; maybe with cutoff, a
        variance, as an attribute or over chain and draw, whose median is marked.
    group : str
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Draws are shown by their median and credible band; values of zero are left out.
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
    r"""Plot kernels against the angle between two inputs, such as a kernel before and after a map.

    Parameters
    ----------
    dt : DataTree
        With a group of profile over kernel and angle (radians), and maybe chain and draw: the
        covariance of an input with that at the angle.
    group : str
    backend, **pc_kwargs : as in `plot_modified_spectrum`

    Returns
    -------
    PlotCollection
        Each kernel is divided by its value at the smallest angle, a draw by its own. Draws are
        shown by their median and credible band.

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
    return decorate(
        pc, x="angle between inputs (radians)", y="kernel over its value at angle 0",
        title="shape of the kernel", xscale="linear", yscale="linear",
    )  # fmt: skip


def plot_target_power(
    dt: xr.DataTree,
    *,
    group: str = "target_power",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot how much of a target each mode holds, and the share of the modes up to it.

    Parameters
    ----------
    dt : DataTree
        With a group of power over mode, of ``Spectrum.power``, and maybe over target; and of
        total, the mean square of the target, over target if there are several.
    group : str
    backend, **pc_kwargs : as in `plot_modified_spectrum`

    Returns
    -------
    PlotCollection
        With a panel of the power, without what is below 1e-15 of the total, and one of its sum
        from the first mode on over the total, the coverage: what a fit by these modes can reach.
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
