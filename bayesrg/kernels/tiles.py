# SPDX-License-Identifier: Apache-2.0
"""Compute Gram matrices in tiles, so that the result is the only array with n x n entries."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCK_BYTES = 2**26  # work arrays of a tile, unless a kernel says otherwise
_COPIES = 16  # arrays of a tile's size that are alive at once
_SIDE = 6  # tiles per side, at least, of a symmetric matrix
_WHOLE = 1024  # rows of a symmetric matrix up to which it is one tile, if memory allows


def side(block_bytes, itemsize):
    """Number of rows of a square tile whose work arrays fit into ``block_bytes``."""
    return max(1, int((block_bytes / (_COPIES * itemsize)) ** 0.5))


def tiled(function, rows, columns, size, symmetric=False):
    """Return a function of all pairs of rows and columns, computed in tiles.

    Parameters
    ----------
    function : callable (rows, columns) -> pytree of (r, c)
        Computes one tile, from r of the rows and c of the columns.
    rows, columns : pytrees of arrays (n, ...) and (m, ...)
        What belongs to each row and to each column.
    size : int
        Largest number of rows, and of columns, of a tile.
    symmetric : bool
        Whether rows and columns are the same points. Then tiles below the diagonal are copied from
        those above it, and results are exactly symmetric.

    Returns
    -------
    pytree of (n, m)

    Notes
    -----
    The last tile of a row is as large as the others and overlaps the one before it. In derivatives
    a tile is computed again, so that none of its work arrays are stored.
    """
    n, m = (jax.tree.leaves(points)[0].shape[0] for points in (rows, columns))
    if symmetric and n > _WHOLE:
        # tiles on the diagonal are computed whole: with six per side 7/12 of all pairs are computed
        size = min(size, -(-n // _SIDE))
    if n <= size and m <= size:
        results = function(rows, columns)
        return jax.tree.map(_symmetrised, _made(results)) if symmetric else results

    r, c = even(n, size), even(m, size)
    # In each column of tiles the one on the diagonal comes last. Where tiles overlap, its values
    # stay, and they are exactly symmetric.
    starts = [(i, j) for j in _starts(m, c) for i in _starts(n, r) if i <= j or not symmetric]

    @jax.checkpoint  # derivatives compute a tile again
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
    """Rows per tile when n rows are split as evenly as possible into the fewest tiles."""
    return -(-n // -(-n // size))


def _starts(n, size):
    """First rows of the tiles; the last tile ends with row n."""
    return [min(i, n - size) for i in range(0, n, size)]


def _made(results):
    """Return ``results`` unchanged, but keep XLA from computing them again at each use."""
    return lax.optimization_barrier(results)


def _symmetrised(K):
    """Mean of K (n, n) and its transpose."""
    return 0.5 * (K + K.T)


def _slice(points, start, size):
    """Entries ``start`` to ``start + size`` of all arrays of a pytree."""
    return jax.tree.map(lambda v: lax.dynamic_slice_in_dim(v, start, size), points)


def _write(result, tile, i, j):
    """Return ``result`` with a tile written at row i and column j."""
    return lax.dynamic_update_slice(result, tile, (i, j))
