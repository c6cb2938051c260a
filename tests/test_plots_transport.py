# SPDX-License-Identifier: Apache-2.0
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from plotted import drawn, marked, text_of

from bayesrg import io, plots

K, N, LEAD = 4, 30, ("chain", "draw")
rng = np.random.default_rng(0)
START = rng.standard_normal((N, 2))
LABEL = (START[:, 0] > 0).astype(int)


def transport_group(bend, draws=8):
    """What `diagnostics.transport.measure` makes of a network, here of points that turn."""
    angle = np.linspace(0.0, 1.0, K + 1)[:, None] * np.pi / 2
    states = START + [1.0, 0.5] * angle[..., None] + bend * np.stack([angle**2, 0 * angle], -1)
    states = states + 0.02 * rng.standard_normal((2, draws, 1, 1, 1)) * angle[..., None]
    action = (np.diff(states, axis=2) ** 2).sum(-1).mean(-1)
    T, D = action.sum(-1), ((states[:, :, -1] - states[:, :, 0]) ** 2).sum(-1).mean(-1)
    numbers = dict(transport_cost=T, kinetic_energy=K * T, displacement=D, straightness=D / T / K)
    return xr.Dataset(
        {name: (LEAD, value) for name, value in numbers.items()}
        | {
            "layer_action": ((*LEAD, "layer"), action),
            "trajectory": ((*LEAD, "state", "point", "feature"), states),
        },
        coords={"layer": np.arange(1, K + 1), "label": ("point", LABEL)},
    )


def runs_group(scale):
    """What `diagnostics.transport.accuracy_against_cost` makes of runs."""
    cost = scale * rng.gamma(9.0, size=24)
    pair = {"accuracy": ("run", 0.9 - 0.001 * cost), "transport_cost": ("run", cost)}
    return xr.Dataset(pair | {"spearman": -1.0, "low": -1.0, "high": -0.93})


def transport_groups():
    """Every group that the plots of this file read by default, and one more."""
    straight, bent = transport_group(0.0), transport_group(1.0)
    w2 = np.sqrt(0.9 * bent["displacement"])
    return io.label(
        transport=bent,
        transport_distance=xr.Dataset({"w2": w2}, attrs={"points": N}),
        straight=straight,
        accuracy_against_cost=runs_group(1.0),
        cheap=runs_group(0.1),
    )


def training_group(chains=3):
    """What `io.trajectory` makes of a run of least action."""
    step = np.arange(101)
    loss = 2.0 * np.exp(-0.03 * step) * rng.gamma(50.0, 0.02, (chains, 101))
    seen = {"loss": loss, "transport": 0.2 * (1 - loss / 2.2), "lambda": 1 + 0.1 * step}
    dims = "chain", "each_step"
    seen["lambda"] = np.tile(seen["lambda"], (chains, 1))
    return xr.Dataset({n: (dims, v) for n, v in seen.items()}, coords={"each_step": step})


@pytest.fixture
def dt():
    return transport_groups()


def test_paths_of_a_draw_have_the_colour_of_their_class(dt):
    pc = plots.plot_paths(dt, draw=9, max_points=20, features=(1, 0), backend="none")
    lines, ends = drawn(pc, "label"), drawn(pc, "label", "points")
    states = dt["transport"]["trajectory"].to_numpy()[1, 1, :, :20, ::-1]
    for i, name in enumerate(("class 0", "class 1")):
        mine = states[:, LABEL[:20] == i]
        np.testing.assert_array_equal(lines[name]["x"], mine[..., 0].T.ravel())
        np.testing.assert_array_equal(lines[name]["y"], mine[..., 1].T.ravel())
        np.testing.assert_array_equal(ends[name]["y"], mine[-1, :, 1])
    assert text_of(pc, "xlabel") == "feature 1" and text_of(pc, "ylabel") == "feature 0"


def test_a_class_has_one_colour_in_all_panels_and_plots(dt):
    some = dt["transport"].to_dataset().isel(point=LABEL == 1)
    dt["some"] = some.assign_coords(label=("point", np.full(some.sizes["point"], 1)))
    colours = set()
    for plot in (plots.plot_paths, plots.plot_displacement):
        for groups in (["transport"], ["some", "transport"], ["transport", "some"]):
            pc = plot(dt, group=groups[0], also=groups[1:], backend="none")
            colours.add(pc.aes["color"]["mapping"].sel(label="class 1").item())
    assert len(colours) == 1
    pc = plots.plot_paths(dt, group="straight", also=["some"], backend="none")
    assert text_of(pc, panel="some") == "some"
    letters = np.where(np.arange(some.sizes["point"]) % 2, "a", "b")
    named = dt["some"].to_dataset().assign_coords(label=("point", letters))
    dt["named"] = named
    assert set(drawn(plots.plot_paths(dt, group="named", backend="none"), "label")) == {"a", "b"}
    dt["bare"] = named.drop_vars("label").isel(chain=0, draw=0)
    assert set(drawn(plots.plot_paths(dt, group="bare", backend="none"), "label")) == {"all"}


