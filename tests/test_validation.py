# SPDX-License-Identifier: Apache-2.0
"""Test errors estimated from one sample, and experiments against theory."""

import jax
import numpy as np
import pytest
from test_equivalents import NOISE, equivalents, omega, spectral, weights

from bayesrg import theory


def direct_gcv(X, y, ridge):
    G = np.linalg.inv(X @ X.T + ridge * np.eye(len(y)))
    return len(y) * ((G @ y) ** 2).sum() / np.trace(G) ** 2


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6)])
def test_generalised_cross_validation_by_hand(shape):
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=shape), rng.normal(size=shape[0])
    ours = theory.gcv(X, y, [0.3, 1e-3, 0.0])
    expected = [direct_gcv(X, y, r) for r in (0.3, 1e-3, 1e-9)]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    np.testing.assert_allclose(ours[:2], expected[:2], rtol=1e-9)


def test_generalised_cross_validation_finds_the_test_error():
    i = np.arange(1, 121.0)
    m = theory.spectral_moments(2 / i, 2 / i**3, 0.2)
    e = equivalents(m, [60.0, 120, 240], 0.3)
    np.testing.assert_allclose(e.test, [0.39250, 0.50533, 0.35576], rtol=0, atol=6e-6)
    rng = np.random.default_rng(3)
    X = rng.normal(size=(100, 60, 120)) * np.sqrt(2 / i)
    y = X @ ((-1) ** i / i) + np.sqrt(0.2) * rng.normal(size=(100, 60))
    found = np.asarray(jax.jit(jax.vmap(lambda X, y: theory.gcv(X, y, 0.3)))(X, y))
    error = found.std() / 10
    assert abs(found.mean() - 0.39250) < 3 * error + 0.03 * 0.39250


@pytest.mark.slow
def test_experiment_with_gaussian_features():
    population = theory.gaussian_population(omega, np.sqrt(omega) * weights)
    mc = theory.learning_curve_mc(population, np.array([100]), 0.1, NOISE, key=0, draws=40)
    e = equivalents(spectral(omega, omega * weights**2, NOISE), 100.0, 0.1)
    for name in ("test", "train", "log_evidence"):
        mean, error = getattr(mc, name)[0], getattr(mc, f"{name}_error")[0]
        expected = getattr(e, name)
        assert abs(mean - expected) < 3 * error + 0.03 * abs(expected), name
    norm2 = ((mc.coefficients**2 + mc.coefficient_variance * 39 / 40) / omega).sum()
    np.testing.assert_allclose(norm2, e.weight_norm2, rtol=0.05)


@pytest.mark.slow
def test_experiment_with_rows_of_features():
    """Non-Gaussian features: the moments of the rows predict the error of regression on them."""
    rng = np.random.default_rng(5)
    F = np.tanh(rng.normal(size=(2000, 30)) @ rng.normal(size=(30, 40)) / np.sqrt(30))
    y = F @ rng.normal(size=40) / 3 + 0.5 * rng.normal(size=2000)
    e = equivalents(theory.moments(F, y), 80.0, 1.0)
    rows = theory.feature_population(F, y)
    mc = theory.learning_curve_mc(rows, np.array([80]), 1.0, key=1, draws=100)
    for name in ("test", "train"):
        mean, error = getattr(mc, name)[0], getattr(mc, f"{name}_error")[0]
        expected = getattr(e, name)
        assert abs(mean - expected) < 3 * error + 0.03 * expected, name
    norm2 = (mc.coefficients**2 + mc.coefficient_variance * 99 / 100).sum()
    np.testing.assert_allclose(norm2, e.weight_norm2, rtol=0.05)
    with pytest.raises(ValueError, match="needs up to 2001 rows but the population has 2000"):
        theory.learning_curve_mc(rows, 2001, 1.0, key=1)
