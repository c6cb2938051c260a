# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS
from oracles import conditional, fourier_modes, fourier_problem
from sampling import from_prior, two_steps
from scipy.special import gammaln
from scipy.stats import norm

import bayesrg as brg
from bayesrg.inference.sites import fingerprint
from bayesrg.models import gp_modes

p = fourier_problem()
SMALL = {"draws": 50, "warmup": 30, "chains": 2, "block": 20, "progress": False, "devices": 1}
HYPER = {"prior_scale": 2.0, "shift": np.ones(1)}  # a number and an array


def linear(X, y=None, *, prior_scale=1.0, shift=None):
    """Two named axes, a deterministic, and a noise; quick to compile."""
    with numpyro.plate("feature", X.shape[1]):
        weight = numpyro.sample("weight", dist.Normal(0, prior_scale))
    mean = numpyro.deterministic("mean", X @ weight + (0.0 if shift is None else shift))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(mean, noise), obs=y)


@pytest.fixture(scope="module")
def line():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 2))
    return X, X @ [1.0, -0.5] + 0.3 * rng.standard_normal(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def fitted(line, folder):
    how = SMALL | HYPER | {"prior": 40, "path": folder}
    return brg.fit(linear, line, key=jax.random.key(1), sampler=two_steps, **how)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("kernel, chains", [(two_steps, 2), slow(two_steps, 1), slow(NUTS, 2)])
def test_draws_equal_those_of_numpyro_bit_for_bit(line, fitted, kernel, chains):
    size = {"num_warmup": 30, "num_samples": 50, "num_chains": chains}
    how = {"chain_method": "vectorized", "progress_bar": False, "jit_model_args": chains > 1}
    mcmc = MCMC(kernel(linear), **size, **how)
    mcmc.run(jax.random.key(1), *line, **HYPER)
    if (kernel, chains) != (two_steps, 2):
        how = SMALL | HYPER | {"chains": chains}
        fitted = brg.fit(linear, line, key=1, sampler=kernel, **how)
    for name, draws in mcmc.get_samples(group_by_chain=True).items():
        np.testing.assert_array_equal(fitted["posterior"][name], draws)


def test_the_tree_is_what_arviz_reads(line, fitted):
    shapes = {name: v.dims for name, v in fitted["posterior"].data_vars.items()}
    assert shapes == {
        "weight": ("chain", "draw", "feature"),
        "mean": ("chain", "draw", "mean_axis"),
        "noise": ("chain", "draw"),
    }
    assert fitted["posterior"].sizes["draw"] == 50
    assert fitted["log_likelihood"]["y"].dims == ("chain", "draw", "point")
    assert fitted["observed_data"]["y"].dims == ("point",)
    assert fitted["constant_data"]["X"].dims == ("point", "feature")
    assert fitted["prior"].sizes["draw"] == 40 and "y" in fitted["prior_predictive"]
    assert set(fitted["sample_stats"].data_vars) == {
        "acceptance_rate", "diverging", "energy", "lp", "n_steps", "step_size", "tree_depth",
        "reached_max_tree_depth",
    }  # fmt: skip
    for node in fitted.subtree:
        assert not any("_dim_" in str(d) for d in node.dims)
    assert len(az.summary(fitted, var_names=["weight", "noise"])) == 3
    weight, noise = (fitted["posterior"][n].to_numpy() for n in ("weight", "noise"))
    mean = 1.0 + np.einsum("nd,csd->csn", line[0], weight)
    expected = norm(mean, noise[..., None]).logpdf(line[1])
    np.testing.assert_allclose(fitted["log_likelihood"]["y"], expected, rtol=1e-10)


def test_chains_over_two_devices(line, fitted):
    assert jax.local_device_count() == 2
    dt = brg.fit(linear, line, key=1, sampler=two_steps, **(SMALL | HYPER | {"devices": 2}))
    assert dt.attrs["devices"] == 2
    # Not bit for bit over devices: the start of the same chains is the same
    np.testing.assert_allclose(dt["posterior"]["noise"][:, 0], fitted["posterior"]["noise"][:, 0])


def test_prediction_of_a_model_without_modes(line, fitted, folder):
    X_new = line[0][:4] + 1.0
    out = brg.predict(fitted, linear, X_new, key=0, **HYPER)
    assert out["predictions"]["y"].dims == ("chain", "draw", "point_new")
    own = brg.open_run(folder)  # as if the plate over the points had another name
    own["observed_data"] = fitted["observed_data"].to_dataset().rename(point="patient")
    again = brg.predict(own, linear, X_new, key=0, **HYPER)["predictions"]
    assert again.to_dataset().identical(out["predictions"].to_dataset())
    mean = 1.0 + np.einsum("nd,csd->csn", X_new, fitted["posterior"]["weight"])
    np.testing.assert_allclose(out["predictions"]["f"], mean, rtol=1e-12)
    noise = fitted["posterior"]["noise"].to_numpy()[..., None]
    z = (out["predictions"]["y"] - out["predictions"]["f"]).to_numpy() / noise
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size) and abs(z.mean()) < 5 / np.sqrt(z.size)


