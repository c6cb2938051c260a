# SPDX-License-Identifier: Apache-2.0

import importlib

import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import conditional, log_normal, within
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import chi2, geninvgauss, norm

import bayesrg as brg
from bayesrg.deep_linear import exact, infinite_depth, leading_log_evidence
from bayesrg.deep_linear import wide_and_deep as wide_and_deep_limit
from bayesrg.deep_linear.meijer import log_meijer_g
from bayesrg.networks import DeepLinear


def isotropic(points, r):
    """Inputs with K = 1 and targets of energy s = r P."""
    return np.eye(points) * np.sqrt(points), np.sqrt(r) * np.ones(points)


def interpolation():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((6, 10))
    w = rng.standard_normal(10) / np.sqrt(10)
    return X, 1.5 * X @ w


def noisy():
    rng = np.random.default_rng(3)
    X, X_new = rng.standard_normal((5, 4)), rng.standard_normal((2, 4))
    return X, X @ [1, -0.7, 0.4, 0.2] + np.sqrt(0.1) * rng.standard_normal(5), X_new


def averages(widths, K, noise, y, *functions):
    """Evidence and means over q by brute force: layer factors on a product grid, dense Gaussians.

    The kernel K and the variance of the noise are in the units of y. Functions take q (g,).
    """
    axes, weights = [], []
    for width in widths:
        law = chi2(width, scale=1 / width)
        x, step = np.linspace(*np.log([law.ppf(1e-13), law.isf(1e-15)]), 101, retstep=True)
        axes.append(x)
        weights.append(law.logpdf(np.exp(x)) + x + np.log(step))
    log_q = sum(np.meshgrid(*axes, indexing="ij")).ravel()
    log_prior = sum(np.meshgrid(*weights, indexing="ij")).ravel()
    kappa, U = np.linalg.eigh(K)
    C = np.exp(log_q)[:, None] * kappa + noise
    like = -0.5 * (np.log(2 * np.pi * C) + (U.T @ y) ** 2 / C).sum(-1)
    total = logsumexp(log_prior + like)
    w = np.exp(log_prior + like - total)
    return total, [np.tensordot(w, f(np.exp(log_q)), 1) for f in functions]


def regression(X, y, X_new, variance, noise):
    """Log evidence, mean and variance of Bayesian linear regression, by one joint Gaussian."""
    Z = np.concatenate([X, X_new])
    C = variance * Z @ Z.T / X.shape[1]
    C[: len(X), : len(X)] += noise * np.eye(len(X))
    mean, covariance = conditional(C, np.arange(len(X)), np.arange(len(X), len(Z)), y)
    return log_normal(y, 0 * y, C[: len(X), : len(X)]), (mean, np.diag(covariance))


# Reference numbers


def test_interpolation_reference():
    X, y = interpolation()
    post = exact(DeepLinear((5, 8), ridge=0.0), X, y)
    assert_allclose(post.problem.power, 9.274988091893, rtol=1e-12)
    assert_allclose(post.log_evidence, -8.603626283602, rtol=1e-12)
    moments = [post.moment(1), post.moment(-1), post.moment(2)]
    assert_allclose(moments, [1.463466757766, 0.818905008759, 2.603136640216], rtol=1e-11)
    shallow = exact(DeepLinear((7,), ridge=0.0), X, y)
    assert_allclose(shallow.moment(1), 1.293942847243, rtol=1e-11)
    assert_allclose(shallow.moment(-1), 0.868745043211, rtol=1e-11)


def test_the_grid_without_noise_agrees_with_the_closed_form():
    """Two routes that share the prior's function only: a sum over log q, a ratio of functions."""
    X, y = interpolation()
    for widths in [(5, 8), (1, 1), (20,) * 100]:
        post = exact(DeepLinear(widths, ridge=0.0), X, y)
        for k in (1, -1, 2, 0.5):
            assert_allclose(post.weights @ np.exp(k * post.log_q), post.moment(k), rtol=1e-10)
        step = 1e-4
        slope = (np.log(post.moment(step)) - np.log(post.moment(-step))) / (2 * step)
        assert_allclose(post.mean_log_q, slope, rtol=0, atol=1e-7)


