# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from bayesrg import io
from bayesrg.deep_linear import evidence, exact, perturbative_kernel
from bayesrg.deep_linear.features import feature_means
from bayesrg.deep_linear.order import order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.networks import DeepLinear


def data():
    rng = np.random.default_rng(5)
    return rng.standard_normal((4, 6)), rng.standard_normal((4, 2))


def prior_kernel(X, scales):
    return np.prod(np.square(scales)) * X @ X.T / 6


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_first_order_of_the_exact_kernel(ridge):
    """N times the exact change, with the next order removed, at unequal widths and scales."""
    X, Y = data()
    y, s = Y[:, 0], (0.8, 1.3, 1.1)

    def change(n, level, function):
        net = DeepLinear((n, 2 * n), ridge=ridge, weight_scales=s)
        if function == "exact":
            kernel = exact(net, X, y).feature_kernel(level)
        else:
            kernel = perturbative_kernel(net, X, y, level)
        return n * (kernel - prior_kernel(X, s[:level]))

    for level in (1, 2):
        limit = 2 * change(4000, level, "exact") - change(2000, level, "exact")
        found = change(1000, level, "perturbative")
        assert_allclose(found, limit, rtol=0, atol=5e-5 * np.abs(limit).max())
    level_0 = perturbative_kernel(DeepLinear((9,), ridge=ridge), X, y, 0)
    assert_allclose(level_0, X @ X.T / 6, rtol=0, atol=1e-13)


def test_without_noise_it_points_along_the_targets():
    X, Y = data()
    K = X @ X.T / 6
    net = DeepLinear((50, 50, 50), ridge=0.0, outputs=2)
    for level in (1, 2, 3):
        expected = K + level / 50 * (Y @ Y.T - 2 * K)
        assert_allclose(perturbative_kernel(net, X, Y, level), expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_two_outputs_with_noise():
    """Posterior means given the order parameter, averaged by importance sampling."""
    X, Y = data()
    net = DeepLinear((120, 80), ridge=0.3, outputs=2)
    sample = evidence(net, X, Y, key=0, draws=4000).sample
    rotated = prepare(net, X, Y).as_jax()

    @jax.jit
    def means_of(latents):
        chain = order_parameter(net.widths, 2, latents).chain
        return jax.vmap(lambda c: feature_means(rotated, c))(chain)

    means = means_of(sample.latents)
    K, (mean, error) = X @ X.T / 6, sample.expect(means)
    for level in (1, 2):
        found = perturbative_kernel(net, X, Y, level)
        size = np.linalg.norm(found - K)
        assert np.linalg.norm(mean[level - 1] - found) < 0.05 * size  # next order: 3 / 80
        assert np.linalg.norm(error[level - 1]) < 0.01 * size


def test_draws_of_the_exact_posterior():
    X, Y = data()
    post = exact(DeepLinear((5, 7), ridge=0.2), X, 2 * Y[:, 0])
    draws = post.draws(4000, key=1)
    q = draws.Q[0, :, 0, 0]
    assert_allclose(q.mean(), post.moment(1), rtol=2e-4)
    assert_allclose(np.log(q).std(), post.sd_log_q, rtol=2e-3)
    assert_allclose(draws.effective_ridge[0], 0.2 / q, rtol=1e-14)
    mean, variance = post.predict(X)
    z = np.sqrt(4000) * (draws.f[0].mean(0) - mean) / np.sqrt(variance)
    assert np.abs(z).max() < 4
    ratio = ((draws.f[0] - mean) ** 2).mean(0) / variance
    assert_allclose(ratio, 1.0, rtol=0, atol=4 * np.sqrt(3 / 4000))
    order = np.argsort(q)
    assert abs(np.corrcoef(order, np.arange(4000))[0, 1]) < norm.isf(1e-4) / np.sqrt(4000)
    tree = io.label(posterior=draws)
    assert tree["posterior"]["Q"].dims == ("chain", "draw", "output", "output_bis")
    assert tree["posterior"].attrs["exact"] == 1
    with pytest.raises(ValueError, match="count must be a positive integer, got 0"):
        post.draws(0, key=1)


def test_bad_levels():
    X, Y = data()
    with pytest.raises(ValueError, match="level must be an integer from 0 to 1, got 2"):
        perturbative_kernel(DeepLinear((5,), ridge=0.2), X, Y[:, 0], 2)
