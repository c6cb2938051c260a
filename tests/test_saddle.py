# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import central_difference, log_normal
from scipy.linalg import expm, logm
from scipy.optimize import brentq
from scipy.special import gammaln
from scipy.stats import chi2

from bayesrg import kernels
from bayesrg.deep_linear import exact, saddle
from bayesrg.networks import DeepLinear


def isotropic(points, r):
    """Inputs with K = 1 and targets of energy s = r P."""
    return np.eye(points) * np.sqrt(points), np.sqrt(r) * np.ones(points)


def noisy():
    rng = np.random.default_rng(3)
    X, X_new = rng.standard_normal((5, 4)), rng.standard_normal((2, 4))
    return X, X @ [1, -0.7, 0.4, 0.2] + np.sqrt(0.1) * rng.standard_normal(5), X_new


def planted(points, inputs):
    X = np.random.default_rng(7).standard_normal((points, inputs))
    w = np.random.default_rng(8).standard_normal(inputs) * 1.6 / np.sqrt(inputs)
    return X, X @ w + np.sqrt(0.3) * np.random.default_rng(9).standard_normal(points)


def action(log_rho, widths, K, y, ridge):
    """Minus the log density of layer factors and targets, by dense algebra."""
    N, rho = np.asarray(widths, float), np.exp(log_rho)
    C = rho.prod() * K + ridge * np.eye(y.size)
    data = np.linalg.slogdet(2 * np.pi * C)[1] + y @ np.linalg.solve(C, y)
    return (N / 2 * (rho - 1 - log_rho)).sum() + 0.5 * data


def test_it_is_stationary_and_laplace_is_its_hessian():
    X, y = planted(20, 30)
    widths = (30, 50, 11)
    found = saddle(DeepLinear(widths, ridge=0.3), X, y)
    at = np.log(found.rho)

    def slope(x):
        return central_difference(lambda z: action(z, widths, X @ X.T / 30, y, 0.3), x, 1e-5)

    assert_allclose(slope(at), 0.0, rtol=0, atol=1e-6)
    assert_allclose(action(at, widths, X @ X.T / 30, y, 0.3), found.action, rtol=1e-12)
    assert_allclose(found.rho.prod(), found.q, rtol=1e-12)
    hessian = np.stack([(slope(at + e) - slope(at - e)) / 2e-4 for e in 1e-4 * np.eye(3)])
    b = np.array(widths) / 2
    front = (b * np.log(b) - b - gammaln(b)).sum() + 1.5 * np.log(2 * np.pi)
    expected = -found.action + front - 0.5 * np.linalg.slogdet(hessian)[1]
    assert_allclose(found.log_evidence, expected, rtol=0, atol=1e-5)
    sd = np.sqrt(np.linalg.inv(hessian).sum())
    assert_allclose(found.stationary[0].sd_log_q, sd, rtol=1e-5)


