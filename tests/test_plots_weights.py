# SPDX-License-Identifier: Apache-2.0
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from plotted import drawn, marked, text_of

from bayesrg import io, plots
from bayesrg.cli import main
from bayesrg.diagnostics.weights import report, spectra
from bayesrg.ensembles import marchenko_pastur

rng = np.random.default_rng(0)
FIRST = rng.standard_normal((20, 30)) / np.sqrt(30)
TRAINED = FIRST + 2 * np.outer(FIRST[:, 0], np.ones(30))
STEPS, PATHS = np.array([0, 10, 20]), rng.gamma(9.0, size=(7, 3, 2))
SPACINGS = rng.rayleigh(np.sqrt(2 / np.pi), (2, 5000))
LEVELS, GRID = np.array([[0.5, 1.5], [2.5, 9.0]]), np.linspace(0.0, 3.0, 20)
NOISE, WIDTH = np.array([4.0, 1.0, 9.0]), np.array([2.1, 1.0, 3.1])


def weight_groups():
    """Every group that the plots of this file read by default."""
    runs = xr.Dataset({"error": ("run", 0.1 * WIDTH), "kind": ("run", ["a", "b", "a"])})
    layers = {"layer": ["first", "second"]}
    return io.label(
        weight_spectrum=spectra(np.stack([FIRST, TRAINED]), dims=("step",)),
        level_paths=xr.Dataset(
            {"levels": (("chain", "step", "level"), PATHS), "targets": ("level", [9.0, 8.0])},
            coords={"step": STEPS, "time": ("step", 0.1 * STEPS)},
        ),
        spacings=xr.Dataset({"spacings": (("run", "i"), SPACINGS)}, {"run": ["small", "large"]}),
        level_density=xr.Dataset(
            {"levels": (("draw", "level"), LEVELS), "density": ("grid", GRID), "edge": 3.0},
            coords={"grid": GRID},
        ),
        noise_scaling=runs.assign(
            noise=("run", NOISE), width=("run", WIDTH), slope=(("chain", "draw"), [[1.0, 2.0, 1.5]])
        ),
        spacing_width=runs.assign(sigma=("run", NOISE), spacing=("run", WIDTH)),
        spacing_ratios=xr.Dataset(
            {"r": ("layer", [0.5, 0.4]), "r_null": (("layer", "tail"), [[0.4, 0.6], [0.3, 0.7]])},
            coords=layers,
        ),
        spectral_temperature=xr.Dataset(
            {"temperature": ("layer", [0.5, 1.2]), "error": ("layer", [0.1, 0.2]),
             "expected": ("layer", [0.6, 1.0])},
            coords=layers,
        ),
    )  # fmt: skip


@pytest.fixture
def dt():
    return weight_groups()


def test_spectra_stand_over_the_law_of_the_first(dt):
    pc = plots.plot_weight_spectrum(dt, backend="none")
    found = drawn(pc, "matrix")
    assert set(found) == {"step 0", "step 1", "Marchenko-Pastur"}
    for name, W in (("step 0", FIRST), ("step 1", TRAINED)):
        levels = np.linalg.svd(W, compute_uv=False) ** 2
        seen = levels > 1e-3 * FIRST.var() * (np.sqrt(20) + np.sqrt(30)) ** 2
        np.testing.assert_allclose(found[name]["y"], levels[seen], rtol=1e-9)
        np.testing.assert_array_equal(found[name]["x"], np.arange(1, 21)[seen])
    law = found["Marchenko-Pastur"]
    there = np.isfinite(law["y"])
    below = marchenko_pastur.cdf(law["y"][there], 20, 30, FIRST.std())
    np.testing.assert_allclose(20 * (1 - below), law["x"][there] - 0.5, rtol=1e-6)


def test_a_report_has_a_panel_for_each_layer():
    weights = {"a": FIRST, "b": TRAINED[:9]}
    tree = io.label(weight_spectrum=report(weights, key=0, draws=2))
    pc = plots.plot_weight_spectrum(tree, backend="none")
    assert text_of(pc, panel="b") == "b"
    panels = pc.viz["curve"]["curve"].sel(matrix="levels")
    for name, W in weights.items():
        y = panels.sel(panel=name).item()["y"]
        levels = np.linalg.svd(W, compute_uv=False) ** 2
        np.testing.assert_allclose(y[: len(levels)], levels, rtol=1e-9)


