# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC, NUTS
from oracles import conditional, fourier_modes, fourier_problem
from scipy.special import gammaln

import bayesrg as brg
from bayesrg.models import gp_modes

p = fourier_problem()
SMALL = {"draws": 50, "warmup": 30, "chains": 2, "block": 20, "progress": False, "devices": 1}
HMC_2 = SMALL | {"sampler": lambda model: HMC(model, num_steps=2, trajectory_length=None)}


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
def fitted(line):
    return brg.fit(linear, line, key=jax.random.key(1), prior=40, **SMALL)


def test_draws_equal_those_of_numpyro_bit_for_bit(line, fitted):
    mcmc = MCMC(NUTS(linear), num_warmup=30, num_samples=50, num_chains=2,
                chain_method="vectorized", progress_bar=False, jit_model_args=True)  # fmt: skip
    mcmc.run(jax.random.key(1), *line)
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
    mean = np.einsum("nd,csd->csn", line[0], weight)
    expected = dist.Normal(mean, noise[..., None]).log_prob(line[1])
    np.testing.assert_allclose(fitted["log_likelihood"]["y"], expected, rtol=1e-10)


def test_one_chain_and_another_sampler(line):
    with pytest.warns(brg.inference.SamplingWarning, match="draws may not be trusted") as caught:
        dt = brg.fit(
            linear, line, key=2, draws=5, warmup=7, chains=1, block=4, progress=False,
            sampler=lambda m: HMC(m, num_steps=3, trajectory_length=None),
        )  # fmt: skip
    assert len(caught) == 1
    assert dict(dt["posterior"].sizes)["chain"] == 1 and dt["posterior"].sizes["draw"] == 5
    mcmc = MCMC(HMC(linear, num_steps=3, trajectory_length=None), num_warmup=7, num_samples=5,
                progress_bar=False)  # fmt: skip
    mcmc.run(jax.random.key(2), *line)
    np.testing.assert_array_equal(dt["posterior"]["noise"][0], mcmc.get_samples()["noise"])


def test_chains_over_two_devices(line, fitted):
    assert jax.local_device_count() == 2
    dt = brg.fit(linear, line, key=1, **(SMALL | {"devices": 2}))
    assert dt.attrs["devices"] == 2
    # Not bit for bit over devices: the start of the same chains is the same
    np.testing.assert_allclose(dt["posterior"]["noise"][:, 0], fitted["posterior"]["noise"][:, 0])


def test_prediction_of_a_model_without_modes(line, fitted):
    X, y = line
    out = brg.predict(fitted, linear, X[:4] + 1.0, key=0)
    assert out["predictions"]["y"].dims == ("chain", "draw", "point_new")
    own = fitted.copy()  # as if the plate over the points had another name
    own["observed_data"] = fitted["observed_data"].to_dataset().rename(point="patient")
    again = brg.predict(own, linear, X[:4] + 1.0, key=0)["predictions"]
    assert again.to_dataset().identical(out["predictions"].to_dataset())
    weight = fitted["posterior"]["weight"].to_numpy()
    np.testing.assert_allclose(
        out["predictions"]["f"], np.einsum("nd,csd->csn", X[:4] + 1.0, weight), rtol=1e-12
    )
    noise = fitted["posterior"]["noise"].to_numpy()[..., None]
    z = (out["predictions"]["y"] - out["predictions"]["f"]).to_numpy() / noise
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size) and abs(z.mean()) < 5 / np.sqrt(z.size)


@pytest.fixture(scope="module")
def stored(line, tmp_path_factory):
    """A run with hyper-arguments, a number and an array, and its folder."""
    path = tmp_path_factory.mktemp("runs") / "run"
    hyper = {"prior_scale": 2.0, "shift": np.ones(1)}
    return brg.fit(linear, line, key=1, path=path, **hyper, **HMC_2), path, hyper


def test_hyper_arguments_are_checked(line, stored):
    dt, _, hyper = stored
    with pytest.raises(ValueError, match="hyper-argument 'prior_scale' differs from the fit's"):
        brg.predict(dt, linear, line[0], key=0, **(hyper | {"prior_scale": 1.0}))
    with pytest.raises(ValueError, match="hyper-argument 'shift' differs"):
        brg.predict(dt, linear, line[0], key=0, **(hyper | {"shift": np.zeros(1)}))
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


@pytest.fixture(scope="module")
def modes_fit(periodic):
    return brg.fit(gp_modes.model, periodic, key=0, cutoff=3, **HMC_2)


@pytest.fixture(scope="module")
def predicted(periodic, modes_fit):
    return brg.predict(modes_fit, gp_modes.model, periodic.X_test, key=1, cutoff=3)


@pytest.mark.slow
def test_prediction_is_one_whatever_is_explicit(periodic):
    """All modes explicit, some, none: the same predictive within Monte Carlo error."""
    moments = {}
    for cutoff in (61, 5, 0):
        dt = brg.fit(gp_modes.model, periodic, key=cutoff, cutoff=cutoff, draws=2000, warmup=1000,
                     chains=2, progress=False)  # fmt: skip
        out = brg.predict(dt, gp_modes.model, periodic.X_test, key=1, cutoff=cutoff)
        moments[cutoff] = out["predictive_moments"].to_dataset(), out["predictions"].to_dataset()
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


