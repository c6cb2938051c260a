# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr
from test_plots_dynamics import drawn

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
    pc = plots.plot_phase_diagram(kernel_groups(), levels=(0.8, 1, 9.0), backend="none")
    found = drawn(pc, "chi")
    assert set(found) == {"0.8", "1 (critical)"}
    for level, part in zip((0.8, 1.0), found.values(), strict=True):
        assert len(part["x"]) >= 5
        np.testing.assert_allclose(0.5 * part["x"] - 0.2 * part["y"], level, rtol=1e-12)
    with pytest.raises(ValueError, match=r"levels are \(7,\) and chi runs from 0.05 to 1.5"):
        plots.plot_phase_diagram(kernel_groups(), levels=(7,), backend="none")


def test_gradients_are_drawn_from_depth_one_on():
    dt = kernel_groups()
    pc = plots.plot_jacobian_flow(dt, backend="none")
    lines, points = drawn(pc, "network"), drawn(pc, "network", "points")
    assert set(lines) == {"0", "1"} and set(points) == {"1"}
    np.testing.assert_array_equal(lines["1"]["x"], [1, 2, 3, 4])
    np.testing.assert_allclose(lines["1"]["y"], (1.0 + 0.2 * np.arange(4)) ** 2)
    np.testing.assert_array_equal(points["1"]["x"], [2, 4])
    draws = dt["jacobian_flow_run"]["J"].to_numpy()[:, 0]
    np.testing.assert_allclose(points["1"]["y"], np.median(draws, 1))
    one = JacobianFlow(*(np.ones(3),) * 3)
    pc = plots.plot_jacobian_flow(io.label(jacobian_flow=one), backend="none")
    np.testing.assert_array_equal(drawn(pc, "network")["0"]["x"], [1, 2, 3])
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
    through = plots.plot_kernel_distance(dt, slope=None, backend="none")
    np.testing.assert_array_equal(drawn(through, "kernel")["NTK"]["y"], points["NTK"]["y"])
    assert {"NNGP", "NTK"} <= set(pc.viz["error"]["kernel"].to_numpy())


@pytest.mark.parametrize(
    "name", ["plot_phase_diagram", "plot_jacobian_flow", "plot_kernel_distance"]
)
def test_a_png_is_written(name, tmp_path):
    getattr(plots, name)(kernel_groups(), backend="matplotlib").savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
