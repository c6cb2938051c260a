# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import oracles
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.special import gammaln

from bayesrg import rg
from bayesrg.gp import EffectiveNormal, LaplaceMarginal, MercerNormal, eigenpairs, laplace

p = oracles.fourier_problem()
LABELS, RESIDUAL = np.asarray(p.y > 0, float), np.linspace(0.01, 0.2, 24)


def bernoulli(f):
    return dist.Bernoulli(logits=f)


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def gaussian(spread):
    spread = jnp.asarray(spread, float)  # an array is a parameter: one program serves all spreads
    return lambda f: dist.Normal(f, spread)


def answers(at):
    return at.log_density(), at.correction(), at.leave_one_out()[0], *at.posterior()


# One program each for all laws of one structure: shapes, presence of parts, likelihood's code.
@jax.jit
def evaluate(fn, y):
    """All answers from one expansion: to find the mode is most of what is compiled."""
    return laplace._evaluate(answers, fn, y)[0]


log_prob = jax.jit(lambda fn, y: fn.log_prob(y))
krige = jax.jit(lambda fn, y: fn.krige(y))
find_mode = jax.jit(lambda fn, y: fn.mode(y))


def small(n, scale=1.0):
    """A prior of n points, low rank for n = 3, and its covariance."""
    F, v = p.Phi[:n, :2], p.values[:2]
    return MercerNormal(F, v, 0.1, scale=scale, loc=0.3), oracles.covariance(F, v, 0.1, scale)


LOG = {bernoulli: oracles.log_bernoulli, poisson: lambda f, y: y * f - np.exp(f) - gammaln(y + 1)}


FORMS = [
    (61, None, False),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (
        (5, RESIDUAL, False), (5, None, False), (5, None, True),
        (5, np.diag(RESIDUAL) + 0.01, False), (61, None, True),
    )),
]  # fmt: skip


