# SPDX-License-Identifier: Apache-2.0
"""The base class of all kernels, their sums, products and powers, and two constant kernels."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._prior import PriorAt
from .rows import equal_rows


class Kernel(eqx.Module):
    """Covariance function: a positive semi-definite function of two inputs.

    ``kernel(X)`` is the Gram matrix (n, n) of inputs X (n, d). It is exactly symmetric, and its
    diagonal equals ``kernel.diag(X)`` (n,). ``kernel(X, Z)`` is the Gram matrix (n, m) between X
    and Z (m, d). Inputs of shape (n,) count as one column. Kernels can be added and multiplied,
    with each other and with numbers >= 0, and raised to whole powers: ``2.0 * k ** 2 + 1.0``.
    """

    @abstractmethod
    def gram(
        self, X: Float[Array, "point feature"], Z: Float[Array, "point_new feature"]
    ) -> Float[Array, "point point_new"]:
        """Gram matrix (n, m) between X (n, d) and Z (m, d), in units of variance."""

    @abstractmethod
    def gram_diag(self, X: Float[Array, "point feature"]) -> Float[Array, " point"]:
        """Variance (n,) at each row of X (n, d)."""

    def symmetric_gram(self, X: Float[Array, "point feature"]) -> Float[Array, "point point_bis"]:
        """Gram matrix (n, n) of X (n, d): exactly symmetric, with ``gram_diag`` on the diagonal."""
        return _symmetric(self.gram(X, X), self.gram_diag(X))

    def diag(self, X: ArrayLike) -> Float[Array, " point"]:
        """Diagonal (n,) of ``kernel(X)`` at X (n, d), computed without the matrix."""
        return self.gram_diag(_checks.inputs("X", X))

    def __call__(self, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        """Gram matrix (n, m) between X (n, d) and Z (m, d), or (n, n) of X alone."""
        _checks.warn_32_bits("a kernel")
        X, Z = two_inputs(X, Z)
        return self.symmetric_gram(X) if Z is None else self.gram(X, Z)

    def at(self, X: ArrayLike) -> PriorAt:
        """Return the prior at X (n, d), without explicit modes: its covariance is all residual."""
        K = self(_checks.inputs("X", X, wide=True))
        return PriorAt(np.zeros((K.shape[0], 0), K.dtype), np.zeros(0, K.dtype), K)

    def warn_if_shared(self, X: Array) -> None:
        """Do nothing: a kernel has no modes that could be made from the training inputs X."""

    def __add__(self, other) -> "Kernel":
        if not isinstance(other, Kernel):
            other = Constant(_checks.nonnegative("the other term", other, ndim=0))
        return Sum(self, other)

    def __radd__(self, other) -> "Kernel":  # sum() starts from 0
        return self if isinstance(other, int) and other == 0 else self + other

    def __mul__(self, other) -> "Kernel":
        if isinstance(other, Kernel):
            return Product(self, other)
        return Scaled(self, _checks.nonnegative("the other factor", other, ndim=0))

    __rmul__ = __mul__

    def __pow__(self, exponent) -> "Kernel":
        return Power(self, _checks.whole("exponent", exponent))

    def on(self, columns: int | list[int] | np.ndarray) -> "Kernel":
        """Return a kernel that sees only some columns of the inputs.

        Parameters
        ----------
        columns : int or sequence of int
            Indices of the columns, from 0.
        """
        return Warped(self, _Columns(_checks.indices("columns", columns)))

    def warp(self, function: Callable) -> "Kernel":
        """Return a kernel of transformed inputs: ``kernel(function(X), function(Z))``.

        Parameters
        ----------
        function : callable
            Maps X (n, d) to (n, e). Arrays that it captured, or that an `equinox.Module` holds,
            are parameters: they can be sampled and differentiated.
        """
        _checks.function("function", function)
        return Warped(self, as_pytree(function))


@jax.jit
def _symmetric(K, diagonal):
    """Make a matrix (n, n) exactly symmetric, with ``diagonal`` (n,) on it."""
    K = lax.optimization_barrier(K)  # else XLA computes each entry twice, for K and K.T
    i = jnp.arange(K.shape[0])  # the derivative of writing to the diagonal would be slow
    return jnp.where(i[:, None] == i, diagonal[:, None], 0.5 * (K + K.T))


def two_inputs(X: ArrayLike, Z: ArrayLike | None) -> tuple[Array, Array | None]:
    """Convert inputs X (n, d) and Z (m, d) to one dtype, and check that their columns agree.

    Z may be None and is then returned as None.
    """
    X = _checks.inputs("X", X)
    if Z is None:
        return X, None
    Z = _checks.inputs("Z", Z)
    _checks.columns("X", X, Z.shape[1], "Z")
    dtype = jnp.promote_types(X.dtype, Z.dtype)
    return X.astype(dtype), Z.astype(dtype)


class Entrywise(Kernel):
    """Base class of kernels whose entries are a function of the same entries of other kernels."""

    @abstractmethod
    def combine(self, entries: Callable[[Kernel], Array]) -> Array:
        """Entries of this kernel, from a function that gives those of any other kernel."""

    def gram(self, X, Z):
        return self.combine(lambda kernel: kernel.gram(X, Z))

    def symmetric_gram(self, X):
        return self.combine(lambda kernel: kernel.symmetric_gram(X))

    def gram_diag(self, X):
        return self.combine(lambda kernel: kernel.gram_diag(X))


class Sum(Entrywise):
    """Sum of two kernels: covariance of the sum of two independent functions."""

    left: Kernel
    right: Kernel

    def combine(self, entries):
        return entries(self.left) + entries(self.right)


class Product(Entrywise):
    """Product of two kernels, entry by entry."""

    left: Kernel
    right: Kernel

    def combine(self, entries):
        return entries(self.left) * entries(self.right)


class Scaled(Entrywise):
    """Kernel times a number ``factor`` >= 0."""

    kernel: Kernel
    factor: Float[Array, ""]

    def combine(self, entries):
        return self.factor * entries(self.kernel)


class Power(Entrywise):
    """Kernel to a whole power ``exponent`` >= 1, entry by entry."""

    kernel: Kernel
    exponent: int = eqx.field(static=True)

    def combine(self, entries):
        return entries(self.kernel) ** self.exponent


as_variance = partial(_checks.nonnegative, "variance", ndim=0)


class Constant(Kernel):
    """Kernel of an unknown constant: covariance ``variance`` () between any two inputs.

    ``kernel + 1.0`` means ``kernel + Constant(1.0)``.
    """

    variance: Float[Array, ""] = eqx.field(converter=as_variance, default=1.0)

    def gram(self, X, Z):
        return jnp.broadcast_to(self.variance, (X.shape[0], Z.shape[0]))

    def gram_diag(self, X):
        return jnp.broadcast_to(self.variance, X.shape[:1])


class White(Kernel):
    """Kernel of white noise over inputs: ``variance`` () at equal inputs, 0 between others.

    Two rows are equal if all their entries are. So the Gram matrix of distinct rows is a multiple
    of the identity, and ``kernel(X, Z)`` is nonzero only where a row of Z equals a row of X. Rows
    that repeat share one value of the noise. For measurement noise, which differs between two
    measurements at the same input, use the ridge of a likelihood instead. Derivatives in the
    inputs are zero.
    """

    variance: Float[Array, ""] = eqx.field(converter=as_variance, default=1.0)

    @eqx.filter_jit
    def gram(self, X, Z):
        return jnp.where(equal_rows(X, Z), self.variance, 0.0)

    def gram_diag(self, X):
        return jnp.broadcast_to(self.variance, X.shape[:1])


class _Columns(eqx.Module):
    """Function that picks columns of its input (n, d)."""

    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, X):
        if max(self.columns) >= X.shape[1] or min(self.columns) < -X.shape[1]:
            raise ValueError(
                f"columns {self.columns} are out of range for inputs with {X.shape[1]} columns; "
                "count from 0"
            )
        return X[:, jnp.array(self.columns)]


class Warped(Kernel):
    """Kernel of transformed inputs. Made by `Kernel.warp` and `Kernel.on`."""

    kernel: Kernel
    function: Callable

    def gram(self, X, Z):
        return self.kernel.gram(self._warped(X), self._warped(Z))

    def symmetric_gram(self, X):
        return self.kernel.symmetric_gram(self._warped(X))

    def gram_diag(self, X):
        return self.kernel.gram_diag(self._warped(X))

    def _warped(self, X):
        moved = _checks.returned("function", self.function(X))
        if moved.ndim != 2 or len(moved) != len(X):
            raise ValueError(
                f"function returned shape {moved.shape} for {len(X)} rows; return ({len(X)}, e)"
            )
        return moved
