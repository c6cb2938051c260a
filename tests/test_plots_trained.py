# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr
from plotted import drawn

from bayesrg import io, plots

rng = np.random.default_rng(0)
WIDTHS, DRAWS = [200, 50, 100], 400
ERRORS = rng.gamma(20.0, size=(DRAWS, 3, 2)) / np.array(WIDTHS)[:, None]


def trained_groups():
    """Every group that the plots of this file read by default."""
    dims = ("draw", "width", "layer")
    return io.label(
        resampling=xr.Dataset(
            {"errors": (dims, ERRORS), "held_out": (dims, 1.5 * ERRORS)},
            coords={"width": WIDTHS, "layer": [1, 2]},
        ),
    )


@pytest.fixture
def dt():
    return trained_groups()


def test_alignment_errors_are_lines_held_out_and_points_fitted(dt):
    pc = plots.plot_alignment_error(dt, backend="none")
    lines, points = drawn(pc, "layer"), drawn(pc, "layer", "points")
    assert set(lines) == set(points) == {"layer 1", "layer 2"}
    order = np.argsort(WIDTHS)
    for i, layer in enumerate(("layer 1", "layer 2")):
        expected = np.median(ERRORS[:, order, i], 0)
        np.testing.assert_array_equal(lines[layer]["x"], [50, 100, 200])
        np.testing.assert_allclose(lines[layer]["y"], 1.5 * expected)
        np.testing.assert_allclose(points[layer]["y"], expected)
    band = drawn(pc, "layer", "band")["layer 2"]
    high = np.quantile(1.5 * ERRORS[:, order, 1], 0.945, axis=0)
    np.testing.assert_allclose(band["y_top"], high, rtol=5e-3)
    del dt["resampling"]["held_out"]
    pc = plots.plot_alignment_error(dt, backend="none")
    assert "points" not in pc.viz.children
    np.testing.assert_allclose(drawn(pc, "layer")["layer 1"]["y"], np.median(ERRORS, 0)[order, 0])
