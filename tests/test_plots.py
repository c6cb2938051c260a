# SPDX-License-Identifier: Apache-2.0
import inspect

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr
from arviz import PlotCollection
from oracles import fourier_problem
from test_plots_dynamics import dynamics_groups
from test_plots_fit import fit_groups
from test_plots_kernels import kernel_groups
from test_plots_modified import modified_groups
from test_plots_rainbow import rainbow_groups

from bayesrg import io, plots, rg

p = fourier_problem()
SIZES = np.array([10.0, 20.0, 40.0, 80.0])
RIDGE = 0.1 + np.random.default_rng(0).gamma(2.0, size=12)


def power_law_curve(values):
    return xr.Dataset(
        {"generalisation": ("n_train", values), "generalisation_error": ("n_train", 0.5 * values)},
        coords={"n_train": SIZES[: len(values)]},
    )


def learnt(seed, estimator="draw"):
    """What a network of two layers has learnt, as the diagnostics leave it."""
    rng = np.random.default_rng(seed)
    lead, layers, n = ("chain", "draw"), [1, 2], 6

    def group(shift):
        alignment = rng.beta(3.0, 3.0, (2, 300, 2)) + shift
        return xr.Dataset(
            {
                "log_q_eig": ((*lead, "output"), 0.4 * rng.normal(size=(2, 300, 1)) + shift),
                "target_alignment": ((*lead, "layer"), alignment),
                "spectral_shift": ((*lead, "layer", "mode"), rng.normal(size=(2, 300, 2, 3))),
                "layer_excess": ((*lead, "level"), rng.normal(size=(2, 300, 3)) + shift),
                "drive": (lead, rng.normal(size=(2, 300)) + shift),
            },
            coords={"layer": layers, "level": [1, 2, 3], "mode": [0, 1, 2]},
            attrs={"estimator": estimator, "widths": [20, 30]},
        )

    half = rng.normal(size=(2, 2, n, n))
    kernels = half @ half.swapaxes(-1, -2)
    dims = ("layer", "point", "point_bis")
    richness, depth = np.geomspace(0.1, 10, 5), np.arange(1, 6)
    return io.label(
        feature_learning=group(0.5),
        feature_learning_prior=group(0.0),
        feature_kernels=xr.Dataset(
            {"prior_mean": (dims, kernels[0]), "posterior": (dims, kernels[1]),
             "targets": (("point", "output"), rng.normal(size=(n, 1)))},
            coords={"layer": layers},
        ),
        lazy_to_rich=xr.Dataset(
            {"growth": ("richness", 1 + richness), "exact": ("richness", 1 + 0.9 * richness)},
            coords={"richness": richness},
        ),
        depth=xr.Dataset(
            {"log_evidence": (("width", "depth"), -((depth - np.array([[2], [4]])) ** 2.0))},
            coords={"depth": depth, "width": [10, 50]},
        ).assign_coords(effective_depth=(("width", "depth"), depth / np.array([[10.0], [50]]))),
        routes=xr.Dataset(
            {"z": (("route", "quantity"), rng.normal(size=(2, 3)))},
            coords={"route": ["raw", "collapsed"], "quantity": ["q", "f", "tr Phi"]},
        ),
        sbc=xr.Dataset({"rank": ("simulation", rng.integers(0, 100, 400))}, attrs={"draws": 99}),
        resampling=xr.Dataset(
            {"errors": (("width", "layer"), rng.gamma(2.0, size=(3, 2)))},
            coords={"width": [10, 20, 40], "layer": layers},
        ),
        weight_spectrum=xr.Dataset(
            {"eigenvalues": (("network", "layer", "mode"), rng.gamma(2.0, size=(2, 2, 5)))},
            coords={"network": ["initial", "trained"], "layer": layers},
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dt():
    """A flow and features as they come; what needs more compiling is made up."""
    flow = eqx.filter_jit(lambda Phi: rg.flow(p.values, 24, p.ridge, features=Phi))(p.Phi)
    tree = io.flow_to_datatree(flow)
    features = io.labels.group_of(jax.jit(rg.feature_cumulants, static_argnums=1)(p.Phi, 3))
    learnability = SIZES[:, None] * p.values / (SIZES[:, None] * p.values + 0.2)
    evidence = -10.0 - np.outer(1.0 / np.arange(1, 63), np.arange(len(rg.coarse.RULES)))
    draws = np.random.default_rng(1).normal(size=(2, 500, 5)) + np.arange(5)
    made = io.label(
        learning_curve=power_law_curve(4.0 / SIZES**0.7)
        .drop_vars("generalisation_error")
        .assign(learnability=(("n_train", "mode"), learnability), mode=np.arange(61)),
        learning_curve_mc=power_law_curve(3.0 / SIZES[:3]),
        coarse=power_law_curve(5.0 / SIZES),
        features=features.assign(features=(("point", "mode"), p.Phi)),
        local_ridge=xr.Dataset({"ridge": ("point", RIDGE), "weight": ("point", 1.0 / RIDGE)}),
    )
    made.update(learnt(5).children)
    made.update(rainbow_groups().children)
    made.update(dynamics_groups().children)
    made.update(fit_groups().children)
    made.update(kernel_groups().children)
    made.update(modified_groups().children)
    posterior = io.to_datatree({"posterior": {"y_modes": draws}}, {"y_modes": ("mode",)})
    tree.update({**made.children, **posterior.children})
    flow = tree["flow"].to_dataset().assign(evidence=(("cutoff", "rule"), evidence))
    tree["flow"] = xr.DataTree(flow.assign_coords(rule=list(rg.coarse.RULES)))
    return tree


@pytest.mark.parametrize("name", plots.__all__)
def test_protocol(name, dt):
    plot = getattr(plots, name)
    parameters = inspect.signature(plot).parameters
    assert list(parameters)[0] == "dt" and {"group", "backend", "pc_kwargs"} <= set(parameters)
    pc = plot(dt, backend="none")
    assert isinstance(pc, PlotCollection)
    for part in ("curve", "xlabel", "ylabel", "title"):
        assert part in pc.viz.children, part
    with pytest.raises(ValueError, match="the tree has no group 'elsewhere', only 'flow'"):
        plot(dt, group="elsewhere", backend="none")
    empty = xr.DataTree.from_dict({"flow": xr.Dataset({"other": 1.0})})
    with pytest.raises(ValueError, match="group 'flow' has no variable '.*', only 'other'"):
        plot(empty, group="flow", backend="none")


def drawn(pc, label, what="curve"):
    """What the backend "none" was told to draw for each curve, without padding."""
    found = {}
    for name, artist in pc.viz[what]["curve"].groupby(label):
        if isinstance(artist.item(), dict):
            parts = {k: np.asarray(artist.item()[k]) for k in artist.item() if k in PARTS}
            there = np.isfinite(parts["x"]) | (what == "error")
            found[str(name)] = {k: v[there] for k, v in parts.items()}
    return found


PARTS = ("x", "y", "y_bottom", "y_top")


def test_flow_shows_every_ridge_and_the_stop(dt):
    pc = plots.plot_flow(dt, backend="none")
    curves = drawn(pc, "ridge")
    assert len(curves) == 4
    np.testing.assert_allclose(curves["universal"]["y"], dt["flow"]["universal"][1:])
    np.testing.assert_allclose(curves["universal"]["x"], np.arange(1, 62))
    assert pc.viz["stop"]["curve"].item()["x"] == dt["flow"].attrs["stop"]


def test_draws_become_a_median_and_a_band():
    draws = np.random.default_rng(2).gamma(3.0, size=(2, 400, 3))
    lead = ("chain", "draw")
    group = xr.Dataset(
        {"universal": ((*lead, "cutoff"), draws), "stop": (lead, np.full((2, 400), 2))},
        coords={"cutoff": [1, 2, 4]}, attrs={"n": 24.0},
    )  # fmt: skip
    pc = plots.plot_flow(io.label(flow=group), backend="none")
    flat = draws.reshape(-1, 3)
    np.testing.assert_allclose(drawn(pc, "ridge")["universal"]["y"], np.median(flat, 0))
    band = drawn(pc, "ridge", "band")["universal"]
    np.testing.assert_allclose(band["y_bottom"], np.quantile(flat, 0.055, axis=0), rtol=2e-3)
    np.testing.assert_allclose(band["y_top"], np.quantile(flat, 0.945, axis=0), rtol=2e-3)
    assert pc.viz["stop"]["curve"].item()["x"] == 2.0


def test_rescaled_ridge_marks_the_fixed_point(dt):
    pc = plots.plot_rescaled_ridge(dt, alpha=2, also={"again": "flow"}, backend="none")
    curves = drawn(pc, "flow")
    assert set(curves) == {"bare ridge 0.05", "again"}
    kappa = np.arange(1, 62)
    universal = p.ridge + p.values.sum() - np.cumsum(p.values)
    np.testing.assert_allclose(curves["again"]["y"], universal / (kappa * p.values))
    assert pc.viz["fixed_point"]["curve"].item()["y"] == 0.5
    assert "fixed_point" not in plots.plot_rescaled_ridge(dt, backend="none").viz.children


def test_evidence_shows_every_rule_and_exact_is_flat(dt):
    pc = plots.plot_evidence(dt, backend="none")
    curves = drawn(pc, "rule")
    assert set(curves) == set(rg.coarse.RULES)
    assert np.ptp(curves["exact"]["y"]) < 1e-10
    np.testing.assert_allclose(curves["local"]["y"], dt["flow"]["evidence"].sel(rule="local")[1:])


def test_spectrum_separates_what_is_learnable(dt):
    pc = plots.plot_spectrum(dt, backend="none")
    stop = dt["flow"].attrs["stop"]
    learnt, rest = (drawn(pc, "kind")[kind] for kind in ("learnable", "not learnable"))
    assert np.isfinite(learnt["y"]).sum() == stop and np.isfinite(rest["y"]).sum() == 61 - stop
    level = pc.viz["ridge"]["curve"].item()["y"]
    ridge = dt["flow"]["universal"].sel(cutoff=stop)
    np.testing.assert_allclose(level, ridge / 24)


def test_learnability_is_drawn_for_each_size(dt):
    pc = plots.plot_learnability(dt, n=[20, 75], threshold=0.4, backend="none")
    curves = drawn(pc, "n")
    assert set(curves) == {"n = 20", "n = 80"}
    expected = dt["learning_curve"]["learnability"].sel(n_train=80.0)
    np.testing.assert_allclose(curves["n = 80"]["y"], expected)
    np.testing.assert_allclose(curves["n = 80"]["x"], np.arange(1, 62))
    assert pc.viz["threshold"]["curve"].item()["y"] == 0.4
    running = drawn(plots.plot_learnability(dt, group="spectrum", backend="none"), "n")
    np.testing.assert_allclose(running["n = 24"]["y"], dt["spectrum"]["learnability"])


def test_learning_curve_with_experiment_and_slopes(dt):
    pc = plots.plot_learning_curve(
        dt, also={"coarse": "coarse"}, slopes=(1, 0.5), backend="none"
    )  # fmt: skip
    curves = drawn(pc, "line")
    assert set(curves) == {"theory", "coarse", "slope -1", "slope -0.5"}
    np.testing.assert_allclose(curves["coarse"]["y"], 5.0 / SIZES)
    theory_y = dt["learning_curve"]["generalisation"].to_numpy()
    np.testing.assert_allclose(curves["theory"]["y"], theory_y)
    np.testing.assert_allclose(curves["slope -1"]["y"], theory_y[-1] * 80 / SIZES)
    points = drawn(pc, "line", "points")["experiment"]
    np.testing.assert_allclose(points["x"], SIZES[:3])
    bar = drawn(pc, "line", "error")["experiment"]
    np.testing.assert_allclose(bar["x"][3:5], [20, 20])
    np.testing.assert_allclose(bar["y"][3:5], [0.5 * 3 / 20, 1.5 * 3 / 20])
    assert "points" not in plots.plot_learning_curve(dt, experiment=None, backend="none").viz


def test_local_ridge_against_order_or_input(dt):
    curves = drawn(plots.plot_local_ridge(dt, backend="none"), "quantity")
    np.testing.assert_allclose(curves["local ridge / mean"]["y"], np.sort(RIDGE) / RIDGE.mean())
    assert (np.diff(curves["data weight"]["y"]) <= 0).all()
    x = np.random.default_rng(3).normal(size=12)
    local = dt["local_ridge"].to_dataset().assign(X=("point", x))
    pc = plots.plot_local_ridge(io.label(local_ridge=local), backend="none")
    curve = drawn(pc, "quantity")["local ridge / mean"]
    np.testing.assert_allclose(curve["x"], np.sort(x))
    np.testing.assert_allclose(curve["y"] * RIDGE.mean(), RIDGE[np.argsort(x)])


def test_features_in_pairs_quantiles_and_kurtosis(dt):
    pc = plots.plot_feature_pair(dt, modes=(1, 4), backend="none")
    points = drawn(pc, "kind", "points")["data points"]
    np.testing.assert_allclose(points["x"], p.Phi[:, 1])
    np.testing.assert_allclose(points["y"], p.Phi[:, 4])
    circle = drawn(pc, "kind")["two sigma"]
    np.testing.assert_allclose(circle["x"] ** 2 + circle["y"] ** 2, 4.0)
    curves = drawn(plots.plot_feature_quantiles(dt, modes=[2], backend="none"), "feature")
    white = p.Phi[:, 2] - p.Phi[:, 2].mean()
    median = curves["mode 3"]["y"][99] * white.std()
    np.testing.assert_allclose(median, np.median(white), atol=1e-12, rtol=0)
    np.testing.assert_array_equal(curves["Gaussian"]["x"], curves["Gaussian"]["y"])
    with pytest.raises(ValueError, match="there is no mode 61, only 0 to 60"):
        plots.plot_feature_quantiles(dt, modes=[61], backend="none")
    kinds = drawn(plots.plot_feature_kurtosis(dt, backend="none"), "kind")
    heavy = kinds["heavy"]["y"][np.isfinite(kinds["heavy"]["y"])]
    assert heavy.size == int(dt["features"]["heavy"].sum()) and (np.abs(heavy) > 1).all()


def test_modes_of_two_models_stand_side_by_side(dt):
    pc = plots.plot_modes(dt, label="full", others={"coarse": dt}, modes=3, backend="none")
    found, bars = drawn(pc, "model"), drawn(pc, "model", "error")
    draws = dt["posterior"]["y_modes"].to_numpy().reshape(-1, 5)[:, :3]
    np.testing.assert_allclose(found["full"]["y"], np.median(draws, 0))
    np.testing.assert_allclose(found["coarse"]["x"] - found["full"]["x"], 0.15)
    low, high, gap = bars["full"]["y"].reshape(3, 3).T
    np.testing.assert_allclose(low, np.quantile(draws, 0.055, axis=0), atol=0.02, rtol=0)
    np.testing.assert_allclose(high, np.quantile(draws, 0.945, axis=0), atol=0.02, rtol=0)
    assert np.isnan(gap).all()
    with pytest.raises(ValueError, match="select down to chain, draw"):
        plots.plot_modes(dt.isel(mode=0), backend="none")


def test_order_parameter_over_its_exact_prior(dt):
    pc = plots.plot_order_parameter(dt, saddle=[2.0], backend="none")
    found = drawn(pc, "law")
    x, y = found["prior"]["x"], found["prior"]["y"]
    rng = np.random.default_rng(0)
    log_q = np.log(rng.chisquare(20, 100_000) / 20 * rng.chisquare(30, 100_000) / 30)
    counts, edges = np.histogram(log_q, bins=20, range=(-1.0, 1.0))
    density = counts / (100_000 * np.diff(edges))
    middles = (edges[1:] + edges[:-1]) / 2
    error = np.sqrt(counts) / (100_000 * np.diff(edges)) + 2e-3
    assert (np.abs(np.interp(middles, x, y) - density) < 4 * error).all()
    draws = dt["feature_learning"]["log_q_eig"].to_numpy().ravel()
    curve = found["posterior"]
    mean = np.trapezoid(curve["x"] * curve["y"], curve["x"])
    np.testing.assert_allclose(mean, draws.mean(), atol=0.02, rtol=0)
    assert pc.viz["infinite_width"]["curve"].item()["x"] == 0.0
    np.testing.assert_allclose(pc.viz["saddle"]["curve"].item()["x"], np.log(2.0))
    two = learnt(6)
    for name in ("feature_learning", "feature_learning_prior"):
        group = two[name].to_dataset()
        eig = xr.concat([group["log_q_eig"], group["log_q_eig"] - 1], "output")
        two[name] = xr.DataTree(group.drop_vars("log_q_eig").assign(log_q_eig=eig))
    saved = dt.copy()
    saved["feature_learning"].attrs["widths"] = 25  # as netCDF returns a list of one
    assert "prior" in drawn(plots.plot_order_parameter(saved, backend="none"), "law")
    found = drawn(plots.plot_order_parameter(two, backend="none"), "law")
    assert set(found) == {f"{a}, eigenvalue {i}" for a in ("posterior", "prior") for i in (1, 2)}


def test_alignment_and_spectrum_stand_over_the_prior(dt):
    found = drawn(plots.plot_alignment(dt, theory=[0.5, 0.6], backend="none"), "law")
    assert set(found) == {"posterior", "prior", "theory"}
    for group, name in (("feature_learning", "posterior"), ("feature_learning_prior", "prior")):
        draws = dt[group]["target_alignment"].to_numpy().reshape(-1, 2)
        np.testing.assert_allclose(found[name]["y"], np.median(draws, 0))
        np.testing.assert_array_equal(found[name]["x"], [1, 2])
        draws = dt[group]["spectral_shift"].sel(layer=1).to_numpy().reshape(-1, 3)
        shift = drawn(plots.plot_spectrum_shift(dt, layer=1, backend="none"), "law")
        np.testing.assert_allclose(shift[name]["y"], np.median(draws, 0))
    axes = plots.plot_alignment(dt, backend="matplotlib").get_viz("plot")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2"]
    with pytest.raises(ValueError, match="no layer 3, only"):
        plots.plot_spectrum_shift(dt, layer=3, backend="none")
    mixed = learnt(5)
    mixed["feature_learning_prior"].attrs["estimator"] = "rao_blackwell"
    with pytest.raises(ValueError, match="different estimators, draw, rao_blackwell"):
        plots.plot_alignment(mixed, backend="none")
    del mixed["feature_learning_prior"]
    assert set(drawn(plots.plot_alignment(mixed, backend="none"), "law")) <= {"posterior"}


def test_kernels_are_ordered_by_target(dt):
    pc = plots.plot_kernel_change(dt, layer=1, backend="none")
    cells = [pc.viz["curve"]["curve"].sel(panel=p).item()["density"] for p in
             ("prior mean", "posterior mean", "difference")]  # fmt: skip
    group = dt["feature_kernels"]
    order = np.argsort(group["targets"].to_numpy()[:, 0])
    expected = group["posterior"].sel(layer=1).to_numpy()[np.ix_(order, order)]
    before = group["prior_mean"].sel(layer=1).to_numpy()[np.ix_(order, order)]
    aside = ~np.eye(6, dtype=bool)
    top = max(np.abs(m[aside]).max() for m in (expected, before))
    own = np.abs((expected - before)[aside]).max()  # the difference has a scale of its own
    assert own != top
    np.testing.assert_allclose(cells[1][::2, 1::2], expected.clip(-top, top))
    np.testing.assert_allclose(cells[2][1::2, ::2], (expected - before).clip(-own, own))
    title = pc.viz["title"]["curve"].sel(panel="difference").item()["string"]
    assert title == f"layer 1: difference (to ±{own:.2g})"
    figure = plots.plot_kernel_change(dt, layer=1, backend="matplotlib").viz["figure"].item()
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    np.testing.assert_allclose([bar.get_ylim()[1] for bar in bars], [top, top, own], rtol=1e-6)


def test_growth_and_evidence(dt):
    pc = plots.plot_lazy_to_rich(dt, backend="none")
    np.testing.assert_allclose(
        drawn(pc, "law", "points")["exact"]["y"], dt["lazy_to_rich"]["exact"]
    )
    pc = plots.plot_evidence_by_depth(dt, backend="none")
    found = drawn(pc, "width")
    second = found["log evidence, width 50"]
    np.testing.assert_allclose(second["x"], np.arange(1, 6) / 50)
    np.testing.assert_allclose(second["y"], -((np.arange(1, 6) - 4.0) ** 2))
    assert pc.viz["title"]["curve"].item()["string"].endswith("greatest at 0.2, 0.08")


def test_identity_routes_and_ranks(dt):
    pc = plots.plot_layer_identity(dt, backend="none")
    group = dt["feature_learning"]
    points, error = drawn(pc, "side", "points")["layers"], drawn(pc, "side", "error")["layers"]
    mean = group["layer_excess"].mean(("chain", "draw"))
    np.testing.assert_allclose(points["y"], mean)
    rough = group["layer_excess"].std(("chain", "draw")) / np.sqrt(600)
    half = (error["y"][1::3] - error["y"][0::3]) / 2
    np.testing.assert_allclose(half, rough, rtol=0.3)
    np.testing.assert_allclose(drawn(pc, "side")["drive"]["y"], float(group["drive"].mean()))
    found = drawn(plots.plot_route_agreement(dt, backend="none"), "route")
    np.testing.assert_allclose(found["raw"]["y"], dt["routes"]["z"].sel(route="raw"))
    pc = plots.plot_sbc_ranks(dt, bins=10, backend="none")
    counts = np.bincount(dt["sbc"]["rank"].to_numpy() // 10, minlength=10)
    np.testing.assert_array_equal(drawn(pc, "quantity")["rank"]["y"], counts)
    band = drawn(pc, "quantity", "band")["uniform"]
    assert (band["y_bottom"] < 40).all() and (band["y_top"] > 40).all()


@pytest.mark.parametrize(
    "name",
    ["plot_flow", "plot_learning_curve", "plot_modes", "plot_kernel_change", "plot_alignment"],
)
def test_a_png_is_written(name, dt, tmp_path):
    getattr(plots, name)(dt, backend="matplotlib").savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
