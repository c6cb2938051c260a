# SPDX-License-Identifier: Apache-2.0
"""Training: how fast each mode is learnt."""

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
    """Plot what is left of some modes against the steps: theory as lines, runs as points.

    Parameters
    ----------
    dt : DataTree
        With a group that has remaining over algorithm, step and mode, and maybe draw: fractions
        of a mode, as `bayesrg.dynamics.LinearDynamics.remaining` gives. Their sizes are drawn.
    group : str
        The theory.
    experiment : str, optional
        Group of the same for runs, drawn if it is there.
    modes : sequence, optional
        Entries of the coordinate mode, by default the first four.
    backend : str, optional
        "matplotlib", "bokeh", "plotly" or "none"; ArviZ's default otherwise.
    **pc_kwargs
        Passed to ``PlotCollection.wrap``.

    Returns
    -------
    PlotCollection
        The start, step 0, is left out.

    Raises
    ------
    ValueError
        For a mode that is not there, besides what is missing.
    """
    theory = group_of(dt, group, "remaining")
    there = theory["mode"].to_numpy().tolist()
    modes = there[:4] if modes is None else _checks.indices("modes", modes)
    for mode in modes:
        if mode not in there:
            raise ValueError(f"there is no mode {mode!r}, only {there}")
    lines = _by_mode(theory, modes)
    points = {}
    if has(dt, experiment):
        points = _by_mode(group_of(dt, experiment, "remaining"), modes)
    pc = lines_and_points(lines, points, "mode", size=24, backend=backend, **pc_kwargs)
    title = "lines: theory; points: runs" if points else "residual of each mode"
    return decorate(pc, x="step", y="fraction of a mode left", title=title)


def _by_mode(found, modes):
    """A curve for each algorithm and mode, from step 1 on."""
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
    """Plot the steps that a mode takes against its frequency, a line for each algorithm.

    Parameters
    ----------
    dt : DataTree
        With a group that has steps over algorithm and frequency, and maybe draw: counts of
        `bayesrg.dynamics.step_count`, or of ``LinearDynamics.count``; inf, never, is left out.
    group : str
        The theory, drawn as lines.
    experiment : str, optional
        Group of the same for runs, drawn as points if it is there.
    backend, **pc_kwargs : as in `plot_mode_residuals`

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
    found = found["steps"].sortby("frequency")
    found = found.where(np.isfinite(found))
    return {
        str(name): line(found.sel(algorithm=name).dropna("frequency"))
        for name in found["algorithm"].to_numpy()
    }
