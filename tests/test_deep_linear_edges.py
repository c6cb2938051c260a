# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer.util import log_density
from oracles import log_normal
from scipy.special import gammaln, logsumexp
from scipy.stats import norm

import bayesrg as brg
from bayesrg import _checks
from bayesrg.deep_linear import check_observed, evidence, exact, saddle
from bayesrg.deep_linear.features import feature_means
from bayesrg.deep_linear.meijer import log_meijer_g
from bayesrg.deep_linear.order import order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.models import deep_linear, deep_linear_collapsed
from bayesrg.networks import DeepLinear


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
    with pytest.warns(UserWarning, match="has rank 4; the targets lie in its range") as seen:
        post = exact(DeepLinear((3, 4), ridge=0.0), X, X @ [1.0, 2.0, -1.0, 0.5])
    assert seen[0].filename == __file__
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
    with pytest.raises(ValueError, match="X_new has 3 columns and the training inputs 4"):
        post.predict(X_new[:, :3])
    with pytest.raises(ValueError, match="y_new has shape"):
        post.log_density(X_new, [0.0])
    with pytest.raises(ValueError, match="so sharp that a grid"):
        net = DeepLinear((10**11,), ridge=0.1, parametrisation="mean_field", richness=30.0)
        exact(net, X, 50 * y)


# What the models refuse, and where they go on


def model_trace(model, X, y, **hyper):
    return handlers.trace(handlers.seed(model, 0)).get_trace(X, y, **hyper)


def density_of(model, X, y, **hyper):
    """Log density of the targets under the law that the model gives them."""
    return jax.jit(lambda y: model_trace(model, X, y, **hyper)["y"]["fn"].log_prob(y))(y)


def test_weights_are_not_sampled_at_small_noise_unless_forced():
    X, y, _ = noisy()
    power = float((y**2).mean())
    hyper = {"widths": (3, 4), "ridge": 0.9e-3 * power}
    with pytest.raises(ValueError, match="below 0.001 of the mean squared target.*_collapsed"):
        model_trace(deep_linear.model, X, y, **hyper)
    with pytest.raises(ValueError, match="use the model deep_linear_collapsed, or force=True"):
        brg.fit(deep_linear.model, (X, y), key=0, draws=1, warmup=0, progress=False, **hyper)
    net = DeepLinear(**hyper)
    assert_allclose(check_observed(net, X, y, weights=True, force=True), y)
    assert check_observed(net, X, None, weights=True) is None  # no targets: the prior
    check_observed(net, X, y, weights=False)
    check_observed(DeepLinear((3, 4), ridge=1.1e-3 * power), X, y, weights=True)

    def forced():
        sites = model_trace(deep_linear.model, X, y, force=True, **hyper)
        assert sites["y"]["is_observed"]
        return sites["z3"]["value"], model_trace(deep_linear.model, X, None, **hyper)["y"]["value"]

    assert [v.shape for v in jax.eval_shape(forced)] == [(1, 4), (5,)]
    field = {"parametrisation": "mean_field"}  # noise on y is the ridge over the last width
    with pytest.raises(ValueError, match="below 0.001"):
        model_trace(deep_linear.model, X, y, widths=(3, 4), ridge=3.6e-3 * power, **field)


@pytest.mark.slow
def test_one_output_on_the_range_of_a_singular_kernel_without_noise():
    """Five points in four dimensions: the density on the range, in the model and in the solver."""
    X, y, _ = noisy()
    inside, hyper = X @ np.array([1.0, 2.0, -1.0, 0.5]), {"widths": (5, 6), "ridge": 0.0}
    words = "kernel of the 5 points has rank 4"
    with pytest.raises(ValueError, match=f"{words}: targets outside its range have zero density"):
        model_trace(deep_linear_collapsed.model, X, y, **hyper)
    with pytest.warns(UserWarning, match=f"{words}; the targets lie in its range"):
        check_observed(DeepLinear(**hyper), X, inside, weights=False)
    with pytest.warns(UserWarning, match="rank 4"):
        post = exact(DeepLinear(**hyper), X, inside)
    log_c = np.linspace(-7.0, 4.5, 56)
    c1, c2 = (np.exp(c).ravel() for c in np.meshgrid(log_c, log_c, indexing="ij"))

    @jax.jit
    def joint(c1, c2):
        latents = {"c1": c1[None], "c2": c2[None]}
        return log_density(deep_linear_collapsed.model, (X, inside), hyper, latents)[0]

    log_w = np.asarray(jax.vmap(joint)(c1, c2)) + np.log(c1 * c2) + 2 * np.log(log_c[1] - log_c[0])
    assert_allclose(logsumexp(log_w), post.log_evidence, rtol=0, atol=1e-6)
    mean = np.exp(log_w - logsumexp(log_w)) @ (c1 * c2 / 30)
    assert_allclose(mean, post.moment(1), rtol=1e-6)