def test_levels_in_time_and_their_targets(dt):
    pc = plots.plot_level_paths(dt, backend="none")
    found = drawn(pc, "series")
    np.testing.assert_allclose(found["level 1"]["x"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(found["level 1"]["y"], np.median(PATHS[:, :, 1], 0))
    assert [marked(pc, f"target {i}", "y") for i in (0, 1)] == [8.0, 9.0]
    assert text_of(pc, "xlabel").startswith("time")
    del dt["level_paths"]["time"]
    assert text_of(plots.plot_level_paths(dt, backend="none"), "xlabel") == "step"


def test_spacings_are_a_density_beside_two_laws(dt):
    pc = plots.plot_spacings(dt, backend="none")
    lines, points = drawn(pc, "law"), drawn(pc, "law", "points")
    s = lines["Poisson"]["x"]
    np.testing.assert_allclose(lines["Poisson"]["y"], np.exp(-s), rtol=1e-9)
    surmise = np.pi / 2 * s * np.exp(-np.pi / 4 * s**2)
    np.testing.assert_allclose(lines["Wigner surmise"]["y"], surmise, rtol=1e-9)
    assert set(points) == {"small", "large"}
    for run, values in zip(("small", "large"), SPACINGS, strict=True):
        middle, width = points[run]["x"], np.diff(points[run]["x"])[0]
        np.testing.assert_allclose(points[run]["y"].sum() * width, (values < 3.5).mean())
        first = (values < middle[0] + width / 2).mean() / width
        np.testing.assert_allclose(points[run]["y"][0], first)
    bars = drawn(pc, "law", "error")["small"]["y"].reshape(-1, 3)[:, :2]
    size = np.sqrt(points["small"]["y"] / (5000 * width))
    np.testing.assert_allclose(bars[:, 1] - bars[:, 0], 2 * size, atol=1e-12)


def test_levels_outside_are_points_and_not_in_the_histogram(dt):
    pc = plots.plot_level_density(dt, backend="none")
    found = drawn(pc, "law")
    steps = found["levels"]
    np.testing.assert_allclose((np.diff(steps["x"]) * steps["y"][1:])[::2].sum(), 0.75)
    np.testing.assert_array_equal(drawn(pc, "law", "points")["above the edge"]["x"], [9.0])
    np.testing.assert_array_equal(found["law"]["y"], GRID)
    assert text_of(pc) == "4 levels, 1 of them above the edge"
    del dt["level_density"]["edge"]
    pc = plots.plot_level_density(dt, backend="none")
    assert "points" not in pc.viz.children and drawn(pc, "law")["levels"]["x"].max() == 9.0


def test_widths_stand_over_the_root_of_the_noise(dt):
    pc = plots.plot_noise_scaling(dt, backend="none")
    points = drawn(pc, "kind", "points")
    np.testing.assert_allclose(points["a"]["x"], [2.0, 3.0])
    np.testing.assert_allclose(points["a"]["y"], [2.1, 3.1])
    line = drawn(pc, "kind")["fitted power"]
    np.testing.assert_allclose(line["y"], 1.5 * line["x"])
    bars = drawn(pc, "kind", "error")["b"]["y"]
    np.testing.assert_allclose(bars[:2], [0.9, 1.1])
    pc = plots.plot_spacing_width(dt, backend="none")
    np.testing.assert_allclose(drawn(pc, "kind", "points")["b"]["x"], [np.sqrt(np.pi)])
    diagonal = drawn(pc, "kind")["gas of two levels"]
    np.testing.assert_array_equal(diagonal["x"], diagonal["y"])


def test_ratios_and_temperatures_stand_over_the_layers(dt):
    pc = plots.plot_spacing_ratios(dt, backend="none")
    found = drawn(pc, "series")
    np.testing.assert_array_equal(found["measured"]["x"], [1.0, 2.0])
    null = drawn(pc, "series", "error")["null, 5 to 95 %"]["y"]
    np.testing.assert_allclose(null[[0, 1, 3, 4]], [0.4, 0.6, 0.3, 0.7])
    assert marked(pc, "random matrices", "y") == 0.5307
    with pytest.raises(ValueError, match="along must be one of 'layer'"):
        plots.plot_spacing_ratios(dt, along="epoch", backend="none")
    pc = plots.plot_spectral_temperature(dt, backend="none")
    np.testing.assert_array_equal(drawn(pc, "series")["expected"]["y"], [0.6, 1.0])
    assert marked(pc, "posterior", "y") == 1.0
    bars = drawn(pc, "series", "error")["measured"]["y"]
    np.testing.assert_allclose(bars[[0, 1, 3, 4]], [0.4, 0.6, 1.0, 1.4])


def test_long_names_of_layers_are_slanted(dt):
    for names, angle in ((["a", "b"], 0.0), (["a" * 40, "b" * 40], 30.0)):
        dt["spacing_ratios"] = dt["spacing_ratios"].to_dataset().assign_coords(layer=names)
        figure = plots.plot_spacing_ratios(dt, backend="matplotlib").viz["figure"].item()
        labels = figure.axes[0].get_xticklabels()
        assert [label.get_text() for label in labels] == names
        assert {label.get_rotation() for label in labels} == {angle}
        plt.close(figure)


def test_the_command_writes_two_figures(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "net.npz", first=FIRST, second=TRAINED)
    argv = ["bayesrg", "weights", str(tmp_path / "net.npz"), "--out", str(tmp_path / "figures")]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "second: spacings" in capsys.readouterr().out
    for name in ("levels", "ratios"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    plt.close("all")
