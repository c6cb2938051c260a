# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import numpy as np
import pytest
from oracles import central_difference, log_normal

from bayesrg import gp
from bayesrg.kernels import NNGP, NTK, RBF, random_features

X = np.random.default_rng(0).standard_normal((5, 8))


def draws(kernel, units, number, seed=0):
    """Gram matrices (number, n, n) of independent networks, and that of the infinite one."""

    @eqx.filter_jit
    def draw(keys, kernel):
        one = lambda key: random_features(kernel, 8, units, key=key)(X)  # noqa: E731
        return jax.lax.map(one, keys), kernel(X)

    return map(np.asarray, draw(jax.random.split(jax.random.key(seed), number), kernel))


CASES = {
    "tangent": NTK(1),
    "tangent, biases": NTK(1, "leaky_relu", [1.5, 0.7], [0.2, 0.3], slope=0.4),
    "tangent, fixed biases": NTK(1, "erf", 1.5, 0.2, train_bias=False),
    "tangent, read-out without bias": NTK(1, "tanh", 0.4, 0.2, readout_bias=False),
    "tangent, read-out alone": NTK(1, "relu", 1.5, 0.2, train="last", train_bias=False),
    "covariance": NNGP(1, "step", [1.5, 0.7], [0.2, 0.3]),
}


def cases(*default):
    """Every case; those that are not named differ from them by an activation or a flag."""
    return [pytest.param(n, marks=() if n in default else pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", cases("tangent, biases"))
def test_the_mean_is_the_infinite_network(name):
    samples, exact = draws(CASES[name], 40, 1000)
    error = samples.std(0) / np.sqrt(1000)
    deviation = np.abs(samples.mean(0) - exact) / error
    assert deviation.max() < 4.2, deviation.max()  # of 15 independent entries


@pytest.mark.slow
def test_the_error_falls_with_the_root_of_the_units():
    """Section 5's setting: 4.6% of the largest entry at 1000 units."""
    errors = []
    for units in (1000, 9000):
        samples, exact = draws(NTK(1), units, 60)
        errors.append(np.abs(samples - exact).max((1, 2)).mean() / exact.max())
    few, many = errors
    assert 0.03 < few < 0.06, few
    np.testing.assert_allclose(few / many, 3.0, rtol=0.2)


@pytest.mark.parametrize("name", cases("tangent, biases", "covariance"))
def test_features_multiply_to_the_kernel(name):
    @eqx.filter_jit
    def ask(kernel):
        finite = random_features(kernel, 8, 7, key=1)
        columns = finite.features(X), finite.features(X[:2])
        return *columns, finite(X, X[:2]), finite.diag(X), finite(X)

    F, G, cross, diagonal, gram = map(np.asarray, ask(CASES[name]))
    np.testing.assert_allclose(F @ G.T, cross, rtol=1e-12)
    np.testing.assert_allclose((F**2).sum(1), diagonal, rtol=1e-13)
    np.testing.assert_array_equal(gram, gram.T)


def test_a_process_of_features_is_that_of_their_kernel():
    points = np.random.default_rng(1).standard_normal((60, 8))
    y = np.sin(points[:, 0])

    @jax.jit
    def ask():
        kernel = random_features(NTK(1, bias_var=0.1), 8, 3, key=2)
        F = kernel.features(points)
        low_rank = gp.MercerNormal(F, np.ones(F.shape[1]), 0.1, orthonormal=False)
        return F, low_rank.log_prob(y), kernel(points)

    F, density, K = map(np.asarray, ask())
    assert F.shape == (60, 3 + 3 * 9 + 1)
    expected = log_normal(y, np.zeros(60), K + 0.1 * np.eye(60))
    np.testing.assert_allclose(density, expected, rtol=1e-10)


@pytest.mark.slow
def test_variances_may_be_sampled():
    @jax.jit
    @jax.value_and_grad
    def total(v):
        return random_features(NTK(1, "erf", v[0], v[1]), 8, 20, key=3)(X, X[:3]).sum()

    v = np.array([1.3, 0.2])
    expected = central_difference(lambda v: total(v)[0], v)
    np.testing.assert_allclose(total(v)[1], expected, rtol=1e-7)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: random_features(RBF(1.0), 8, 3, key=0), "an NNGP or an NTK, .*got a RBF"),
        (lambda: random_features(NTK(2), 8, 3, key=0), "one plain hidden layer, got depth=2"),
        (lambda: random_features(NTK(1, layernorm=True), 8, 3, key=0), "layernorm=True"),
        (lambda: random_features(NTK(1), 8, 0, key=0), "units must be a positive integer, got 0"),
        (lambda: random_features(NTK(1), 3, 2, key=0)(X), "X has 8 columns and the weights 3"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