def test_hyper_arguments_are_checked(line, fitted):
    with pytest.raises(ValueError, match="hyper-argument 'prior_scale' differs from the fit's"):
        brg.predict(fitted, linear, line[0], key=0, **(HYPER | {"prior_scale": 1.0}))
    with pytest.raises(ValueError, match="hyper-argument 'shift' differs"):
        brg.predict(fitted, linear, line[0], key=0, **(HYPER | {"shift": np.zeros(1)}))
    with pytest.raises(ValueError, match="no hyper-argument 'prior_scal'; did you mean"):
        brg.fit(linear, line, key=1, prior_scal=2.0)

    def greedy(X, y=None, *, draws=3): ...

    with pytest.raises(ValueError, match="the model takes 'draws', which fit takes itself"):
        brg.fit(greedy, line, key=1)


@pytest.fixture(scope="module")
def periodic():
    data = gp_modes.demo(jax.random.key(0))
    X_test, y_test = np.asarray(data.X_test), np.asarray(data.y_test)
    return data._replace(X_test=X_test[:5], y_test=y_test[:5])


@pytest.mark.slow
def test_prediction_is_one_whatever_is_explicit(periodic):
    """All modes explicit, some, none: one posterior of parameters and low modes, one predictive."""
    moments, posterior = {}, {}
    for cutoff in (61, 5, 0):
        dt = brg.fit(gp_modes.model, periodic, key=cutoff, cutoff=cutoff, draws=2000, warmup=1000,
                     chains=2, progress=False)  # fmt: skip
        out = brg.predict(dt, gp_modes.model, periodic.X_test, key=1, cutoff=cutoff)
        moments[cutoff] = out["predictive_moments"].to_dataset(), out["predictions"].to_dataset()
        draws = dt["posterior"].to_dataset()
        draws = draws[[n for n in ("amplitude", "noise", "y_modes") if n in draws]]
        draws = draws.isel(mode=slice(5)) if cutoff else draws[["amplitude", "noise"]]
        posterior[cutoff] = draws.mean(("chain", "draw")), az.mcse(draws)
    for a, b in ((61, 5), (5, 0), (61, 0)):
        for name in posterior[a][0].keys() & posterior[b][0].keys():
            (mean, error), (other, its_error) = (
                [part[name] for part in posterior[c]] for c in (a, b)
            )
            z = np.abs(mean - other) / np.hypot(error, its_error)
            assert float(z.max()) < 4, (a, b, name, z.values)
    for a, b in ((61, 5), (5, 0)):
        for group, name in ((0, "mean"), (1, "f"), (1, "y")):
            means = [moments[c][group][name].mean(("chain", "draw")) for c in (a, b)]
            errors = [az.mcse(moments[c][group][[name]])[name] for c in (a, b)]
            z = np.abs(means[0] - means[1]) / np.sqrt(errors[0] ** 2 + errors[1] ** 2)
            assert float(z.max()) < 4, (a, b, name, z.values)
        spread = [moments[c][1]["f"].std(("chain", "draw")) for c in (a, b)]
        errors = [az.mcse(moments[c][1][["f"]], method="sd")["f"] for c in (a, b)]
        z = np.abs(spread[0] - spread[1]) / np.sqrt(errors[0] ** 2 + errors[1] ** 2)
        assert float(z.max()) < 4, (a, b, z.values)


def joint(data, scale, ridge, Z):
    """Covariance of observations, function at Z, and three modes, from the prior itself."""
    x = np.concatenate([data.X[:, 0], Z[:, 0]])
    B = fourier_modes(x, 61) * np.sqrt(scale * p.values)
    n = len(data.X)
    K = np.block([[B @ B.T, B[:, :3]], [B[:, :3].T, np.eye(3)]])
    K[:n, :n] += ridge * np.eye(n)
    return K


def several(X, Y=None, *, cutoff=0, outputs=2):
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)

    def inner(X, Y):
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0))
        with numpyro.plate("output", outputs):
            fn = brg.gp.marginal(spectrum, X, noise**2)
            numpyro.sample("y", fn, obs=None if Y is None else Y.T)

    (brg.rg.coarsen(inner, y=brg.rg.Coarse(cutoff)) if cutoff else inner)(X, Y)


