# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import log_normal
from scipy.special import gammaln

from bayesrg.networks import DeepLinear
from bayesrg.theory.deep_linear import exact, log_meijer_g


def interpolation():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((6, 10))
    w = rng.standard_normal(10) / np.sqrt(10)
    return X, 1.5 * X @ w


def noisy():
    rng = np.random.default_rng(3)
    X, X_new = rng.standard_normal((5, 4)), rng.standard_normal((2, 4))
    return X, X @ [1, -0.7, 0.4, 0.2] + np.sqrt(0.1) * rng.standard_normal(5), X_new


def test_order_of_widths_and_place_of_scales():
    X, y, X_new = noisy()
    first = exact(DeepLinear((3, 7), ridge=0.1, weight_scales=[1, 1, 1.2]), X, y)
    swapped = exact(DeepLinear((7, 3), ridge=0.1, weight_scales=[1, 1, 1.2]), X, y)
    moved = exact(DeepLinear((3, 7), ridge=0.1, weight_scales=[2, 0.5, 1.2]), X, y)
    for other in (swapped, moved):
        assert_allclose(other.log_evidence, first.log_evidence, rtol=1e-12)
        assert_allclose(other.predict(X_new), first.predict(X_new), rtol=1e-11)
    assert_allclose(moved.feature_kernel(1), 4 * first.feature_kernel(1), rtol=1e-10)
    assert_allclose(moved.feature_kernel(2), first.feature_kernel(2), rtol=1e-10)
    assert_allclose(moved.gain(1), first.gain(1), rtol=1e-11)
    assert abs(swapped.gain(1) - first.gain(1)) > 0.1


def test_targets_of_zero_pull_the_order_parameter_down():
    X, _, X_new = noisy()
    post = exact(DeepLinear((3, 4), ridge=0.1), X, np.zeros(5))
    assert post.layer_excess < 0 and post.moment(1) < 1
    assert_allclose(post.predict(X_new)[0], 0.0, rtol=0, atol=1e-15)
    assert np.isnan(post.gain(1))
    X = X[:3]
    post = exact(DeepLinear((4, 5), ridge=0.0), X, np.zeros(3))
    b = np.array([2.0, 2.5])
    K = X @ X.T / 4
    q_part = (1.5 * np.log(b) + gammaln(b - 1.5) - gammaln(b)).sum()
    expected = log_normal(np.zeros(3), np.zeros(3), K) + q_part
    assert_allclose(post.log_evidence, expected, rtol=1e-11)
    assert_allclose(post.moment(1), ((b - 1.5) / b).prod(), rtol=1e-12)
    assert_allclose(post.weights @ np.exp(post.log_q), post.moment(1), rtol=1e-9)
    assert_allclose(post.layer_excess, -3.0, rtol=1e-12)
    assert post.moment(-1) == np.inf


def test_interpolation_keeps_the_mean_and_integrates_its_predictive_density():
    X, y = interpolation()
    x = np.random.default_rng(2).standard_normal((1, 10))
    post = exact(DeepLinear((5, 8), ridge=0.0), X, y)
    mean, variance = post.predict(x)
    K, k = X @ X.T / 10, X @ x[0] / 10
    assert_allclose(mean, x @ np.linalg.pinv(X) @ y, rtol=1e-11)
    v = x[0] @ x[0] / 10 - k @ np.linalg.solve(K, k)
    assert_allclose(variance, v * post.moment(1), rtol=1e-10)
    assert (post.variance_parts(x)[1] == 0).all()
    y_new = np.linspace(-40, 40, 4001)
    density = np.exp(post.log_density(np.repeat(x, y_new.size, 0), y_new))
    assert_allclose(density.sum() * 0.02, 1.0, rtol=1e-8)
    s, b = post.problem.power, np.array([2.5, 4.0])
    wider = s + (0.9 - mean[0]) ** 2 / v
    scale = np.log(b).sum()
    expected = (
        -0.5 * np.log(2 * np.pi * v) - 3.5 * np.log(wider / 2) + 3 * np.log(s / 2)
        + log_meijer_g(np.log(wider / 2) + scale, [3.5, *b])
        - log_meijer_g(np.log(s / 2) + scale, [3.0, *b])
    )  # fmt: skip
    assert_allclose(post.log_density(x, [0.9]), expected, rtol=1e-10)