def test_arrows_lead_from_the_first_to_the_last_state(dt):
    found = drawn(plots.plot_displacement(dt, draw=3, backend="none"), "label")["class 1"]
    states = dt["transport"]["trajectory"].to_numpy()[0, 3, :, LABEL == 1]
    corners = np.stack([found["x"], found["y"]], -1).reshape(-1, 5, 2)
    np.testing.assert_array_equal(corners[:, 0], states[:, 0])
    np.testing.assert_array_equal(corners[:, 1], states[:, -1])
    np.testing.assert_array_equal(corners[:, 3], states[:, -1])
    move, barbs = states[:, -1:] - states[:, :1], corners[:, [2, 4]] - states[:, -1:]
    cosine = (move * barbs).sum(-1) / np.linalg.norm(move, axis=-1) / np.linalg.norm(barbs, axis=-1)
    np.testing.assert_allclose(cosine, -2 / np.sqrt(5), rtol=1e-9)
    still = dt["transport"].to_dataset()
    still["trajectory"] = 0 * still["trajectory"]
    found = drawn(plots.plot_displacement(io.label(transport=still), backend="none"), "label")
    assert (found["class 0"]["x"] == 0).all()


def test_layers_are_bars_with_intervals(dt):
    pc = plots.plot_layer_action(dt, also=["straight"], backend="none")
    tops, bars = drawn(pc, "series", "points"), drawn(pc, "series")
    for i, name in enumerate(("transport", "straight")):
        action = dt[name]["layer_action"].to_numpy().reshape(-1, K)
        np.testing.assert_allclose(tops[name]["y"], np.median(action, 0))
        assert (np.sign(tops[name]["x"] - np.arange(1, K + 1)) == 2 * i - 1).all()
        x, y = (bars[name][axis].reshape(K, 4) for axis in "xy")
        np.testing.assert_allclose(y, np.median(action, 0)[:, None] * [0, 1, 1, 0])
        np.testing.assert_allclose(x.mean(1), tops[name]["x"])
        ends = drawn(pc, "series", "error")[name]["y"].reshape(K, 3)[:, :2]
        np.testing.assert_allclose(ends, np.quantile(action, [0.055, 0.945], 0).T, rtol=1e-6)
    assert bars["transport"]["x"].reshape(K, 4).max() < bars["straight"]["x"].reshape(K, 4).max()
    dt["one"] = dt["straight"].to_dataset().isel(chain=0, draw=0)
    pc = plots.plot_layer_action(dt, group="one", relative=True, backend="none")
    assert "points" not in pc.viz.children and marked(pc, "equal", "y") == 1.0
    tops = drawn(pc, "series")["one"]["y"].reshape(K, 4)[:, 1]
    np.testing.assert_allclose(tops, K * dt["one"]["layer_action"] / dt["one"]["transport_cost"])
    lone = dt["straight"].to_dataset().isel(chain=[0], draw=[3])
    pc = plots.plot_layer_action(io.label(transport=lone), backend="none")
    assert "points" not in pc.viz.children


def test_the_ladder_has_a_third_rung_if_there_are_distances(dt):
    pc = plots.plot_action_ladder(dt, also=["straight"], backend="none")
    found = drawn(pc, "series")
    values = dt["transport"].to_dataset().median(LEAD)
    expected = [values["kinetic_energy"], values["displacement"], 0.9 * values["displacement"]]
    np.testing.assert_allclose(found["transport"]["y"], expected)
    assert (np.diff(found["transport"]["y"]) < 0).all()
    np.testing.assert_array_equal(found["straight"]["x"], [1, 2])
    bars = drawn(pc, "series", "error")["transport"]["y"].reshape(3, 3)
    energy = dt["transport"]["kinetic_energy"].to_numpy()
    np.testing.assert_allclose(bars[0, :2], np.quantile(energy, [0.055, 0.945]), rtol=1e-6)