@pytest.fixture(scope="module")
def two_targets(periodic):
    return periodic.X, np.stack([periodic.y, 2 * periodic.y**2], 1)


@pytest.fixture(scope="module")
def modes_fit(two_targets):
    return brg.fit(several, two_targets, key=0, cutoff=3, sampler=from_prior, **SMALL)


@pytest.fixture(scope="module")
def new_inputs(periodic):
    """As many as the training inputs, so that all predictions are one program."""
    return np.concatenate([periodic.X_test, periodic.X[:19] + 0.01])


@pytest.fixture(scope="module")
def predicted(modes_fit, new_inputs):
    return brg.predict(modes_fit, several, new_inputs, key=1, cutoff=3)


def test_axes_of_several_targets(modes_fit, predicted):
    assert modes_fit["observed_data"]["y"].dims == ("output", "point")
    assert modes_fit["log_likelihood"]["y"].dims == ("chain", "draw", "output", "point")
    assert modes_fit["posterior"]["y_modes"].dims == ("chain", "draw", "output", "mode")
    mean = predicted["predictive_moments"]["mean"]
    assert mean.dims == ("chain", "draw", "output", "point_new")


@pytest.mark.parametrize("at", [{"chain": 0, "draw": 0}, {"chain": 1, "draw": 17}])
def test_predictions_krige_what_was_marginalised(two_targets, modes_fit, predicted, periodic, at):
    """At every draw: the conditional of the joint given observations and low modes."""
    moments, draw = predicted["predictive_moments"].isel(at), modes_fit["posterior"].isel(at)
    K = joint(periodic, 1.0, float(draw["noise"]) ** 2, periodic.X_test)
    for output, y in enumerate(two_targets[1].T):
        values = np.concatenate([y, draw["y_modes"][output]])
        mean, cov = conditional(K, np.r_[0:24, 29:32], np.arange(24, 29), values)
        found = moments.isel(output=output, point_new=slice(5))
        np.testing.assert_allclose(found["mean"], mean, atol=1e-8)
        np.testing.assert_allclose(found["variance"], np.diag(cov), atol=1e-8)
    moments = predicted["predictive_moments"]
    z = (predicted["predictions"]["f"] - moments["mean"]) / np.sqrt(moments["variance"])
    assert abs(float(z.std()) - 1) < 0.1


def test_leave_one_out_densities_of_a_collapsed_site(two_targets, modes_fit, periodic):
    draw = modes_fit["posterior"].isel(chain=0, draw=3)
    K = joint(periodic, 1.0, float(draw["noise"]) ** 2, periodic.X[:0])
    for output, y in enumerate(two_targets[1].T):
        values = np.concatenate([y, draw["y_modes"][output]])
        mean, cov = conditional(K, np.r_[1:27], [0], values[1:])
        expected = norm(mean[0], np.sqrt(cov[0, 0])).logpdf(y[0])
        ours = modes_fit["log_likelihood"]["y"].isel(chain=0, draw=3, output=output, point=0)
        np.testing.assert_allclose(ours, expected, rtol=1e-8)


def test_a_prediction_does_not_depend_on_the_other_rows(
    two_targets, modes_fit, new_inputs, predicted
):
    others = np.concatenate([new_inputs[:2], new_inputs[2:] - 0.3])
    first = brg.predict(modes_fit, several, others, key=1, cutoff=3)
    for group, name in (("predictions", "y"), ("predictive_moments", "variance")):
        same, other = predicted[group][name], first[group][name]
        np.testing.assert_allclose(same[..., :2], other[..., :2], rtol=1e-9)
        assert not np.isclose(same[..., 2:], other[..., 2:]).any()
    own = brg.predict(modes_fit, several, two_targets[0], key=1, cutoff=3)
    assert own["posterior_predictive"]["f"].dims == ("chain", "draw", "output", "point")


@pytest.mark.slow
def test_several_targets_without_a_cut(periodic):
    Y = np.stack([periodic.y, -2 * periodic.y], 1)
    dt = brg.fit(several, (periodic.X, Y), key=0, sampler=two_steps, **SMALL)
    f = brg.predict(dt, several, periodic.X_test, key=0)["predictive_moments"]["mean"]
    np.testing.assert_allclose(f.sel(output=1), -2 * f.sel(output=0), rtol=1e-9)
    noise = float(dt["posterior"]["noise"][1, 5])
    K = joint(periodic, 1.0, noise**2, periodic.X_test)
    mean, _ = conditional(K, np.arange(24), np.arange(24, 29), periodic.y)
    np.testing.assert_allclose(f[1, 5, 0], mean, rtol=1e-8)