def test_moments_that_do_not_exist_are_infinite():
    X, y, _ = noisy()
    post = exact(DeepLinear((3, 1), ridge=0.1), X, y)
    assert post.moment(-0.5) == np.inf and post.inverse_factor(2) == np.inf
    assert np.isfinite(post.moment(-0.4)) and post.moment(0) == 1.0
    post = exact(DeepLinear((1, 5), ridge=0.1), X, y)
    assert post.inverse_factor(1) == np.inf and np.isfinite(post.inverse_factor(2))


def test_kernel_without_full_rank_and_without_noise():
    X, y, _ = noisy()
    with pytest.raises(ValueError, match="5 points has rank 4: targets outside its range have"):
        exact(DeepLinear((3, 4), ridge=0.0), X, y)
    with pytest.warns(UserWarning, match="has rank 4; the targets lie in its range"):
        post = exact(DeepLinear((3, 4), ridge=0.0), X, X @ [1.0, 2.0, -1.0, 0.5])
    rotated = exact(DeepLinear((3, 4), ridge=0.0), post.problem.vectors.T @ X, post.problem.target)
    assert_allclose(post.log_evidence, rotated.log_evidence, rtol=1e-11)
    with pytest.raises(ValueError, match="certain given the training data"):
        post.log_density(X[:1], y[:1])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"X": np.zeros((2, 2, 2))}, ValueError, "X must be an array of 1 or 2"),
        ({"y": np.zeros((5, 1, 1))}, ValueError, "y must be an array of 1 or 2"),
        ({"y": np.zeros(4)}, ValueError, r"y has shape \(4,\) but the inputs have 5 rows"),
        ({"y": np.zeros((5, 2))}, ValueError, r"y has shape \(5, 2\) and the network 1 output"),
        ({"y": np.array([0, 1, np.nan, 2, 3])}, ValueError, r"first at index \[2\]"),
        ({"X": np.full((5, 4), np.inf)}, ValueError, r"X contains non-finite.*index \[0, 0\]"),
        ({"net": {"outputs": 2}, "y": np.zeros((5, 2))}, NotImplementedError, "collapsed"),
        (
            {"net": {"ridge": 0.0}, "X": np.eye(5), "y": np.zeros(5)},
            ValueError,
            "the 5 targets are zero and the least width is 3: the evidence diverges",
        ),
    ],
)
def test_bad_data(change, error, words):
    X, y, _ = noisy()
    net = DeepLinear((3, 7), **{"ridge": 0.1} | change.get("net", {}))
    with pytest.raises(error, match=words):
        exact(net, change.get("X", X), change.get("y", y))


def test_bad_questions():
    X, y, X_new = noisy()
    post = exact(DeepLinear((3, 4), ridge=0.1), X, y)
    with pytest.raises(ValueError, match="level must be an integer from 0 to 2, got 3"):
        post.feature_kernel(3)
    with pytest.raises(ValueError, match="level must be an integer from 1 to 2, got 0"):
        post.inverse_factor(0)
    with pytest.raises(ValueError, match="level must be an integer from 0 to 2, got 1.0"):
        post.gain(1.0)
    with pytest.raises(ValueError, match="X_new has 3 columns and the training inputs have 4"):
        post.predict(X_new[:, :3])
    with pytest.raises(ValueError, match="y_new has shape"):
        post.log_density(X_new, [0.0])
    with pytest.raises(ValueError, match="so sharp that a grid"):
        net = DeepLinear((10**11,), ridge=0.1, parametrisation="mean_field", richness=30.0)
        exact(net, X, 50 * y)
