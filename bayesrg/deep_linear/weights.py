# SPDX-License-Identifier: Apache-2.0
"""What the weights of a deep linear network determine: order parameter and prior excess."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..networks import DeepLinear


def order_of_weights(
    net: DeepLinear, weights: Sequence[ArrayLike]
) -> Float[Array, "output output_bis"]:
    r"""Return the order parameter :math:`Q = AA^T` (c, c) of given weights.

    :math:`A = W_{L+1}\cdots W_2/(s_{L+1}\cdots s_2)`; without hidden layers Q is the identity
    (arXiv 2406.03260). ``weights`` are a list of (N_l, N_{l-1}), l = 1..L+1, as ``net.init`` or
    ``net.weights`` returns them. Other shapes, and weights that are not finite, raise ValueError.
    """
    _checks.instance("net", net, DeepLinear, _checks.NET)
    weights = _checks.matrices("weights", weights)
    shapes = tuple(W.shape for W in weights)
    if not weights or shapes != net.white_shapes(max(1, shapes[0][1])):
        raise ValueError(
            f"weights has shapes {shapes}, which do not fit widths {net.widths} and {net.outputs} "
            "output(s); give the weights of this network, as init returns them"
        )
    A = jnp.eye(net.outputs)
    for W, scale in zip(weights[:0:-1], net.scales[:0:-1], strict=True):
        A = A @ W / scale
    return _checks.defined("weights", A @ A.T)


def weight_excess(white: Sequence[ArrayLike]) -> Float[Array, "*batch level"]:
    r"""Return the excess :math:`\|z_l\|^2 - N_l N_{l-1}` of all layers, (..., L + 1).

    ``white`` holds the standardised weights z_l (..., N_l, N_{l-1}).
    """
    white = [jnp.asarray(z) for z in white]
    return jnp.stack([(z**2).sum((-2, -1)) - z.shape[-2] * z.shape[-1] for z in white], -1)
