# SPDX-License-Identifier: Apache-2.0
"""Make kernels from plain functions and from kernels of other packages."""

from collections.abc import Callable

import jax

from .. import _checks
from .._callables import as_pytree
from .base import Kernel


class Adapted(Kernel):
    """Kernel that calls a function of two sets of inputs. Made by `adapt`."""

    function: Callable

    def gram(self, X, Z):
        K = _checks.returned("kernel", self.function(X, Z))
        if K.shape != (X.shape[0], Z.shape[0]):
            raise ValueError(
                f"kernel returned shape {K.shape} for inputs of shapes {X.shape} and {Z.shape}; "
                "adapt needs a function from (n, d) and (m, d) to (n, m): if yours takes two "
                "single inputs, wrap it in jax.vmap twice"
            )
        return K

    def gram_diag(self, X):
        return jax.vmap(lambda x: self.gram(x[None], x[None])[0, 0])(X)


def adapt(kernel: Callable) -> Kernel:
    """Return a kernel made of any function that gives Gram matrices, such as a kernel of tinygp.

    Parameters
    ----------
    kernel : callable
        Maps X (n, d) and Z (m, d) to their Gram matrix (n, m). It is always called with both.
        Arrays inside it are parameters that can be sampled and differentiated: the leaves of a
        pytree (a kernel of tinygp, an `equinox.Module`), and arrays that a function captured.

    Returns
    -------
    Kernel
        It raises an error when it is called and the function returns another shape.

    Notes
    -----
    The function must be symmetric and positive semi-definite; this is not checked. The diagonal
    comes from calls with one row. Derivatives at equal inputs are those of the function itself.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesrg import kernels
    >>> def brownian(X, Z):
    ...     return jnp.minimum(X, Z.T)
    >>> kernel = 0.5 * kernels.adapt(brownian) + kernels.RBF(1.0)
    """
    if isinstance(kernel, Kernel):
        return kernel
    return Adapted(as_pytree(_checks.function("kernel", kernel, "a function of X and Z")))
