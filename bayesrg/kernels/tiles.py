# SPDX-License-Identifier: Apache-2.0
"""Gram matrices tile by tile, so that nothing but the result has n x n entries."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCK_BYTES = 2**26  # work arrays of a tile, unless a kernel says otherwise
_COPIES = 16  # arrays of a tile's size that are alive at once
_SIDE, _WHOLE = 6, 1024  # tiles a side of a symmetric matrix that has more rows than this


def side(block_bytes, itemsize):
    """Rows of a square tile whose work arrays fit into ``block_bytes``."""
    return max(1, int((block_bytes / (_COPIES * itemsize)) ** 0.5))


def tiled(function, rows, columns, size, symmetric=False):
    """Evaluate a function of pairs on tiles of at most ``size`` rows and columns.

    Parameters
    ----------
    function : callable (rows, columns) -> pytree of (r, c)
    rows, columns : pytrees of arrays (n, ...) and (m, ...)
    size : int
    symmetric : bool
        Rows are columns: tiles below the diagonal are the transposed ones above it, and results
        are exactly symmetric. Small tiles then save work: those on the diagonal are whole.

    Returns
    -------
    pytree of (n, m)

    Notes
    -----
    The last tile of a row overlaps the one before it in place of being smaller. Derivatives
    compute a tile again and store none of its work arrays.
    """
    n, m = (jax.tree.leaves(points)[0].shape[0] for points in (rows, columns))
    if symmetric and n > _WHOLE:
        size = min(size, -(-n // _SIDE))  # six a side compute 7/12 of all pairs
    if n <= size and m <= size:
        results = function(rows, columns)
        return jax.tree.map(_symmetrised, _made(results)) if symmetric else results
    r, c = even(n, size), even(m, size)
    starts = [
        (i, j)
        for j in _starts(m, c)
        for i in _starts(n, r)
        if i <= j or not symmetric  # the tile on the diagonal last: it has the last word
    ]

    @jax.checkpoint
    def tile(rows, columns, i, j):
        points = _made((_slice(rows, i, r), _slice(columns, j, c)))
        return _made(function(*points))

    def step(results, start):
        i, j = start
        tiles = tile(rows, columns, i, j)
        if symmetric:
            tiles = jax.tree.map(lambda K: jnp.where(i == j, _symmetrised(K), K), tiles)
            flipped = jax.tree.map(jnp.transpose, tiles)
            results = jax.tree.map(lambda R, K: _write(R, K, j, i), results, flipped)
        return jax.tree.map(lambda R, K: _write(R, K, i, j), results, tiles), None

    shapes = jax.eval_shape(tile, rows, columns, 0, 0)
    empty = jax.tree.map(lambda K: jnp.zeros((n, m), K.dtype), shapes)
    return lax.scan(step, empty, jnp.asarray(np.array(starts).T).T)[0]


def even(n, size):
    """Rows of a tile when tiles of at most ``size`` rows are as few and as equal as possible."""
    return -(-n // -(-n // size))


def _starts(n, size):
    return [min(i, n - size) for i in range(0, n, size)]


def _made(results):
    """Keep what makes a tile from being fused into its copies, which would compute it again."""
    return lax.optimization_barrier(results)


def _symmetrised(K):
    return 0.5 * (K + K.T)


def _slice(points, start, size):
    return jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, start, size), points)


def _write(result, tile, i, j):
    return lax.dynamic_update_slice(result, tile, (i, j))
