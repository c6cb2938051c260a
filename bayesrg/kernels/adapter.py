# SPDX-License-Identifier: Apache-2.0
"""Kernels of other packages, and plain functions, as kernels of this one."""

from collections.abc import Callable

import jax

from .. import _checks
from .._callables import as_pytree
from .base import Kernel


class Adapted(Kernel):
    """Kernel that calls a given function of two sets of inputs; see `adapt`."""

    function: Callable
    diagonal: Callable | None

    def gram(self, X, Z):
        K = _checks.returned("kernel", self.function(X, Z))
        if K.shape != (X.shape[0], Z.shape[0]):
            raise ValueError(
                f"kernel returned shape {K.shape} for inputs of shapes {X.shape} and {Z.shape}; "
                "adapt takes a function of two sets of inputs, rows of (n, d) and (m, d), that "
                "returns (n, m): wrap one of two single inputs in jax.vmap twice"
            )
        return K

    def gram_diag(self, X):
        if self.diagonal is None:
            return jax.vmap(lambda x: self.gram(x[None], x[None])[0, 0])(X)
        diagonal = _checks.returned("diag", self.diagonal(X))
        if diagonal.shape != X.shape[:1]:
            raise ValueError(
                f"diag returned shape {diagonal.shape} for inputs of shape {X.shape}; return one "
                "number per row, (n,)"
            )
        return diagonal


def adapt(kernel: Callable, diag: Callable | None = None) -> Kernel:
    """Make a kernel of any function that gives Gram matrices, such as a kernel of tinygp.

    Parameters
    ----------
    kernel : callable
        From X (n, d) and Z (m, d) to their Gram matrix (n, m); it is always called with both.
        Its parameters can be sampled and differentiated: the arrays of a pytree (a kernel of
        tinygp, an `equinox.Module`), and those that a function captured.
    diag : callable, optional
        From X (n, d) to the diagonal (n,); by default every row is paired with itself.

    Returns
    -------
    Kernel

    Raises
    ------
    ValueError
        When called, for a result of another shape.

    Notes
    -----
    That it is symmetric and positive semi-definite is taken on trust, and its derivatives at
    coincident inputs are as good as the function's own.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesrg import kernels
    >>> def brownian(X, Z):
    ...     return jnp.minimum(X, Z.T)
    >>> kernel = 0.5 * kernels.adapt(brownian) + kernels.RBF(1.0)
    """
    if isinstance(kernel, Kernel) and diag is None:
        return kernel
    _checks.function("kernel", kernel, "a function of X and Z")
    if diag is not None:
        _checks.function("diag", diag, "a function of X")
    return Adapted(as_pytree(kernel), None if diag is None else as_pytree(diag))
