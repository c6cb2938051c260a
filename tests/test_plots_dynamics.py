# SPDX-License-Identifier: Apache-2.0
import numpy as np
import xarray as xr
from plotted import drawn

from bayesrg import io, plots

STEP, RATE = np.arange(6), np.array([0.9, 0.5, 1.5])
LEFT = np.stack([(1 - g * RATE) ** STEP[:, None] for g in (1.0, 0.1)])
AXES = {"algorithm": ["plain", "lifted"]}


def dynamics_groups():
    """Every group that the plots of this file read by default."""
    residual = xr.Dataset(
        {"remaining": (("algorithm", "step", "mode"), LEFT)},
        AXES | {"step": STEP, "mode": [1, 2, 4]},
    )
    steps = np.array([[3.0, np.inf, 40.0], [5.0, 5.0, 6.0]])
    count = xr.Dataset(
        {"steps": (("algorithm", "frequency"), steps)}, AXES | {"frequency": [1, 2, 4]}
    )
    return io.label(
        dynamics=residual,
        dynamics_run=residual.sel(step=[0, 3, 5]) * 1.1,
        steps_to_tolerance=count,
        steps_to_tolerance_run=count.sel(algorithm=["lifted"]) + 1,
    )


def test_every_mode_of_every_algorithm_has_a_line_and_points():
    dt = dynamics_groups()
    pc = plots.plot_mode_residuals(dt, backend="none")
    lines, points = drawn(pc, "mode"), drawn(pc, "mode", "points")
    assert set(lines) == {f"{a}, mode {k}" for a in ("plain", "lifted") for k in (1, 2, 4)}
    np.testing.assert_array_equal(lines["plain, mode 4"]["x"], STEP[1:])
    np.testing.assert_allclose(lines["plain, mode 4"]["y"], np.abs(LEFT[0, 1:, 2]))
    np.testing.assert_allclose(points["lifted, mode 1"]["y"], 1.1 * np.abs(LEFT[1, [3, 5], 0]))
    alone = plots.plot_mode_residuals(dt, group="dynamics_run", backend="none")
    assert "points" not in alone.viz.children


def test_steps_that_end_are_drawn():
    pc = plots.plot_steps_to_tolerance(dynamics_groups(), backend="none")
    lines, points = drawn(pc, "algorithm"), drawn(pc, "algorithm", "points")
    np.testing.assert_array_equal(lines["plain"]["x"], [1, 4])
    np.testing.assert_array_equal(lines["lifted"]["y"], [5, 5, 6])
    assert set(points) == {"lifted"}
    np.testing.assert_array_equal(points["lifted"]["y"], [6, 6, 7])
