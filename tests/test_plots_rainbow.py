# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from plotted import drawn, marked, text_of

from bayesrg import io, plots
from bayesrg.theory.density import Density
from bayesrg.theory.optimal import Optimum

SIZES = np.array([10.0, 20.0, 40.0, 80.0])
EIGENVALUES = np.random.default_rng(0).gamma(2.0, size=(3, 40)) * (np.arange(40) >= 10)


def curve(values, name="test", error=None):
    variables = {name: ("n_train", values)}
    if error is not None:
        variables[f"{name}_error"] = ("n_train", error)
    return xr.Dataset(variables, {"n_train": SIZES[: len(values)]})


def optimum(criterion, ridge):
    """What `optimal_ridge` returns, made up."""
    grid, ridge = jnp.geomspace(0.1, 10.0, 21), jnp.asarray(ridge)
    loss = jnp.log(grid[None] / ridge[:, None]) ** 2
    return Optimum(
        criterion=criterion, n=jnp.array([50.0, 100.0]), ridge=ridge, value=jnp.ones(2),
        at_bound=jnp.zeros(2, bool), noise_variance=None, grid=grid, grid_value=1.0 + loss,
    )  # fmt: skip


def rainbow_groups():
    """Every group that the plots of this file read by default."""
    return io.label(
        equivalent=curve(SIZES / 40.0, "calibration"),
        wrong=curve(SIZES / 20.0, "calibration"),
        optimal_ridge=optimum("test", [1.0, 2.0]),
        optimal_ridge_evidence=optimum("evidence", [1.5, 3.0]),
        spectral_density=Density(jnp.linspace(0.1, 8, 50), jnp.ones(50), jnp.asarray(0.3)),
        spectral_density_run=xr.Dataset({"values": (("draw", "mode"), EIGENVALUES)}),
    )


@pytest.fixture(scope="module")
def dt():
    return rainbow_groups()


def test_several_experiments_share_the_colour_of_their_theory():
    dt = io.label(
        best=curve(1.0 / SIZES), small=curve(3.0 / SIZES), large=curve(2.0 / SIZES),
        small_run=curve(3.1 / SIZES[:2], error=0.1 / SIZES[:2]), large_run=curve(2.1 / SIZES[1:]),
    )  # fmt: skip
    pc = plots.plot_learning_curve(
        dt, group="best", also=["small", "large"], quantity="test", rank=30, backend="none"
    )
    lines, points = drawn(pc, "line"), drawn(pc, "line", "points")
    assert set(lines) == {"best", "small", "large"} and set(points) == {"small", "large"}
    np.testing.assert_allclose(lines["best"]["y"], 1.0 / SIZES)
    np.testing.assert_allclose(points["small"]["y"], 3.1 / SIZES[:2])
    error = drawn(pc, "line", "error")["small"]
    np.testing.assert_allclose(error["y"][:2], [0.3, 0.32])
    first, second = ({pc.viz[what]["curve"].sel(line=name).item()[key] for what, key in
                      (("curve", "color"), ("points", "facecolor"))}
                     for name in ("small", "large"))  # fmt: skip
    assert len(first) == len(second) == 1 and first != second
    assert marked(pc, "rank") == 30.0
    assert "(dashed: 30 features)" in text_of(pc)


def test_calibration_stands_over_one(dt):
    pc = plots.plot_calibration(dt, also=["wrong"], backend="none")
    found = drawn(pc, "line")
    np.testing.assert_allclose(found["equivalent"]["y"], SIZES / 40)
    np.testing.assert_allclose(found["wrong"]["y"], SIZES / 20)
    assert marked(pc, "calibrated", "y") == 1.0


def test_both_best_ridges_are_marked_in_both_panels(dt):
    pc = plots.plot_ridge_criteria(dt, n=90, backend="none")
    for group, panel in (("", "test error"), ("_evidence", "log evidence")):
        expected = dt[f"optimal_ridge{group}"]
        shown = drawn(pc, "panel")[panel]
        np.testing.assert_allclose(shown["x"], expected["grid"])
        np.testing.assert_allclose(shown["y"], expected["grid_value"].sel(n_train=100))
        marks = pc.viz["optimum"]["curve"].sel(panel=panel)
        at = [marks.sel(best=b).item()["x"] for b in ("test error", "log evidence")]
        assert at == [2.0, 3.0]
    assert text_of(pc, panel="log evidence") == "greatest at ridge 3"
    texts = {label.item()["string"] for label in pc.viz["xlabel"]["curve"]}
    assert texts == {"ridge, at 100 training points"}
    first = plots.plot_ridge_criteria(dt, backend="none")
    assert text_of(first, panel="test error") == "least at ridge 1"
    logs = {"function": "yscale", "scale": "log"}
    on, off = (pc.viz["plot"].sel(panel=p).item() for p in ("test error", "log evidence"))
    assert logs in on and logs not in off


def test_histogram_has_the_area_of_what_is_not_zero(dt):
    pc = plots.plot_spectral_density(dt, backend="none")
    found, band = drawn(pc, "law"), drawn(pc, "law", "band")["sample"]
    x = np.log(found["sample"]["x"])
    area = (np.diff(x) * found["sample"]["y"][1:])[::2].sum()
    np.testing.assert_allclose(area, 0.75)
    np.testing.assert_allclose(band["y_top"], found["sample"]["y"])
    assert (band["y_bottom"] == 0).all()
    np.testing.assert_allclose(found["theory"]["y"], np.linspace(0.1, 8, 50))
    there = EIGENVALUES[EIGENVALUES > 0]
    np.testing.assert_allclose(found["sample"]["x"][[0, -1]], [there.min(), there.max()])
    assert text_of(pc) == "share of zero eigenvalues: 30.0% in theory, 25.0% in the sample"
    alone = io.label(spectral_density=dt["spectral_density"].to_dataset())
    assert set(drawn(plots.plot_spectral_density(alone, backend="none"), "law")) == {"theory"}
