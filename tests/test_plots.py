# SPDX-License-Identifier: Apache-2.0
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from arviz import PlotCollection
from oracles import fourier_problem
from plotted import drawn, marked, text_of
from test_plots_dynamics import dynamics_groups
from test_plots_fit import fit_groups
from test_plots_kernels import kernel_groups
from test_plots_modified import modified_groups
from test_plots_rainbow import rainbow_groups
from test_plots_trained import trained_groups
from test_plots_transport import training_group, transport_groups
from test_plots_weights import weight_groups

from bayesrg import io, plots, rg

p = fourier_problem()
SIZES = np.array([10.0, 20.0, 40.0, 80.0])
RIDGE = 0.1 + np.random.default_rng(0).gamma(2.0, size=12)
KAPPA, STOP = np.arange(62), 13
UNIVERSAL = p.ridge + p.values.sum() - np.cumsum(np.append(0.0, p.values))


def power_law_curve(values):
    return xr.Dataset(
        {"generalisation": ("n_train", values), "generalisation_error": ("n_train", 0.5 * values)},
        coords={"n_train": SIZES[: len(values)]},
    )


def flow_groups():
    """A flow of 61 modes, as `flow_to_datatree` leaves it."""
    evidence = -10.0 - np.outer(1.0 / np.arange(1, 63), np.arange(len(rg.coarse.RULES)))
    ridges = {"universal": 1.0, "dressed": 0.9, "arithmetic": 1.0, "harmonic": 0.8}
    flow = xr.Dataset(
        {name: ("cutoff", share * UNIVERSAL) for name, share in ridges.items()}
        | {"rescaled": ("cutoff", np.append(np.nan, UNIVERSAL[1:] / (KAPPA[1:] * p.values))),
           "evidence": (("cutoff", "rule"), evidence)},
        coords={"cutoff": KAPPA, "rule": list(rg.coarse.RULES)},
        attrs={"n": 24.0, "ridge": p.ridge, "stop": STOP},
    )  # fmt: skip
    values = xr.Dataset({"values": ("mode", p.values)}, coords={"mode": KAPPA[:-1]})
    return io.label(
        flow=flow,
        spectrum=values.assign_attrs(flow.attrs | {"ridge_at_stop": UNIVERSAL[STOP]}),
        local_ridge=xr.Dataset({"ridge": ("point", RIDGE), "weight": ("point", 1.0 / RIDGE)}),
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
            },
            coords={"layer": layers},
            attrs={"estimator": estimator, "widths": [20, 30]},
        )

    half = rng.normal(size=(2, 2, n, n))
    kernels = half @ half.swapaxes(-1, -2)
    dims = ("layer", "point", "point_bis")
    richness, depth = np.geomspace(0.1, 10, 5), np.arange(1, 6)
    growth = xr.Dataset(
        {"growth": (("richness", "layer"), 1 + np.outer(richness, layers))},
        coords={"richness": richness, "layer": layers},
    )
    return io.label(
        feature_learning=group(0.5),
        feature_learning_prior=group(0.0),
        feature_kernels=xr.Dataset(
            {"prior_mean": (dims, kernels[0]), "posterior": (dims, kernels[1]),
             "targets": (("point", "output"), rng.normal(size=(n, 1)))},
            coords={"layer": layers},
        ),
        lazy_to_rich=growth,
        lazy_to_rich_run=0.9 * growth,
        depth=xr.Dataset(
            {"log_evidence": (("width", "depth"), -((depth - np.array([[2], [4]])) ** 2.0))},
            coords={"depth": depth, "width": [10, 50]},
        ),
        routes=xr.Dataset(
            {"z": (("route", "quantity"), rng.normal(size=(2, 3)))},
            coords={"route": ["raw", "collapsed"], "quantity": ["q", "f", "tr Phi"]},
        ),
        sbc=xr.Dataset(
            {"rank": (("simulation", "quantity"), rng.integers(0, 100, (400, 1)))},
            coords={"quantity": ["log q"]}, attrs={"draws": 99},
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dt():
    """Every group that the plots read by default, made up."""
    tree = flow_groups()
    made = io.label(
        learning_curve=power_law_curve(4.0 / SIZES**0.7).drop_vars("generalisation_error"),
        learning_curve_run=power_law_curve(3.0 / SIZES[:3]),
        coarse=power_law_curve(5.0 / SIZES),
    )
    groups = (dynamics_groups, fit_groups, kernel_groups, modified_groups, rainbow_groups)
    groups += (weight_groups, transport_groups)
    for more in (made, learnt(5), trained_groups(), *(make() for make in groups)):
        tree.update(more.children)
    tree["dynamics"] = xr.merge([tree["dynamics"].to_dataset(), training_group()])
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


def test_flow_shows_every_ridge_and_the_stop(dt):
    pc = plots.plot_flow(dt, backend="none")
    curves = drawn(pc, "ridge")
    assert len(curves) == 4
    np.testing.assert_allclose(curves["universal"]["y"], UNIVERSAL[1:])
    np.testing.assert_allclose(curves["universal"]["x"], KAPPA[1:])
    assert marked(pc, "stop") == STOP


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
    assert marked(pc, "stop") == 2.0


def test_rescaled_ridge_marks_the_fixed_point(dt):
    dt["again"] = dt["flow"].copy()
    pc = plots.plot_rescaled_ridge(dt, alpha=2, also=["again"], backend="none")
    curves = drawn(pc, "flow")
    assert set(curves) == {"flow", "again"}
    np.testing.assert_allclose(curves["again"]["y"], UNIVERSAL[1:] / (KAPPA[1:] * p.values))
    assert marked(pc, "fixed_point", "y") == 0.5
    assert "fixed_point" not in plots.plot_rescaled_ridge(dt, backend="none").viz.children


def test_evidence_shows_every_rule(dt):
    pc = plots.plot_evidence(dt, backend="none")
    curves = drawn(pc, "rule")
    assert set(curves) == set(rg.coarse.RULES)
    np.testing.assert_allclose(curves["local"]["y"], dt["flow"]["evidence"].sel(rule="local")[1:])


def test_spectrum_separates_what_is_learnable(dt):
    pc = plots.plot_spectrum(dt, backend="none")
    learnt, rest = (drawn(pc, "kind")[kind] for kind in ("learnable", "not learnable"))
    assert np.isfinite(learnt["y"]).sum() == STOP and np.isfinite(rest["y"]).sum() == 61 - STOP
    np.testing.assert_allclose(marked(pc, "ridge", "y"), UNIVERSAL[STOP] / 24)


def test_learning_curves_with_experiments(dt):
    pc = plots.plot_learning_curve(dt, also=["coarse"], backend="none")
    curves = drawn(pc, "line")
    assert set(curves) == {"learning_curve", "coarse"}
    np.testing.assert_allclose(curves["coarse"]["y"], 5.0 / SIZES)
    theory = dt["learning_curve"]["generalisation"]
    np.testing.assert_allclose(curves["learning_curve"]["y"], theory)
    points = drawn(pc, "line", "points")["learning_curve"]
    np.testing.assert_allclose(points["x"], SIZES[:3])
    bar = drawn(pc, "line", "error")["learning_curve"]
    np.testing.assert_allclose(bar["x"][3:5], [20, 20])
    np.testing.assert_allclose(bar["y"][3:5], [0.5 * 3 / 20, 1.5 * 3 / 20])
    assert "points" not in plots.plot_learning_curve(dt, group="coarse", backend="none").viz


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
    assert marked(pc, "infinite_width") == 0.0
    np.testing.assert_allclose(marked(pc, "saddle"), np.log(2.0))
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


def test_alignment_stands_over_the_prior(dt):
    found = drawn(plots.plot_alignment(dt, theory=[0.5, 0.6], backend="none"), "law")
    assert set(found) == {"posterior", "prior", "theory"}
    np.testing.assert_array_equal(found["theory"]["y"], [0.5, 0.6])
    for group, name in (("feature_learning", "posterior"), ("feature_learning_prior", "prior")):
        draws = dt[group]["target_alignment"].to_numpy().reshape(-1, 2)
        np.testing.assert_allclose(found[name]["y"], np.median(draws, 0))
        np.testing.assert_array_equal(found[name]["x"], [1, 2])
    axes = plots.plot_alignment(dt, backend="matplotlib").get_viz("plot")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2"]
    plt.close(axes.figure)
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
    assert text_of(pc, panel="difference") == f"layer 1: difference (to ±{own:.2g})"
    with pytest.raises(ValueError, match="no layer 3, only"):
        plots.plot_kernel_change(dt, layer=3, backend="none")
    figure = plots.plot_kernel_change(dt, layer=1, backend="matplotlib").viz["figure"].item()
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    np.testing.assert_allclose([bar.get_ylim()[1] for bar in bars], [top, top, own], rtol=1e-6)
    plt.close(figure)


def test_growth_and_evidence(dt):
    pc = plots.plot_lazy_to_rich(dt, backend="none")
    lines, points = drawn(pc, "law"), drawn(pc, "law", "points")
    growth = dt["lazy_to_rich"]["growth"].sel(layer=2)
    np.testing.assert_allclose(lines["layer 2"]["y"], growth)
    np.testing.assert_allclose(points["layer 2"]["y"], 0.9 * growth)
    pc = plots.plot_evidence_by_depth(dt, backend="none")
    second = drawn(pc, "law")["width 50"]
    np.testing.assert_allclose(second["x"], np.arange(1, 6))
    np.testing.assert_allclose(second["y"], -((np.arange(1, 6) - 4.0) ** 2))
    assert text_of(pc).endswith("greatest at 2, 4")
    one = dt["depth"].to_dataset().sel(width=50, drop=True).rename(depth="effective_depth")
    pc = plots.plot_evidence_by_depth(io.label(depth=one), backend="none")
    assert text_of(pc, "xlabel").startswith("effective depth")


def test_routes_and_ranks(dt):
    found = drawn(plots.plot_route_agreement(dt, backend="none"), "route")
    np.testing.assert_allclose(found["raw"]["y"], dt["routes"]["z"].sel(route="raw"))
    pc = plots.plot_sbc_ranks(dt, backend="none")
    counts = np.bincount(dt["sbc"]["rank"].to_numpy()[:, 0] // 5, minlength=20)
    np.testing.assert_array_equal(drawn(pc, "quantity")["log q"]["y"], counts)
    band = drawn(pc, "quantity", "band")["uniform"]
    assert (band["y_bottom"] < 20).all() and (band["y_top"] > 20).all()


@pytest.mark.parametrize(
    "name",
    ["plot_learning_curve", "plot_kernel_change", "plot_phase_diagram",
     *(pytest.param(n, marks=pytest.mark.slow) for n in (
         "plot_ridge_criteria", "plot_target_power", "plot_spectral_density"))],
)  # fmt: skip
def test_a_png_is_written(name, dt, tmp_path):
    pc = getattr(plots, name)(dt, backend="matplotlib")
    pc.savefig(tmp_path / "a.png")
    plt.close(pc.viz["figure"].item())
    assert (tmp_path / "a.png").stat().st_size > 10_000
