# SPDX-License-Identifier: Apache-2.0
import itertools
from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from oracles import central_difference, fourier_problem, log_normal

import bayesrg as brg
from bayesrg import rg
from bayesrg.gp import EffectiveNormal, LaplaceMarginal, MercerNormal, eigenpairs
from bayesrg.models import gp_classification

p = fourier_problem()
LABELS = jnp.asarray(p.y > 0, float)
RESIDUAL = jnp.linspace(0.01, 0.2, 24)


def bernoulli(f):
    return dist.Bernoulli(logits=f)


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def gaussian(f):
    return dist.Normal(f, 0.3)


@jax.jit
def evaluate(fn, y):
    """Everything that is asked of a law and observations, in one program a structure."""
    return fn.log_prob(y), fn.correction(y), fn.loo(y)


log_prob = jax.jit(lambda fn, y: fn.log_prob(y))


def small(n, scale=1.0):
    """A prior of n points, low rank for n = 3, and its covariance."""
    fn = MercerNormal(p.Phi[:n, :2], p.values[:2], 0.1, residual=None, scale=scale, loc=0.3)
    return fn, np.asarray(fn.covariance_matrix)


def brute_force(covariance, log_likelihood, order=60, loc=0.3):
    """Log integral of exp(log-likelihood) over N(loc, covariance), on a product of nodes."""
    n = len(covariance)
    x, w = np.polynomial.hermite_e.hermegauss(order)
    nodes = np.array(list(itertools.product(x, repeat=n)))
    weights = np.array(list(itertools.product(w / w.sum(), repeat=n))).prod(1)
    f = loc + nodes @ np.linalg.cholesky(covariance).T
    return float(np.log(weights @ np.exp(np.asarray(log_likelihood(jnp.asarray(f))))))


slow = pytest.mark.slow
FORMS = [
    pytest.param(5, None, False, marks=slow), pytest.param(61, None, False),
    pytest.param(5, RESIDUAL, False), pytest.param(5, None, True, marks=slow),
    pytest.param(5, jnp.diag(RESIDUAL) + 0.01, False, marks=slow),
    pytest.param(61, None, True, marks=slow),
]  # fmt: skip