@pytest.mark.parametrize("width", [1, 7, 60])
def test_one_hidden_layer_is_generalised_inverse_gaussian(width):
    X, y = interpolation()
    post = exact(DeepLinear((width,), ridge=0.0), X, y)
    s, p = post.problem.power, (width - 6) / 2
    law = geninvgauss(p, np.sqrt(width * s), scale=np.sqrt(s / width))
    assert_allclose([post.moment(1), post.moment(2)], [law.moment(1), law.moment(2)], rtol=1e-9)
    x = post.log_q[:: max(1, post.log_q.size // 9)]
    density = np.interp(x, post.log_q, post.weights) / np.diff(post.log_q).min()
    assert_allclose(density, law.pdf(np.exp(x)) * np.exp(x), rtol=1e-8, atol=1e-14)


def test_deeper_networks_reach_the_limit_of_infinite_depth():
    X, y = interpolation()
    expected = {1: 1.13544, 5: 1.39608, 20: 1.65147, 100: 1.80441, 500: 1.84663, 3000: 1.85615}
    for depth, mean in expected.items():
        post = exact(DeepLinear((20,) * depth, ridge=0.0), X, y)
        assert_allclose(post.moment(1), mean, rtol=0, atol=6e-6)
    for width, limit, c in ((20, 1.85809, 0.495838), (5, 1.86724, 0.483610)):
        shape, scale = infinite_depth(width, 6, post.problem.power)
        assert_allclose(scale / (shape - 1), limit, rtol=0, atol=6e-6)
        assert_allclose(shape - 3, c, rtol=0, atol=1e-6)
    narrow = exact(DeepLinear((5,) * 3000, ridge=0.0), X, y)
    assert_allclose(narrow.moment(1), 1.86683, rtol=0, atol=6e-6)


def test_effective_depth():
    X, y = isotropic(40, 3.0)
    depths = np.array([0.1, 1.0, 5.0, 30.0])
    leading = wide_and_deep_limit(3.0, depths)
    assert_allclose(leading, [1.16945, 1.85455, 2.53023, 2.89727], rtol=0, atol=6e-6)
    assert_allclose(np.log(leading), depths * (3.0 / leading - 1.0), rtol=1e-11)
    posts = [exact(DeepLinear((4000,) * int(100 * d), ridge=0.0), X, y) for d in depths]
    means = [post.moment(1) for post in posts]
    assert_allclose(means, [1.16883, 1.86422, 2.56949, 2.96436], rtol=0, atol=6e-6)
    constant = 20 * np.log(2 * np.pi)
    evidence = np.array([post.log_evidence + constant for post in posts])
    assert_allclose(evidence, [-57.0907, -49.3231, -45.4680, -44.8168], rtol=0, atol=6e-5)
    slope = (leading_log_evidence(3.0, 2.001, 40) - leading_log_evidence(3.0, 1.999, 40)) / 0.002
    q = wide_and_deep_limit(3.0, 2.0)
    assert_allclose(slope, 40 * np.log(q) ** 2 / 16, rtol=1e-5)
    assert_allclose(wide_and_deep_limit(3.0, [0.0, 1e9]), [1.0, 3.0], rtol=1e-6)


def test_the_evidence_is_greatest_at_a_finite_depth():
    """The leading order, which rises forever, is not a rule for choosing a depth."""
    X, y = isotropic(40, 3.0)
    depths = np.array([0.1, 1, 5, 20, 60, 200])
    posts = [exact(DeepLinear((400,) * int(10 * d), ridge=0.0), X, y) for d in depths]
    evidence = np.array([post.log_evidence for post in posts]) + 20 * np.log(2 * np.pi)
    expected = [-57.1835, -49.3755, -45.4703, -44.7430, -45.1508, -46.4848]
    assert_allclose(evidence, expected, rtol=0, atol=6e-5)
    assert evidence.argmax() == 3
    assert (np.diff(leading_log_evidence(3.0, depths, 40)) > 0).all()


def test_noisy_reference():
    X, y, X_new = noisy()
    post = exact(DeepLinear((3, 4), ridge=0.1), X, y)
    assert_allclose(post.log_evidence, -7.781914200, rtol=0, atol=1e-9)
    assert_allclose(post.moment(1), 1.728367065, rtol=0, atol=1e-9)
    assert_allclose(post.mean_log_q, 0.391428207, rtol=0, atol=1e-9)
    assert_allclose(post.sd_log_q, 0.548904306, rtol=0, atol=1e-9)
    mean, variance = post.predict(X_new)
    assert_allclose(mean, [-1.08315782, 0.22825672], rtol=0, atol=1e-8)
    assert_allclose(np.sqrt(variance), [0.23422785, 0.42548954], rtol=0, atol=1e-8)
    kernels = [post.feature_kernel(level) for level in range(3)]
    traces = [np.trace(K) for K in kernels]
    assert_allclose(traces, [7.645894911, 12.342395758, 16.13979058], rtol=0, atol=6e-9)
    along = [y @ K @ y for K in kernels]
    assert_allclose(along, [150.44145, 306.52485, 425.79448], rtol=0, atol=6e-6)
    assert_allclose(post.layer_excess, 1.377510673, rtol=0, atol=1e-9)


def test_small_noise_approaches_interpolation():
    rng = np.random.default_rng(8)
    X, y = rng.standard_normal((4, 6)), rng.standard_normal(4)
    x = rng.standard_normal((1, 6))
    expected = {
        0.0: (-2.649665609, -0.302415104, 0.796632793, 0.433587139),
        1e-6: (-2.649630780, -0.302408099, 0.796614134, 0.433576433),
    }
    for ridge, numbers in expected.items():
        post = exact(DeepLinear((3, 6), ridge=ridge), X, y)
        mean, variance = post.predict(x)
        found = [post.log_evidence, mean[0], variance[0], post.moment(1)]
        assert_allclose(found, numbers, rtol=0, atol=1e-9)


def test_layer_factors_reference():
    X = np.eye(5) * np.sqrt(5)
    post = exact(DeepLinear((3, 6, 4), ridge=0.0), X, np.array([3.0, 0, 0, 0, 0]))
    factors = [post.inverse_factor(level) for level in (1, 2, 3)]
    assert_allclose(factors, [0.708848051, 0.942809042, 1.002462528], rtol=0, atol=6e-10)
    gains = [post.gain(level) for level in (1, 2, 3)]
    assert_allclose(gains, [2.793210820, 3.741889246, 5.061957622], rtol=0, atol=6e-10)
    b, s = np.array([1.5, 3.0, 2.0]), 9.0
    z = np.log(s / 2 * b.prod())
    for level in (1, 2, 3):
        above = np.arange(1, 4) >= level
        ratio = log_meijer_g(z, [2.5, *(b - above)]) - log_meijer_g(z, [2.5, *b])
        assert_allclose(factors[level - 1], b[above].prod() * np.exp(ratio), rtol=1e-10)


# Independent routes


@pytest.mark.parametrize("field", ["standard", "mean_field"])
def test_evidence_and_predictions_by_brute_force(field):
    """Two layers, a product grid of their factors, and dense regression at every one."""
    X, y, X_new = noisy()
    more = {"parametrisation": "mean_field", "richness": 1.7} if field == "mean_field" else {}
    net = DeepLinear((3, 6), ridge=0.3, weight_scales=[0.8, 1.5, 1.1], **more)
    variance, noise = np.prod(np.square([0.8, 1.5, 1.1])) / 4, 0.3
    if more:
        variance, noise = variance / (1.7**2 * 6), noise / 6
    K, cross = variance * X @ X.T, variance * X_new @ X.T
    prior = variance * (X_new**2).sum(-1)

    def predict(q):
        q = q[:, None, None]
        gain = q * cross @ np.linalg.inv(q * K + noise * np.eye(5))
        mean = gain @ y
        variance = q[..., 0] * (prior - (gain * cross).sum(-1))
        density = norm.pdf([0.4, -1.0], mean, np.sqrt(variance + noise))
        return np.stack([mean, variance, mean**2, density], 1)

    evidence, (moments, powers, log_q) = averages(
        net.widths, K, noise, y, predict, lambda q: np.stack([q, q**2, q**-0.5], 1), np.log
    )
    post = exact(net, X, y)
    assert_allclose(post.log_evidence, evidence, rtol=0, atol=1e-9)
    mean, variance = post.predict(X_new)
    inner, between = post.variance_parts(X_new)
    assert_allclose(mean, moments[0], rtol=1e-8)
    assert_allclose(inner, moments[1], rtol=1e-8)
    assert_allclose(between, moments[2] - moments[0] ** 2, rtol=1e-6)
    assert_allclose(variance, inner + between, rtol=1e-12)
    assert_allclose([post.moment(k) for k in (1, 2, -0.5)], powers, rtol=1e-8)
    assert_allclose(post.mean_log_q, log_q, rtol=0, atol=1e-8)
    assert_allclose(post.log_density(X_new, [0.4, -1.0]), np.log(moments[3]), rtol=0, atol=1e-8)


@pytest.mark.slow
def test_hidden_layers_against_weighted_draws_of_the_weights():
    """Kernels of every layer, and the one number by which all layers leave their prior."""
    rng = np.random.default_rng(5)
    X, y, noise, draws = rng.standard_normal((3, 2)), np.array([1.0, -0.5, 0.8]), 0.5, 400_000
    s, widths = np.array([0.8, 1.5, 1.2]), (3, 2)
    post = exact(DeepLinear(widths, ridge=noise, weight_scales=s), X, y)
    sizes = (2, *widths, 1)
    z = [rng.standard_normal((draws, b, a)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    H, kernels = np.broadcast_to(X, (draws, 3, 2)), []
    for scale, noise_free in zip(s, z, strict=True):
        H = H @ np.swapaxes(noise_free, 1, 2) * scale / np.sqrt(H.shape[-1])
        kernels.append(H @ np.swapaxes(H, 1, 2) / H.shape[-1])
    log_w = norm.logpdf(y, H[..., 0], np.sqrt(noise)).sum(-1)
    w = np.exp(log_w - logsumexp(log_w))
    evidence = logsumexp(log_w) - np.log(draws)
    assert abs(evidence - post.log_evidence) < 4 * np.sqrt((w**2).sum())

    def agrees(values, expected):
        values = values.reshape(draws, -1)
        mean = w @ values
        error = np.sqrt(w**2 @ (values - mean) ** 2)
        return within(mean, np.ravel(expected), error)

    for level in (1, 2):
        assert agrees(kernels[level - 1], post.feature_kernel(level))
        K = s[:level].prod() ** 2 * X @ X.T / 2
        direction = np.linalg.pinv(K) @ y
        along = np.einsum("i,nij,j->n", direction, kernels[level - 1], direction)
        assert agrees(along / (y @ direction), post.gain(level))
    for layer in z:
        assert agrees((layer**2).sum((1, 2)) - layer[0].size, post.layer_excess)


def test_without_hidden_layers_it_is_bayesian_linear_regression():
    X, y, X_new = noisy()
    net = DeepLinear((), ridge=0.1, weight_scales=1.3)
    evidence, expected = regression(X, y, X_new, 1.3**2, 0.1)
    post, point = exact(net, X, y), brg.theory.deep_linear.saddle(net, X, y)
    for solved in (post, point):
        assert_allclose(solved.log_evidence, evidence, rtol=1e-12)
        assert_allclose(solved.predict(X_new), expected, rtol=1e-11)
    assert post.moment(3) == 1.0 and post.mean_log_q == 0.0
    assert_allclose(post.feature_kernel(0), X @ X.T / 4, rtol=0, atol=1e-13)


def test_very_wide_networks_are_gaussian_processes():
    X, y, X_new = noisy()
    evidence, expected = regression(X, y, X_new, 1.0, 0.1)
    post = exact(DeepLinear((10**6, 10**6), ridge=0.1), X, y)
    assert_allclose(post.log_evidence, evidence, rtol=0, atol=1e-5)
    assert_allclose(post.predict(X_new), expected, rtol=0, atol=1e-5)
    assert_allclose(post.feature_kernel(2), X @ X.T / 4, rtol=0, atol=1e-4)
    assert (post.variance_parts(X_new)[1] < 1e-5).all()


@pytest.mark.parametrize("field", ["standard", "mean_field"])
def test_it_is_regression_with_a_random_ridge(field):
    """The mean predictor is that of kernel ridge regression, averaged over effective ridges."""
    X, y, X_new = noisy()
    more = {"parametrisation": "mean_field", "richness": 1.7} if field == "mean_field" else {}
    post = exact(DeepLinear((3, 6), ridge=0.3, weight_scales=1.2, **more), X, y)
    K, cross = 1.2**6 * X @ X.T / 4, 1.2**6 * X_new @ X.T / 4
    means = [cross @ np.linalg.solve(K + r * np.eye(5), y) for r in post.effective_ridge]
    assert_allclose(post.predict(X_new)[0], post.weights @ means, rtol=1e-9)


def test_inputs_of_zero_leave_the_prior():
    post = exact(DeepLinear((3, 4), ridge=0.1), np.zeros((3, 2)), np.ones(3))
    assert_allclose(post.log_evidence, norm.logpdf(1, 0, np.sqrt(0.1)) * 3, rtol=1e-12)
    assert_allclose(post.moment(2), (1 + 2 / 3) * (1 + 2 / 4), rtol=1e-9)
    assert post.layer_excess == 0
    assert_allclose(post.predict(np.ones((1, 2))), [[0.0], [1.0]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_one_example_and_width_one_by_quadrature(ridge):
    """A chi-square variable of one degree has a density that is infinite at zero."""
    x, y = np.array([[0.7, -1.1, 0.4]]), np.array([1.3])
    k = (x @ x.T)[0, 0] / 3

    def joint(root):  # q is the square of a standard normal variable
        return 2 * norm.pdf(root) * norm.pdf(1.3, 0, np.sqrt(k * root**2 + ridge))

    given = {"epsabs": 0, "epsrel": 1e-12, "limit": 400, "points": [0.01, 0.1, 1.0]}
    evidence = quad(joint, 0, 12, **given)[0]
    mean = quad(lambda r: r**2 * joint(r), 0, 12, **given)[0] / evidence
    post = exact(DeepLinear((1,), ridge=ridge), x, y)
    assert_allclose(post.log_evidence, np.log(evidence), rtol=0, atol=1e-9)
    assert_allclose(post.moment(1), mean, rtol=1e-9)


def test_repeated_rows_and_more_points_than_inputs():
    """Two noisy copies of a row are one of half the noise, and a density of their difference."""
    X, y, _ = noisy()
    X, y = X[:2], y[:2]
    one = DeepLinear((3, 4), ridge=0.1)
    double = exact(DeepLinear((3, 4), ridge=0.2), np.repeat(X, 2, 0), np.repeat(y, 2))
    assert double.problem.values.size == 2
    constant = 2 * norm.logpdf(0.0, 0, np.sqrt(2 * 0.2))
    expected = exact(one, X, y).log_evidence + constant
    assert_allclose(double.log_evidence, expected, rtol=1e-11)
    X, y = np.repeat(X, 2, 0), np.repeat(y, 2) + 0.1
    evidence, _ = averages((3, 4), X @ X.T / 4, 0.2, y)
    shifted = exact(DeepLinear((3, 4), ridge=0.2), X, y)
    assert_allclose(shifted.log_evidence, evidence, rtol=0, atol=1e-8)


def test_theory_holds_the_same_module():
    import bayesrg.theory.deep_linear as held

    assert held is brg.theory.deep_linear is brg.deep_linear
    assert importlib.import_module("bayesrg.theory.deep_linear").exact is exact