@pytest.mark.parametrize("k, residual, form", FORMS)
def test_a_gaussian_likelihood_gives_the_exact_law(k, residual, form):
    F, v = p.Phi[:, :k], p.values[:k]
    eigen = eigenpairs(F, v, residual) if form else None
    prior = MercerNormal(F, v, 0.01, eigen=eigen, scale=1.3, loc=0.2, residual=residual)
    fn = LaplaceMarginal(prior, gaussian(0.3))
    assert fn.event_shape == (24,) and fn.batch_shape == ()
    value, correction, loo, mean, cov = evaluate(fn, p.y)
    K = oracles.covariance(F, v, 0.01, 1.3)
    if residual is not None:
        K = K + 1.3 * (np.diag(residual) if residual.ndim == 1 else residual)
    C, y = K + 0.09 * np.eye(24), p.y - 0.2
    exact, exact_loo = oracles.gaussian_law(y, C)
    np.testing.assert_allclose(value, exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(correction, 0.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(loo, exact_loo, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mean, 0.2 + K @ np.linalg.solve(C, y), rtol=0, atol=1e-10)
    np.testing.assert_allclose(cov, K - K @ np.linalg.solve(C, K), rtol=0, atol=1e-10)
    if eigen is None:
        mean, variance, ridge = krige(fn, p.y[:20])
        expected, cov = oracles.conditional(C, range(20), range(20, 24), y[:20])
        np.testing.assert_allclose(mean, 0.2 + expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(variance + ridge, np.diag(cov) - 0.09, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood, values",
    [(bernoulli, (1, 0, 1)), (poisson, (2, 0, 5))],
)
def test_the_correction_is_most_of_the_error(likelihood, values):
    for n in (1, 3):
        y = np.asarray(values[:n], float)
        for scale in (0.3, 1.0):
            prior, C = small(n, scale)
            fn = LaplaceMarginal(prior, likelihood)
            value, correction, loo, *_ = evaluate(fn, y)
            exact = oracles.brute_force(C, LOG[likelihood], y)
            error = float(value) - exact
            left = error + float(correction)
            assert 1e-5 < abs(error) < 0.05
            assert abs(left) < 0.25 * abs(error), (n, scale, error, left)
            if n == 1:  # leaving out the only point leaves the prior, without any approximation
                np.testing.assert_allclose(loo, exact, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_orders_of_the_expansion():
    """Halving the variance divides the error by 4, what the correction leaves by 8."""
    y, found, (F, v) = np.array([1.0, 0.0, 1.0]), [], (p.Phi[:3, :2], p.values[:2])
    for scale in (0.05, 0.025):
        fn = LaplaceMarginal(MercerNormal(F, v, 1e-9, scale=scale), bernoulli)
        C = oracles.covariance(F, v, 1e-9, scale)
        value, correction, loo, *_ = evaluate(fn, y)

        def evidence(keep, C=C):
            return oracles.brute_force(C[keep][:, keep], oracles.log_bernoulli, y[keep], loc=0.0)

        exact = evidence(np.arange(3))
        error = float(value) - exact
        others = [evidence(np.delete(np.arange(3), i)) for i in range(3)]
        left_out = np.abs(np.asarray(loo) - (exact - np.array(others)))
        found.append((abs(error), abs(error + float(correction)), *left_out))
    np.testing.assert_allclose(jax.jit(fn.correction)(y), correction, rtol=1e-10)
    ratio = np.array(found[0]) / np.array(found[1])
    assert 3.6 < ratio[0] < 4.1 and 7 < ratio[1] < 8.2, ratio
    assert (ratio[2:] > 3.6).all() and max(found[1][2:]) < 1e-5, (found, ratio)


@partial(jax.jit, static_argnums=2)
@jax.value_and_grad
def evidence(theta, y, k=61):
    """In amplitude, jitter, mean and a parameter of the likelihood."""
    scale, jitter, _, slope = jnp.exp(theta)
    prior = MercerNormal(p.Phi[:, :k], p.values[:k], jitter, scale=scale, loc=theta[2])
    return LaplaceMarginal(prior, lambda f: dist.Bernoulli(logits=slope * f)).log_prob(y)


@pytest.mark.parametrize("k", [pytest.param(5, marks=pytest.mark.slow), 61])
def test_gradients(k):
    theta = np.array([1.0, -3.0, 0.2, 0.4])
    expected = oracles.central_difference(lambda t: float(evidence(t, LABELS, k)[0]), theta, 1e-5)
    np.testing.assert_allclose(evidence(theta, LABELS, k)[1], expected, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_cutting_and_integrating_back():
    """One mode explicit, the rest by Laplace, the mode by quadrature: nearer to the truth."""
    prior, C = small(3, 4.0)
    y = jnp.array([1.0, 1.0, 1.0])
    fn = LaplaceMarginal(prior, bernoulli)
    exact = oracles.brute_force(C, oracles.log_bernoulli, np.ones(3))
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
    np.testing.assert_allclose(
        joint, given(mode[0]) + oracles.log_normal(0.7, 0.0, 1.0), rtol=1e-12
    )


@pytest.mark.slow
def test_nothing_is_left_to_integrate_when_every_mode_is_explicit():
    F, w = p.Phi[:, :9], np.linspace(-1, 1, 9)

    @jax.jit
    def given(fn, w):
        root, rest = fn.split(9)
        return rest.shift(root @ w).log_prob(LABELS)

    got = given(LaplaceMarginal(MercerNormal(F, p.values[:9], 1e-10), bernoulli), w)
    expected = oracles.log_bernoulli(F * np.sqrt(p.values[:9]) @ w, LABELS).sum()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("rule", ["local", pytest.param("universal", marks=pytest.mark.slow)])
def test_other_rules_make_points_independent(rule):
    @jax.jit
    def cut(fn):
        root, rest = fn.split(5, rule, n=20)
        low = root @ np.ones(5)
        ahead = rest.shift(low).krige(LABELS[:20])
        return rest.log_prob(LABELS), rest.prior, low, ahead

    fn = LaplaceMarginal(MercerNormal(p.Phi, p.values, 1e-2), bernoulli)
    value, prior, low, (mean, variance, _) = cut(fn)
    assert isinstance(prior, EffectiveNormal)
    noise = np.broadcast_to(prior.noise_variance, (24,))
    f = oracles.newton(np.diag(noise), oracles.slope_of_labels, LABELS)  # each point by itself
    curvature = -oracles.slope_of_labels(f, LABELS)[1]
    single = oracles.log_bernoulli(f, LABELS) - (f**2 / noise + np.log1p(curvature * noise)) / 2
    np.testing.assert_allclose(value, single.sum(), rtol=1e-11)
    np.testing.assert_allclose(mean, np.asarray(low)[20:], rtol=1e-12)
    np.testing.assert_allclose(variance, np.asarray(prior.eliminated)[20:], rtol=1e-12)


def test_prediction_against_dense_algebra():
    F, v = p.Phi[:, :5], p.values[:5]
    fn = LaplaceMarginal(MercerNormal(F, v, 1e-2, scale=2.0, loc=0.1), bernoulli)
    mean, variance, ridge = krige(fn, LABELS[:20])
    C = oracles.covariance(F, v, 1e-2, 2.0)
    f = oracles.newton(C[:20, :20], lambda f, y: oracles.slope_of_labels(f + 0.1, y), LABELS[:20])
    curvature = -oracles.slope_of_labels(f + 0.1, LABELS[:20])[1]
    S = np.linalg.inv(np.linalg.inv(C[:20, :20]) + np.diag(curvature))
    gain = C[20:, :20] @ np.linalg.inv(C[:20, :20])
    np.testing.assert_allclose(mean, 0.1 + gain @ f, rtol=0, atol=1e-9)
    expected = C[20:, 20:] - gain @ (C[:20, :20] - S) @ gain.T
    np.testing.assert_allclose(variance, np.diag(expected) - 1e-2, rtol=0, atol=1e-9)
    np.testing.assert_allclose(ridge, 1e-2, rtol=1e-15)


def test_one_parameter_a_point_may_be_known_to_the_likelihood():
    exposure, counts = np.linspace(0.5, 2.0, 24), np.arange(24) % 4
    prior = MercerNormal(p.Phi, p.values, 1e-2)
    whole = LaplaceMarginal(prior, lambda f: dist.Poisson(exposure * jnp.exp(f)))

    def slope(f, y):
        mean = exposure[:20] * np.exp(f)
        return y - mean, -mean

    f = oracles.newton(oracles.covariance(p.Phi[:20], p.values, 1e-2), slope, counts[:20])
    expected = p.Phi[20:] * p.values @ p.Phi[:20].T @ slope(f, counts[:20])[0]
    np.testing.assert_allclose(krige(whole, counts[:20])[0], expected, rtol=1e-10)


@pytest.mark.slow
def test_curvature_at_a_logit_of_exactly_zero():
    """NumPyro's logits hide half of a kink there; one success in two has its mode at zero."""
    prior = MercerNormal(np.ones((1, 1)), np.ones(1), 1e-12)
    fn = LaplaceMarginal(prior, lambda f: dist.Binomial(2, logits=f))
    expected = np.log(0.5) - 0.5 * np.log1p(0.5)
    np.testing.assert_allclose(log_prob(fn, np.ones(1)), expected, rtol=0, atol=1e-11)


ALTERNATING = np.arange(24) % 2.0


@pytest.mark.parametrize(
    "scale, y, loc",
    [
        (1e4, LABELS, 0.0), (1e6, ALTERNATING, 0.0), (1e-8, LABELS, 0.0),
        (1.0, LABELS, 800.0), (1.0, LABELS, -800.0),
    ],
)  # fmt: skip
def test_hard_cases_converge_and_keep_their_gradients(scale, y, loc):
    value, slope = evidence(np.array([np.log(scale), np.log(1e-6), loc, 0.0]), y)
    assert np.isfinite(value) and np.isfinite(slope)[[0, 1, 3]].all()  # all but in the mean


@pytest.mark.slow
def test_hard_counts_converge_and_keep_their_gradients():
    def evidence(scale, y, loc):
        prior = MercerNormal(p.Phi, p.values, 1e-6, scale=scale, loc=loc)
        return LaplaceMarginal(prior, poisson).log_prob(y)

    both = jax.jit(jax.value_and_grad(evidence))
    for args in ((100.0, 10_000 * ALTERNATING, 0.0), (1.0, 0 * ALTERNATING, -30.0)):
        value, slope = both(*args)
        assert np.isfinite(value) and np.isfinite(slope), args


def test_what_does_not_converge_is_nan_and_says_so():
    prior = MercerNormal(p.Phi, p.values, 1e-6, scale=10.0)
    fn = LaplaceMarginal(prior, lambda f: dist.StudentT(1.0, f, 0.01))
    y = 5.0 * (-1.0) ** np.arange(24)
    assert not find_mode(fn, y).converged and np.isnan(log_prob(fn, y))
    good = find_mode(LaplaceMarginal(prior, bernoulli), LABELS)
    assert good.converged and 1 <= int(good.steps) < 30


@pytest.mark.slow
def test_rows_share_a_prior_or_own_one():
    Y = np.stack([LABELS, 1 - LABELS])
    for k in (5, 61):
        parts = p.Phi[:, :k], p.values[:k], 1e-2
        fn, own, *each = (
            LaplaceMarginal(MercerNormal(*parts, scale=s), bernoulli)
            for s in (1.0, np.array([0.5, 3.0]), 0.5, 3.0)
        )
        alone = [evaluate(fn, y) for y in Y]
        for got, *expected in zip(evaluate(fn, Y), *alone, strict=True):
            np.testing.assert_allclose(got, np.stack(expected), rtol=1e-8)
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
    sample = jax.jit(lambda fn, key: fn.sample(key, (20_000,)))
    draws = np.asarray(sample(fn, jax.random.key(0)))
    assert draws.shape == (20_000, 3) and set(np.unique(draws)) == {0, 1}
    assert fn.support.is_discrete and np.asarray(fn.support(draws)).all()
    for i in range(3):
        chance = np.exp(oracles.brute_force(C[[i]][:, [i]], oracles.log_bernoulli, 1))
        error = np.sqrt(chance * (1 - chance) / 20_000)
        assert abs(draws[:, i].mean() - chance) < 4 * error


def test_bad_input_is_named():
    prior = MercerNormal(p.Phi, p.values, 1e-2)
    with pytest.raises(ValueError, match=r"log densities of shape \(\) .* without to_event"):
        LaplaceMarginal(prior, lambda f: dist.Bernoulli(logits=f).to_event(1))
    with pytest.raises(ValueError, match=r"prior must be a gp.MercerNormal, got Normal"):
        LaplaceMarginal(dist.Normal(0.0, 1.0), bernoulli)
    with pytest.raises(ValueError, match="between 0 and 61, got 62"):
        LaplaceMarginal(prior, bernoulli).split(62)


@pytest.mark.parametrize("rows", [3, 9, (2, 3), ()])
def test_observations_of_another_length_are_refused(rows):
    fn = LaplaceMarginal(MercerNormal(np.eye(8), np.ones(8), 0.1), bernoulli)
    for verb in (fn.log_prob, fn.mode, fn.posterior, fn.correction, fn.loo):
        with pytest.raises(ValueError, match="for 8 points; their last axis is the point axis"):
            verb(np.ones(rows))


def test_leave_one_out_of_a_wide_prior():
    """One point says nothing about itself: its chance is one half, whatever the amplitude."""
    for amplitude in (1.0, 100.0, 1e4):
        prior = MercerNormal(np.array([[1.0, 0.0]]), [amplitude, 0.0], 1e-6)
        loo = evaluate(LaplaceMarginal(prior, bernoulli), np.ones(1))[2]
        np.testing.assert_allclose(loo, np.log(0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise, jitter", [(1e-12, 1e-2), (1e-16, 1e-2), (1e-6, 1e-6), (1, 1e-6)])
def test_exact_for_gaussian_observations_of_any_noise(noise, jitter):
    """A likelihood that says far more, or less, than the prior: one regression, exactly."""
    x = 5 / 13 * np.arange(24)
    y, gram = np.sin(x), np.exp(-0.5 * ((x[:, None] - x) / 0.6) ** 2)
    # as columns, so that the programs are those of the Fourier modes
    energies, vectors = np.linalg.eigh(gram)
    F, v = np.pad(vectors, [(0, 0), (0, 37)]), np.pad(energies.clip(0), (0, 37))
    fn = LaplaceMarginal(MercerNormal(F, v, jitter), gaussian(np.sqrt(noise)))
    mode = find_mode(fn, y)
    value, _, loo, _, cov = evaluate(fn, y)
    K = gram + jitter * np.eye(24)
    C = K + noise * np.eye(24)
    exact, exact_loo = oracles.gaussian_law(y, C)
    assert mode.converged and int(mode.steps) <= 3
    np.testing.assert_allclose(value, exact, rtol=1e-10)
    np.testing.assert_allclose(mode.weight, np.linalg.solve(C, y), rtol=1e-8, atol=1e-10)
    # the posterior's covariance, K C^-1 noise, which a difference loses
    S = noise * np.linalg.solve(C, K)
    np.testing.assert_allclose(cov, S, rtol=1e-8, atol=1e-10 * S.max())
    np.testing.assert_allclose(loo, exact_loo, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("amplitude", [1.0, 1e4])
def test_converged_means_a_gradient_that_is_small(amplitude):
    """In the metric of the curvature, for a likelihood that is weak or strong by point."""
    prior = MercerNormal(p.Phi, p.values, 0.1 * amplitude, scale=amplitude)
    K = oracles.covariance(p.Phi, p.values, 0.1 * amplitude, amplitude)
    mode = find_mode(LaplaceMarginal(prior, bernoulli), LABELS)
    f = np.asarray(mode.f)
    slope, bend = oracles.slope_of_labels(f, LABELS)
    gradient = slope - np.linalg.solve(K, f)
    curvature = np.linalg.inv(K) - np.diag(bend)
    assert mode.converged and gradient @ np.linalg.solve(curvature, gradient) < 1e-11


def test_an_overflow_in_leave_one_out_is_said():
    F = np.random.default_rng(0).standard_normal((12, 2))
    prior = MercerNormal(F, np.full(2, 1e30), 1e-6)
    law = LaplaceMarginal(prior, lambda f: dist.Normal(f, 0.1))
    with pytest.raises(ValueError, match="observations: the result is not a number"):
        law.loo(np.sin(F[:, 0]))