def test_interpolation_in_the_proportional_limit():
    X, y = isotropic(20, 2.5)
    found = saddle(DeepLinear((40, 40), ridge=0.0), X, y)
    assert_allclose(found.rho, 1.2722557642, rtol=0, atol=6e-11)
    assert_allclose(found.q, 1.6186347295, rtol=0, atol=6e-11)
    assert_allclose(1 - found.rho, 0.5 * (1 - 2.5 / found.q), rtol=1e-10)
    assert_allclose([found.gain(1), found.gain(2)], [1.772256, 2.754763], rtol=0, atol=6e-7)
    for width, mean in {10: 1.71400, 40: 1.64232, 160: 1.62455, 640: 1.62011}.items():
        X, y = isotropic(width // 2, 2.5)
        post = exact(DeepLinear((width, width), ridge=0.0), X, y)
        assert_allclose(post.moment(1), mean, rtol=0, atol=6e-6)
    X, y = isotropic(200, 2.5)
    post = exact(DeepLinear((400, 400), ridge=0.0), X, y)
    assert_allclose([post.gain(1), post.gain(2)], [1.771369, 2.751005], rtol=0, atol=6e-7)


def test_noisy_reference():
    X, y = planted(20, 30)
    net = DeepLinear((30, 50), ridge=0.3)
    found, post = saddle(net, X, y), exact(net, X, y)
    numbers = [found.q, post.moment(1), np.exp(post.mean_log_q)]
    assert_allclose(numbers, [1.615338, 1.626123, 1.586443], rtol=0, atol=6e-7)
    numbers = [post.log_evidence, found.log_evidence, found.action]
    assert_allclose(numbers, [-39.119110, -39.120337, 38.611583], rtol=0, atol=6e-7)
    numbers = [post.sd_log_q, found.stationary[0].sd_log_q]
    assert_allclose(numbers, [0.2228, 0.2220], rtol=0, atol=6e-5)
    X, y = planted(80, 120)
    net = DeepLinear((120, 200), ridge=0.3)
    found, post = saddle(net, X, y), exact(net, X, y)
    assert_allclose([found.q, post.moment(1)], [1.353469, 1.356030], rtol=0, atol=6e-7)
    numbers = [post.log_evidence, found.log_evidence]
    assert_allclose(numbers, [-139.977809, -139.978149], rtol=0, atol=6e-7)
    X_new = np.random.default_rng(1).standard_normal((3, 120))
    for at_saddle, exactly in zip(found.predict(X_new), post.predict(X_new), strict=True):
        assert_allclose(at_saddle, exactly, rtol=0, atol=5e-3)


def test_two_minima():
    """A lazy and a rich one: both are found, and the exact grid covers both."""
    X, y = isotropic(20, 1000.0)
    net = DeepLinear((20,) * 4, ridge=100.0)
    with pytest.warns(UserWarning, match="several minima of similar depth.*q 83.69.*q 1.770"):
        found = saddle(net, X, y)
    rich, lazy, top = found.stationary
    numbers = [rich.log_q, lazy.log_q, top.log_q]
    assert_allclose(numbers, [4.42723, 0.57147, 2.54440], rtol=0, atol=6e-6)
    assert [rich.minimum, lazy.minimum, top.minimum] == [True, True, False]
    assert_allclose(lazy.action - rich.action, 1.63059, rtol=0, atol=6e-6)
    assert found.q == rich.q and np.isnan(top.log_evidence)
    both = np.logaddexp(rich.log_evidence, lazy.log_evidence)
    assert_allclose(found.log_evidence, both, rtol=1e-14)
    X, y = isotropic(200, 1000.0)
    net = DeepLinear((200,) * 4, ridge=100.0)
    found, post = saddle(net, X, y), exact(net, X, y)
    assert_allclose(post.log_evidence, -1618.859208, rtol=0, atol=6e-7)
    assert_allclose(post.moment(1), 82.83191, rtol=0, atol=6e-6)
    assert_allclose(found.log_evidence, -1618.872480, rtol=0, atol=6e-7)


def test_no_stationary_point_is_missed():
    """Count sign changes of the slope of the action, by differences on a fine grid."""
    rng = np.random.default_rng(4)
    for trial in range(6):
        X, y = rng.standard_normal((6, 8)), 10.0 ** rng.uniform(0, 2) * rng.standard_normal(6)
        widths, ridge = (4, 9, 30)[: 1 + trial % 3], 10.0 ** rng.uniform(-3, 2)
        net = DeepLinear(widths, ridge=ridge)
        found = saddle(net, X, y)
        kappa, U = np.linalg.eigh(X @ X.T / 8)
        falls, rises = -4 + np.geomspace(1e-9, 4, 40_000), np.geomspace(1e-6, 1e8, 80_000)
        delta = np.concatenate([falls, rises])
        N = np.array(widths, float)
        q = np.prod(1 + delta[:, None] / N, axis=1)
        rate = (N / 2 * (delta[:, None] / N - np.log1p(delta[:, None] / N))).sum(-1)
        C = q[:, None] * kappa + ridge
        total = rate + 0.5 * (np.log(2 * np.pi * C) + (U.T @ y) ** 2 / C).sum(-1)
        inside = (total[1:-1] < total[:-2]) & (total[1:-1] < total[2:])
        minima = [point for point in found.stationary if point.minimum]
        assert inside.sum() == len(minima)
        assert_allclose(total.min(), minima[0].action, rtol=1e-6)


def gains_by_quadrature(width, points, s):
    """Gains of two hidden layers without noise, on a product grid of the layers' factors."""
    x = np.linspace(-0.9, 2.2, 1201)
    prior = chi2(width, scale=1 / width).logpdf(np.exp(x)) + x
    first, second = np.meshgrid(x, x, indexing="ij")
    log_w = prior[:, None] + prior - points / 2 * (first + second) - s / 2 * np.exp(-first - second)
    w = np.exp(log_w - log_w.max())
    one = (1 - 1 / width) + s / width * (w * np.exp(-first - second)).sum() / w.sum()
    return one, (1 - 1 / width) * one + s / width * (w * np.exp(-second)).sum() / w.sum()


@pytest.mark.parametrize(("depth", "u"), [(1, 2.405255888), (2, 1.918407015), (3, 1.694585880)])
def test_mean_field_interpolation(depth, u):
    X, y = isotropic(4, 0.5)
    field = {"ridge": 0.0, "parametrisation": "mean_field", "richness": 1.3}
    found = saddle(DeepLinear((50,) * depth, **field), X, y)
    assert_allclose(found.rho, u, rtol=0, atol=6e-10)
    assert_allclose(u**depth * (u - 1), 1.3**2 * 2, rtol=1e-8)
    assert_allclose(found.gain(depth), u**depth, rtol=1e-8)
    expected = np.eye(4) + (u**depth - 1) * np.outer(y, y) / 2
    assert_allclose(found.feature_kernel(depth), expected, rtol=0, atol=1e-8)
    if depth == 2:
        for width, mean in {20: 3.38133, 200: 3.64850, 2000: 3.67709}.items():
            post = exact(DeepLinear((width, width), **field), X, y)
            assert_allclose(post.moment(1), mean, rtol=0, atol=6e-6)
        post = exact(DeepLinear((400, 400), **field), X, y)
        expected = gains_by_quadrature(400, 4, 1.3**2 * 400 * 2)
        assert_allclose([post.gain(1), post.gain(2)], expected, rtol=1e-11)
        assert_allclose(expected, [u, u**2], rtol=1 / 400)


def test_mean_field_with_noise():
    rng = np.random.default_rng(10)
    X, y = rng.standard_normal((5, 7)), rng.standard_normal(5)
    for width, mean, evidence in ((50, 6.398664, -80.149858), (500, 6.602950, -821.026843)):
        net = DeepLinear((width,) * 2, ridge=0.2, parametrisation="mean_field", richness=1.5)
        found, post = saddle(net, X, y), exact(net, X, y)
        assert_allclose([found.q, post.moment(1)], [6.626063, mean], rtol=0, atol=6e-7)
        assert_allclose(post.log_evidence, evidence, rtol=0, atol=6e-7)
        assert_allclose(saddle(net, X, y, occam=True).log_evidence, evidence, rtol=0, atol=2e-3)
        assert_allclose(found.log_evidence, evidence, rtol=0, atol=3 / width)
    traces = [np.trace(found.feature_kernel(level)) for level in (1, 2)]
    assert_allclose(traces, [4.247690, 6.165221], rtol=0, atol=6e-7)
    net = DeepLinear((2000,) * 2, ridge=0.2, parametrisation="mean_field", richness=1.5)
    post = exact(net, X, y)
    traces = [np.trace(post.feature_kernel(level)) for level in (1, 2)]
    assert_allclose(traces, [4.246791, 6.163293], rtol=0, atol=6e-7)


def test_mean_field_of_unequal_widths_is_the_limit_of_the_exact_posterior():
    rng = np.random.default_rng(11)
    X, y, s = rng.standard_normal((3, 5)), rng.standard_normal(3), [0.9, 1.2, 1.1]
    given = {"ridge": 0.2, "weight_scales": s, "parametrisation": "mean_field", "richness": 1.2}
    found = saddle(DeepLinear((10, 20), **given), X, y)
    excess = 20 * (found.rho[1] - 1)
    assert_allclose(10 * (found.rho[0] - 1), excess, rtol=1e-10)
    small, large = (exact(DeepLinear((n, 2 * n), **given), X, y) for n in (500, 1000))
    limit = 2 * large.moment(1) - small.moment(1)  # the error of order 1 / width cancels
    assert_allclose(limit, found.q, rtol=2e-5)
    for level in (1, 2):
        kernel = 2 * large.feature_kernel(level) - small.feature_kernel(level)
        assert_allclose(kernel, found.feature_kernel(level), rtol=0, atol=1e-4)


def test_targets_of_zero():
    X, _, X_new = noisy()
    X = X[:3]
    found = saddle(DeepLinear((4, 5), ridge=0.0), X, np.zeros(3))
    assert_allclose(found.rho, [0.25, 0.4], rtol=1e-12)
    with pytest.warns(UserWarning, match="least width is 3 for 3 points: the order parameter is"):
        found = saddle(DeepLinear((3, 5), ridge=0.0), X, np.zeros(3))
    assert found.q == 0 and found.stationary == []
    assert_allclose(found.predict(X_new), 0.0, rtol=0, atol=0)
    assert_allclose(found.feature_kernel(1), X @ X.T / 4, rtol=0, atol=1e-13)
    found = saddle(DeepLinear((4, 5), ridge=0.2), X, np.zeros(3))
    assert 0 < found.q < 1 and found.delta < 0


def two_outputs():
    rng = np.random.default_rng(4)
    X, X_new = rng.standard_normal((6, 5)), rng.standard_normal((1, 5))
    B = np.array([[1, 0.8], [-0.6, -0.9], [0.5, 0.1], [0, 0.4], [0.2, 0]])
    return X, X @ B + np.sqrt(0.15) * rng.standard_normal((6, 2)), X_new


def test_two_outputs_reference():
    X, Y, _ = two_outputs()
    small = saddle(DeepLinear((4, 3), ridge=0.15, outputs=2), X, Y)
    expected = [[1.630537, 1.064474], [1.064474, 0.961490]]
    assert_allclose(small.Q, expected, rtol=0, atol=6e-7)
    assert_allclose(small.action, 15.533492, rtol=0, atol=6e-7)
    assert_allclose(small.log_evidence, -17.26238, rtol=0, atol=6e-6)
    large = saddle(DeepLinear((30, 40), ridge=0.15, outputs=2), X, Y)
    expected = [[1.176618, 0.286549], [0.286549, 1.018728]]
    assert_allclose(large.Q, expected, rtol=0, atol=6e-7)
    assert_allclose(large.action, 18.056261, rtol=0, atol=6e-7)


def test_two_outputs_by_dense_algebra():
    """The action in the other form, in matrices of all points and outputs, and its gradient."""
    X, Y, X_new = two_outputs()
    N, ridge = np.array([4.0, 3.0]), 0.15
    found = saddle(DeepLinear((4, 3), ridge=ridge, outputs=2), X, Y)
    K, cross, prior = X @ X.T / 5, X_new @ X.T / 5, X_new @ X_new.T / 5

    def dense(flat):
        Q = expm(np.array([[flat[0], flat[1]], [flat[1], flat[2]]]))
        rate = 0.0
        for q in np.linalg.eigvalsh(Q):
            d = brentq(lambda d, q=q: np.log1p(d / N).sum() - np.log(q), -3 + 1e-9, 1e4, xtol=1e-14)
            rate += (N / 2 * (d / N - np.log1p(d / N))).sum()
        covariance = np.kron(Q, K) + ridge * np.eye(12)
        return rate - log_normal(Y.T.ravel(), np.zeros(12), covariance)

    M = logm(found.Q)
    at = np.array([M[0, 0], M[0, 1], M[1, 1]])
    assert_allclose(dense(at), found.action, rtol=1e-11)
    assert_allclose(central_difference(dense, at, 1e-5), 0.0, rtol=0, atol=1e-6)
    gain = np.kron(found.Q, cross) @ np.linalg.inv(np.kron(found.Q, K) + ridge * np.eye(12))
    mean, variance = found.predict(X_new)
    assert_allclose(mean[0], gain @ Y.T.ravel(), rtol=1e-10)
    expected = np.kron(found.Q, prior) - gain @ np.kron(found.Q, cross).T
    assert_allclose(variance[0], np.diag(expected), rtol=1e-9)


@pytest.mark.slow
def test_two_outputs_without_noise_decouple():
    X, Y = np.eye(150) * np.sqrt(150), np.zeros((150, 2))
    Y[0, 0], Y[1, 1] = np.sqrt(600), np.sqrt(75)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    found = saddle(DeepLinear((300, 300), ridge=0.0, outputs=2), X, Y @ turn.T)
    values, vectors = np.linalg.eigh(found.Q)
    assert_allclose(values, [0.71878245, 2.10406679], rtol=0, atol=6e-9)
    assert_allclose(np.abs(vectors[:, ::-1]), np.abs(turn), rtol=0, atol=1e-9)
    assert_allclose(found.rho.prod(0), values, rtol=1e-12)


@pytest.mark.slow
def test_two_outputs_in_mean_field():
    rng = np.random.default_rng(12)
    X, Y = rng.standard_normal((4, 6)), rng.standard_normal((4, 2))
    field = {"parametrisation": "mean_field", "richness": 1.2}
    found = saddle(DeepLinear((300, 300), ridge=0.0, outputs=2, **field), X, Y)
    assert_allclose(found.rho[0], [1.9984613, 3.1282332], rtol=0, atol=6e-8)


def test_dependent_outputs_without_noise():
    """The direction without targets is that of a network whose only target is zero."""
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((4, 6)), 2.0 * rng.standard_normal(4)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    Y = np.stack([y, np.zeros(4)], 1) @ turn.T
    wide = DeepLinear((7, 5), ridge=0.0, outputs=2)
    found = saddle(wide, X, Y)
    one = saddle(DeepLinear((7, 5), ridge=0.0), X, y)
    expected = turn @ np.diag([one.q, (1 - 4 / 7) * (1 - 4 / 5)]) @ turn.T
    assert_allclose(found.Q, expected, rtol=0, atol=1e-12)
    near = saddle(wide, X, Y + 1e-5 * rng.standard_normal((4, 2)))
    assert_allclose(near.Q, found.Q, rtol=0, atol=1e-4)
    assert_allclose(near.action, found.action, rtol=0, atol=1e-4)
    assert np.isfinite(found.log_evidence)  # 5 is above 4 + 2 - 1 - 1
    with pytest.warns(UserWarning, match="rank 1, and the least width is 3 for 4 points"):
        narrow = saddle(DeepLinear((7, 3), ridge=0.0, outputs=2), X, Y)
    assert_allclose(np.linalg.eigvalsh(narrow.Q)[0], 0.0, rtol=0, atol=1e-14)
    assert narrow.Q.trace() > 0 and narrow.log_evidence == np.inf
    X_new = rng.standard_normal((2, 6))
    mean, variance = narrow.predict(X_new)
    expected = X_new @ X.T @ np.linalg.solve(X @ X.T, Y)
    assert_allclose(mean, expected, rtol=0, atol=1e-10)
    assert (variance > 0).all()


def test_a_kernel_in_place_of_that_of_the_inputs():
    X, Y, X_new = two_outputs()
    kernel = kernels.Linear(1 / 5)
    for outputs, y in ((1, Y[:, 0]), (2, Y)):
        net = DeepLinear((4, 3), ridge=0.15, outputs=outputs)
        found, given = saddle(net, X, y), saddle(net, X, y, kernel=kernel)
        matrix = saddle(net, X, y, kernel=X @ X.T / 5)
        assert_allclose([given.action, matrix.action], found.action, rtol=1e-9)
        assert_allclose(given.predict(X_new), found.predict(X_new), rtol=0, atol=1e-7)
        with pytest.raises(ValueError, match="has no value at new inputs; give a Kernel"):
            matrix.predict(X_new)
    net = DeepLinear((7,), ridge=0.15)
    curved = exact(net, X, Y[:, 0], kernel=kernels.RBF(2.0))
    K = np.exp(-((X[:, None] - X) ** 2).sum(-1) / 8)
    cross = np.exp(-((X_new[:, None] - X) ** 2).sum(-1) / 8)
    x = np.linspace(-9.0, 3.0, 800)  # log q
    C = np.exp(x)[:, None, None] * K + 0.15 * np.eye(6)
    log_w = np.array([log_normal(Y[:, 0], np.zeros(6), c) for c in C])
    w = np.exp(log_w + chi2(7, scale=1 / 7).logpdf(np.exp(x)) + x) * (x[1] - x[0])
    assert_allclose(curved.log_evidence, np.log(w.sum()), rtol=0, atol=1e-9)
    means = np.exp(x) * (cross @ np.linalg.solve(C, Y[:, :1]))[:, 0, 0]
    assert_allclose(curved.predict(X_new)[0], [w @ means / w.sum()], rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"kernel has shape \(5, 6\); give \(6, 6\)"):
        exact(net, X, Y[:, 0], kernel=np.ones((5, 6)))
    with pytest.raises(ValueError, match="kernel has the eigenvalue -1"):
        exact(net, X, Y[:, 0], kernel=-np.eye(6))


def test_an_output_of_zero_and_one_output():
    """Two outputs of which one is empty: the other's saddle is that of one output."""
    X, Y, _ = two_outputs()
    Y[:, 1] = 0.0
    both = saddle(DeepLinear((30, 40), ridge=0.15, outputs=2), X, Y)
    one = saddle(DeepLinear((30, 40), ridge=0.15), X, Y[:, 0])
    none = saddle(DeepLinear((30, 40), ridge=0.15), X, Y[:, 1])
    assert_allclose(both.Q, np.diag([one.q, none.q]), rtol=0, atol=1e-8)
    assert_allclose(both.action, one.action + none.action, rtol=1e-10)


def test_bad_questions():
    X, y, _ = noisy()
    with pytest.raises(ValueError, match=r"widths are \(3, 1\) for 2 outputs"):
        saddle(DeepLinear((3, 1), ridge=0.1, outputs=2), X, np.ones((5, 2)))
    with pytest.raises(ValueError, match="level must be an integer from 0 to 1, got 2"):
        saddle(DeepLinear((3,), ridge=0.1), X, y).gain(2)
