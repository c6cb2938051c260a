# SPDX-License-Identifier: Apache-2.0
"""Find equal rows, and compute distances of nearly equal rows without loss of digits."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Bool, Float, UInt32

from .._linalg import with_value

_HASHED = 256  # rows that are hashed at once
_SUBTRACTED = 16  # up to so many columns, squared distances are sums of squared differences
_CENTRED = 15  # number of rows whose median is the centre


def row_hashes(X: Float[Array, "n d"]) -> UInt32[Array, "n two"]:
    """Return two hashes of 32 bits for every row of X (n, d), as (n, 2)."""
    # in blocks of rows, since the words that are hashed take twice the memory of the rows
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
    """Hashes (n, 2) of rows X (n, d): mix each word with a random number of its column, and add."""
    X = jnp.where(X == 0, 0.0, X)  # zeros of either sign are equal
    words = lax.bitcast_convert_type(X, jnp.uint32).reshape(X.shape[0], 1, -1)
    seeds = np.random.default_rng(0).integers(0, 2**32, (2, words.shape[-1]), dtype=np.uint32)
    h = words ^ seeds
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finaliser of Murmur3
        h = (h ^ (h >> shift)) * np.uint32(factor)
    return (h ^ (h >> 16)).sum(-1, dtype=jnp.uint32)


def same_rows(h: UInt32[Array, "n two"], g: UInt32[Array, "m two"]) -> Bool[Array, "n m"]:
    """Return which pairs of rows have equal hashes h (n, 2) and g (m, 2), as (n, m) booleans."""
    return (h[:, None, 0] == g[None, :, 0]) & (h[:, None, 1] == g[None, :, 1])


def equal_rows(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Bool[Array, "n m"]:
    """Return which rows of X (n, d) and Z (m, d) are equal, as (n, m) booleans.

    Only two hashes of 32 bits are compared, not the d columns.
    """
    return same_rows(row_hashes(X), row_hashes(Z))


def least_share(dtype) -> float:
    """Return the smallest relative difference that may be computed by a matrix product.

    A squared distance |x|^2 + |z|^2 - 2 x.z larger than this share of |x|^2 + |z|^2 has a little
    more than three quarters of all digits correct.
    """
    return 0.5 * float(jnp.finfo(dtype).eps) ** 0.25


def subtracted(difference):
    """Return a function that computes rows again in which a matrix product lost digits.

    Parameters
    ----------
    difference : callable (row, others) -> pytree of (m,)
        Computes one row by subtraction. It takes a pytree of arrays (...) for the row and a pytree
        of arrays (m, ...) for the m others.

    Returns
    -------
    callable (lost, multiplied, rows, others) -> pytree of (n, m)
        Returns the values ``multiplied`` (n, m), but computes every row again in which an entry of
        ``lost`` (n, m) is True. Rows are computed one at a time, to need no memory beyond the
        result. The values have no derivative.
    """

    @sequential_vmap  # under vmap a condition would always compute both of its sides
    def repaired(lost, multiplied, rows, others):
        def one(row):
            lost, multiplied, row = row
            return lax.cond(lost.any(), lambda: difference(row, others), lambda: multiplied)

        def row_by_row():
            return lax.map(one, (lost, multiplied, rows))

        return lax.cond(lost.any(), row_by_row, lambda: multiplied)

    return lambda *arguments: repaired(*lax.stop_gradient(arguments))


_subtracted = subtracted(lambda x, others: (((x - others[0]) * others[1]) ** 2).sum(-1))


@jax.jit  # compiled, the differences are never stored
def squared_distance(
    X: Float[Array, "n d"],
    Z: Float[Array, "m d"],
    lengthscale: Float[Array, " d"] | None = None,
) -> Float[Array, "n m"]:
    """Squared Euclidean distances (n, m) between X (n, d) and Z (m, d), exactly 0 at equal rows.

    Each column is divided by its ``lengthscale`` (d,), if one is given. With up to 16 columns the
    distances are sums of squared differences, which lose no digits. With more, one matrix product
    of centred inputs is used; rows that are so near to others that the product keeps less than
    three quarters of the digits are subtracted from all.

    Derivatives are those of the polynomial |x|^2 + |z|^2 - 2 x.z of centred inputs everywhere, also
    at equal rows, so that they are matrix products: no array has n m d entries. Their rounding
    errors are relative to |x|^2, and not to the distance. One column, and up to 16 in 32 bits, are
    differentiated as they are computed.
    """
    ones = jnp.ones(X.shape[1], jnp.result_type(X, Z))
    lengthscale = ones if lengthscale is None else lengthscale
    # a tiny lengthscale must not make it 0 times infinity
    inverse = 1.0 / jnp.maximum(lengthscale, jnp.finfo(lengthscale.dtype).tiny)
    few = X.shape[1] <= _SUBTRACTED
    if few:
        value = _by_columns(X, Z, inverse)
        if X.shape[1] == 1 or jnp.finfo(value.dtype).bits < 64:
            return value
    given = lax.stop_gradient((X, Z, inverse))
    # The product loses fewer digits if inputs are near 0: subtract a centre. Any will do; the
    # median of a few rows is cheap, and outliers do not move it.
    some = jnp.sort(given[1][:: -(-Z.shape[0] // _CENTRED)], 0)
    centre = some[some.shape[0] // 2]
    X, Z = (X - centre) * inverse, (Z - centre) * inverse
    if few:
        return with_value(_by_products(X, Z), _by_columns(*given))
    total = (X**2).sum(-1)[:, None] + (Z**2).sum(-1)[None]
    squares = lax.stop_gradient(total - 2.0 * X @ Z.T)

    # equal rows are set to 0 and need no subtraction
    same = equal_rows(*given[:2])
    lost = ~(squares >= least_share(squares.dtype) * total) & ~same
    value = jnp.where(same, 0.0, _subtracted(lost, squares, given[0], given[1:]))
    return with_value(_by_products(X, Z), value)


def _by_products(X, Z):
    """Squared distances |x|^2 + |z|^2 - 2 x.z by one matrix product, for their derivatives."""
    # The squared lengths and ones are columns of the product. Sums of a cotangent over rows and
    # columns would compute all its entries again.
    a, b = ((U**2).sum(-1, keepdims=True) for U in (X, Z))
    left = jnp.concatenate([a, jnp.ones_like(a), -2.0 * X], 1)
    return left @ jnp.concatenate([jnp.ones_like(b), b, Z], 1).T


def _by_columns(X, Z, inverse):
    """Sum of squared differences, column by column: quicker than a sum over a third axis."""
    return sum(((x[:, None] - z) * s) ** 2 for x, z, s in zip(X.T, Z.T, inverse, strict=True))