@pytest.mark.parametrize("rule", ["local", slow("universal"), slow("truncate")])
def test_other_rules_predict_low_modes_and_add_what_was_eliminated(periodic, rule):
    hyper = {"cutoff": 3, "rule": rule}
    rng, Z = np.random.default_rng(0), periodic.X_test
    sites = {
        "amplitude": rng.gamma(2.0, size=(2, 5)), "noise": rng.gamma(2.0, size=(2, 5)),
        "y_modes": rng.standard_normal((2, 5, 3)),
    }  # fmt: skip
    data = {"observed_data": {"y": periodic.y}, "constant_data": {"X": periodic.X}}
    axes = {"y_modes": ("mode",), "y": ("point",), "X": ("point", "feature")}
    attrs = {"hyper": fingerprint(hyper)}
    dt = brg.io.to_datatree({"posterior": sites} | data, axes, attrs=attrs)
    out = brg.predict(dt, gp_modes.model, Z, key=1, **hyper)
    draws = dt["posterior"]
    amplitude = draws["amplitude"].to_numpy()[..., None]
    Phi = fourier_modes(np.asarray(Z[:, 0]), 61)
    low = np.einsum("nk,csk->csn", Phi[:, :3] * np.sqrt(p.values[:3]), draws["y_modes"])
    mean = np.sqrt(amplitude) * low
    np.testing.assert_allclose(out["predictive_moments"]["mean"], mean, rtol=1e-10)
    high = amplitude * (Phi[:, 3:] ** 2 @ p.values[3:])
    np.testing.assert_allclose(out["predictive_moments"]["variance"], high, rtol=1e-10)


def test_grid_posterior_of_a_conjugate_model():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, 20)

    def model(X, y=None):
        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Poisson(rate).expand((20,)).to_event(1), obs=y)

    grid = {"rate": np.geomspace(0.5, 20.0, 400)}
    posterior = brg.inference.grid_posterior(model, (np.ones(20), counts), grid)
    a, b = 2.0 + counts.sum(), 21.0
    np.testing.assert_allclose(posterior.mean["rate"], a / b, rtol=1e-6)
    np.testing.assert_allclose(posterior.expect(lambda t: t["rate"] ** 2), a * (a + 1) / b**2)
    evidence = gammaln(a) - a * np.log(b) - gammaln(2.0) - gammaln(counts + 1.0).sum()
    np.testing.assert_allclose(posterior.log_evidence, evidence, rtol=1e-8)


def test_a_run_folder_is_written_whole_and_never_overwritten(line, fitted, folder):
    again = brg.open_run(folder)
    np.testing.assert_array_equal(again["posterior"]["weight"], fitted["posterior"]["weight"])
    assert again.attrs["hyper"] == fitted.attrs["hyper"]
    files = {f.name for f in folder.iterdir()}
    assert files == {"result.nc", "run.json", "state.npz", "progress.jsonl", "blocks"}
    with pytest.raises(ValueError, match="holds another run: hyper 'prior_scale' was 2.0 and is"):
        brg.fit(linear, line, key=1, path=folder, **SMALL)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"draws": 0}, "draws must be a positive integer, got 0"),
        ({"warmup": -1}, "warmup must be an integer of at least 0, got -1"),
        ({"devices": 3}, "devices must divide the 2 chains and be at most 2"),
        ({"data": (1, 2, 3)}, "data must be a Data or a pair"),
        ({"data": (np.ones((3, 2)), np.ones(4))}, r"y has shape \(4,\) but the inputs have 3"),
        ({"data": (np.ones((3, 2)) * np.nan, np.ones(3))}, "X contains non-finite"),
    ],
)
def test_bad_input_is_named(line, change, message):
    arguments = SMALL | change
    data = arguments.pop("data", line)
    with pytest.raises(ValueError, match=message):
        brg.fit(linear, data, key=1, **arguments)


def test_bad_prediction_input_is_named(line, fitted):
    for shape in ((3, 5), (0, 2)):
        with pytest.raises(ValueError, match=rf"X_new has shape \({shape[0]}, {shape[1]}\); give"):
            brg.predict(fitted, linear, np.ones(shape), key=0, **HYPER)
    with pytest.raises(ValueError, match="site must be one of 'y', got 'z'"):
        brg.predict(fitted, linear, line[0], key=0, site="z", **HYPER)