def test_training_has_a_panel_for_each_number_that_was_computed(dt):
    group = training_group()
    plain = group[["loss"]].isel(chain=[0])
    dt.update(io.label(dynamics=group, plain=plain).children)
    pc = plots.plot_least_action(dt, also=["plain"], backend="none")
    assert pc.data["panel"].to_numpy().tolist() == ["loss", "transport cost T", "multiplier lambda"]
    curve = pc.viz["curve"]["curve"].sel(series="dynamics")
    y = curve.sel(panel="loss").item()["y"]
    np.testing.assert_allclose(y, np.median(group["loss"], 0))
    lone = pc.viz["curve"]["curve"].sel(series="plain", panel="loss").item()["y"]
    np.testing.assert_allclose(lone, plain["loss"][0])
    pc = plots.plot_least_action(dt, group="plain", backend="none")
    assert pc.data["panel"].to_numpy().tolist() == ["loss"]


def test_what_diverged_is_left_out_of_training():
    group, step = training_group(), xr.Variable("each_step", np.arange(101))
    group["loss"] = group["loss"].where((step < 60) | xr.Variable("chain", [True, False, True]))

    def losses(group):
        pc = plots.plot_least_action(io.label(dynamics=group), backend="none")
        assert pc.data["panel"].size == 3
        y = pc.viz["curve"]["curve"].sel(series="dynamics", panel="loss").item()["y"]
        return y[np.isfinite(y)]  # curves are padded to one length

    np.testing.assert_allclose(losses(group), np.median(group["loss"][[0, 2]], 0))
    np.testing.assert_allclose(losses(group.isel(chain=[1])), group["loss"][1, :60])
    nothing = io.label(dynamics=group[["loss"]] * np.nan)
    with pytest.raises(ValueError, match="'loss' of group 'dynamics' has no finite value"):
        plots.plot_least_action(nothing, backend="none")


def test_all_layers_of_the_deepest_network_are_named(dt):
    dt["short"] = dt["straight"].to_dataset().isel(layer=slice(2))
    pc = plots.plot_layer_action(dt, group="short", also=["straight"], backend="matplotlib")
    texts = pc.viz["plot"].item().get_xticklabels()
    assert [text.get_text() for text in texts] == ["1", "2", "3", "4"]
    plt.close(pc.viz["figure"].item())


def test_accuracy_stands_over_cost(dt):
    pc = plots.plot_accuracy_against_cost(dt, backend="none")
    found, group = drawn(pc, "series")["runs"], dt["accuracy_against_cost"]
    np.testing.assert_array_equal(found["x"], group["transport_cost"])
    np.testing.assert_array_equal(found["y"], group["accuracy"])
    assert text_of(pc) == "correlation -1.00 (-1.00 to -0.93)"
    pc = plots.plot_accuracy_against_cost(dt, also=["cheap"], backend="matplotlib")
    figure = pc.viz["figure"].item()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title()[:8] for axes in panels] == ["accuracy", "cheap: c"]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    low, high = panels[0].get_ylim()
    both = np.concatenate([group["accuracy"], dt["cheap"]["accuracy"]])
    assert low < both.min() and both.max() < high
    plt.close(figure)


def test_densities_of_the_action(dt):
    pc = plots.plot_action_posterior(dt, also=["straight"], backend="none")
    for name, curve in drawn(pc, "series").items():
        draws = dt[name]["transport_cost"].to_numpy()
        assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(1.0, abs=0.05)
        assert draws.min() <= curve["x"][np.argmax(curve["y"])] <= draws.max()
    pc = plots.plot_action_posterior(dt, var_name="straightness", backend="none")
    assert text_of(pc, "xlabel") == "straightness D/E"
    dt["transport"]["straightness"][:, 2:] = np.nan
    one = 1 + 1e-15 * rng.standard_normal((2, 8))
    for values in (one, np.full((2, 8), np.nan)):
        dt["straight"]["straightness"][:] = values
        with pytest.raises(ValueError, match="fewer than two different finite values"):
            plots.plot_action_posterior(
                dt, also=["straight"], var_name="straightness", backend="none"
            )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(features=(0, 2)), "features are 0, 2 and group 'transport' has 2 features"),
        (dict(features=(0,)), "features has 1 entries; give two"),
        (dict(features=(0, -1)), "features must be an integer of at least 0, got -1"),
        (dict(draw=16), "draw is 16 and group 'transport' has 16 draws"),
        (dict(max_points=0), "max_points must be a positive integer, got 0"),
        (dict(also="straight"), "also must be a list of names of groups"),
    ],
)
def test_bad_choices_are_named(given, message, dt):
    with pytest.raises(ValueError, match=message):
        plots.plot_paths(dt, backend="none", **given)


def test_planes_have_equal_scales(dt):
    figure = plots.plot_paths(dt, backend="matplotlib").viz["figure"].item()
    assert figure.axes[0].get_aspect() == 1.0
    plt.close(figure)