@pytest.mark.parametrize("k, residual, form", FORMS)
def test_a_gaussian_likelihood_gives_the_exact_law(k, residual, form):
    F, v = p.Phi[:, :k], p.values[:k]
    eigen = eigenpairs(F, v, residual) if form else None
    parts = {"scale": 1.3, "loc": 0.2, "residual": residual}
    fn = LaplaceMarginal(MercerNormal(F, v, 0.01, eigen=eigen, **parts), gaussian)
    exact = MercerNormal(F, v, 0.1, **parts)
    assert fn.event_shape == (24,) and fn.batch_shape == ()
    value, correction, loo = evaluate(fn, p.y)
    np.testing.assert_allclose(value, exact.log_prob(p.y), rtol=0, atol=1e-10)
    np.testing.assert_allclose(correction, 0.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(loo, exact.loo(p.y), rtol=0, atol=1e-8)
    C = np.asarray(exact.covariance_matrix)
    K = C - 0.09 * np.eye(24)
    mean, cov = jax.jit(fn.posterior)(p.y)
    np.testing.assert_allclose(
        mean, 0.2 + K @ np.linalg.solve(C, np.asarray(p.y) - 0.2), rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(cov, K - K @ np.linalg.solve(C, K), rtol=0, atol=1e-10)
    if eigen is None:
        for got, expected in zip(
            jax.jit(fn.krige)(p.y[:20])[:2], exact.krige(p.y[:20])[:2], strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "likelihood, values",
    [(bernoulli, (1, 0, 1)), pytest.param(poisson, (2, 0, 5), marks=pytest.mark.slow)],
)
def test_the_correction_is_most_of_the_error(likelihood, values):
    for n in (1, 2, 3):
        y = jnp.asarray(values[:n], float)
        for scale in (0.3, 1.0):
            prior, C = small(n, scale)
            fn = LaplaceMarginal(prior, likelihood)
            value, correction, loo = evaluate(fn, y)
            exact = brute_force(C, lambda f, y=y: likelihood(f).log_prob(y).sum(-1))
            error = float(value) - exact
            left = error + float(correction)
            assert 1e-5 < abs(error) < 0.05
            assert abs(left) < 0.25 * abs(error), (n, scale, error, left)
            if n == 1:  # leaving out the only point leaves the prior, without any approximation
                np.testing.assert_allclose(loo, exact, rtol=0, atol=1e-6)


def test_orders_of_the_expansion():
    """Halving the variance divides the error by 4, what the correction leaves by 8."""
    y, found = jnp.array([1.0, 0.0]), []
    for scale in (0.05, 0.025):
        fn = LaplaceMarginal(
            MercerNormal(p.Phi[:2, :2], p.values[:2], 1e-9, scale=scale), bernoulli
        )
        C = np.asarray(fn.prior.covariance_matrix)
        value, correction, loo = evaluate(fn, y)

        def evidence(keep, C=C):
            return brute_force(C, lambda f: bernoulli(f).log_prob(y)[..., keep].sum(-1), loc=0.0)

        exact = evidence([0, 1])
        error = float(value) - exact
        left_out = np.abs(np.asarray(loo) - [exact - evidence([1]), exact - evidence([0])])
        found.append((abs(error), abs(error + float(correction)), *left_out))
    ratio = np.array(found[0]) / np.array(found[1])
    assert 3.6 < ratio[0] < 4.1 and 7 < ratio[1] < 8.2, ratio
    assert (ratio[2:] > 3.6).all() and max(found[1][2:]) < 1e-5, (found, ratio)


@pytest.mark.parametrize("k, residual", [(5, None), pytest.param(61, None, marks=slow)])
def test_gradients(k, residual):
    """In amplitude, jitter, mean and a parameter of the likelihood."""

    def evidence(theta):
        prior = MercerNormal(
            p.Phi[:, :k], p.values[:k], jnp.exp(theta[1]), scale=jnp.exp(theta[0]), loc=theta[2],
            residual=residual,
        )  # fmt: skip
        slope = jnp.exp(theta[3])
        return LaplaceMarginal(prior, lambda f: dist.Bernoulli(logits=slope * f)).log_prob(LABELS)

    theta = jnp.array([1.0, -3.0, 0.2, 0.4])
    value = jax.jit(evidence)
    expected = central_difference(lambda t: float(value(jnp.asarray(t))), theta, 1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(evidence))(theta), expected, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_cutting_and_integrating_back():
    """One mode explicit, the rest by Laplace, the mode by quadrature: nearer to the truth."""
    prior, C = small(3, 4.0)
    y = jnp.array([1.0, 1.0, 1.0])
    fn = LaplaceMarginal(prior, bernoulli)
    exact = brute_force(C, lambda f: bernoulli(f).log_prob(y).sum(-1))
    root, rest = fn.split(1)
    x, w = np.polynomial.hermite_e.hermegauss(60)

    def given(mode):
        return rest.shift(root @ mode[None]).log_prob(y)

    values = jax.vmap(given)(jnp.asarray(x))
    back = float(jax.nn.logsumexp(values, b=w / w.sum()))
    assert abs(back - exact) < 0.2 * abs(float(fn.log_prob(y)) - exact)

    def model(y):
        numpyro.sample("y", fn, obs=y)

    coarse = rg.coarsen(model, y=rg.Coarse(1))
    mode = jnp.array([0.7])
    joint = log_density(coarse, (y,), {}, {"y_modes": mode})[0]
    np.testing.assert_allclose(joint, given(mode[0]) + log_normal(0.7, 0.0, 1.0), rtol=1e-12)


def test_nothing_is_left_to_integrate_when_every_mode_is_explicit():
    prior = MercerNormal(p.Phi[:, :9], p.values[:9], 1e-10)
    root, rest = LaplaceMarginal(prior, bernoulli).split(9)
    w = jnp.linspace(-1, 1, 9)
    expected = bernoulli(root @ w).log_prob(LABELS).sum()
    np.testing.assert_allclose(rest.shift(root @ w).log_prob(LABELS), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rule", ["local", "universal"])
def test_other_rules_make_points_independent(rule):
    fn = LaplaceMarginal(MercerNormal(p.Phi, p.values, 1e-2), bernoulli)
    root, rest = fn.split(5, rule, n=20)
    assert isinstance(rest.prior, EffectiveNormal)
    noise = np.broadcast_to(rest.prior.noise, (24,))
    single = [
        log_prob(LaplaceMarginal(MercerNormal(np.ones((1, 0)), np.ones(0), v), bernoulli), y[None])
        for v, y in zip(noise, LABELS, strict=True)
    ]
    np.testing.assert_allclose(log_prob(rest, LABELS), sum(single), rtol=1e-11)
    mean, variance, _ = rest.shift(root @ jnp.ones(5)).krige(LABELS[:20])
    np.testing.assert_allclose(mean, (root @ jnp.ones(5))[20:], rtol=1e-12)
    np.testing.assert_allclose(variance, rest.prior.eliminated[20:], rtol=1e-12)


def test_prediction_against_dense_algebra():
    prior = MercerNormal(p.Phi, p.values, 1e-2, scale=2.0, loc=0.1)
    mean, variance, ridge = LaplaceMarginal(prior, bernoulli).krige(LABELS[:20])
    head = LaplaceMarginal(MercerNormal(p.Phi[:20], p.values, 1e-2, scale=2.0, loc=0.1), bernoulli)
    f, S = (np.asarray(x) for x in head.posterior(LABELS[:20]))
    C = np.asarray(prior.covariance_matrix)
    gain = C[20:, :20] @ np.linalg.inv(C[:20, :20])
    np.testing.assert_allclose(mean, 0.1 + gain @ (f - 0.1), rtol=0, atol=1e-9)
    expected = C[20:, 20:] - gain @ (C[:20, :20] - S) @ gain.T
    np.testing.assert_allclose(variance + ridge, np.diag(expected), rtol=0, atol=1e-9)
    sigmoid = 1 / (1 + np.exp(-f))
    np.testing.assert_allclose(
        np.linalg.solve(C[:20, :20], f - 0.1), np.asarray(LABELS[:20]) - sigmoid, rtol=0, atol=1e-8
    )


def test_one_parameter_a_point_may_be_known_to_the_likelihood():
    exposure = jnp.linspace(0.5, 2.0, 24)
    counts = jnp.arange(24) % 4
    prior = MercerNormal(p.Phi, p.values, 1e-2)
    whole = LaplaceMarginal(prior, lambda f: dist.Poisson(exposure * jnp.exp(f)))
    head = LaplaceMarginal(
        MercerNormal(p.Phi[:20], p.values, 1e-2),
        lambda f: dist.Poisson(exposure[:20] * jnp.exp(f)),
    )
    cross = p.Phi[20:] * p.values @ p.Phi[:20].T
    expected = cross @ head.mode(counts[:20]).weight
    np.testing.assert_allclose(whole.krige(counts[:20])[0], expected, rtol=1e-10)


def test_curvature_at_a_logit_of_exactly_zero():
    """NumPyro's logits hide half of a kink there; one success in two has its mode at zero."""
    prior = MercerNormal(np.ones((1, 1)), np.ones(1), 1e-12)
    fn = LaplaceMarginal(prior, lambda f: dist.Binomial(2, logits=f))
    expected = np.log(0.5) - 0.5 * np.log1p(0.5)
    np.testing.assert_allclose(fn.log_prob(jnp.ones(1)), expected, rtol=0, atol=1e-11)


def test_hard_cases_converge_and_keep_their_gradients():
    @partial(jax.jit, static_argnums=1)
    @jax.value_and_grad
    def evidence(scale, likelihood, y, loc):
        prior = MercerNormal(p.Phi, p.values, 1e-6, scale=scale, loc=loc)
        return LaplaceMarginal(prior, likelihood).log_prob(y)

    alternating = jnp.arange(24) % 2.0
    for args in (
        (1e4, bernoulli, LABELS, 0.0), (1e6, bernoulli, alternating, 0.0),
        (1e-8, bernoulli, LABELS, 0.0),
        (1.0, bernoulli, LABELS, 800.0), (1.0, bernoulli, LABELS, -800.0),
        (100.0, poisson, 10_000 * alternating, 0.0), (1.0, poisson, 0 * alternating, -30.0),
    ):  # fmt: skip
        value, slope = evidence(*args)
        assert np.isfinite(value) and np.isfinite(slope), args


def test_what_does_not_converge_is_nan_and_says_so():
    prior = MercerNormal(p.Phi, p.values, 1e-6, scale=10.0)
    fn = LaplaceMarginal(prior, lambda f: dist.StudentT(1.0, f, 0.01))
    y = 5.0 * (-1.0) ** jnp.arange(24)
    assert not fn.mode(y).converged and np.isnan(log_prob(fn, y))
    good = LaplaceMarginal(prior, bernoulli).mode(LABELS)
    assert good.converged and 1 <= good.steps < 30


@pytest.mark.slow
def test_rows_share_a_prior_or_own_one():
    Y = jnp.stack([LABELS, 1 - LABELS])
    for k in (5, 61):
        prior = MercerNormal(p.Phi[:, :k], p.values[:k], 1e-2)
        fn = LaplaceMarginal(prior, bernoulli)
        alone = [evaluate(fn, y) for y in Y]
        for got, *expected in zip(evaluate(fn, Y), *alone, strict=True):
            np.testing.assert_allclose(got, np.stack(expected), rtol=1e-8)
        scales = jnp.array([0.5, 3.0])
        own = LaplaceMarginal(
            MercerNormal(p.Phi[:, :k], p.values[:k], 1e-2, scale=scales), bernoulli
        )
        each = [
            LaplaceMarginal(MercerNormal(p.Phi[:, :k], p.values[:k], 1e-2, scale=s), bernoulli)
            for s in scales
        ]
        assert own.batch_shape == (2,)
        one_by_one = [log_prob(e, y) for e, y in zip(each, Y, strict=True)]
        np.testing.assert_allclose(log_prob(own, Y), one_by_one, rtol=1e-9)

    def model(Y=None):
        with numpyro.plate("output", 2):
            numpyro.sample("y", fn, obs=Y)

    trace = handlers.trace(handlers.seed(rg.coarsen(model, y=rg.Coarse(3)), 0)).get_trace(Y)
    assert trace["y_modes"]["value"].shape == (2, 3)
    assert trace["y"]["fn"].batch_shape == (2,)


def test_draws_are_observations():
    prior, C = small(3)
    fn = LaplaceMarginal(prior, bernoulli)
    draws = np.asarray(fn.sample(jax.random.key(0), (20_000,)))
    assert draws.shape == (20_000, 3) and set(np.unique(draws)) == {0, 1}
    assert fn.support.is_discrete and fn.support(draws).all()
    for i in range(3):
        chance = np.exp(brute_force(C[[i]][:, [i]], lambda f: bernoulli(f).log_prob(1)[..., 0]))
        error = np.sqrt(chance * (1 - chance) / 20_000)
        assert abs(draws[:, i].mean() - chance) < 4 * error


def test_bad_input_is_named():
    prior = MercerNormal(p.Phi, p.values, 1e-2)
    with pytest.raises(ValueError, match=r"log densities of shape \(\) .* no to_event"):
        LaplaceMarginal(prior, lambda f: dist.Bernoulli(logits=f).to_event(1))
    with pytest.raises(ValueError, match=r"prior must be a gp.MercerNormal, got Normal"):
        LaplaceMarginal(dist.Normal(0.0, 1.0), bernoulli)
    with pytest.raises(ValueError, match="between 0 and 61, got 62"):
        LaplaceMarginal(prior, bernoulli).split(62)


@pytest.mark.slow
def test_nuts_predictions_and_the_exact_model_agree():
    """With every mode explicit Laplace integrates a jitter alone: the latent model's posterior."""
    data = gp_classification.demo(jax.random.key(0))
    sampling = {"draws": 1500, "warmup": 500, "chains": 2, "progress": False}
    found = {}
    for name, model, cutoff in (
        ("exact", gp_classification.model, 5), ("all", gp_classification.laplace, 31),
        ("some", gp_classification.laplace, 5),
    ):  # fmt: skip
        dt = brg.fit(model, data, key=3, cutoff=cutoff, **sampling)
        logs = np.log(dt["posterior"].to_dataset()[["amplitude"]])
        found[name] = dt, float(logs["amplitude"].mean()), float(az.mcse(logs)["amplitude"])
    for name, allowed in (("all", 0.0), ("some", 0.1)):
        spread = np.hypot(found["exact"][2], found[name][2])
        assert abs(found[name][1] - found["exact"][1]) < allowed + 4 * spread, name
    out = brg.predict(found["some"][0], gp_classification.laplace, data.X_test, key=0, cutoff=5)
    f, y = (out["predictions"][name] for name in ("f", "y"))
    assert set(np.unique(y)) == {0.0, 1.0}
    chance = 1 / (1 + np.exp(-f))
    z = (y - chance).sum(("chain", "draw")) / np.sqrt(
        (chance * (1 - chance)).sum(("chain", "draw"))
    )
    assert float(np.abs(z).max()) < 4.5


@pytest.mark.parametrize("rows", [3, 9, (2, 3), ()])
def test_observations_of_another_length_are_refused(rows):
    fn = LaplaceMarginal(
        MercerNormal(np.eye(8), np.ones(8), 0.1), lambda f: dist.Bernoulli(logits=f)
    )
    for verb in (fn.log_prob, fn.mode, fn.posterior, fn.correction, fn.loo):
        with pytest.raises(ValueError, match="for 8 points; their last axis is the point axis"):
            verb(jnp.ones(rows))


def test_leave_one_out_of_a_wide_prior():
    """One point says nothing about itself: its chance is one half, whatever the amplitude."""
    for amplitude in (1.0, 100.0, 1e4):
        prior = MercerNormal(np.ones((1, 1)), [amplitude], 1e-6)
        fn = LaplaceMarginal(prior, lambda f: dist.Bernoulli(logits=f))
        np.testing.assert_allclose(fn.loo(jnp.ones(1)), np.log(0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise, jitter", [(1e-12, 1e-2), (1e-16, 1e-2), (1e-6, 1e-6), (1, 1e-6)])
def test_exact_for_gaussian_observations_of_any_noise(noise, jitter):
    """A likelihood that says far more, or less, than the prior: one regression, exactly."""
    x, y = np.linspace(0, 5, 14), np.sin(np.linspace(0, 5, 14))
    latent = brg.gp.marginal(brg.kernels.RBF(0.6), x, jitter)
    seen = brg.gp.marginal(brg.kernels.RBF(0.6), x, jitter + noise)
    fn = LaplaceMarginal(latent, lambda f: dist.Normal(f, np.sqrt(noise)))
    mode = fn.mode(y)
    assert mode.converged and mode.steps <= 3
    np.testing.assert_allclose(fn.log_prob(y), seen.log_prob(y), rtol=1e-10)
    K = np.asarray(latent.covariance_matrix)
    C = K + noise * np.eye(14)
    np.testing.assert_allclose(mode.weight, np.linalg.solve(C, y), rtol=1e-8, atol=1e-10)
    # the posterior's covariance, K C^-1 noise, which a difference loses
    S = noise * np.linalg.solve(C, K)
    np.testing.assert_allclose(fn.posterior(y)[1], S, rtol=1e-8, atol=1e-10 * S.max())
    np.testing.assert_allclose(fn.loo(y), seen.loo(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("amplitude", [1.0, 1e4])
def test_converged_means_a_gradient_that_is_small(amplitude):
    """In the metric of the curvature, for a likelihood that is weak or strong by point."""
    K = amplitude * np.asarray(small(6)[1])
    prior = MercerNormal(np.zeros((6, 0)), np.zeros(0), 0.0, residual=K)
    labels = jnp.array([1.0, 0, 1, 1, 0, 0])
    mode = LaplaceMarginal(prior, bernoulli).mode(labels)
    f = np.asarray(mode.f)
    chance = 1 / (1 + np.exp(-f))
    gradient = np.asarray(labels) - chance - np.linalg.solve(K, f)
    curvature = np.linalg.inv(K) + np.diag(chance * (1 - chance))
    assert mode.converged and gradient @ np.linalg.solve(curvature, gradient) < 1e-11
