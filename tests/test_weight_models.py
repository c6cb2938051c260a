# SPDX-License-Identifier: Apache-2.0
"""Posteriors of `coulomb_gas` and `noise_scaling`: closed forms, calibration, planted bugs."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesrg as brg
from bayesrg.ensembles import CoulombGas
from bayesrg.models import coulomb_gas, noise_scaling


def fitted(model, data, key=1, **hyper):
    return brg.fit(model, data, key=key, draws=1000, warmup=500, chains=2, progress=False, **hyper)[
        "posterior"
    ].to_dataset()


@pytest.mark.slow
def test_repulsion_and_width_are_recovered():
    """Forty spectra of twenty levels: of the gas, and independent ones."""
    data = coulomb_gas.demo(jax.random.key(0))
    found = fitted(coulomb_gas.model, data, **coulomb_gas.prepare(data))
    for name, true in (("beta", 1.0), ("scale", 0.3), ("loc", 0.5)):
        assert abs(float(found[name].mean()) - true) < 3.5 * float(found[name].std()), name
    assert 0.05 < float(found["beta"].std()) < 0.11 and float(az.rhat(found)["beta"]) < 1.02

    y = np.sort(np.random.default_rng(0).normal(size=(40, 20)))
    loose = brg.Data(data.X, y)
    found = fitted(coulomb_gas.model, loose, **coulomb_gas.prepare(loose))
    assert float(found["beta"].mean()) < 0.06


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
    found = fitted(noise_scaling.model, (X, y), spacings=1000.0, vary_power=False)
    centre = float(jnp.log(X[:, 0]).mean())
    slope = np.sqrt(np.pi / 2) * np.exp((found["intercept"] + (found["exponent"] - 1) * centre) / 2)
    assert abs(float(slope.mean()) - np.sqrt(2 * np.pi)) < 4 * float(slope.std())
    assert abs(float(found["exponent"].mean()) - 1) < 4 * float(found["exponent"].std()) < 0.1
    assert float(found["between"].mean()) < 0.06  # below 1/sqrt(1000) it is not resolved


@pytest.mark.slow
def test_without_an_effect_of_runs_intervals_are_too_small():
    """Twenty sets with an effect of .116: nine in ten intervals must miss 1 less often than half."""
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


SBC = dict(simulations=100, draws=19, warmup=200, thin=4, key=0)


@pytest.mark.slow
def test_coulomb_gas_is_calibrated():
    """Three spectra of three levels; a width that is read as its square root must be caught."""
    X = np.zeros((3, 1))
    names = ("scale", "loc", "beta")
    quantities = {n: (lambda n: lambda s, y, key: s[n])(n) for n in names}
    found = brg.inference.sbc(coulomb_gas.model, X, quantities, n=3, **SBC)["sbc"]
    assert (found["p_value"] > 1e-3).all(), found["p_value"].to_series()

    def wrong(X, y=None, *, n=3):
        import numpyro
        import numpyro.distributions as dist

        variance = numpyro.sample("variance", dist.InverseGamma(0.5, 0.5))
        numpyro.deterministic("scale", jnp.sqrt(variance))
        law = CoulombGas(n, variance).expand((len(X),)).to_event(1)
        numpyro.sample("y", law, obs=y)

    bug = brg.inference.sbc(
        wrong, X, {"scale": quantities["scale"]}, truth=coulomb_gas.model,
        truth_hyper={"n": 3, "loc": 0.0, "beta": 1.0}, **SBC,
    )["sbc"]  # fmt: skip
    assert float(bug["p_value"].min()) < 1e-4


@pytest.mark.slow
def test_noise_scaling_is_calibrated():
    """Six runs of twenty spacings, and the planted bug of no effect between runs."""
    X = np.stack([np.geomspace(1e-3, 0.1, 6), np.tile([0.3, 3.0], 3)], 1)
    quantities = {
        n: (lambda n: lambda s, y, key: s[n])(n) for n in ("exponent", "power", "intercept")
    }
    found = brg.inference.sbc(noise_scaling.model, X, quantities, spacings=20.0, **SBC)["sbc"]
    assert (found["p_value"] > 1e-3).all(), found["p_value"].to_series()
