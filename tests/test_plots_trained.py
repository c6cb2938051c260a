# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import xarray as xr
from plotted import drawn

from bayesrg import io, networks, plots
from bayesrg.plots.resampling import marchenko_pastur

rng = np.random.default_rng(0)
WIDTHS, DRAWS = [200, 50, 100], 400
SHAPE = (20, 30)


def spectrum(W):
    """Falling eigenvalues of the covariance of weights."""
    return np.linalg.eigvalsh(networks.weight_covariance(W))[::-1]


ERRORS = rng.gamma(20.0, size=(DRAWS, 3, 2)) / np.array(WIDTHS)[:, None]
INITIAL = rng.standard_normal(SHAPE) / np.sqrt(SHAPE[1])
TRAINED = INITIAL + 2 * np.outer(INITIAL[:, 0], np.ones(SHAPE[1]))


def trained_groups():
    """Every group that the plots of this file read by default."""
    dims = ("draw", "width", "layer")
    found = [spectrum(W) for W in (INITIAL, TRAINED)]
    return io.label(
        resampling=xr.Dataset(
            {"errors": (dims, ERRORS), "held_out": (dims, 1.5 * ERRORS)},
            coords={"width": WIDTHS, "layer": [1, 2]},
        ),
        weight_spectrum=xr.Dataset(
            {"eigenvalues": (("network", "mode"), found), "units": SHAPE[0]},
            coords={"network": ["initial", "trained"]},
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


def test_spectra_of_weights_leave_out_zeros(dt):
    found = drawn(plots.plot_weight_spectrum(dt, backend="none"), "network")
    assert set(found) == {"initial", "trained", "Marchenko-Pastur"}
    for name, weights in (("initial", INITIAL), ("trained", TRAINED)):
        singular = np.linalg.svd(weights, compute_uv=False)
        np.testing.assert_allclose(found[name]["y"], 30 / 20 * singular**2, rtol=1e-9)
        np.testing.assert_array_equal(found[name]["x"], np.arange(1, 21))
    np.testing.assert_allclose(found["Marchenko-Pastur"]["y"], marchenko_pastur(30, 20))
    del dt["weight_spectrum"]["units"]
    alone = drawn(plots.plot_weight_spectrum(dt, backend="none"), "network")
    assert set(alone) == {"initial", "trained"}


@pytest.mark.parametrize(("columns", "rows"), [(40, 160), (60, 60), (90, 30)])
def test_white_weights_have_the_typical_eigenvalues(columns, rows):
    """Against means of ordered eigenvalues of drawn matrices, and trace and square in the limit."""
    white = rng.standard_normal((200, rows, columns))
    singular = np.linalg.svd(white, compute_uv=False) ** 2 / rows
    expected = marchenko_pastur(columns, rows)
    assert expected.shape == (min(columns, rows),) and (np.diff(expected) < 0).all()
    gap = np.abs(singular.mean(0) - expected)
    assert gap.max() < 0.03 * expected[0] and gap.mean() < 0.01 * expected[0]
    np.testing.assert_allclose(expected.sum() / columns, 1.0, rtol=3e-3)
    square = (expected**2).sum() / columns
    np.testing.assert_allclose(square, 1 + columns / rows, rtol=1e-2)
