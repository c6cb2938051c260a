# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference, log_normal

from bayesrg import gp
from bayesrg.kernels import NNGP, NTK, RBF, random_features

X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 8)))


def draws(kernel, units, number, seed=0):
    """Gram matrices (number, n, n) of independent networks."""
    keys = jax.random.split(jax.random.key(seed), number)
    draw = eqx.filter_jit(
        lambda keys: jax.lax.map(lambda k: random_features(kernel, 8, units, key=k)(X), keys)
    )
    return np.asarray(draw(keys))


CASES = {
    "tangent": NTK(1),
    "tangent, biases": NTK(1, "leaky_relu", [1.5, 0.7], [0.2, 0.3], slope=0.4),
    "tangent, fixed biases": NTK(1, "erf", 1.5, 0.2, train_bias=False),
    "tangent, read-out without bias": NTK(1, "tanh", 0.4, 0.2, readout_bias=False),
    "tangent, read-out alone": NTK(1, "relu", 1.5, 0.2, train="last", train_bias=False),
    "covariance": NNGP(1, "step", [1.5, 0.7], [0.2, 0.3]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_mean_is_the_infinite_network(name):
    samples = draws(CASES[name], 40, 1000)
    error = samples.std(0) / np.sqrt(1000)
    deviation = np.abs(samples.mean(0) - CASES[name](X)) / error
    assert deviation.max() < 4.2, deviation.max()  # of 15 independent entries


def test_the_error_falls_with_the_root_of_the_units():
    """Section 5's setting: 4.6% of the largest entry at 1000 units."""
    exact = np.asarray(NTK(1)(X))
    few, many = (
        np.abs(draws(NTK(1), m, 60) - exact).max((1, 2)).mean() / exact.max() for m in (1000, 9000)
    )
    assert 0.03 < few < 0.06, few
    np.testing.assert_allclose(few / many, 3.0, rtol=0.2)


@pytest.mark.parametrize("name", CASES)
def test_features_multiply_to_the_kernel(name):
    kernel = random_features(CASES[name], 8, 7, key=1)
    F, G = kernel.features(X), kernel.features(X[:2])
    np.testing.assert_allclose(F @ G.T, kernel(X, X[:2]), rtol=1e-12)
    np.testing.assert_allclose((F**2).sum(1), kernel.diag(X), rtol=1e-13)
    np.testing.assert_array_equal(kernel(X), kernel(X).T)


def test_a_process_of_features_is_that_of_their_kernel():
    kernel = random_features(NTK(1, bias_var=0.1), 8, 3, key=2)
    points = jnp.asarray(np.random.default_rng(1).standard_normal((60, 8)))
    y = jnp.sin(points[:, 0])
    F = kernel.features(points)
    assert F.shape == (60, 3 + 3 * 9 + 1)
    low_rank = gp.MercerNormal(F, jnp.ones(F.shape[1]), 0.1, orthonormal=False)
    expected = log_normal(y, np.zeros(60), kernel(points) + 0.1 * np.eye(60))
    np.testing.assert_allclose(low_rank.log_prob(y), expected, rtol=1e-10)


def test_variances_may_be_sampled():
    @jax.jit
    def total(v):
        return random_features(NTK(1, "erf", v[0], v[1]), 8, 20, key=3)(X, X[:3]).sum()

    v = jnp.array([1.3, 0.2])
    np.testing.assert_allclose(jax.grad(total)(v), central_difference(total, v), rtol=1e-7)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: random_features(RBF(1.0), 8, 3, key=0), "an NNGP or an NTK, got a RBF"),
        (lambda: random_features(NTK(2), 8, 3, key=0), "one plain hidden layer, got depth=2"),
        (lambda: random_features(NTK(1, layernorm=True), 8, 3, key=0), "layernorm=True"),
        (lambda: random_features(NTK(1), 8, 0, key=0), "units must be a positive integer, got 0"),
        (lambda: random_features(NTK(1), 3, 2, key=0)(X), "X has 8 columns.*inputs of 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
