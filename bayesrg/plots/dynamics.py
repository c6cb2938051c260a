# SPDX-License-Identifier: Apache-2.0
"""Plots of training: how fast each mode is learnt."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from arviz import PlotCollection

from .. import _checks
from ._curves import decorate, group_of, has, line, lines_and_points


def plot_mode_residuals(
    dt: xr.DataTree,
    *,
    group: str = "dynamics",
    experiment: str | None = "dynamics_run",
    modes: Sequence | None = None,
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the residual of some modes against the training step: theory as lines, runs as points.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable remaining (algorithm, step, mode), and maybe draw: the
        fraction of each mode that is not yet learnt, as
        `bayesrg.dynamics.linear.LinearDynamics.remaining` returns it. Absolute values are drawn.
    group : str
        Group of the theory.
    experiment : str, optional
        Group of runs, with the variable remaining on the axes above. It is drawn if it exists.
    modes : sequence, optional
        Entries of the coordinate mode; by default the first four.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        Step 0 is not drawn, since the axis is logarithmic.

    Raises
    ------
    ValueError
        If a group, a variable or a mode is missing.
    """
    theory = group_of(dt, group, "remaining")
    there = theory["mode"].to_numpy().tolist()
    modes = there[:4] if modes is None else _checks.indices("modes", modes)
    for mode in modes:
        if mode not in there:
            raise ValueError(f"there is no mode {mode!r}, only {there}; choose modes of these")
    lines = _by_mode(theory, modes)
    points = {}
    if has(dt, experiment):
        points = _by_mode(group_of(dt, experiment, "remaining"), modes)
    pc = lines_and_points(lines, points, "mode", size=24, backend=backend, **pc_kwargs)
    title = "lines: theory; points: runs" if points else "residual of each mode"
    return decorate(pc, x="step", y="fraction of a mode left", title=title)


def _by_mode(found, modes):
    """Return a curve for each algorithm and mode, from step 1 on."""
    found = abs(found["remaining"]).sortby("step")
    found = found.sel(step=found["step"] > 0)
    parts = {}
    for algorithm in found["algorithm"].to_numpy():
        for mode in modes:
            one = found.sel(algorithm=algorithm, mode=mode).dropna("step")
            parts[f"{algorithm}, mode {mode}"] = line(one)
    return parts


def plot_steps_to_tolerance(
    dt: xr.DataTree,
    *,
    group: str = "steps_to_tolerance",
    experiment: str | None = "steps_to_tolerance_run",
    backend: str | None = None,
    **pc_kwargs,
) -> PlotCollection:
    """Plot the number of steps until a mode is learnt against its frequency, per algorithm.

    Parameters
    ----------
    dt : DataTree
        Has a group with the variable steps (algorithm, frequency), and maybe draw: numbers of
        steps from `bayesrg.dynamics.step_count` or ``LinearDynamics.count``. Infinite ones (the
        mode is never learnt) are not drawn.
    group : str
        Group of the theory, drawn as lines.
    experiment : str, optional
        Group of runs, with the variable steps on the axes above. It is drawn as points if it
        exists.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; by default the backend that ArviZ uses.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
    """
    lines = _by_algorithm(group_of(dt, group, "steps"))
    points = {}
    if has(dt, experiment):
        points = _by_algorithm(group_of(dt, experiment, "steps"))
    pc = lines_and_points(lines, points, "algorithm", size=36, backend=backend, **pc_kwargs)
    title = "lines: theory; points: runs" if points else "steps to tolerance"
    return decorate(pc, x="frequency", y="steps", title=title)


def _by_algorithm(found):
    """Return a curve of steps over frequency for each algorithm."""
    found = found["steps"].sortby("frequency")
    found = found.where(np.isfinite(found))
    return {
        str(name): line(found.sel(algorithm=name).dropna("frequency"))
        for name in found["algorithm"].to_numpy()
    }
