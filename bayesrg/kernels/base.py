# SPDX-License-Identifier: Apache-2.0
"""What every kernel is: an immutable pytree that gives Gram matrices and their diagonal."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, UInt32

from .. import _checks
from .._checks import ArrayLike

_HASHED = 256  # rows that are hashed at once


class Kernel(eqx.Module):
    """Positive semi-definite function of two inputs.

    ``kernel(X)`` is the (n, n) Gram matrix of X (n, d), exactly symmetric with an exact diagonal,
    ``kernel(X, Z)`` the (n, m) one with Z (m, d), ``kernel.diag(X)`` its diagonal (n,). Kernels
    add, multiply, and scale by numbers. A vector of inputs stands for one column.
    """

    @abstractmethod
    def gram(
        self, X: Float[Array, "point feature"], Z: Float[Array, "point_new feature"]
    ) -> Float[Array, "point point_new"]:
        """Gram matrix between X (n, d) and Z (m, d), in units of variance."""

    @abstractmethod
    def gram_diag(self, X: Float[Array, "point feature"]) -> Float[Array, " point"]:
        """Variance at each row of X (n, d), shape (n,)."""

    def symmetric_gram(self, X: Float[Array, "point feature"]) -> Float[Array, "point point_bis"]:
        """Gram matrix of X (n, d) with itself, exactly symmetric, with ``gram_diag`` on it."""
        K = self.gram(X, X)
        K = 0.5 * (K + K.T)
        i = jnp.arange(X.shape[0])
        return K.at[i, i].set(self.gram_diag(X))

    def diag(self, X: ArrayLike) -> Float[Array, " point"]:
        """Diagonal of ``kernel(X)``, (n,), without the matrix."""
        return self.gram_diag(_checks.inputs("X", X))

    def __call__(self, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        """Gram matrix of X (n, d) with Z (m, d): (n, m), or (n, n) without Z."""
        _checks.warn_32_bits("a kernel")
        X, Z = two_inputs(X, Z)
        return self.symmetric_gram(X) if Z is None else self.gram(X, Z)

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __radd__(self, other) -> "Kernel":  # sum() starts from 0
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __mul__(self, other) -> "Kernel":
        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, _checks.nonnegative("the other factor", other, ndim=0))

    __rmul__ = __mul__

    def on(self, columns: int | list[int] | np.ndarray) -> "Kernel":
        """Act on some columns of the inputs only; ``columns`` are their indices."""
        return Warped(self, _Columns(_checks.indices("columns", columns)))

    def warp(self, function: Callable) -> "Kernel":
        """Act on ``function(X)``, which maps (n, d) to (n, e).

        A function with parameters to infer is an `equinox.Module`; a plain function is taken as
        fixed, so define it once (a new lambda a call compiles anew).
        """
        _checks.function("function", function)
        return Warped(self, function if isinstance(function, eqx.Module) else _Function(function))


def two_inputs(X: ArrayLike, Z: ArrayLike | None) -> tuple[Array, Array | None]:
    """Convert inputs X (n, d) and Z (m, d), or None, to one dtype; reject different columns."""
    X = _checks.inputs("X", X)
    Z = Z if Z is None else _checks.inputs("Z", Z)
    if Z is not None and X.shape[1] != Z.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} columns and Z has {Z.shape[1]}; give both the same features"
        )
    if Z is None:
        return X, None
    dtype = jnp.promote_types(X.dtype, Z.dtype)
    return X.astype(dtype), Z.astype(dtype)


class Sum(Kernel):
    """Sum of two kernels: independent functions added."""

    left: Kernel
    right: Kernel

    def gram(self, X, Z):
        return self.left.gram(X, Z) + self.right.gram(X, Z)

    def symmetric_gram(self, X):
        return self.left.symmetric_gram(X) + self.right.symmetric_gram(X)

    def gram_diag(self, X):
        return self.left.gram_diag(X) + self.right.gram_diag(X)


class Product(Kernel):
    """Product of two kernels."""

    left: Kernel
    right: Kernel

    def gram(self, X, Z):
        return self.left.gram(X, Z) * self.right.gram(X, Z)

    def symmetric_gram(self, X):
        return self.left.symmetric_gram(X) * self.right.symmetric_gram(X)

    def gram_diag(self, X):
        return self.left.gram_diag(X) * self.right.gram_diag(X)


class Scaled(Kernel):
    """Kernel times a number."""

    kernel: Kernel
    factor: Float[Array, ""]

    def gram(self, X, Z):
        return self.factor * self.kernel.gram(X, Z)

    def symmetric_gram(self, X):
        return self.factor * self.kernel.symmetric_gram(X)

    def gram_diag(self, X):
        return self.factor * self.kernel.gram_diag(X)


class _Function(eqx.Module):
    function: Callable = eqx.field(static=True)

    def __call__(self, X):
        Z = _checks.returned("function", self.function(X))
        if Z.ndim != 2 or Z.shape[0] != X.shape[0]:
            raise ValueError(
                f"function returned shape {Z.shape} for inputs of shape {X.shape}; return (n, e)"
            )
        return Z


class _Columns(eqx.Module):
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X):
        if max(self.columns) >= X.shape[1] or min(self.columns) < -X.shape[1]:
            raise ValueError(
                f"columns {self.columns} are out of range for inputs with {X.shape[1]} columns; "
                "count from 0"
            )
        return X[:, jnp.array(self.columns)]


class Warped(Kernel):
    """Kernel of transformed inputs."""

    kernel: Kernel
    function: Callable

    def gram(self, X, Z):
        return self.kernel.gram(self.function(X), self.function(Z))

    def symmetric_gram(self, X):
        return self.kernel.symmetric_gram(self.function(X))

    def gram_diag(self, X):
        return self.kernel.gram_diag(self.function(X))


class MomentKernel(Kernel):
    """Kernel of the three inner products alone: x.x, z.z and x.z.

    A subclass has one elementwise method, ``moments``; its Gram matrix then costs one matrix
    product, and equal rows get the diagonal's value exactly, wherever they stand.
    """

    @abstractmethod
    def moments(self, xx: Array, zz: Array, xz: Array) -> Array:
        """Kernel value from inner products, elementwise on arrays that broadcast."""

    def diag_moments(self, xx: Array) -> Array:
        """Variance from x.x, elementwise; the default lets ``moments`` see one input twice."""
        return self.moments(xx, xx, xx)

    def gram(self, X, Z):
        xx, zz = (X**2).sum(-1)[:, None], (Z**2).sum(-1)[None, :]
        same = equal_rows(X, Z)
        # Equal rows get one and the same squared length whatever order the product sums in; half
        # from each side, so that the derivative in either input is right.
        half = 0.5 * (xx + zz)
        xz = jnp.where(same, half, X @ Z.T)
        return jnp.where(same, self.diag_moments(half), self.moments(xx, zz, xz))

    def gram_diag(self, X):
        return self.diag_moments((X**2).sum(-1))


def row_hashes(X: Float[Array, "n d"]) -> UInt32[Array, "n two"]:
    """Two 32-bit hashes of every row, some rows at a time: their words take twice X's memory."""
    X = lax.stop_gradient(X)
    n, size = X.shape[0], min(X.shape[0], _HASHED)
    if n == size:
        return _hashes(X)

    def step(found, i):
        part = _hashes(lax.dynamic_slice_in_dim(X, i, size))
        return lax.dynamic_update_slice_in_dim(found, part, i, 0), None

    starts = jnp.asarray([min(i, n - size) for i in range(0, n, size)])
    return lax.scan(step, jnp.zeros((n, 2), jnp.uint32), starts)[0]


def _hashes(X):
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


@jax.jit  # compiled, the differences are never stored
def squared_distance(X: Float[Array, "n d"], Z: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared Euclidean distances, exactly zero at equal rows.

    Few columns are subtracted one by one, with no cancellation; from 16 on, one product of
    centred inputs is used, whose absolute error is round-off of the inputs' squared spread.
    """
    if X.shape[1] <= 16:
        return ((X[:, None] - Z[None]) ** 2).sum(-1)
    centre = lax.stop_gradient(Z.mean(0))
    X, Z = X - centre, Z - centre
    squares = (X**2).sum(-1)[:, None] + (Z**2).sum(-1)[None] - 2.0 * X @ Z.T
    return jnp.where(equal_rows(X, Z), 0.0, jnp.clip(squares, 0.0))
