# SPDX-License-Identifier: Apache-2.0
"""What the weights of a deep linear network determine: order parameter and prior excess."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .._checks import ArrayLike
from ..kernels import Linear
from ..networks import DeepLinear


def order_of_weights(net: DeepLinear, weights: Sequence[ArrayLike]) -> Float[Array, "..."]:
    r"""Return the order parameter Q (c, c) of ``weights``, matrices (N_l, N_{l-1}).

    :math:`Q = AA^T` with :math:`A = W_{L+1}\cdots W_2/(s_{L+1}\cdots s_2)`; the identity if there
    are no hidden layers.
    """
    A = jnp.eye(net.outputs)
    for W, scale in zip(weights[:0:-1], net.scales[:0:-1], strict=True):
        A = A @ jnp.asarray(W) / scale
    return A @ jnp.swapaxes(A, -1, -2)


def weight_excess(white: Sequence[ArrayLike]) -> Float[Array, "*batch level"]:
    r"""Return the excess :math:`\|z_l\|^2 - N_l N_{l-1}` of all layers, (..., L + 1).

    ``white`` holds the standardised weights z_l (..., N_l, N_{l-1}).
    """
    white = [jnp.asarray(z) for z in white]
    return jnp.stack([(z**2).sum((-2, -1)) - z.shape[-2] * z.shape[-1] for z in white], -1)


def input_kernel(net: DeepLinear, inputs: int) -> Linear:
    """Return the kernel of one output at order parameter 1, for ``inputs`` columns of X."""
    return Linear(net.kernel(jnp.eye(1, inputs))[0, 0])
