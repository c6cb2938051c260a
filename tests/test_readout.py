# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import log_normal

from bayesrg.gp import MercerNormal, readout_posterior

rng = np.random.default_rng(3)
ALPHA, RIDGE = 0.7, 0.2


@jax.jit
def answers(F, y, F_new):
    found = readout_posterior(F, y, RIDGE, scale=ALPHA)
    noisy = found.predict(F_new, ridge=RIDGE)[1]
    return found.mean, found.cov, found.log_evidence, *found.predict(F_new), noisy


@pytest.mark.parametrize("shape, targets", [((12, 5), ()), ((5, 12), (2,)), ((1, 1), (2,))])
def test_against_the_dense_joint_gaussian(shape, targets):
    n, p = shape
    F, F_new = rng.standard_normal(shape), rng.standard_normal((4, p))
    y = rng.standard_normal((n, *targets))
    weights, weights_cov, log_evidence, mean, variance, noisy = answers(F, y, F_new)
    C = ALPHA * F @ F.T + RIDGE * np.eye(n)
    gain = ALPHA * F.T @ np.linalg.inv(C)
    cov = ALPHA * np.eye(p) - gain @ F * ALPHA
    np.testing.assert_allclose(weights, gain @ y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(weights_cov, cov, rtol=0, atol=1e-12)
    columns = y.reshape(n, -1).T
    evidence = sum(log_normal(column, np.zeros(n), C) for column in columns)
    np.testing.assert_allclose(log_evidence, evidence, rtol=1e-12)
    np.testing.assert_allclose(mean, F_new @ gain @ y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(variance, np.diagonal(F_new @ cov @ F_new.T), rtol=0, atol=1e-12)
    np.testing.assert_allclose(noisy, variance + RIDGE, rtol=1e-15)
    ridge = np.linalg.solve(F.T @ F + RIDGE / ALPHA * np.eye(p), F.T @ y)
    np.testing.assert_allclose(weights, ridge, rtol=0, atol=1e-12)


def test_evidence_is_that_of_the_mercer_normal():
    F, y = rng.standard_normal((25, 6)), rng.standard_normal(25)

    @jax.jit
    def both(F, y):
        law = MercerNormal(F, np.ones(6), RIDGE, scale=ALPHA, orthonormal=False)
        return readout_posterior(F, y, RIDGE, scale=ALPHA).log_evidence, law.log_prob(y)

    found, expected = both(F, y)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_draws():
    F, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))

    @jax.jit
    def draw(F, y):
        found = readout_posterior(F, y, RIDGE, scale=ALPHA)
        one = readout_posterior(F, y[:, 0], RIDGE).sample(jax.random.key(0))
        return found.sample(0, 20_000), found.mean, found.cov, one

    w, mean, C, one = map(np.asarray, draw(F, y))
    assert w.shape == (20_000, 3, 2)
    error = np.sqrt(np.diagonal(C) / 20_000)[:, None]
    assert (np.abs(w.mean(0) - mean) < 4.5 * error).all()
    spread = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / 20_000)
    for target in range(2):
        assert (np.abs(np.cov(w[..., target].T) - C) < 4.5 * spread).all()
    assert one.shape == (1, 3)


def test_no_points_and_hidden_ridges():
    _, cov, log_evidence, *_ = answers(np.zeros((0, 3)), np.zeros(0), np.zeros((4, 3)))
    np.testing.assert_allclose(cov, ALPHA * np.eye(3), rtol=1e-12)
    np.testing.assert_allclose(log_evidence, 0.0, rtol=0, atol=1e-13)
    F, y = rng.standard_normal((5, 20)), rng.standard_normal(5)
    with pytest.raises(
        ValueError, match="is at the rounding error of F.T F, which has rank 5 for 20"
    ):
        readout_posterior(F, y, 1e-12)


def test_bad_input():
    F, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
    with pytest.raises(ValueError, match="ridge must be positive, got 0"):
        readout_posterior(F, y, 0.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        readout_posterior(F, y, 0.1, scale=-1.0)
    with pytest.raises(ValueError, match=r"y has shape \(7,\)"):
        readout_posterior(F, y[:7], 0.1)
    with pytest.raises(ValueError, match="features has 2 columns and the posterior 3"):
        jax.eval_shape(lambda: readout_posterior(F, y, 0.1).predict(F[:, :2]))
