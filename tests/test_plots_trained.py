# SPDX-License-Identifier: Apache-2.0
import inspect

import numpy as np
import pytest
import xarray as xr
from arviz import PlotCollection

from bayesrg import io, networks, plots
from bayesrg.plots.resampling import marchenko_pastur

rng = np.random.default_rng(0)
WIDTHS, DRAWS = [200, 50, 100], 400
SHAPES = [(30, 12), (20, 30)]


def spectra(weights, size=30):
    """Falling eigenvalues of each layer's covariance, filled up with nan."""
    found = np.full((len(weights), size), np.nan)
    for row, W in zip(found, weights, strict=True):
        row[: W.shape[1]] = np.linalg.eigvalsh(networks.weight_covariance(W))[::-1]
    return found


ERRORS = rng.gamma(20.0, size=(DRAWS, 3, 2)) / np.array(WIDTHS)[:, None]
INITIAL = [rng.standard_normal(shape) / np.sqrt(shape[1]) for shape in SHAPES]
TRAINED = [W + 2 * np.outer(W[:, 0], np.ones(W.shape[1])) for W in INITIAL]


@pytest.fixture
def dt():
    dims, layers = ("draw", "width", "layer"), [1, 2]
    return io.label(
        resampling=xr.Dataset(
            {"errors": (dims, ERRORS), "held_out": (dims, 1.5 * ERRORS)},
            coords={"width": WIDTHS, "layer": layers},
        ),
        weight_spectrum=xr.Dataset(
            {"eigenvalues": (("network", "layer", "mode"), [spectra(INITIAL), spectra(TRAINED)]),
             "units": ("layer", [30, 20])},
            coords={"network": ["initial", "trained"], "layer": layers},
        ),
    )  # fmt: skip


def drawn(pc, label, what="curve"):
    """What the backend "none" was told to draw for each curve, without padding."""
    found = {}
    for name, artist in pc.viz[what]["curve"].groupby(label):
        parts = {k: np.asarray(v) for k, v in artist.item().items() if k[0] in "xy" and k != "yerr"}
        there = np.isfinite(parts["x"])
        found[str(name)] = {k: v[there] for k, v in parts.items() if v.shape == there.shape}
    return found


@pytest.mark.parametrize("name", ["plot_alignment_error", "plot_weight_spectrum"])
@pytest.mark.parametrize("backend", ["none", "matplotlib"])
def test_protocol(name, backend, dt):
    plot = getattr(plots, name)
    parameters = inspect.signature(plot).parameters
    assert list(parameters)[0] == "dt" and {"group", "backend", "pc_kwargs"} <= set(parameters)
    pc = plot(dt, backend=backend)
    assert isinstance(pc, PlotCollection)
    assert {"curve", "xlabel", "ylabel", "title"} <= set(pc.viz.children)
    with pytest.raises(ValueError, match="the tree has no group 'elsewhere'"):
        plot(dt, group="elsewhere", backend=backend)
    empty = io.label(flow=xr.Dataset({"other": 1.0}))
    with pytest.raises(ValueError, match="group 'flow' has no variable '.*', only 'other'"):
        plot(empty, group="flow", backend=backend)


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
        singular = np.linalg.svd(weights[1], compute_uv=False)
        np.testing.assert_allclose(found[name]["y"], 30 / 20 * singular**2, rtol=1e-9)
        np.testing.assert_array_equal(found[name]["x"], np.arange(1, 21))
    np.testing.assert_allclose(found["Marchenko-Pastur"]["y"], marchenko_pastur(30, 20))
    del dt["weight_spectrum"]["units"]
    first = drawn(plots.plot_weight_spectrum(dt, layer=1, backend="none"), "network")
    assert set(first) == {"initial", "trained"} and first["initial"]["y"].size == 12
    with pytest.raises(ValueError, match=r"there is no layer 3, only \[1, 2\]"):
        plots.plot_weight_spectrum(dt, layer=3, backend="none")


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
