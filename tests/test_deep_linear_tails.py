# SPDX-License-Identifier: Apache-2.0
"""Narrow layers, remote observations and distant minima: where a grid could end too early."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

from bayesrg.deep_linear import exact, prior_density, saddle
from bayesrg.networks import DeepLinear


@pytest.mark.parametrize(
    "widths", [(200, 1), *(pytest.param(w, marks=pytest.mark.slow) for w in ((1,), (30, 30, 1)))]
)
def test_a_layer_of_one_unit_and_a_small_target(widths):
    """Its grid reaches far into the tails of the prior; against the trapezoid rule in log q."""
    net, y = DeepLinear(widths, ridge=0.01), 0.03
    x = np.linspace(-80.0, 12.0, 4601)
    density = prior_density(widths, x) * norm.pdf(y, 0.0, np.sqrt(np.exp(x) + 0.01))
    expected = np.log(density.sum() * (x[1] - x[0]))
    assert_allclose(exact(net, [[1.0]], [y]).log_evidence, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("widths", "expected"), [((1, 10), 1.157017788), ((2, 10), 1.137144632), ((3, 10), 1.128276273)]
)
def test_factors_above_a_narrow_layer(widths, expected):
    """Two-dimensional quadrature over the layers' factors; see the values' rounding."""
    draw = np.random.default_rng(0)
    X, y = draw.standard_normal((5, 4)), draw.standard_normal(5)
    found = exact(DeepLinear(widths, ridge=0.1), X, y).inverse_factor(2)
    assert_allclose(found, expected, rtol=0, atol=6e-10)
    K = X @ X.T / 4

    def both(power):
        """Average of a power of the second factor and the likelihood, by the trapezoid rule."""
        a, b = (np.linspace(-26.0, 4.5, 401), np.linspace(-6.0, 3.0, 121))
        u, v = np.meshgrid(a, b, indexing="ij")
        prior = sum(
            w / 2 * np.log(w / 2) - gammaln(w / 2) + w / 2 * (x - np.exp(x))
            for w, x in zip(widths, (u, v), strict=True)
        )
        kappa, U = np.linalg.eigh(K)
        C = np.clip(kappa, 0, None)[:, None, None] * np.exp(u + v) + 0.1
        like = -0.5 * ((U.T @ y)[:, None, None] ** 2 / C + np.log(C)).sum(0)
        return np.exp(prior + like + power * v).sum()

    assert_allclose(found, both(-1) / both(0), rtol=1e-6)


def test_no_targets_and_no_noise_above_a_wide_layer():
    draw = np.random.default_rng(0)
    net = DeepLinear((5, 20), ridge=0.0)
    found = exact(net, draw.standard_normal((4, 6)), np.zeros(4))
    assert_allclose(found.inverse_factor(2), 20 / 14, rtol=1e-12)
    assert saddle(DeepLinear((9, 9), ridge=0.0), np.eye(4), np.full(4, 1e-170)).q > 0


@pytest.mark.parametrize(
    ("widths", "ridge"),
    [pytest.param((3,), 0.0, marks=pytest.mark.slow), ((2, 2), 0.0), ((4, 4, 4), 0.1)],
)
def test_densities_of_remote_observations(widths, ridge):
    """They are ratios of evidences of n + 1 and n points, however far away."""
    draw = np.random.default_rng(3)
    X, y, x = draw.standard_normal((4, 6)), draw.standard_normal(4), draw.standard_normal((1, 6))
    net = DeepLinear(widths, ridge=ridge)
    posterior = exact(net, X, y)
    mean, variance = posterior.predict(x)
    for far in (1.0, 30.0, 100.0, 1000.0):
        y_new = mean + far * np.sqrt(variance + ridge)
        more = exact(net, np.vstack([X, x]), np.append(y, y_new)).log_evidence
        found = posterior.log_density(x, y_new)[0]
        assert_allclose(found, more - posterior.log_evidence, rtol=1e-5 if far > 100 else 1e-9)


def test_draws_and_saddle_of_mean_field_networks_are_in_the_units_of_the_data():
    draw = np.random.default_rng(5)
    X, Y = draw.standard_normal((5, 7)), draw.standard_normal((5, 2))
    more = {"parametrisation": "mean_field", "richness": 1.4}
    posterior = exact(DeepLinear((6, 5), ridge=0.2, **more), X, Y[:, 0])
    f = posterior.draws(20_000, key=0).f[0]
    mean, variance = posterior.predict(X)
    assert (np.abs(f.mean(0) - mean) < 4.5 * np.sqrt(variance / 20_000)).all()
    both = DeepLinear((60, 120), ridge=1e-9, outputs=2, **more)
    mean, variance = saddle(both, X, Y).predict(X)
    assert_allclose(mean, Y, rtol=0, atol=1e-6)
    X_new = draw.standard_normal((3, 7))
    zero = np.stack([Y[:, 0], np.zeros(5)], 1)
    two = saddle(DeepLinear((60, 120), ridge=0.2, outputs=2, **more), X, zero).predict(X_new)
    one = saddle(DeepLinear((60, 120), ridge=0.2, **more), X, Y[:, 0]).predict(X_new)
    assert_allclose(two[0][:, 0], one[0], rtol=1e-6)
    assert_allclose(two[1][:, 0], one[1], rtol=1e-6)


def test_both_minima_of_the_action_are_covered():
    """With P = N = 200 the posterior is split between two distant minima."""
    y = np.full(200, np.sqrt(966.1523))
    posterior = exact(DeepLinear((200,) * 4, ridge=100.0), np.sqrt(200) * np.eye(200), y)
    x = np.linspace(-3.0, 8.0, 8001)
    log_prior = np.log(np.maximum(prior_density(np.full(4, 200.0), x), 1e-300))
    C = np.exp(x) + 100.0
    log_like = -100 * (966.1523 / C + np.log(2 * np.pi * C))
    total = logsumexp(log_prior + log_like) + np.log(x[1] - x[0])
    assert_allclose(posterior.log_evidence, total, rtol=0, atol=1e-6)
    rich = posterior.weights[posterior.log_q > 2.5].sum()
    assert_allclose(posterior.log_evidence, -1599.00523246, rtol=0, atol=1e-6)
    assert_allclose(rich, 0.453286, rtol=0, atol=1e-5)
