# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import bayesrg as brg
from bayesrg.networks import DeepLinear

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))


def mean_field(**more):
    return DeepLinear((6, 5), parametrisation="mean_field", richness=1.3, **{"ridge": 0.2} | more)


def test_description():
    net = DeepLinear([np.int64(6), 5], ridge=0, outputs=2, weight_scales=[1.0, 2.0, 0.5])
    assert net.widths == (6, 5) and net.depth == 2 and net.outputs == 2
    assert_allclose(net.scales, [1, 2, 0.5])
    assert DeepLinear(7, ridge=0.1).widths == (7,)
    assert brg.networks.DeepLinear is DeepLinear


def test_weights_and_layers_have_their_shapes():
    net, mean = DeepLinear((6, 5), ridge=0.1, outputs=2), mean_field(outputs=2)

    @jax.jit
    def ask():
        weights = net.init(0, 3)
        return weights, net.layers(weights, X), net.apply(weights, X), mean.apply(weights, X)

    weights, layers, f, scaled = ask()
    assert [W.shape for W in weights] == [(6, 3), (5, 6), (2, 5)]
    assert [H.shape for H in layers] == [(4, 3), (4, 6), (4, 5), (4, 2)]
    W1, W2, W3 = map(np.asarray, weights)
    assert_allclose(f, X @ W1.T @ W2.T @ W3.T, rtol=1e-12)
    assert_allclose(scaled, X @ W1.T @ W2.T @ W3.T / (1.3 * np.sqrt(5)), rtol=1e-12)


@pytest.mark.slow
def test_outputs_of_random_weights_have_the_kernel_as_their_covariance():
    """Unequal scales, so that one in the wrong place shows; the bound is four standard errors."""
    net = mean_field(weight_scales=[0.7, 1.4, 2.0])
    draws = 20_000
    keys = jax.random.split(jax.random.key(1), draws)

    @jax.jit
    @jax.vmap
    def products(key):
        weights = net.init(key, 3)
        H = net.layers(weights, X)[1]
        f = net.apply(weights, X)[:, 0]
        return jnp.outer(f, f), H @ H.T / 6

    for sample, expected in zip(products(keys), (net.kernel(X), 0.7**2 * X @ X.T / 3), strict=True):
        error = sample.std(0) / np.sqrt(draws)
        assert (np.abs(sample.mean(0) - expected) < 4 * error).all()


def test_kernel():
    net = DeepLinear((6,), ridge=0.1, weight_scales=[2.0, 3.0])
    assert_allclose(net.kernel(X, X[:2]), 36 * X @ X[:2].T / 3)
    assert_allclose(mean_field().kernel(X), X @ X.T / 3 / (1.3**2 * 5))
    with pytest.raises(ValueError, match="Z has 2 columns and X 3"):
        net.kernel(X, X[:, :2])


def test_mean_field_is_a_standard_network_on_longer_targets():
    """The likelihood of f given targets is the same function of the weights, to a constant."""
    net = mean_field()
    standard = net.standardise()
    assert standard.parametrisation == "standard"
    assert_allclose(standard.ridge, 0.2 * 1.3**2)
    assert_allclose(net.noise_variance, 0.2 / 5)
    y = RNG.standard_normal((4, 1))
    longer = y * float(net.output_scale)

    @jax.jit
    def outputs():
        weights = net.init(3, 3)
        return net.apply(weights, X), standard.apply(weights, X)

    f, g = map(np.asarray, outputs())
    exponent = ((y - f) ** 2).sum() / float(net.noise_variance)
    assert_allclose(exponent, ((longer - g) ** 2).sum() / float(standard.ridge), rtol=1e-12)
    assert standard.standardise() is standard


def test_it_is_a_pytree_whose_numbers_can_be_traced():
    def spread(ridge, scale, richness):
        net = DeepLinear(
            (4,), ridge=ridge, weight_scales=scale, parametrisation="mean_field", richness=richness
        )
        return net.kernel(X)[0, 0] + net.noise_variance

    value, slope = jax.jit(jax.value_and_grad(spread, argnums=1))(0.1, 1.2, 0.8)
    kernel = 1.2**4 * (X[0] @ X[0]) / 3 / (4 * 0.8**2)
    assert_allclose(value, kernel + 0.1 / 4, rtol=1e-12)
    assert_allclose(slope, 4 / 1.2 * kernel, rtol=1e-10)
    nets = jax.vmap(lambda ridge: DeepLinear((4,), ridge=ridge))(jnp.array([0.1, 0.2]))
    assert nets.ridge.shape == (2,) and nets.widths == (4,)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, DeepLinear((4,), ridge=0.1))
    assert_allclose(doubled.ridge, 0.2)
    assert eqx.tree_equal(DeepLinear((4,), ridge=0.1), DeepLinear([4], ridge=0.1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": (3, 0)}, "an entry of widths must be a positive integer, got 0"),
        ({"widths": (3, 2.5)}, "positive integer, got 2.5"),
        ({"widths": (True,)}, "positive integer, got True"),
        ({"widths": 5.0}, "widths must be positive integers, got 5.0; give a tuple"),
        ({"outputs": 0}, "outputs must be a positive integer, got 0"),
        ({"ridge": -0.1}, "ridge must be non-negative, got -0.1"),
        ({"ridge": np.nan}, "ridge contains non-finite"),
        ({"weight_scales": 0.0}, "weight_scales must be positive, got 0.0"),
        ({"weight_scales": [1.0, 1.0]}, r"weight_scales has shape \(2,\) for 2 hidden layers"),
        ({"richness": 2.0}, "richness is 2.0, which the standard parametrisation"),
        ({"parametrisation": "ntk"}, "parametrisation must be one of 'standard', 'mean_field'"),
        ({"parametrisation": "mean_field", "richness": 0.0}, "richness must be positive"),
        ({"parametrisation": "mean_field", "widths": ()}, "widths is empty"),
    ],
)
def test_bad_descriptions(change, words):
    with pytest.raises(ValueError, match=words):
        DeepLinear(**{"widths": (3, 4), "ridge": 0.1} | change)


def test_bad_weights():
    net = DeepLinear((3,), ridge=0.1)
    with pytest.raises(ValueError, match="weights has 1 arrays for 2 layers"):
        net.apply(net.init(0, 3)[:1], X)
    with pytest.raises(ValueError, match="inputs must be a positive integer"):
        net.init(0, 0)
