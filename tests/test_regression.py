# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from oracles import conditional, log_normal
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from bayesrg.gp import condition
from bayesrg.kernels import RBF

rng = np.random.default_rng(0)
X, Z = rng.uniform(-1, 1, (12, 2)), rng.uniform(-1, 1, (5, 2))
y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(12)
kernel = RBF(0.7, 1.3)


gram = jax.jit(lambda X: kernel(X))


def joint(ridge):
    K = np.array(gram(np.concatenate([X, Z])))
    K[:12, :12] += ridge * np.eye(12) if np.ndim(ridge) == 0 else np.diag(ridge)
    return K


@jax.jit
def answers(ridge):
    posterior = condition(kernel, X, y, ridge)
    mean, cov, variance = posterior.mean(Z), posterior.cov(Z), posterior.predict(Z)[1]
    return mean, cov, variance, posterior.log_evidence, posterior.jitter


@pytest.mark.parametrize("ridge", [0.05, np.linspace(0.01, 0.2, 12)])
def test_posterior_is_the_conditional_of_the_joint(ridge):
    found_mean, found_cov, variance, log_evidence, jitter = answers(ridge)
    mean, cov = conditional(joint(ridge), np.arange(12), np.arange(12, 17), y)
    np.testing.assert_allclose(found_mean, mean, rtol=1e-9)
    np.testing.assert_allclose(found_cov, cov, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, np.diag(cov), rtol=1e-9)
    expected = log_normal(y, np.zeros(12), joint(ridge)[:12, :12])
    np.testing.assert_allclose(log_evidence, expected, rtol=1e-11)
    assert jitter == 0


def test_agrees_with_peers():
    @jax.jit
    def tiny(ridge):
        process = tinygp.GaussianProcess(1.3 * tinygp.kernels.ExpSquared(0.7), X, diag=ridge)
        there = process.condition(y, Z, diag=0.0).gp
        return process.log_probability(y), there.loc, there.covariance

    fixed = sk.ConstantKernel(1.3, "fixed") * sk.RBF(0.7, "fixed")
    scikit = GaussianProcessRegressor(fixed, alpha=0.05, optimizer=None).fit(X, y)
    of_scikit = scikit.log_marginal_likelihood_value_, *scikit.predict(Z, return_cov=True)
    mean, cov, _, log_evidence, _ = answers(0.05)
    for peer_evidence, peer_mean, peer_cov in (tiny(0.05), of_scikit):
        np.testing.assert_allclose(log_evidence, peer_evidence, rtol=1e-11)
        np.testing.assert_allclose(mean, peer_mean, rtol=1e-9)
        np.testing.assert_allclose(cov, peer_cov, rtol=1e-9, atol=1e-11)


def test_targets_and_prior_mean():
    Y = np.stack([y, y**2], 1)

    def first(X):
        return X[:, 0]

    @jax.jit
    def targets(key):
        both = condition(kernel, X, Y, 0.05, mean=first)
        each = [condition(kernel, X, Y[:, i], 0.05, mean=first) for i in range(2)]
        centred = condition(kernel, X, y - X[:, 0], 0.05).mean(Z)
        found = [(law.mean(Z), law.loo(), law.log_evidence) for law in (both, *each)]
        return *found, centred, both.sample(key, Z, 3)

    both, *each, centred, draws = jax.tree.map(np.asarray, targets(jax.random.key(0)))
    np.testing.assert_allclose(both[0][:, 0], centred + Z[:, 0], rtol=1e-10)
    for i, (mean, loo, _) in enumerate(each):
        np.testing.assert_allclose(both[0][:, i], mean, rtol=1e-11)
        np.testing.assert_allclose(both[1][:, i], loo, rtol=1e-10)
    np.testing.assert_allclose(both[2], each[0][2] + each[1][2])
    assert draws.shape == (3, 5, 2)


def test_leave_one_out_is_leaving_one_out():
    @jax.jit
    def closed_form():
        posterior = condition(kernel, X, y, 0.05)
        return *posterior.loo_predict(), posterior.loo()

    @jax.jit
    @jax.vmap
    def left_out(i, rest):
        known, new = jnp.asarray(X)[rest], jnp.asarray(X)[i]
        return condition(kernel, known, jnp.asarray(y)[rest], 0.05).predict(new[None], noise=True)

    rows = np.arange(12)
    mean, variance, loo = map(np.asarray, closed_form())
    rest = np.stack([np.delete(rows, i) for i in rows])
    m, v = (np.asarray(part)[:, 0] for part in left_out(rows, rest))
    np.testing.assert_allclose(mean, m, rtol=1e-9)
    np.testing.assert_allclose(variance, v, rtol=1e-9)
    np.testing.assert_allclose(loo, norm.logpdf(y, m, np.sqrt(v)), rtol=1e-9)


@pytest.mark.slow
def test_draws_have_the_posterior_law():
    sample = jax.jit(lambda key: condition(kernel, X, y, 0.05).sample(key, Z, 20_000))
    draws = np.asarray(sample(jax.random.key(1)))
    mean, cov = map(np.asarray, answers(0.05)[:2])
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 20_000)
    assert (np.abs(np.cov(draws.T) - cov) < 5 * error).all()
    assert (np.abs(draws.mean(0) - mean) < 5 * np.sqrt(np.diag(cov) / 20_000)).all()


def test_single_point_and_duplicates_and_constant_target():
    @jax.jit
    def means():
        one = condition(kernel, X[:1], y[:1], 0.05)
        twice = condition(kernel, np.repeat(X[:3], 2, 0), np.repeat(y[:3], 2), 0.1)
        half = condition(kernel, X[:3], y[:3], 0.05)
        none = condition(kernel, X, np.zeros(12), 0.05)
        return one.mean(X[:1]), twice.mean(Z), half.mean(Z), none.mean(Z)

    one, twice, half, none = means()
    np.testing.assert_allclose(one, 1.3 / 1.35 * y[:1])
    np.testing.assert_allclose(twice, half, rtol=1e-9)
    np.testing.assert_allclose(none, 0.0)


def test_jitter_is_reported_never_silent():
    with pytest.warns(UserWarning, match="was added to its diagonal, which acts as a larger ridge"):
        posterior = condition(kernel, np.repeat(X[:3], 2, 0), np.repeat(y[:3], 2), 0.0)
    assert 0 < posterior.jitter < 1e-9
    np.testing.assert_allclose(posterior.mean(X[:3]), y[:3], rtol=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: condition(kernel, X, y[:-1], 0.1), r"y has shape \(11,\) but the inputs have 12"),
        (lambda: condition(kernel, X, y * np.nan, 0.1), "y contains non-finite"),
        (lambda: condition(kernel, X, y, -1.0), "ridge must be non-negative"),
        (lambda: condition(kernel, X, y, np.ones(3)), r"ridge has shape \(3,\) for 12 points"),
        (
            lambda: jax.eval_shape(
                lambda: condition(kernel, X, y, np.ones(12)).predict(Z, noise=True)
            ),
            "needs one ridge",
        ),
        (
            lambda: condition(kernel, X, y, 0.1, mean=lambda X: X[:, :1]),
            r"mean returned shape \(12, 1\) for targets of shape \(12,\)",
        ),
        (lambda: condition(kernel, X[:0], y[:0], 0.1), "X has no rows"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_conditioning_needs_64_bits():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
        condition(kernel, jnp.ones((2, 1)), jnp.ones(2), 0.1)
