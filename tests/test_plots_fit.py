# SPDX-License-Identifier: Apache-2.0
import arviz as az
import numpy as np
import pytest
import xarray as xr

from bayesrg import io, plots

rng = np.random.default_rng(4)
X = rng.normal(size=(12, 1))
X_NEW = rng.permutation(np.linspace(-2.0, 2.0, 7))[:, None]
LEAD = ("chain", "draw")


def fit_groups(columns=1, outputs=2):
    """A fit of several outputs with predictions, as fit and predict leave them together."""
    shape = (2, 200, outputs, 7)
    tree = io.to_datatree(
        {
            "observed_data": {"height": rng.normal(size=(outputs, 12))},
            "constant_data": {"X": np.repeat(X, columns, 1)},
        },
        {"height": ("output", "point"), "X": ("point", "feature")},
    )
    new = io.to_datatree(
        {
            "predictions": {"f": rng.normal(size=shape), "y": 10.0 + rng.normal(size=shape)},
            "predictions_constant_data": {"X": np.hstack([X_NEW, 0.0 * X_NEW])[:, :columns]},
        },
        {"f": ("output", "point_new"), "y": ("output", "point_new"), "X": ("point_new", "feature")},
    )
    tree.update(new.children)
    return tree


def single(columns=1):
    """The first output alone, without the axis of outputs."""
    tree = fit_groups(columns)
    for group in ("observed_data", "predictions"):
        tree[group] = tree[group].to_dataset().isel(output=0, drop=True)
    return tree


def drawn(pc, what, **panel):
    """Numbers handed to the backend, without padding."""
    artist = pc.viz[what]["curve"].sel(panel).squeeze().item()
    return {
        key: np.asarray(artist[key]) for key in ("x", "y", "y_bottom", "y_top") if key in artist
    }


@pytest.mark.parametrize("probability", [0.89, 0.5])
def test_every_output_has_its_data_mean_and_band(probability):
    dt = fit_groups()
    with az.rc_context({"stats.ci_prob": probability}):
        pc = plots.plot_fit(dt, var_name="y", backend="none")
    order = np.argsort(X_NEW[:, 0])
    tail = (1 - probability) / 2
    for i in range(2):
        draws = dt["predictions"]["y"].to_numpy()[:, :, i].reshape(400, 7)[:, order]
        panel = {"panel": f"output {i}"}
        curve, band, points = (drawn(pc, what, **panel) for what in ("curve", "band", "points"))
        np.testing.assert_allclose(curve["x"], np.sort(X_NEW[:, 0]))
        np.testing.assert_allclose(curve["y"], draws.mean(0))
        np.testing.assert_allclose(band["y_bottom"], np.quantile(draws, tail, axis=0), atol=0.02)
        np.testing.assert_allclose(band["y_top"], np.quantile(draws, 1 - tail, axis=0), atol=0.02)
        np.testing.assert_allclose(points["x"], X[:, 0])
        np.testing.assert_allclose(points["y"], dt["observed_data"]["height"][i])
    assert f"mean and {probability:.0%} band" in pc.aes["color"]["part"]
    assert pc.viz["ylabel"]["curve"][0].item()["string"] == "height"


def test_one_output_of_one_vector_and_a_plate_of_any_name():
    dt = single()
    values = dt["observed_data"].to_dataset()
    for group in ("constant_data", "predictions_constant_data"):
        dt[group] = dt[group].to_dataset().isel(feature=0, drop=True)
    dt["observed_data"] = values.rename(point="patient")
    pc = plots.plot_fit(dt, backend="none")
    np.testing.assert_allclose(drawn(pc, "points")["y"], values["height"])
    assert pc.viz["title"]["curve"].item()["string"] == "the function given 12 points"
    del dt["observed_data"]
    assert "points" not in plots.plot_fit(dt, backend="none").viz.children


def test_one_of_several_columns_is_named():
    dt = single(columns=2)
    with pytest.raises(ValueError, match="x must name one of the columns of X, 0, 1, or .* got N"):
        plots.plot_fit(dt, backend="none")
    with pytest.raises(ValueError, match="a curve along 1 would join points that differ"):
        plots.plot_fit(dt, x=1, backend="none")
    pc = plots.plot_fit(dt, x=0, backend="none")
    np.testing.assert_allclose(drawn(pc, "curve")["x"], np.sort(X_NEW[:, 0]))
    for group, point in (("constant_data", "point"), ("predictions_constant_data", "point_new")):
        inputs = dt[group].to_dataset().assign_coords(feature=["bmi", "age"])
        dt[group] = inputs.assign(year=(point, 2000.0 + np.arange(inputs.sizes[point])))
    for name, expected in (("bmi", X[:, 0]), ("year", 2000.0 + np.arange(12))):
        pc = plots.plot_fit(dt, x=name, backend="none")
        np.testing.assert_allclose(drawn(pc, "points")["x"], expected)
        assert pc.viz["xlabel"]["curve"].item()["string"] == name


@pytest.mark.parametrize("group", ["posterior_predictive", "prior_predictive"])
def test_predictions_at_the_training_inputs(group):
    dt = single()
    draws = rng.normal(size=(2, 200, 12))
    plate = {"posterior_predictive": "point", "prior_predictive": "patient"}[group]
    dt[group] = xr.Dataset({"f": ((*LEAD, plate), draws)})
    pc = plots.plot_fit(dt, group=group, backend="none")
    order = np.argsort(X[:, 0])
    np.testing.assert_allclose(drawn(pc, "curve")["y"], draws.mean((0, 1))[order])
    given = {"posterior_predictive": "given 12 points", "prior_predictive": "under the prior"}
    assert pc.viz["title"]["curve"].item()["string"] == f"the function {given[group]}"


def test_what_is_missing_or_does_not_fit_is_named():
    dt = fit_groups()
    two = dt.copy()
    two["observed_data"] = dt["observed_data"].to_dataset().assign(other=("point", X[:, 0]))
    with pytest.raises(ValueError, match="has the sites 'height', 'other', and one can be drawn"):
        plots.plot_fit(two, backend="none")
    for name, message in (
        ("none", r"'none' has dims \(\); select"),
        ("other", "has 1 outputs and"),
    ):
        two["observed_data"] = (
            two["observed_data"].to_dataset().assign(none=0.0)[[name, "other"]][[name]]
        )
        with pytest.raises(ValueError, match=message):
            plots.plot_fit(two, backend="none")
        two["observed_data"] = dt["observed_data"].to_dataset().assign(other=("point", X[:, 0]))
    deep = dt.copy()
    deep["predictions"] = dt["predictions"].to_dataset().expand_dims("sort")
    with pytest.raises(ValueError, match="at most one axis of outputs"):
        plots.plot_fit(deep, backend="none")


def test_a_png_of_three_rows(tmp_path):
    pc = plots.plot_fit(fit_groups(outputs=3), col_wrap=1, backend="matplotlib")
    width, height = pc.get_viz("figure").get_size_inches()
    assert (width, height) == (9.0, pytest.approx(3 * 4.2))
    pc.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
