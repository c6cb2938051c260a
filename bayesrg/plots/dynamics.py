# SPDX-License-Identifier: Apache-2.0
"""Plots of training: how fast each mode is learnt."""

import numpy as np
import xarray as xr
from arviz import PlotCollection

from ._curves import decorate, lines_and_points, split, theory_and_runs


def plot_mode_residuals(
    dt: xr.DataTree, *, group: str = "dynamics", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot what is left of each mode against the training step: theory as lines, runs as points.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable remaining
        (algorithm, step, mode): the fraction of each mode that is not yet learnt, as
        ``remaining`` of `bayesrg.dynamics.linear_dynamics` returns it. Absolute values are drawn,
        from step 1 on, since the axis is logarithmic.
    """

    def read(found):
        left = abs(found["remaining"])
        return split(left.sel(step=left["step"] > 0), "step")

    lines, points = theory_and_runs(dt, group, "remaining", read)
    pc = lines_and_points(lines, points, "mode", size=24, backend=backend, **pc_kwargs)
    title = "lines: theory; points: runs" if points else "residual of each mode"
    return decorate(pc, x="step", y="fraction of a mode left", title=title)


def plot_steps_to_tolerance(
    dt: xr.DataTree, *, group: str = "steps_to_tolerance", backend: str | None = None, **pc_kwargs
) -> PlotCollection:
    """Plot the number of steps until a mode is learnt against its frequency, per algorithm.

    Theory is drawn as lines, runs as points.

    Parameters
    ----------
    dt, group, backend, pc_kwargs
        See `bayesrg.plots`, also for what is returned. The group has the variable steps
        (algorithm, frequency), as ``count`` of `bayesrg.dynamics.linear_dynamics` returns it.
        Infinite numbers (the mode is never learnt) are not drawn.
    """

    def read(found):
        return split(found["steps"].where(np.isfinite(found["steps"])), "frequency")

    lines, points = theory_and_runs(dt, group, "steps", read)
    pc = lines_and_points(lines, points, "algorithm", size=36, backend=backend, **pc_kwargs)
    title = "lines: theory; points: runs" if points else "steps to tolerance"
    return decorate(pc, x="frequency", y="steps", title=title)
