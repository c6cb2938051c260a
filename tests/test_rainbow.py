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

    @jax.jit
    def ask():
        W = net.weights(white, 3)
        return W, net.layers(W, X), net.apply(W, X), Rainbow(4).weights([white[0][:4]], 3)

    (W1, W2), layers, outputs, plain = ask()
    np.testing.assert_allclose(W1, white[0] @ np.linalg.cholesky(COV).T / np.sqrt(3), rtol=1e-12)
    np.testing.assert_allclose(W2, white[1] @ THIN.T / np.sqrt(5), rtol=1e-12)
    first = np.tanh(X @ np.asarray(W1).T)
    np.testing.assert_allclose(layers[1], first, rtol=1e-12)
    np.testing.assert_allclose(layers[2], np.maximum(first @ np.asarray(W2).T, 0), rtol=1e-12)
    np.testing.assert_array_equal(outputs, layers[2])
    np.testing.assert_allclose(plain[0], white[0][:4] / np.sqrt(3), rtol=1e-15)


@pytest.mark.slow
def test_rows_have_the_covariance():
    """A covariance, a factor and the identity."""
    net = Rainbow((5, 4, 6), (COV, THIN, None))
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)
    weights = jax.jit(jax.vmap(lambda key: net.init(key, 3)))(keys)
    expected = (COV / 3, THIN @ THIN.T / 5, np.eye(4) / 4)
    for W, C in zip(weights, expected, strict=True):
        rows = np.asarray(W).reshape(-1, C.shape[0])
        spread = np.sqrt((C**2 + np.outer(np.diag(C), np.diag(C))) / len(rows))
        assert (np.abs(rows.T @ rows / len(rows) - C) < 4.5 * spread).all()


def test_a_covariance_may_follow_the_weights_below():
    """Section 8: E W_2^T W_2 over rows is E C_2; given W_1 each draw whitens."""
    net = Rainbow((4, 4, 6), (None, None, inverse_of_first))
    shapes = net.white_shapes(3)
    assert shapes == ((4, 3), (4, 4), (6, 4))
    white = [rng.standard_normal(s) for s in shapes]
    W1, _, W3 = map(np.asarray, jax.jit(lambda white: net.weights(white, 3))(white))
    C = np.linalg.inv(W1 @ W1.T + 0.5 * np.eye(4))
    np.testing.assert_allclose(W3, white[2] @ np.linalg.cholesky(C).T / 2, rtol=1e-10)
    assert Rainbow((4, 6), (None, thin_of_first)).white_shapes(3) == ((4, 3), (6, 2))


@pytest.mark.slow
def test_gradients_are_finite_at_the_identity():
    def identity_of(weights):
        return jnp.eye(weights[0].shape[0]) + 0.0 * weights[0] @ weights[0].T

    net = Rainbow((4, 3), (np.eye(3), identity_of), "erf")
    white = [rng.standard_normal(s) for s in net.white_shapes(3)]

    def loss(white, net):
        return (net.apply(net.weights(white, 3), X) ** 2).sum()

    both = jax.jit(jax.value_and_grad(loss))
    slopes = both(white, net)[1]
    assert all(np.isfinite(s).all() for s in slopes)
    shift = [np.zeros(z.shape) for z in white]
    for z in shift:
        z[0, 0] = 1e-6
    step, back = ([z + sign * s for z, s in zip(white, shift, strict=True)] for sign in (1, -1))
    expected = (float(both(step, net)[0]) - float(both(back, net)[0])) / 2e-6
    np.testing.assert_allclose(sum(float(s[0, 0]) for s in slopes), expected, rtol=1e-7)


def test_it_is_a_pytree():
    net = Rainbow((4, 3), (COV, None))
    assert len(jax.tree.leaves(net)) == 1
    drawn = jax.jit(lambda net, key: net.init(key, 3))
    doubled, jitted = (
        drawn(n, jax.random.key(0)) for n in (jax.tree.map(lambda v: 2 * v, net), net)
    )
    own = net.init(0, 3)
    np.testing.assert_allclose(doubled[0], 2 * np.asarray(own[0]), rtol=1e-14)
    np.testing.assert_allclose(jitted[1], own[1], rtol=1e-12)


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
    with pytest.raises(ValueError, match="weights has 1 arrays for 2 layers"):
        net.apply([np.ones((4, 3))], X)
    with pytest.raises(ValueError, match="jitter must be a number of at least 0, got -1"):
        Rainbow(3, jitter=-1)
    with pytest.raises(ValueError, match="inputs must be a positive integer"):
        net.init(0, 0)
