# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from oracles import conditional, log_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from bayesrg.gp import condition
from bayesrg.kernels import RBF

rng = np.random.default_rng(0)
X, Z = rng.uniform(-1, 1, (12, 2)), rng.uniform(-1, 1, (5, 2))
y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(12)
kernel = RBF(0.7, 1.3)


def joint(ridge):
    K = np.array(kernel(np.concatenate([X, Z])))
    K[:12, :12] += ridge * np.eye(12) if np.ndim(ridge) == 0 else np.diag(ridge)
    return K


@pytest.mark.parametrize("ridge", [0.05, np.linspace(0.01, 0.2, 12)])
def test_posterior_is_the_conditional_of_the_joint(ridge):
    posterior = condition(kernel, X, y, ridge)
    mean, cov = conditional(joint(ridge), np.arange(12), np.arange(12, 17), y)
    np.testing.assert_allclose(posterior.mean(Z), mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.cov(Z), cov, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(posterior.predict(Z)[1], np.diag(cov), rtol=1e-9)
    np.testing.assert_allclose(
        posterior.log_evidence, log_normal(y, np.zeros(12), joint(ridge)[:12, :12]), rtol=1e-11
    )
    assert posterior.jitter == 0


def test_agrees_with_peers():
    posterior = condition(kernel, X, y, 0.05)
    tiny = tinygp.GaussianProcess(1.3 * tinygp.kernels.ExpSquared(0.7), X, diag=0.05)
    np.testing.assert_allclose(posterior.log_evidence, tiny.log_probability(y), rtol=1e-11)
    there = tiny.condition(y, Z, diag=0.0).gp
    np.testing.assert_allclose(posterior.mean(Z), there.loc, rtol=1e-9)
    np.testing.assert_allclose(posterior.cov(Z), there.covariance, rtol=1e-9, atol=1e-11)
    fixed = sk.ConstantKernel(1.3, "fixed") * sk.RBF(0.7, "fixed")
    scikit = GaussianProcessRegressor(fixed, alpha=0.05, optimizer=None).fit(X, y)
    mean, cov = scikit.predict(Z, return_cov=True)
    np.testing.assert_allclose(posterior.mean(Z), mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.cov(Z), cov, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(
        posterior.log_evidence, scikit.log_marginal_likelihood_value_, rtol=1e-11
    )


def test_targets_and_prior_mean():
    Y = np.stack([y, y**2], 1)
    both = condition(kernel, X, Y, 0.05, mean=lambda X: X[:, 0])
    each = [condition(kernel, X, Y[:, i], 0.05, mean=lambda X: X[:, 0]) for i in range(2)]
    centred = condition(kernel, X, y - X[:, 0], 0.05)
    np.testing.assert_allclose(both.mean(Z)[:, 0], centred.mean(Z) + Z[:, 0], rtol=1e-10)
    for i, one in enumerate(each):
        np.testing.assert_allclose(both.mean(Z)[:, i], one.mean(Z), rtol=1e-11)
        np.testing.assert_allclose(both.loo()[:, i], one.loo(), rtol=1e-10)
    np.testing.assert_allclose(both.log_evidence, sum(one.log_evidence for one in each))
    assert both.sample(jax.random.key(0), Z, 3).shape == (3, 5, 2)


def test_leave_one_out_is_leaving_one_out():
    posterior = condition(kernel, X, y, 0.05)
    mean, variance = posterior.loo_predict()
    for i in range(12):
        rest = np.arange(12) != i
        m, v = condition(kernel, X[rest], y[rest], 0.05).predict(X[i : i + 1], noise=True)
        np.testing.assert_allclose([mean[i], variance[i]], [m[0], v[0]], rtol=1e-9)
        np.testing.assert_allclose(posterior.loo()[i], log_normal(y[i], m, v), rtol=1e-9)


def test_draws_have_the_posterior_law():
    posterior = condition(kernel, X, y, 0.05)
    draws = posterior.sample(jax.random.key(1), Z, 20_000)
    cov = np.asarray(posterior.cov(Z))
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / 20_000)
    assert (np.abs(np.cov(draws.T) - cov) < 5 * error).all()
    assert (np.abs(draws.mean(0) - posterior.mean(Z)) < 5 * np.sqrt(np.diag(cov) / 20_000)).all()


def test_single_point_and_duplicates_and_constant_target():
    one = condition(kernel, X[:1], y[:1], 0.05)
    np.testing.assert_allclose(one.mean(X[:1]), 1.3 / 1.35 * y[:1])
    twice = condition(kernel, np.repeat(X[:3], 2, 0), np.repeat(y[:3], 2), 0.1)
    half = condition(kernel, X[:3], y[:3], 0.05)
    np.testing.assert_allclose(twice.mean(Z), half.mean(Z), rtol=1e-9)
    np.testing.assert_allclose(condition(kernel, X, np.zeros(12), 0.05).mean(Z), 0.0)


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
        (lambda: condition(kernel, X, y, np.ones(12)).predict(Z, noise=True), "needs one ridge"),
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
