# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr
from plotted import drawn, marked

from bayesrg import io, plots

VALUES = np.array([2.0, 0.9, 0.4, 0.1])
POWER = np.array([[0.5, 0.0, 0.25, 0.125], [0.1, 0.2, 0.3, 0.4]])
ANGLE = np.array([1.5, 0.0, 0.7])
LEAD = ("chain", "draw")


def modified_groups():
    """Every group that the plots of this file read by default."""
    rng = np.random.default_rng(0)
    profile = np.exp(-ANGLE) * rng.gamma(9.0, size=(2, 200, 2, 1))
    return io.label(
        modified_spectrum=xr.Dataset(
            {"values": ("mode", VALUES),
             "modified": ((*LEAD, "mode"), VALUES**1.5 * rng.gamma(9.0, size=(2, 200, 1))),
             "cutoff": (LEAD, rng.gamma(5.0, size=(2, 200)))}
        ),
        kernel_profile=xr.Dataset(
            {"profile": ((*LEAD, "kernel", "angle"), profile)},
            {"kernel": ["base", "modified"], "angle": ANGLE},
        ),
        target_power=xr.Dataset(
            {"power": (("target", "mode"), POWER), "total": ("target", [1.0, 2.0])},
            {"target": ["a", "b"], "mode": np.arange(4)},
        ),
    )  # fmt: skip


def test_modified_eigenvalues_stand_over_the_old_ones():
    dt = modified_groups()
    pc = plots.plot_modified_spectrum(dt, backend="none")
    found, group = drawn(pc, "kernel"), dt["modified_spectrum"].to_dataset()
    np.testing.assert_array_equal(found["base kernel"]["x"], VALUES[::-1])
    np.testing.assert_array_equal(found["base kernel"]["y"], VALUES[::-1])
    expected = np.median(group["modified"].to_numpy().reshape(-1, 4), 0)
    np.testing.assert_allclose(found["modified kernel"]["y"], expected[::-1])
    assert marked(pc, "cutoff") == np.median(group["cutoff"])
    assert "modified kernel" in pc.viz["band"]["kernel"]
    cut = xr.Dataset(
        {"values": ("mode", VALUES), "modified": ("mode", VALUES * (VALUES > 0.3))},
        attrs={"cutoff": 0.3},
    )
    pc = plots.plot_modified_spectrum(io.label(modified_spectrum=cut), backend="none")
    np.testing.assert_array_equal(
        drawn(pc, "kernel")["modified kernel"]["y"], [np.nan, 0.4, 0.9, 2]
    )
    assert marked(pc, "cutoff") == 0.3


def test_profiles_are_relative_to_the_variance_of_each_draw():
    pc = plots.plot_kernel_profile(modified_groups(), backend="none")
    for found in drawn(pc, "kernel").values():
        np.testing.assert_array_equal(found["x"], [0.0, 0.7, 1.5])
        np.testing.assert_allclose(found["y"], np.exp(-found["x"]), rtol=1e-12)
    flat = xr.Dataset(
        {"profile": (("kernel", "angle"), np.zeros((1, 2)))}, {"kernel": ["a"], "angle": [0.0, 1.0]}
    )
    with pytest.raises(ValueError, match="profile must be positive at the smallest angle, got 0"):
        plots.plot_kernel_profile(io.label(kernel_profile=flat), backend="none")


def test_coverage_is_the_sum_of_the_power_over_the_total():
    dt = modified_groups()
    pc = plots.plot_target_power(dt, backend="none")
    low = pc.viz["points"]["curve"].sel(panel="power", target="a").item()
    np.testing.assert_array_equal(low["y"][np.isfinite(low["y"])], [0.5, 0.25, 0.125])
    share = pc.viz["curve"]["curve"].sel(panel="coverage", target="b").item()
    np.testing.assert_array_equal(share["x"], [1, 2, 3, 4])
    np.testing.assert_allclose(share["y"], [0.05, 0.15, 0.3, 0.5], rtol=1e-12)
    one = dt["target_power"].to_dataset().sel(target="a", drop=True)
    alone = plots.plot_target_power(io.label(target_power=one), backend="none").viz["curve"]
    share = alone["curve"].sel(panel="coverage", target="").item()["y"]
    np.testing.assert_allclose(share, [0.5, 0.5, 0.75, 0.875], rtol=1e-12)
