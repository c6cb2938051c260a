# SPDX-License-Identifier: Apache-2.0
"""Plots of modified kernels: eigenvalues, shape over the angle, and the power of a target."""

import xarray as xr
from arviz import PlotCollection

from ._curves import SAMPLE, canvas, curves, decorate, draw, group_of, line, mark, split

_ROUND_OFF = 1e-15  # of the total power of a target


def plot_modified_spectrum(
    dt: xr.DataTree, *, group: str = "modified_spectrum", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the eigenvalues of a modified kernel against those of its base kernel.

    Eigenvalues of 0 are not drawn.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables values (mode),
        eigenvalues of the base kernel, and modified (mode), eigenvalues of what
        `bayesrg.spectrum.modify` returns. It may have a cutoff (a variance), as an attribute or as
        draws, of which the median is marked.
    """
    found = group_of(dt, group, "values", "modified").sortby("values")
    base, new = found["values"], found["modified"]
    sampled = [axis for axis in SAMPLE if axis in new.dims]
    modified = new.where(new.median(sampled) > 0)
    parts = {"base kernel": line(base, base), "modified kernel": line(modified, base)}
    pc = curves(parts, "kernel", backend=backend, **pc_kwargs)
    title = "eigenvalues before and after the map"
    cutoff = found["cutoff"].median() if "cutoff" in found else found.attrs.get("cutoff")
    if cutoff is not None:
        mark(pc, "cutoff", x=float(cutoff))
        title += " (dashed: cutoff)"
    return decorate(pc, x="eigenvalue of the base kernel", y="eigenvalue", title=title)


def plot_kernel_profile(
    dt: xr.DataTree, *, group: str = "kernel_profile", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot kernels against the angle between two inputs, such as a kernel before and after a map.

    Each kernel, and each of its draws, is divided by its own value at the smallest angle.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable profile (kernel,
        angle): the covariance of two inputs at that angle, in radians.

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
    pc = curves(split(profile / start, "angle"), "kernel", backend=backend, **pc_kwargs)
    x, y = "angle between inputs (radians)", "kernel over its value at angle 0"
    return decorate(pc, x=x, y=y, title="shape of the kernel", log="")


def plot_target_power(
    dt: xr.DataTree, *, group: str = "target_power", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the power of targets in each mode, and the share of the first modes in the total.

    The second panel shows the coverage: the sum of the power up to a mode, divided by the total. It
    is the share of the target that a fit by these modes can explain. The first panel does not show
    values below 1e-15 of the total.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variables power (target,
        mode), from ``Spectrum.power``, and total (target), the mean square of each target.
    """
    found = group_of(dt, group, "power", "total")
    power = found["power"].assign_coords(mode=found["mode"] + 1)
    seen = power.where(power > _ROUND_OFF * found["total"])
    names = list(split(power, "mode"))
    pc = canvas(names, "target", panels=("power", "coverage"), backend=backend, **pc_kwargs)
    draw(pc, "target", {"coverage": split(power.cumsum("mode") / found["total"], "mode")})
    draw(pc, "target", {"power": split(seen, "mode")}, scatter=True, legend=False)
    y = {"power": "mean square in the mode", "coverage": "share of the target"}
    title = {"power": "target by mode", "coverage": "first modes together"}
    return decorate(pc, x="mode", y=y, title=title, log={"power": "xy", "coverage": "x"})