def test_predictions_krige_what_was_marginalised(periodic, modes_fit, predicted):
    """At every draw: the conditional of the joint given observations and low modes."""
    moments = predicted["predictive_moments"]
    for c, d in ((0, 0), (1, 17)):
        draw = modes_fit["posterior"].isel(chain=c, draw=d)
        K = joint(periodic, float(draw["amplitude"]), float(draw["noise"]) ** 2, periodic.X_test)
        given = np.r_[0:24, 29:32]
        values = np.concatenate([periodic.y, draw["y_modes"]])
        mean, cov = conditional(K, given, np.arange(24, 29), values)
        np.testing.assert_allclose(moments["mean"].isel(chain=c, draw=d), mean, atol=1e-8)
        np.testing.assert_allclose(
            moments["variance"].isel(chain=c, draw=d), np.diag(cov), atol=1e-8
        )
    z = (predicted["predictions"]["f"] - moments["mean"]) / np.sqrt(moments["variance"])
    assert abs(float(z.std()) - 1) < 0.1


def test_a_prediction_does_not_depend_on_the_other_rows(periodic, modes_fit, predicted):
    first = brg.predict(modes_fit, gp_modes.model, periodic.X_test[:2], key=1, cutoff=3)
    for group, name in (("predictions", "y"), ("predictive_moments", "variance")):
        np.testing.assert_allclose(predicted[group][name][..., :2], first[group][name], rtol=1e-9)
    own = brg.predict(modes_fit, gp_modes.model, periodic.X, key=1, cutoff=3)
    assert own["posterior_predictive"]["f"].dims == ("chain", "draw", "point")


@pytest.mark.parametrize(
    "rule", ["local", *(pytest.param(r, marks=pytest.mark.slow) for r in ("universal", "truncate"))]
)
def test_other_rules_predict_low_modes_and_add_what_was_eliminated(periodic, rule):
    dt = brg.fit(gp_modes.model, periodic, key=0, cutoff=3, rule=rule, **HMC_2)
    Z = periodic.X_test
    out = brg.predict(dt, gp_modes.model, Z, key=1, cutoff=3, rule=rule)
    draws = dt["posterior"]
    amplitude = draws["amplitude"].to_numpy()[..., None]
    Phi = fourier_modes(np.asarray(Z[:, 0]), 61)
    low = np.einsum("nk,csk->csn", Phi[:, :3] * np.sqrt(p.values[:3]), draws["y_modes"])
    mean = np.sqrt(amplitude) * low
    np.testing.assert_allclose(out["predictive_moments"]["mean"], mean, rtol=1e-10)
    high = amplitude * (Phi[:, 3:] ** 2 @ p.values[3:])
    np.testing.assert_allclose(out["predictive_moments"]["variance"], high, rtol=1e-10)


def test_leave_one_out_densities_of_a_collapsed_site(periodic, modes_fit):
    draw = modes_fit["posterior"].isel(chain=0, draw=3)
    K = joint(periodic, float(draw["amplitude"]), float(draw["noise"]) ** 2, periodic.X[:0])
    values = np.concatenate([periodic.y, draw["y_modes"]])
    given = np.r_[1:27]
    mean, cov = conditional(K, given, [0], values[given])
    expected = dist.Normal(mean[0], np.sqrt(cov[0, 0])).log_prob(periodic.y[0])
    ours = modes_fit["log_likelihood"]["y"].isel(chain=0, draw=3)[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-8)
    assert modes_fit["posterior"]["y_modes"].dims == ("chain", "draw", "mode")


def several(X, Y=None, *, cutoff=0, outputs=2):
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)

    def inner(X, Y):
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0))
        with numpyro.plate("output", outputs):
            fn = brg.gp.marginal(spectrum, X, noise**2)
            numpyro.sample("y", fn, obs=None if Y is None else Y.T)

    (brg.rg.coarsen(inner, y=brg.rg.Coarse(cutoff)) if cutoff else inner)(X, Y)


@pytest.mark.parametrize("cutoff", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_several_targets(periodic, cutoff):
    Y = np.stack([periodic.y, -2 * periodic.y], 1)
    dt = brg.fit(several, (periodic.X, Y), key=0, cutoff=cutoff, **HMC_2)
    assert dt["observed_data"]["y"].dims == ("output", "point")
    assert dt["log_likelihood"]["y"].dims == ("chain", "draw", "output", "point")
    if cutoff:
        assert dt["posterior"]["y_modes"].dims == ("chain", "draw", "output", "mode")
    out = brg.predict(dt, several, periodic.X_test, key=0, cutoff=cutoff)
    f = out["predictive_moments"]["mean"]
    assert f.dims == ("chain", "draw", "output", "point_new")
    if not cutoff:
        np.testing.assert_allclose(f.sel(output=1), -2 * f.sel(output=0), rtol=1e-9)
        noise = float(dt["posterior"]["noise"][1, 5])
        K = joint(periodic, 1.0, noise**2, periodic.X_test)
        mean, _ = conditional(K, np.arange(24), np.arange(24, 29), periodic.y)
        np.testing.assert_allclose(f[1, 5, 0], mean, rtol=1e-8)


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


def test_a_run_folder_is_written_whole_and_never_overwritten(line, stored):
    dt, path, hyper = stored
    again = brg.open_run(path)
    np.testing.assert_array_equal(again["posterior"]["weight"], dt["posterior"]["weight"])
    assert again.attrs["hyper"] == dt.attrs["hyper"]
    assert [f.name for f in path.iterdir()] == ["result.nc"]
    with pytest.raises(FileExistsError, match="exists already; give path a new folder"):
        brg.fit(linear, line, key=1, path=path, **SMALL)
    out = brg.predict(again, linear, line[0][:3], key=0, **hyper)
    assert out["predictions"]["f"].shape == (2, 50, 3)


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
    with pytest.raises(ValueError, match=r"X_new has shape \(3, 5\)"):
        brg.predict(fitted, linear, np.ones((3, 5)), key=0)
    with pytest.raises(ValueError, match="site must be one of 'y', got 'z'"):
        brg.predict(fitted, linear, line[0], key=0, site="z")
