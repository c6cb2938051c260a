# SPDX-License-Identifier: Apache-2.0
"""Posteriors of `coulomb_gas` and `noise_scaling`: closed forms, calibration, planted bugs."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesrg as brg
from bayesrg.diagnostics import weights
from bayesrg.ensembles import CoulombGas, gas_statistics, spacing_ratios
from bayesrg.inference.sites import fingerprint as inference_fingerprint
from bayesrg.models import coulomb_gas, noise_scaling


def fitted(model, data, key=1, **hyper):
    return brg.fit(model, data, key=key, draws=1000, warmup=500, chains=2, progress=False, **hyper)[
        "posterior"
    ].to_dataset()


def test_there_is_no_function_to_predict():
    """Neither in a gas, nor in runs with an effect each."""
    y = np.array([[0.1, 0.5, 1.2], [0.6, 1.0, 1.7]])
    X = np.arange(2.0)[:, None]

    def tree(y, X, **posterior):
        groups = {
            "posterior": {n: np.ones((1, 2, *v)) for n, v in posterior.items()},
            "observed_data": {"y": y},
            "constant_data": {"X": X},
        }
        dims = {"y": ("spectrum", "level")[: y.ndim], "X": ("point", "feature"), "z": ("run",)}
        return brg.io.to_datatree(groups, dims, attrs={"hyper": hyper})

    hyper = inference_fingerprint({"statistics": gas_statistics(y)})
    dt = tree(y, X, variance=(), loc=(), beta=())
    with pytest.raises(ValueError, match="IndependentSpectra and no function to predict"):
        brg.predict(dt, coulomb_gas.model, X + 1, key=0, statistics=gas_statistics(y))
    hyper = inference_fingerprint({})
    runs = np.ones((2, 2))
    dt = tree(y[:, 0], runs, intercept=(), exponent=(), power=(), between=(), z=(2,))
    with pytest.raises(ValueError, match="one value per run of the fit, so there is no function"):
        brg.predict(dt, noise_scaling.model, runs + 1, key=0)


@pytest.mark.slow
def test_repulsion_and_width_are_recovered():
    """Forty spectra of twenty levels: of the gas, and independent ones."""
    data = coulomb_gas.demo(jax.random.key(0))
    found = fitted(coulomb_gas.model, data, **coulomb_gas.prepare(data))
    for name, true in (("beta", 1.0), ("scale", 0.3), ("loc", 0.5)):
        assert abs(float(found[name].mean()) - true) < 3.5 * float(found[name].std()), name
    for name, mean in coulomb_gas.exact(data, **coulomb_gas.prepare(data)).items():
        gap = abs(float(found[name].mean()) - float(mean))
        assert gap < 4 * float(az.mcse(found[[name]])[name]), name
    assert 0.05 < float(found["beta"].std()) < 0.11 and float(az.rhat(found)["beta"]) < 1.02

    # posterior predictive: the mean ratio of spacings of the data is one of those of replicates
    scale, loc, beta = (found[n].to_numpy()[:, ::100].ravel() for n in ("scale", "loc", "beta"))
    again = CoulombGas(20, scale, loc, beta).sample(jax.random.key(1), (40,))
    r = np.asarray(spacing_ratios(again)).mean((0, 2))
    assert r.min() < float(spacing_ratios(data.y).mean()) < r.max()

    y = np.sort(np.random.default_rng(0).normal(size=(40, 20)))
    loose = brg.Data(data.X, y)
    found = fitted(coulomb_gas.model, loose, **coulomb_gas.prepare(loose))
    assert abs(float(found["beta"].mean()) - 0.030) < 3 * 0.010
    assert abs(float(found["beta"].std()) - 0.010) < 0.005


@pytest.mark.slow
def test_known_centre_and_repulsion_give_the_conjugate_posterior():
    data = coulomb_gas.demo(jax.random.key(2))
    hyper = coulomb_gas.prepare(data) | {"loc": 0.5, "beta": 1.0}
    found, exact = fitted(coulomb_gas.model, data, **hyper), coulomb_gas.exact(data, **hyper)
    for name, mean in exact.items():
        error = float(az.mcse(found)[name])
        assert abs(float(found[name].mean()) - float(mean)) < 4 * error, name


def runs(key, between, m=1000):
    """Nine runs of the scaling rule at equal amplitude: X, and half sums of squared spacings."""
    effects, noise = jax.random.split(key)
    X = jnp.stack([jnp.geomspace(1e-3, 0.1, 9), jnp.ones(9)], 1)
    theta = 4.0 * X[:, 0] * jnp.exp(between * jax.random.normal(effects, (9,)))
    return X, theta * jax.random.gamma(noise, float(m), (9,))


@pytest.mark.slow
def test_exponent_of_learning_rate_over_batch_size():
    """Its interval covers 1; at equal amplitudes the slope is sqrt(pi / 2) exp(intercept / 2)."""
    X, y = runs(jax.random.key(4), 0.0)
    dt = brg.fit(
        noise_scaling.model, (X, y), spacings=1000.0, vary_power=False, key=1, draws=1000,
        warmup=500, chains=2, progress=False,
    )  # fmt: skip
    found, law = dt["posterior"].to_dataset(), weights.scaling_slope(dt)
    assert abs(float(law["slope"].mean()) - np.sqrt(2 * np.pi)) < 4 * float(law["slope"].std())
    assert law["near_one"] > 0.95
    assert abs(float(found["exponent"].mean()) - 1) < 4 * float(found["exponent"].std()) < 0.1
    assert abs(float(found["between"].mean()) - 0.03) < 0.02  # not resolved below 1/sqrt(1000)


@pytest.mark.slow
def test_runs_of_several_rates_batches_and_amplitudes():
    """A gradient noise, as in the released runs: exponents within errors, the effect recovered."""
    alpha, batch, noise = (
        (0.1, 0.2, 0.3, 0.4, 0.5),
        (4, 8, 16, 32, 64),
        (0.05, 0.06, 0.07, 0.08, 0.09),
    )
    design = [(a, 16, 0.08) for a in alpha] + [(0.1, b, 0.08) for b in batch]
    design += [(0.1, 16, n) for n in noise]
    gen = np.random.default_rng(0)
    unit = np.asarray(CoulombGas(2, 1.0).sample(jax.random.key(0), (len(design), 3000)))
    runs, amplitude = [], np.array([n**2 for *_, n in design])
    for (a, b, n), x in zip(design, unit, strict=True):
        sigma = np.sqrt(2 * a * n**2 / (b * (2 - a))) * np.exp(0.095 * gen.normal() / 2)
        runs.append(dict(learning_rate=a, batch=b, levels=sigma * x))
    for correction, curvature in (("none", None), ("ou", 1.0)):
        given = weights.scaling_data(
            runs, amplitude=amplitude, alpha_correction=correction, curvature=curvature
        )
        assert given.vary_power
        found = fitted(noise_scaling.model, (given.X, given.y), spacings=given.spacings)
        mean, sd = found.mean(), found.std()
        for name in ("exponent", "power"):
            bias = 0.08 if correction == "none" else 0.0  # the rate beyond 2 / curvature bends it
            assert abs(float(mean[name]) - 1) < 3 * float(sd[name]) + bias < 0.4, name
        assert 0.02 < float(sd["exponent"]) < 0.06 and 0.04 < float(sd["power"]) < 0.12
        assert abs(float(mean["between"]) - 0.095) < 3 * float(sd["between"])


@pytest.mark.slow
def test_without_an_effect_of_runs_intervals_are_too_small():
    """Twenty sets with an effect of .116: intervals of 90 % miss the true 1 in half of them."""
    grid = {"intercept": np.linspace(0.4, 2.4, 161), "exponent": np.linspace(0.7, 1.3, 181)}
    missed = 0
    for seed in range(20):
        X, y = runs(jax.random.key(seed), 0.116)
        found = brg.inference.grid_posterior(
            noise_scaling.model, (X, y), grid, spacings=1000.0, vary_power=False, vary_runs=False
        )
        mean = found.mean["exponent"]
        sd = np.sqrt(float(found.weights @ (found.points["exponent"] - mean) ** 2))
        mean = float(mean)
        missed += abs(mean - 1) > 1.645 * sd
    assert missed >= 10


def site(name):
    return lambda sites, y, key: sites[name]


SBC = dict(simulations=100, draws=19, warmup=150, thin=3, key=0)


@pytest.mark.slow
def test_coulomb_gas_is_calibrated():
    """Three spectra of three levels."""
    X = np.zeros((3, 1))
    names = ("scale", "loc", "beta")
    quantities = {name: site(name) for name in names}
    found = brg.inference.sbc(coulomb_gas.model, X, quantities, n=3, **SBC)["sbc"]
    assert (found["p_value"] > 1e-3).all(), found["p_value"].to_series()


def calibration(**given):
    """SBC of four runs of twenty spacings."""
    X = np.stack([np.geomspace(1e-3, 0.1, 4), np.tile([0.3, 3.0], 2)], 1)
    quantities = {name: site(name) for name in ("exponent", "power", "intercept")}
    return brg.inference.sbc(noise_scaling.model, X, quantities, **SBC | given)["sbc"]["p_value"]


@pytest.mark.slow
def test_noise_scaling_is_calibrated():
    found = calibration(spacings=20.0)
    assert (found > 1e-3).all(), found.to_series()


@pytest.mark.slow
def test_spacings_that_depend_on_each_other_are_caught():
    """Each is counted ten times, as if the draws of a slow chain were independent."""
    options = dict(vary_runs=False, truth=noise_scaling.model, simulations=50)
    given = {"spacings": 20.0, "vary_runs": False}
    assert float(calibration(spacings=200.0, truth_hyper=given, **options).min()) < 1e-4
