# SPDX-License-Identifier: Apache-2.0
import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from numpyro.infer.util import log_density
from oracles import central_difference, log_normal

import bayesrg as brg
from bayesrg.inference.sites import bind, law
from bayesrg.models import spectrum_gp
from bayesrg.spectrum import maps, modify, nystrom

LATENTS = {"amplitude": 0.8, "exponent": 1.2, "cutoff": 0.03, "noise": 0.25}


@pytest.fixture(scope="module")
def data():
    return spectrum_gp.demo(jax.random.key(0))


@pytest.fixture(scope="module")
def hyper(data):
    return spectrum_gp.prepare(data)


def covariance(X, hyper, Z=None):
    """K_g by hand: eigenvectors of the Gram matrix, new eigenvalues."""
    kernel = hyper["base"].spectrum.kernel
    ell, V = np.linalg.eigh(np.asarray(kernel(X)))
    kept = ell > len(X) * np.finfo(float).eps * ell[-1]
    ell, V = ell[kept], V[:, kept]
    lam = ell / len(X)
    new = 0.8 * lam[-1] * (lam / lam[-1]) ** 1.2 / (1 + (0.03 / lam) ** (1 / 0.3))
    left = V if Z is None else np.asarray(kernel(Z, X)) @ V / ell
    return (left * len(X) * new) @ V.T


def spread_of(X, hyper, new):
    """Variance at new inputs by hand: the base kernel's own, with new eigenvalues, conditioned."""
    kernel, count = hyper["base"].spectrum.kernel, len(hyper["base"].spectrum)
    n = len(X)
    ell, V = np.linalg.eigh(np.asarray(kernel(X)))
    ell, V = ell[-count:], V[:, -count:]
    lam = ell / n
    change = 0.8 * lam[-1] * (lam / lam[-1]) ** 1.2 / (1 + (0.03 / lam) ** (1 / 0.3)) - lam
    Phi = np.sqrt(n) * np.asarray(kernel(new, X)) @ V / ell
    C, cross = covariance(X, hyper) + 0.25**2 * np.eye(n), covariance(X, hyper, new)
    return (
        np.asarray(kernel.diag(new))
        + Phi**2 @ change
        - np.diag(cross @ np.linalg.solve(C, cross.T))
    )


def log_prior():
    return sum(
        float(fn.log_prob(LATENTS[name]))
        for name, fn in {
            "amplitude": dist.LogNormal(0.0, 1.0), "exponent": dist.LogNormal(0.0, 0.5),
            "cutoff": dist.LogNormal(np.log(0.02), 2.0), "noise": dist.HalfNormal(1.0),
        }.items()
    )  # fmt: skip


@pytest.fixture(scope="module")
def density(data, hyper):
    """Log density and its gradient in the latents, as one compiled program."""

    def density(latents):
        return log_density(spectrum_gp.model, (data.X, data.y), hyper, latents)[0]

    return jax.jit(jax.value_and_grad(density)).lower(LATENTS).compile()


def test_the_density_is_the_dense_one(data, hyper, density, monkeypatch):
    C = covariance(data.X, hyper) + 0.25**2 * np.eye(60)
    expected = log_normal(data.y, np.zeros(60), C) + log_prior()
    got = density(LATENTS)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    # without a base the model makes that of `prepare`
    asked = []
    monkeypatch.setattr(spectrum_gp, "spectrum_of", lambda X: asked.append(X) or hyper["base"])
    jax.eval_shape(lambda z: log_density(spectrum_gp.model, (data.X, data.y), {}, z)[0], LATENTS)
    assert asked and all(X is data.X for X in asked)


def test_a_step_factorises_nothing(density):
    assert "lapack" not in density.as_text()
    gradient = density(LATENTS)[1]

    def value(v):
        return float(density(dict(zip(LATENTS, v.tolist(), strict=True)))[0])

    expected = central_difference(value, list(LATENTS.values()))
    np.testing.assert_allclose([gradient[k] for k in LATENTS], expected, rtol=1e-6, atol=1e-6)


def test_leave_one_out_and_predictions_are_those_of_points(data, hyper):
    bound, new = bind(spectrum_gp.model, hyper), np.asarray(data.X_test)[:7]
    C = covariance(data.X, hyper) + 0.25**2 * np.eye(60)
    inverse = np.linalg.inv(C)
    variance = 1 / np.diag(inverse)
    loo = -0.5 * ((inverse @ data.y * variance) ** 2 / variance + np.log(2 * np.pi * variance))
    both = np.concatenate([data.X, new])

    @jax.jit
    def evaluate(latents, y):
        own = law(bound, data.X, latents, "y").loo(y)
        return own, law(bound, both, latents, "y").krige(y)

    found, (mean, spread, _) = evaluate(LATENTS, data.y)
    np.testing.assert_allclose(found, loo, rtol=1e-8)
    cross = covariance(data.X, hyper, new)
    np.testing.assert_allclose(mean, cross @ inverse @ data.y, rtol=0, atol=1e-9)
    np.testing.assert_allclose(spread, spread_of(data.X, hyper, new), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_base_with_dropped_modes(data):
    """They are noise alone at the sample, and the kernel's own variance off it."""
    kernel, new = brg.kernels.RBF(2.0), np.asarray(data.X_test)[:7]
    hyper = {"base": spectrum_gp.spectrum_of(data.X, kernel)}
    assert 10 < len(hyper["base"].spectrum) < 50
    C = covariance(data.X, hyper) + 0.25**2 * np.eye(60)
    both, bound = np.concatenate([data.X, new]), bind(spectrum_gp.model, hyper)

    @jax.jit
    def evaluate(latents, y):
        value = log_density(spectrum_gp.model, (data.X, y), hyper, latents)[0]
        return value, law(bound, both, latents, "y").krige(y)

    got, (mean, spread, _) = evaluate(LATENTS, data.y)
    expected = log_normal(data.y, np.zeros(60), C) + log_prior()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    cross = covariance(data.X, hyper, new)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(C, data.y), rtol=0, atol=1e-8)
    np.testing.assert_allclose(spread, spread_of(data.X, hyper, new), rtol=0, atol=1e-8)


