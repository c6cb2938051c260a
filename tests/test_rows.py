# SPDX-License-Identifier: Apache-2.0
"""Rows that are equal, nearly equal, or far from all others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg.kernels import NNGP, RBF, Matern12, Matern32, Matern52, RationalQuadratic
from bayesrg.kernels.rows import equal_rows, squared_distance

rng = np.random.default_rng(0)
SCATTERED = rng.standard_normal((40, 20))


def outlier():
    X = SCATTERED.copy()
    X[7, 3] = 9.969e36
    return X


def many_outliers():
    X = SCATTERED.copy()
    X[:25] *= 10.0 ** rng.uniform(20, 100, (25, 1))
    return X


def near_duplicates():
    X = 1e6 * SCATTERED
    X[5] = X[4] + 1e-3 * SCATTERED[5]
    X[6] = X[4] + 1e-9 * SCATTERED[6]
    return X


def two_clusters():
    return 1e-3 * SCATTERED + 1e4 * (np.arange(40) % 2)[:, None]


@pytest.mark.parametrize("make", [outlier, many_outliers, near_duplicates, two_clusters])
def test_distances_keep_their_digits_in_many_columns(make):
    X = make()
    X[9] = X[8]
    right = ((X[:, None] - X[None]) ** 2).sum(-1)
    found = squared_distance(jnp.asarray(X), jnp.asarray(X))
    np.testing.assert_allclose(found, right, rtol=1e-11)
    np.testing.assert_array_equal(found == 0, right == 0)


def test_an_outlier_changes_no_other_entry_nor_derivative():
    X, Z = jnp.asarray(outlier()), jnp.asarray(SCATTERED)
    value = jax.jit(lambda X: RBF(4.0).gram(X, X))
    slope = jax.jit(jax.grad(lambda X: (weights * value(X)).sum()))
    weights = rng.standard_normal((40, 40))
    weights[7] = weights[:, 7] = 0
    others = np.delete(np.arange(40), 7)
    block = np.ix_(others, others)
    np.testing.assert_allclose(value(X)[block], value(Z)[block], rtol=1e-13)
    np.testing.assert_array_equal(value(X)[7], np.arange(40) == 7)
    np.testing.assert_allclose(slope(X)[others], slope(Z)[others], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("d", [3, 20])
def test_what_overflows_is_far_away(d):
    x = jnp.asarray([1e160, -1e160, 1.0, 1.0])[:, None] * jnp.ones(d)
    for cls in (RBF, Matern12, Matern32, Matern52, RationalQuadratic):
        for lengthscale in (1.0, 1e-200):
            K = cls(lengthscale).gram(x, x)
            np.testing.assert_allclose(K, equal_rows(x, x), atol=1e-100)


def test_near_duplicates_in_32_bits():
    X = SCATTERED.astype(np.float32)
    X[1] = X[0] + np.float32(1e-3) * X[1]
    exact = Matern12(0.1)(X.astype(float))[0, 1]
    with jax.enable_x64(False):
        X = jnp.asarray(X)
        found = Matern12(0.1).gram(X, X)[0, 1]
        mixed = jax.grad(lambda s: jax.grad(lambda t: Matern52(1.0).gram(s * X, t * X)[0, 0])(1.0))
        curvature = mixed(1.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    np.testing.assert_allclose(curvature, 5 / 3 * (SCATTERED[0] ** 2).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [lambda v: RBF(v * jnp.ones(20))(SCATTERED), lambda v: NNGP(1, weight_var=v)(SCATTERED)],
    ids=["distance", "angle"],
)
def test_chains_side_by_side_subtract_only_what_is_lost(function):
    """A condition on a batch would be computed on both of its sides."""
    batch = jnp.array([1.0, 2.0])
    assert str(jax.make_jaxpr(jax.vmap(function))(batch)).count("cond[") == 2
    np.testing.assert_allclose(jax.vmap(function)(batch)[1], function(2.0), rtol=1e-13)


def test_equal_rows_are_found_exactly():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (300, 5)).astype(float)
    brute = (X[:, None] == X[None]).all(-1)
    np.testing.assert_array_equal(equal_rows(jnp.asarray(X), jnp.asarray(X)), brute)
    assert equal_rows(jnp.zeros((1, 2)), -jnp.zeros((1, 2))).all()
    Z = jnp.asarray(rng.standard_normal((5, 20)))
    np.testing.assert_array_equal(jnp.diagonal(squared_distance(Z, Z)), 0.0)
