# SPDX-License-Identifier: Apache-2.0
"""Gram matrices times columns, tile by tile, so that no whole Gram matrix is held."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import PyTree

from .base import Kernel
from .tiles import BLOCK_BYTES, even, side


def product(
    kernel: Kernel, X: Array, Z: Array, columns: Array, block_bytes: int = BLOCK_BYTES
) -> Array:
    """Multiply a Gram matrix, ``kernel(X, Z) @ columns``, with work arrays in ``block_bytes``.

    Parameters
    ----------
    kernel : Kernel
    X : (n, d)
    Z : (m, d)
    columns : (m,) or (m, c)
    block_bytes : int
        Memory of one tile of the Gram matrix with all its work arrays. If the whole matrix fits,
        it is made at once.

    Returns
    -------
    (n,) or (n, c)

    Notes
    -----
    Derivatives compute a tile again, so they hold no Gram matrix either.
    """
    n, m, area = X.shape[0], Z.shape[0], side(block_bytes, X.dtype.itemsize) ** 2
    if n * m <= area:
        return kernel(X, Z) @ columns

    # a tile is square, unless one side is short: then the other gets what is left of the area
    width = min(m, max(int(area**0.5), area // n))
    return _tiled(kernel, X, Z, columns, even(n, max(1, area // width)), even(m, width))


@eqx.filter_jit
def _tiled(kernel, X, Z, columns, height, width):
    parts = _blocks(Z, width), _blocks(columns, width, fill=0.0)

    @jax.checkpoint
    def tile(X, Z, columns):
        return kernel(X, Z) @ columns

    @jax.checkpoint
    def rows(X):
        def add(total, part):
            return total + tile(X, *part), None

        shape = jax.eval_shape(tile, X, *jax.tree.map(lambda v: v[0], parts))
        return lax.scan(add, jnp.zeros(shape.shape, shape.dtype), parts)[0]

    return _stacked(lax.map(rows, _blocks(X, height)), X.shape[0])


def by_rows(
    function: Callable, given: PyTree, X: Array, width: int, block_bytes: int = BLOCK_BYTES
) -> PyTree:
    """Evaluate a function of rows on blocks of them, with work arrays in ``block_bytes``.

    Parameters
    ----------
    function : callable (given, rows (r, d)) -> pytree of (r, ...)
        A function of a module: it is part of the key under which the program is compiled.
    given : pytree
    X : (n, d)
    width : int
        Numbers that the function makes for one row.
    block_bytes : int
        At least one row is in a block.

    Returns
    -------
    pytree of (n, ...)
    """
    n, most = X.shape[0], max(1, side(block_bytes, X.dtype.itemsize) ** 2 // width)
    return function(given, X) if n <= most else _by_rows(function, given, X, even(n, most))


@eqx.filter_jit
def _by_rows(function, given, X, size):
    each = lax.map(jax.checkpoint(lambda rows: function(given, rows)), _blocks(X, size))
    return jax.tree.map(lambda v: _stacked(v, X.shape[0]), each)


def _blocks(X, size, fill=None):
    """Rows (n, ...) as blocks (b, size, ...), the last filled up with other rows or a number."""
    n, count = X.shape[0], -(-X.shape[0] // size)
    rows = jnp.arange(count * size)
    filled = X[rows % n]
    if fill is not None:
        there = (rows < n).reshape(-1, *[1] * (X.ndim - 1))
        filled = jnp.where(there, filled, fill)
    return filled.reshape(count, size, *X.shape[1:])


def _stacked(blocks, n):
    return blocks.reshape(-1, *blocks.shape[2:])[:n]
