# SPDX-License-Identifier: Apache-2.0
"""Pairs of rows that are equal, or so nearly that a matrix product would lose their difference."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, UInt32

from .._linalg import with_value

_HASHED = 256  # rows that are hashed at once
_SUBTRACTED = 16  # columns up to which all differences are taken
_CENTRED = 15  # rows whose median is the centre


def row_hashes(X: Float[Array, "n d"]) -> UInt32[Array, "n two"]:
    """Hash every row twice, to 32 bits; by blocks, as the words take twice the memory of X."""
    X = lax.stop_gradient(X)
    n, size = X.shape[0], min(X.shape[0], _HASHED)
    if n == size:
        return _hashes(X)

    def step(found, i):
        part = _hashes(lax.dynamic_slice_in_dim(X, i, size))
        return lax.dynamic_update_slice_in_dim(found, part, i, 0), None

    # the last block ends with X, and may overlap the one before
    starts = jnp.asarray([min(i, n - size) for i in range(0, n, size)])
    return lax.scan(step, jnp.zeros((n, 2), jnp.uint32), starts)[0]


def _hashes(X):
    """Hashes (n, 2) of rows: each word is mixed with a random number of its column, and summed."""
    X = jnp.where(X == 0, 0.0, X)  # zeros of either sign are equal
    words = lax.bitcast_convert_type(X, jnp.uint32).reshape(X.shape[0], 1, -1)
    seeds = np.random.default_rng(0).integers(0, 2**32, (2, words.shape[-1]), dtype=np.uint32)
    h = words ^ seeds
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of Murmur3
        h = (h ^ (h >> shift)) * np.uint32(factor)
    return (h ^ (h >> 16)).sum(-1, dtype=jnp.uint32)


def same_rows(h: UInt32[Array, "n two"], g: UInt32[Array, "m two"]) -> Bool[Array, "n m"]:
    """Say which rows have equal hashes."""
    return (h[:, None, 0] == g[None, :, 0]) & (h[:, None, 1] == g[None, :, 1])


def equal_rows(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Bool[Array, "n m"]:
    """Say which rows are equal, (n, m) booleans, at the cost of comparing two 32-bit hashes."""
    return same_rows(row_hashes(X), row_hashes(Z))


def least_share(dtype) -> float:
    """Least difference, as a share of what it was taken from, that a product gives well.

    Above it the difference keeps a little more than three quarters of all digits.
    """
    return 0.5 * float(jnp.finfo(dtype).eps) ** 0.25


def subtracted(difference):
    """Repair what a matrix product lost, by a function that subtracts.

    Parameters
    ----------
    difference : callable (row, others) -> pytree of (m,)
        What belongs to a row, a pytree of (...), and to the others, a pytree of (m, ...).

    Returns
    -------
    callable (lost, multiplied, rows, others) -> pytree of (n, m)
        The values ``multiplied``, but in every row that has a lost entry (n, m) those of
        ``difference``. Rows are repaired one at a time, so that no memory is needed beyond the
        result. The values have no derivative.
    """

    @sequential_vmap  # a condition that is batched would compute both of its sides
    def repaired(lost, multiplied, rows, others):
        def one(row):
            lost, multiplied, row = row
            return lax.cond(lost.any(), lambda: difference(row, others), lambda: multiplied)

        def row_by_row():
            return lax.map(one, (lost, multiplied, rows))

        return lax.cond(lost.any(), row_by_row, lambda: multiplied)

    return lambda *arguments: repaired(*lax.stop_gradient(arguments))


_subtracted = subtracted(lambda x, Z: ((x - Z) ** 2).sum(-1))


@jax.jit  # compiled, the differences are never stored
def squared_distance(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared Euclidean distances, exactly zero at equal rows.

    Up to 16 columns are subtracted one by one, with no cancellation. From 17 on one product of
    centred inputs is used; rows near others, where it would keep less than three quarters of the
    digits, are subtracted from all. Derivatives are those of the polynomial, at equal rows too.
    """
    if X.shape[1] <= _SUBTRACTED:
        return ((X[:, None] - Z[None]) ** 2).sum(-1)
    given = X, Z
    # Any centre will do; that of a few rows in the middle of each column is not moved by outliers.
    few = jnp.sort(lax.stop_gradient(Z[:: -(-Z.shape[0] // _CENTRED)]), 0)
    centre = few[few.shape[0] // 2]
    X, Z = X - centre, Z - centre
    total = (X**2).sum(-1)[:, None] + (Z**2).sum(-1)[None]
    squares = total - 2.0 * X @ Z.T

    # equal rows are zero exactly; they need no repair
    same = equal_rows(*given)
    lost = ~(squares >= least_share(X.dtype) * total) & ~same
    value = jnp.where(same, 0.0, _subtracted(lost, squares, *given))
    return with_value(squares, value)