def test_an_array_of_ridge_zero_is_refused():
    X, y, _ = noisy()
    with pytest.raises(ValueError, match="ridge is an array that holds 0; give the number 0.0"):
        model_trace(deep_linear_collapsed.model, X[:3], y[:3], ridge=jnp.zeros(()))


def two_outputs():
    rng = np.random.default_rng(4)
    X, _ = rng.standard_normal((6, 5)), rng.standard_normal((1, 5))
    B = np.array([[1, 0.8], [-0.6, -0.9], [0.5, 0.1], [0, 0.4], [0.2, 0]])
    return X, X @ B + np.sqrt(0.15) * rng.standard_normal((6, 2))


@pytest.mark.slow
def test_two_outputs_at_the_edges_by_average_over_weights():
    """An output of zeros, permuted widths and rotated outputs: evidence by NumPy draws of Q."""
    X, Y = two_outputs()
    Y = np.stack([Y[:, 0], np.zeros(6)], 1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])

    def brute(widths):
        rng, draws = np.random.default_rng(5), 50_000
        A = np.broadcast_to(np.eye(2), (draws, 2, 2))
        for width in widths[::-1]:
            A = A @ rng.standard_normal((draws, A.shape[-1], width)) / np.sqrt(width)
        q, V = np.linalg.eigh(A @ np.swapaxes(A, 1, 2))
        kappa, U = np.linalg.eigh(X @ X.T / 5)
        C = np.clip(kappa, 0, None)[:, None] * q[:, None] + 0.15
        log_p = -0.5 * (np.log(2 * np.pi * C) + (U.T @ Y @ V) ** 2 / C).sum((1, 2))
        w = np.exp(log_p - log_p.max())
        return np.log(w.mean()) + log_p.max(), w.std() / w.mean() / np.sqrt(draws)

    expected, one_error = brute((4, 3))
    for widths, targets in (((4, 3), Y), ((3, 4), Y @ turn.T)):
        net = DeepLinear(widths, ridge=0.15, outputs=2)
        found = evidence(net, X, targets, key=0, draws=20_000)
        error = np.hypot(found.standard_error, one_error)
        assert abs(found.log_evidence - expected) < 4 * error < 0.2, (widths, error)
    one = saddle(DeepLinear((30, 40), ridge=0.15, outputs=2), X, two_outputs()[1])
    other = saddle(DeepLinear((40, 30), ridge=0.15, outputs=2), X, two_outputs()[1] @ turn.T)
    assert_allclose(other.Q, turn @ one.Q @ turn.T, rtol=0, atol=1e-7)
    assert_allclose(other.action, one.action, rtol=1e-10)


def test_every_route_of_very_wide_networks_is_a_gaussian_process():
    X, Y = two_outputs()
    X_new = np.random.default_rng(6).standard_normal((2, 5))

    K, cross = 0.2 * X @ X.T + 0.15 * np.eye(6), 0.2 * X_new @ X.T
    total = sum(log_normal(y, np.zeros(6), K) for y in Y.T)
    gain, widths = cross @ np.linalg.inv(K), (10**6, 10**6)
    variance = 0.2 * (X_new**2).sum(-1) - (gain * cross).sum(-1)
    net = DeepLinear(widths, ridge=0.15, outputs=2)
    point = saddle(net, X, Y)
    assert_allclose(point.Q, np.eye(2), rtol=0, atol=1e-4)
    assert abs(point.log_evidence - total) < 1e-4  # of order 1 / width
    for found, expected in zip(point.predict(X_new), (gain @ Y, variance[:, None]), strict=True):
        assert_allclose(found, expected + 0 * Y[:2], rtol=0, atol=1e-5)
    latents = {"c1": widths[0] - np.arange(2.0), "c2": widths[1] - np.arange(2.0)}
    latents |= {"t1": np.zeros(1), "t2": np.zeros(1)}
    model = handlers.substitute(deep_linear_collapsed.model, latents)
    found = density_of(model, X, Y, widths=widths, outputs=2, ridge=0.15)
    assert_allclose(found, total, rtol=0, atol=1e-5)


