# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr
from plotted import drawn

from bayesrg import io, plots
from bayesrg.kernels.critical import JacobianFlow

WIDTH = np.array([32, 128, 64])
WEIGHT, BIAS = np.linspace(0.5, 3.0, 11), np.linspace(0.0, 1.0, 5)


def kernel_groups():
    """Every group that the plots of this file read by default."""
    rng = np.random.default_rng(0)
    growth = 1.0 + 0.2 * np.arange(4)[:, None] * np.array([0.5, 1.0])
    flow = JacobianFlow(growth, 0.9 * growth, growth**2)
    distance = np.exp(0.1 * rng.normal(size=(2, 3, 200))) / WIDTH[:, None] ** 0.5
    return io.label(
        phase_diagram=xr.Dataset(
            {"chi": (("weight_var", "bias_var"), 0.5 * WEIGHT[:, None] - 0.2 * BIAS)},
            {"weight_var": WEIGHT, "bias_var": BIAS},
        ),
        jacobian_flow=flow,
        jacobian_flow_run=xr.Dataset(
            {"J": (("layer", "batch", "draw"), rng.gamma(4.0, size=(2, 1, 50)))},
            {"layer": [1, 3], "batch": [1]},
        ),
        kernel_distance=xr.Dataset(
            {"distance": (("kernel", "width", "draw"), distance)},
            {"kernel": ["NNGP", "NTK"], "width": WIDTH},
        ),
    )  # fmt: skip


def test_lines_of_equal_growth_are_where_it_has_that_value():
    pc = plots.plot_phase_diagram(kernel_groups(), backend="none")
    found = drawn(pc, "chi")
    assert set(found) == {"0.6", "0.8", "1 (critical)", "1.2", "1.4"}
    for level, part in zip((0.6, 0.8, 1.0, 1.2, 1.4), found.values(), strict=True):
        assert len(part["x"]) >= 3
        np.testing.assert_allclose(0.5 * part["x"] - 0.2 * part["y"], level, rtol=1e-12)
    high = io.label(phase_diagram=kernel_groups()["phase_diagram"].to_dataset() + 7.0)
    with pytest.raises(ValueError, match="chi runs from 7.05 to 8.5 and crosses none"):
        plots.plot_phase_diagram(high, backend="none")


def test_gradients_are_drawn_from_depth_one_on():
    dt = kernel_groups()
    pc = plots.plot_jacobian_flow(dt, backend="none")
    lines, points = drawn(pc, "network"), drawn(pc, "network", "points")
    assert set(lines) == {"batch 0", "batch 1"} and set(points) == {"batch 1"}
    np.testing.assert_array_equal(lines["batch 1"]["x"], [1, 2, 3, 4])
    np.testing.assert_allclose(lines["batch 1"]["y"], (1.0 + 0.2 * np.arange(4)) ** 2)
    np.testing.assert_array_equal(points["batch 1"]["x"], [2, 4])
    draws = dt["jacobian_flow_run"]["J"].to_numpy()[:, 0]
    np.testing.assert_allclose(points["batch 1"]["y"], np.median(draws, 1))
    one = JacobianFlow(*(np.ones(3),) * 3)
    pc = plots.plot_jacobian_flow(io.label(jacobian_flow=one), backend="none")
    np.testing.assert_array_equal(drawn(pc, "network")["batch 0"]["x"], [1, 2, 3])
    assert "points" not in pc.viz.children


def test_distances_stand_by_a_power_of_the_width():
    dt = kernel_groups()
    pc = plots.plot_kernel_distance(dt, backend="none")
    lines, points = drawn(pc, "kernel"), drawn(pc, "kernel", "points")
    medians = dt["kernel_distance"]["distance"].median("draw").sel(kernel="NTK")
    np.testing.assert_array_equal(points["NTK"]["x"], [32, 64, 128])
    np.testing.assert_allclose(points["NTK"]["y"], medians.sortby("width"))
    last = float(medians.sel(width=128))
    np.testing.assert_allclose(lines["NTK"]["y"], last * np.array([2.0, 2**0.5, 1.0]))
    assert {"NNGP", "NTK"} <= set(pc.viz["error"]["kernel"].to_numpy())