def test_a_moving_base_needs_its_landmarks(data):
    for hyper in ({"moving": brg.kernels.RBF}, {"landmarks": data.X}):
        with pytest.raises(ValueError, match="moving and landmarks belong together"):
            spectrum_gp.model(data.X, data.y, **hyper)


def test_the_base_may_move(data, hyper):
    X, y, X_test = (np.asarray(v) for v in (data.X[:20], data.y[:20], data.X_test))
    moving = {"moving": brg.kernels.RBF, "landmarks": X}
    names = [*LATENTS, "lengthscale"]
    values = np.array([*LATENTS.values(), 0.9])

    @jax.jit
    @jax.value_and_grad
    def density(values):
        latents = dict(zip(names, values, strict=True))
        return log_density(spectrum_gp.model, (X, y), moving, latents)[0]

    value, gradient = density(values)
    expected = central_difference(lambda v: float(density(v)[0]), values)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    fixed = {"base": spectrum_gp.spectrum_of(X, brg.kernels.RBF(0.9))}
    at_rest = jax.jit(lambda z: log_density(spectrum_gp.model, (X, y), fixed, z)[0])(LATENTS)
    prior = float(dist.LogNormal(0.0, 1.0).log_prob(0.9))
    np.testing.assert_allclose(value, at_rest + prior, rtol=0, atol=1e-8)
    bound, latents = bind(spectrum_gp.model, moving), LATENTS | {"lengthscale": 0.9}

    @jax.jit
    def ahead(both):
        return law(bound, both, latents, "y").krige(y)[0]

    # other new points change nothing at the first two
    one, other = (np.asarray(ahead(np.r_[X, X_test[:2], X_test[i : i + 3]])) for i in (2, 5))
    np.testing.assert_allclose(one[:2], other[:2], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_the_base_moves_in_a_fit(data):
    X, y = data.X[:30], data.y[:30]
    hyper = {"moving": brg.kernels.RBF, "landmarks": X}
    dt = brg.fit(
        spectrum_gp.model, (X, y), key=0, draws=300, warmup=300, chains=1, progress=False, **hyper
    )
    assert np.isfinite(dt["log_likelihood"]["y"]).all()
    assert dt["sample_stats"]["diverging"].mean() < 0.02
    assert 0.12 < float(dt["posterior"]["noise"].mean()) < 0.35
    new = brg.predict(dt, spectrum_gp.model, data.X_test, key=1, **hyper)
    error = new["predictive_moments"]["mean"].mean(("chain", "draw")).values - data.y_test
    assert np.sqrt((error**2).mean()) < 0.35


@pytest.mark.slow
def test_posterior_of_the_reference_problem():
    """Against quadrature over the four parameters, and against one chain of 1000 draws."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 2 * np.pi, 60))
    y = np.sin(3 * t) + 0.5 * np.sin(t) + 0.2 * rng.standard_normal(60)
    X = np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1)
    base = modify(nystrom(brg.kernels.NTK(2, bias_var=0.1), X), maps.identity())

    def model(X, y=None, *, base=base):
        amplitude = numpyro.sample("amp", dist.LogNormal(0.0, 1.0))
        alpha = numpyro.sample("alpha", dist.LogNormal(0.0, 0.5))
        log_cutoff = numpyro.sample("log_cutoff", dist.Normal(jnp.log(0.02), 2.0))
        sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))

        def g(lam):
            return amplitude * lam**alpha * jax.nn.sigmoid((jnp.log(lam) - log_cutoff) / 0.3)

        prior = modify(base, g)
        numpyro.sample("y", brg.gp.marginal(prior, X, sigma**2, eigen=prior.eigen), obs=y)

    dt = brg.fit(model, (X, y), key=0, draws=2000, warmup=500, chains=2, progress=False,
                 sampler=lambda m: NUTS(m, target_accept_prob=0.95))  # fmt: skip
    draws = dt["posterior"].to_dataset()
    errors = az.mcse(draws)
    # sd / sqrt(n_eff) of 1000 draws, of which 116 count for the cutoff
    for name, exact, mean, sd in (
        ("alpha", 0.7074, 0.72, 0.26), ("amp", 0.5699, 0.57, 0.53),
        ("log_cutoff", -2.6734, -2.72, 0.67), ("sigma", 0.21824, 0.22, 0.02),
    ):  # fmt: skip
        got = float(draws[name].mean())
        assert abs(got - exact) < 4 * float(errors[name]), (name, got)
        assert abs(got - mean) < 4 * sd / np.sqrt(116) + 0.005, (name, got)
        assert abs(float(draws[name].std()) / sd - 1) < 0.35, name
    assert dt["sample_stats"]["diverging"].mean() < 1e-3