def test_without_hidden_layers_both_models_are_linear_regression():
    X, y, _ = noisy()
    hyper = {"widths": (), "ridge": 0.1, "weight_scales": 1.3}
    expected = log_normal(y, np.zeros(5), 1.3**2 * X @ X.T / 4 + 0.1 * np.eye(5))
    assert_allclose(density_of(deep_linear_collapsed.model, X, y, **hyper), expected, rtol=1e-12)

    w = np.array([0.3, -1.2, 0.5, 0.8])
    joint = jax.jit(lambda z: log_density(deep_linear.model, (X, y), hyper, {"z1": z})[0])(w[None])
    expected = norm.logpdf(w).sum() + norm.logpdf(y, 1.3 * X @ w / 2, np.sqrt(0.1)).sum()
    assert_allclose(joint, expected, rtol=1e-12)


@pytest.mark.slow
def test_a_scale_moves_between_layers():
    """The law of the outputs keeps the product; the hidden kernels below the move do not."""
    X, Y = two_outputs()
    latents = {"c1": np.array([3.0, 2.0]), "t1": np.array([0.4])}
    latents |= {"c2": np.array([2.5, 1.0]), "t2": np.array([-0.3])}
    chain = jax.jit(lambda latents: order_parameter((4, 3), 2, latents).chain)(latents)
    found = []
    hyper = {"widths": (4, 3), "outputs": 2, "ridge": 0.15}

    @jax.jit
    def both(scales, problem):
        data = deep_linear_collapsed.model, (X, Y), hyper | {"weight_scales": scales}
        return log_density(*data, latents)[0], feature_means(problem, chain)

    for scales in ((1.0, 1.0, 1.2), (2.0, 0.5, 1.2)):
        problem = prepare(DeepLinear(**hyper, weight_scales=scales), X, Y).as_jax()
        found.append(both(np.array(scales), problem))
    assert_allclose(found[1][0], found[0][0], rtol=1e-12)
    assert_allclose(found[1][1][0], 4 * found[0][1][0], rtol=1e-10, atol=1e-13)
    assert_allclose(found[1][1][1], found[0][1][1], rtol=1e-10, atol=1e-13)


def test_a_saddle_without_noise_and_targets_by_minimising_each_layer():
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((4, 6)), rng.standard_normal(4)
    kappa = np.linalg.eigvalsh(X @ X.T / 6)

    def least(widths):
        u = np.linspace(-40.0, 3.0, 43_001)
        layers = [(n / 2 * (np.exp(u) - 1 - u) + 2 * u).min() for n in widths]
        return sum(layers) + 0.5 * np.log(2 * np.pi * kappa).sum()

    for widths, finite in (((7, 4), True), ((4, 4), True), ((7, 3), False)):
        with pytest.warns(UserWarning, match="the order parameter is zero"):
            none = saddle(DeepLinear(widths, ridge=0.0), X, np.zeros(4))
        assert none.q == 0 and none.log_evidence == np.inf
        assert_allclose(none.rho, np.clip(1 - 4 / np.array(widths), 0, None), rtol=0, atol=1e-15)
        if finite:
            assert_allclose(none.action, least(widths), rtol=0, atol=1e-6)
        else:
            assert none.action == -np.inf
        with pytest.warns(UserWarning, match="zero along directions without targets"):
            both = saddle(DeepLinear(widths, ridge=0.0, outputs=2), X, np.stack([y, 0 * y], 1))
        one = saddle(DeepLinear(widths, ridge=0.0), X, y)
        assert_allclose(both.Q, np.diag([one.q, 0.0]), rtol=0, atol=1e-12)
        assert_allclose(both.action, one.action + none.action, rtol=1e-12)
        assert both.log_evidence == np.inf


def test_solvers_are_in_64_bits_whatever_the_setting():
    """Once it warns; numbers on the host are the same ones, but for the 32 bits of the ridge."""
    X, y, X_new = noisy()
    wide = exact(DeepLinear((3, 4), ridge=0.125), X, y)
    point = saddle(DeepLinear((3, 4), ridge=0.125), X, y)
    with jax.enable_x64(False):
        _checks._warned.clear()
        with pytest.warns(RuntimeWarning, match="deep_linear runs in 32-bit floats"):
            found = exact(DeepLinear((3, 4), ridge=0.125), X, y)
        assert_allclose(found.log_evidence, wide.log_evidence, rtol=1e-12)
        assert_allclose(found.predict(X_new)[0], wide.predict(X_new)[0], rtol=1e-12)
        again = saddle(DeepLinear((3, 4), ridge=0.125), X, y)  # silent: warnings are errors here
        assert_allclose(again.q, point.q, rtol=1e-12)
