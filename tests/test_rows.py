# SPDX-License-Identifier: Apache-2.0
"""Rows that are equal, nearly equal, or far from all others."""

import jax
import numpy as np
import pytest

from bayesrg.kernels import NNGP, RBF, Matern12, Matern32, Matern52, RationalQuadratic
from bayesrg.kernels.rows import equal_rows, squared_distance

rng = np.random.default_rng(0)
SCATTERED = rng.standard_normal((40, 20))


squares = jax.jit(squared_distance)
same = jax.jit(equal_rows)


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
    found = np.asarray(squares(X, X))
    np.testing.assert_allclose(found, right, rtol=1e-11)
    np.testing.assert_array_equal(found == 0, right == 0)


def test_an_outlier_changes_no_other_entry_nor_derivative():
    X, Z = outlier(), SCATTERED

    @jax.jit
    def ask(X):
        value = lambda X: RBF(4.0).gram(X, X)  # noqa: E731
        return value(X), jax.grad(lambda X: (weights * value(X)).sum())(X)

    weights = rng.standard_normal((40, 40))
    weights[7] = weights[:, 7] = 0
    others = np.delete(np.arange(40), 7)
    block = np.ix_(others, others)
    (K, slope), (K_Z, slope_Z) = (map(np.asarray, ask(points)) for points in (X, Z))
    np.testing.assert_allclose(K[block], K_Z[block], rtol=1e-13)
    np.testing.assert_array_equal(K[7], np.arange(40) == 7)
    np.testing.assert_allclose(slope[others], slope_Z[others], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("d", [3, 20])
def test_what_overflows_is_far_away(d):
    x = np.array([1e160, -1e160, 1.0, 1.0])[:, None] * np.ones(d)

    @jax.jit
    def grams(x, lengthscale):
        classes = (RBF, Matern12, Matern32, Matern52, RationalQuadratic)
        return [cls(lengthscale).gram(x, x) for cls in classes], equal_rows(x, x)

    for lengthscale in (1.0, 1e-200):
        matrices, equal = grams(x, lengthscale)
        for K in matrices:
            np.testing.assert_allclose(K, equal, atol=1e-100)


def test_near_duplicates_in_32_bits():
    X = SCATTERED.astype(np.float32)
    X[1] = X[0] + np.float32(1e-3) * X[1]
    gram = jax.jit(lambda X: Matern12(0.1).gram(X, X)[0, 1])
    exact = gram(X.astype(float))
    with jax.enable_x64(False):
        found = gram(X)
        mixed = jax.grad(lambda s: jax.grad(lambda t: Matern52(1.0).gram(s * X, t * X)[0, 0])(1.0))
        curvature = jax.jit(mixed)(1.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, rtol=1e-6)
    np.testing.assert_allclose(curvature, 5 / 3 * (SCATTERED[0] ** 2).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    "function",
    [lambda v: RBF(v * np.ones(20))(SCATTERED), lambda v: NNGP(1, weight_var=v)(SCATTERED)],
    ids=["distance", "angle"],
)
def test_chains_side_by_side_subtract_only_what_is_lost(function):
    """A condition on a batch would be computed on both of its sides."""
    batch = np.array([1.0, 2.0])
    assert str(jax.make_jaxpr(jax.vmap(function))(batch)).count("cond[") == 2
    many, one = jax.jit(lambda v: (jax.vmap(function)(v), function(v[1])))(batch)
    np.testing.assert_allclose(np.asarray(many)[1], one, rtol=1e-13)


def test_equal_rows_are_found_exactly():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (300, 5)).astype(float)
    brute = (X[:, None] == X[None]).all(-1)
    np.testing.assert_array_equal(same(X, X), brute)
    assert np.all(same(np.zeros((1, 2)), -np.zeros((1, 2))))
    np.testing.assert_array_equal(np.diagonal(squares(SCATTERED, SCATTERED)), 0.0)
