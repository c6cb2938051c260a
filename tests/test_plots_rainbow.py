# SPDX-License-Identifier: Apache-2.0
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

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
    error = 1.0 + np.arange(12.0).reshape(2, 2, 3)
    return io.label(
        equivalent=curve(SIZES / 40.0, "calibration"),
        wrong=curve(SIZES / 20.0, "calibration"),
        optimal_ridge=optimum("test", [1.0, 2.0]),
        optimal_ridge_evidence=optimum("evidence", [1.5, 3.0]),
        spectral_density=Density(jnp.linspace(0.1, 8, 50), jnp.ones(50), jnp.asarray(0.3)),
        sample_spectrum=xr.Dataset({"values": (("draw", "mode"), EIGENVALUES)}),
        linearisation=xr.Dataset(
            {"error": (("layer", "method", "width"), error)},
            {"layer": [1, 2], "method": ["mean", "closure"], "width": [200, 50, 100]},
        ),
    )


@pytest.fixture(scope="module")
def dt():
    return rainbow_groups()


def drawn(pc, label, what="curve"):
    """What the backend "none" was told to draw, by the names along the axis ``label``."""
    found = {}
    for name, artist in pc.viz[what]["curve"].groupby(label):
        parts = artist.item()
        if isinstance(parts, dict):
            arrays = {k: np.asarray(v) for k, v in parts.items() if k in PARTS}
            there = np.isfinite(arrays["x"]) | (what == "error")
            found[str(name)] = {k: v[there] for k, v in arrays.items()}
    return found


PARTS = ("x", "y", "y_bottom", "y_top")


def title_of(pc, **where):
    return pc.viz["title"]["curve"].sel(where).item()["string"]


def test_several_experiments_share_the_colour_of_their_theory():
    dt = io.label(
        best=curve(1.0 / SIZES), small=curve(3.0 / SIZES), large=curve(2.0 / SIZES),
        small_mc=curve(3.1 / SIZES[:2], error=0.1 / SIZES[:2]), large_mc=curve(2.1 / SIZES[1:]),
    )  # fmt: skip
    pc = plots.plot_learning_curve(
        dt, group="best", label="best", quantity="test", also={"s": "small", "l": "large"},
        experiment={"s": "small_mc", "l": "large_mc"}, rank=30, backend="none",
    )  # fmt: skip
    lines, points = drawn(pc, "line"), drawn(pc, "line", "points")
    assert set(lines) == {"best", "s", "l"} and set(points) == {"s", "l"}
    np.testing.assert_allclose(lines["best"]["y"], 1.0 / SIZES)
    np.testing.assert_allclose(points["s"]["y"], 3.1 / SIZES[:2])
    error = drawn(pc, "line", "error")["s"]
    np.testing.assert_allclose(error["y"][:2], [0.3, 0.32])
    first, second = ({pc.viz[what]["curve"].sel(line=name).item()[key] for what, key in
                      (("curve", "color"), ("points", "facecolor"))} for name in "sl")  # fmt: skip
    assert len(first) == len(second) == 1 and first != second
    assert pc.viz["rank"]["curve"].item()["x"] == 30.0
    assert "(dashed: 30 features)" in title_of(pc)
    with pytest.raises(ValueError, match="the tree has no group 'none'"):
        plots.plot_learning_curve(dt, group="best", quantity="test", experiment={"s": "none"})


def test_an_experiment_without_a_line_has_a_name_of_its_own():
    dt = io.label(best=curve(1.0 / SIZES), mc=curve(3.0 / SIZES))
    given = {"group": "best", "quantity": "test", "backend": "none"}
    pc = plots.plot_learning_curve(dt, experiment={"seen": "mc"}, **given)
    assert set(drawn(pc, "line")) == {"theory"} and set(drawn(pc, "line", "points")) == {"seen"}
    assert "points" not in plots.plot_learning_curve(dt, **given).viz


def test_calibration_stands_over_one(dt):
    pc = plots.plot_calibration(dt, label="right", also={"wrong": "wrong"}, backend="none")
    found = drawn(pc, "line")
    np.testing.assert_allclose(found["right"]["y"], SIZES / 40)
    np.testing.assert_allclose(found["wrong"]["y"], SIZES / 20)
    assert pc.viz["calibrated"]["curve"].item()["y"] == 1.0


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
    assert title_of(pc, panel="log evidence") == "greatest at ridge 3"
    texts = {label.item()["string"] for label in pc.viz["xlabel"]["curve"]}
    assert texts == {"ridge, at 100 training points"}
    first = plots.plot_ridge_criteria(dt, backend="none")
    assert title_of(first, panel="test error") == "least at ridge 1"
    logs = {"function": "yscale", "scale": "log"}
    on, off = (pc.viz["plot"].sel(panel=p).item() for p in ("test error", "log evidence"))
    assert logs in on and logs not in off


@pytest.mark.parametrize("log", [False, True])
def test_histogram_has_the_area_of_what_is_not_zero(log, dt):
    pc = plots.plot_spectral_density(dt, log=log, bins=12, backend="none")
    found, band = drawn(pc, "law"), drawn(pc, "law", "band")["sample"]
    x = np.log(found["sample"]["x"]) if log else found["sample"]["x"]
    area = (np.diff(x) * found["sample"]["y"][1:])[::2].sum()
    np.testing.assert_allclose(area, 0.75)
    np.testing.assert_allclose(band["y_top"], found["sample"]["y"])
    assert (band["y_bottom"] == 0).all()
    grid = np.linspace(0.1, 8, 50)
    np.testing.assert_allclose(found["theory"]["y"], grid if log else np.ones(50))
    there = EIGENVALUES[EIGENVALUES > 0]
    np.testing.assert_allclose(found["sample"]["x"][[0, -1]], [there.min(), there.max()])
    assert title_of(pc) == "share of zero eigenvalues: 30.0% in theory, 25.0% in the sample"
    alone = plots.plot_spectral_density(dt, sample=None, backend="none")
    assert set(drawn(alone, "law")) == {"theory"}


def test_linearisation_errors_have_a_panel_a_layer(dt):
    pc = plots.plot_linearisation_error(dt, backend="none")
    for layer in (1, 2):
        for method in ("mean", "closure"):
            at = {"panel": f"layer {layer}", "method": method}
            shown = pc.viz["curve"]["curve"].sel(at).item()
            expected = dt["linearisation"]["error"].sel({"layer": layer, "method": method})
            np.testing.assert_array_equal(shown["x"], [50, 100, 200])
            np.testing.assert_allclose(shown["y"], expected.sel(width=[50, 100, 200]))


@pytest.mark.parametrize(
    "name",
    ["plot_calibration", "plot_ridge_criteria", "plot_spectral_density",
     "plot_linearisation_error"],
)  # fmt: skip
def test_a_png_is_written(name, dt, tmp_path):
    getattr(plots, name)(dt, backend="matplotlib").savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
