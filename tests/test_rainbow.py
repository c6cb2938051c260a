# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg.networks import Rainbow

rng = np.random.default_rng(0)
X = rng.standard_normal((7, 3))
ROOT = rng.standard_normal((3, 3))
COV = ROOT @ ROOT.T + np.eye(3)
THIN = rng.standard_normal((5, 2))


def inverse_of_first(weights):
    W = weights[0]
    return jnp.linalg.inv(W @ W.T + 0.5 * jnp.eye(W.shape[0]))


def thin_of_first(weights):
    return weights[0][:, :2]


def test_layers_are_what_the_definition_says():
    net = Rainbow((5, 4), (COV, THIN), ("tanh", "relu"))
    assert net.depth == 2 and net.white_shapes(3) == ((5, 3), (4, 2))
    white = [rng.standard_normal(shape) for shape in net.white_shapes(3)]
    W1, W2 = net.weights(white, 3)
    np.testing.assert_allclose(W1, white[0] @ np.linalg.cholesky(COV).T / np.sqrt(3), rtol=1e-12)
    np.testing.assert_allclose(W2, white[1] @ THIN.T / np.sqrt(5), rtol=1e-12)
    first = np.tanh(X @ np.asarray(W1).T)
    layers = net.layers((W1, W2), X)
    np.testing.assert_allclose(layers[1], first, rtol=1e-12)
    np.testing.assert_allclose(layers[2], np.maximum(first @ np.asarray(W2).T, 0), rtol=1e-12)
    np.testing.assert_array_equal(net.apply((W1, W2), X), layers[2])
    plain = Rainbow(4).weights([white[0][:4]], 3)[0]
    np.testing.assert_allclose(plain, white[0][:4] / np.sqrt(3), rtol=1e-15)


@pytest.mark.parametrize("cov", [(COV, None), (COV, THIN)])
def test_rows_have_the_covariance(cov):
    net = Rainbow((5, 4), cov)
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)
    weights = jax.jit(jax.vmap(lambda key: net.init(key, 3)))(keys)
    expected = (COV / 3, (np.eye(5) if cov[1] is None else THIN @ THIN.T) / 5)
    for W, C in zip(weights, expected, strict=True):
        rows = np.asarray(W).reshape(-1, C.shape[0])
        spread = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / len(rows))
        assert (np.abs(rows.T @ rows / len(rows) - C) < 4.5 * spread).all()


def test_a_covariance_may_follow_the_weights_below():
    """Section 8: E W_2^T W_2 over rows is E C_2; given W_1 each draw whitens."""
    net = Rainbow((4, 6), (None, inverse_of_first))
    white = [rng.standard_normal(s) for s in net.white_shapes(3)]
    W1, W2 = map(np.asarray, net.weights(white, 3))
    C = np.linalg.inv(W1 @ W1.T + 0.5 * np.eye(4))
    np.testing.assert_allclose(W2, white[1] @ np.linalg.cholesky(C).T / 2, rtol=1e-10)
    assert Rainbow((4, 6), (None, thin_of_first)).white_shapes(3) == ((4, 3), (6, 2))
    third = Rainbow((4, 4, 5), (None, None, inverse_of_first))
    assert third.white_shapes(3) == ((4, 3), (4, 4), (5, 4))
    W = third.init(2, 3)
    assert [w.shape for w in W] == [(4, 3), (4, 4), (5, 4)]


def test_gradients_are_finite_at_the_identity():
    def identity_of(weights):
        return jnp.eye(weights[0].shape[0]) + 0.0 * weights[0] @ weights[0].T

    net = Rainbow((4, 3), (np.eye(3), identity_of), "erf")
    white = [jnp.asarray(rng.standard_normal(s)) for s in net.white_shapes(3)]

    def loss(white, net):
        return (net.apply(net.weights(white, 3), X) ** 2).sum()

    slopes = jax.jit(jax.grad(loss))(white, net)
    assert all(np.isfinite(s).all() for s in slopes)
    step = [z.at[0, 0].add(1e-6) for z in white]
    back = [z.at[0, 0].add(-1e-6) for z in white]
    expected = (loss(step, net) - loss(back, net)) / 2e-6
    np.testing.assert_allclose(sum(s[0, 0] for s in slopes), expected, rtol=1e-7)


def test_it_is_a_pytree():
    net = Rainbow((4, 3), (COV, None))
    assert len(jax.tree.leaves(net)) == 1
    doubled = jax.tree.map(lambda leaf: 2 * leaf, net)
    np.testing.assert_allclose(doubled.init(0, 3)[0], 2 * net.init(0, 3)[0], rtol=1e-14)
    jitted = jax.jit(lambda net, key: net.init(key, 3))(net, jax.random.key(0))
    np.testing.assert_allclose(jitted[1], net.init(0, 3)[1], rtol=1e-12)


def test_singular_covariances_need_a_factor_or_jitter():
    low = THIN @ THIN.T
    with pytest.raises(ValueError, match=r"cov\[1\] is not positive definite.*thin factor"):
        Rainbow((5, 4), (None, low))
    net = Rainbow((5, 4), (None, low), jitter=1e-10)
    R = np.asarray(net.factors[1])
    np.testing.assert_allclose(R @ R.T, low, rtol=0, atol=1e-8)

    def rule(weights):
        return weights[0][:, :2] @ weights[0][:, :2].T

    with pytest.raises(ValueError, match=r"cov\[1\] is not positive definite"):
        Rainbow((5, 4), (None, rule)).white_shapes(3)
    with pytest.raises(ValueError, match=r"cov\[1\] is not positive definite"):
        jax.jit(lambda X: Rainbow((5, 4), (None, rule)).white_shapes(3))(X)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((),), "widths is empty"),
        (((3, 0),), "an entry of widths must be a positive integer, got 0"),
        (((3, 4), (None,)), "cov has 1 entries for 2 layers"),
        (((3, 4), None, ("relu",)), "activations has 1 entries for 2 layers"),
        (((3, 4), None, "rellu"), "activation must be one of"),
        (((3, 4), (None, np.eye(4))), r"cov\[1\] has shape \(4, 4\) and layer 2 has 3 inputs"),
        (((3,), (np.ones(3),)), r"cov\[0\] must be an array of 2 dimension"),
        (((3,), (np.triu(np.ones((3, 3))),)), r"cov\[0\] is square and not symmetric"),
        (((3,), (np.diag([1.0, np.nan]),)), r"cov\[0\] contains non-finite"),
    ],
)
def test_bad_descriptions(arguments, words):
    with pytest.raises(ValueError, match=words):
        Rainbow(*arguments)


def test_bad_use():
    net = Rainbow((4, 3), (COV, None))
    with pytest.raises(ValueError, match=r"cov\[0\] has shape \(3, 3\) and layer 1 has 2 inputs"):
        net.white_shapes(2)
    with pytest.raises(ValueError, match="white has 1 arrays for 2 layers"):
        net.weights([np.ones((4, 3))], 3)
    with pytest.raises(ValueError, match=r"white\[0\] has shape \(3, 3\); give \(4, 3\)"):
        net.weights([np.ones((3, 3)), np.ones((3, 4))], 3)
    with pytest.raises(ValueError, match="weights has 1 arrays for 2 hidden layers"):
        net.apply([np.ones((4, 3))], X)
    with pytest.raises(ValueError, match="jitter must be a number of at least 0, got -1"):
        Rainbow(3, jitter=-1)
    with pytest.raises(ValueError, match="inputs must be a positive integer"):
        net.init(0, 0)
