# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import gp
from bayesrg.kernels import RBF
from bayesrg.kernels.products import by_rows, product

rng = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def arrays():
    """Compile when the tests run: every worker collects all files."""
    global X, Z, COLUMNS, WEIGHTS
    shapes = (37, 2), (23, 2), (23, 3), (37, 3)
    X, Z, COLUMNS, WEIGHTS = (jnp.asarray(rng.standard_normal(shape)) for shape in shapes)


def tile_bytes(entries):
    """Budget of tiles of so many entries."""
    return 16 * 8 * entries


@partial(jax.jit, static_argnums=4)
@partial(jax.value_and_grad, argnums=(0, 1, 2, 3))
def value_and_slopes(length, X, Z, columns, block_bytes):
    return (WEIGHTS * product(RBF(length), X, Z, columns, block_bytes)).sum()


@pytest.mark.parametrize("entries", [7**2, pytest.param(1, marks=pytest.mark.slow)])
def test_tiles_give_the_product_and_its_derivatives(entries):
    """Seven divides neither number of rows; a budget of one entry leaves tiles of one."""
    given = 0.7, X, Z, COLUMNS
    whole, slopes = value_and_slopes(*given, 2**30)
    tiles, found = value_and_slopes(*given, tile_bytes(entries))
    np.testing.assert_allclose(tiles, whole, rtol=1e-12)
    for a, b in zip(found, slopes, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())
    K = np.asarray(RBF(0.7)(X, Z))
    one = product(RBF(0.7), X, Z, COLUMNS[:, 0], tile_bytes(entries))
    np.testing.assert_allclose(one, K @ COLUMNS[:, 0], rtol=0, atol=1e-13)


def test_no_array_is_larger_than_the_budget():
    """A Gram matrix of 11 MB, and its gradient, within a budget of half a MB."""
    n, budget = 1200, 2**19
    points, columns = jnp.zeros((n, 2)), jnp.zeros((n, 2))

    def loss(length, points):
        return (product(RBF(length), points, points, columns, budget) ** 2).sum()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(0.7, points).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * budget < 8 * n**2 / 10


def moments(scale, rows):
    return (scale * rows).sum(1), rows**2


def test_rows_in_blocks():
    for width in (1, 5):
        total, squares = by_rows(moments, 2.0, X, width, tile_bytes(30))
        np.testing.assert_allclose(total, 2 * X.sum(1), rtol=1e-14)
        np.testing.assert_array_equal(squares, X**2)


def test_a_prediction_at_many_points_is_that_at_each():
    """More entries than one block holds, so that the last block is not full."""
    n, m = 300, 2000
    points, new = rng.uniform(size=(n, 2)), rng.uniform(size=(m, 2))
    posterior = gp.condition(RBF(0.5), points, np.sin(points[:, 0]), 0.1, mean=lambda X: X[:, 1])
    mean, variance = posterior.predict(new, noise=True)
    for part in (slice(0, 10), slice(m - 10, m)):
        one, spread = posterior.predict(new[part], noise=True)
        np.testing.assert_allclose(mean[part], one, rtol=0, atol=1e-12)
        np.testing.assert_allclose(variance[part], spread, rtol=0, atol=1e-12)
