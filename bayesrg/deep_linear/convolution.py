# SPDX-License-Identifier: Apache-2.0
"""Order parameter of a network of convolutions, and the covariance of its functions given it.

The order parameter Q weights pairs of patches: output a at input x and output b at x' have the
covariance sum_ij Q_(ai),(bj) K_ij(x, x'), where K_ij compares patch i of x with patch j of x'.
The chain of Wishart matrices is that of arXiv 2406.03260.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..networks import ConvLinear
from .order import Bartlett, bartlett_factors, chain_sizes

_CONV = "a networks.ConvLinear, made of channels, masks and a ridge"


def conv_sizes(net: ConvLinear, inputs: int) -> tuple[Bartlett, ...]:
    """Return the sizes of the random factors, in the order L, ..., 1 in which they multiply.

    ``net`` is a ConvLinear, and ``inputs`` the number S_0 of sites of X (n, C_0, S_0). The factor
    of a layer is (rows, rank); the first has one row per output and site of layer L. A mask wider
    than the sites that it looks at raises ValueError.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    return chain_sizes(net.channels, net.outputs * net.sites(inputs)[-1], net.masks)


def conv_factor(
    net: ConvLinear, inputs: int, latents: Mapping[str, ArrayLike]
) -> Float[Array, "*batch output site rank"]:
    r"""Return a factor G (..., c, S_1, r) of the order parameter :math:`Q_1 = GG^T`.

    :math:`Q_L` is a Wishart matrix of :math:`C_L` degrees of freedom and mean :math:`1/S_L`. Given
    :math:`Q_l`, :math:`Q_{l-1}` is one of :math:`C_{l-1}` degrees of freedom and mean
    :math:`T_l[Q_l]`: each entry of :math:`Q_l` is spread over the sites that the masks see. A
    stride that skips sites makes :math:`T_l[Q_l]` singular, which a factor allows (arXiv
    2406.03260).

    Parameters
    ----------
    net : ConvLinear
    inputs : int, number S_0 of sites of X (n, C_0, S_0)
    latents : mapping
        For every layer l ``c{l}`` (..., pivots) and ``t{l}`` (..., entries), the numbers that
        `conv_sizes` counts: sites of the model deep_linear_conv, or draws of them. A name without
        numbers is left out.

    Raises
    ------
    ValueError
        For latents that are missing, not finite or of another shape, or negative ``c{l}``; for a
        mask that is wider than the sites that it looks at.
    """
    sizes = conv_sizes(net, inputs)
    factors = bartlett_factors(sizes, latents)
    sites, outputs = net.sites(inputs), net.outputs

    F = jnp.eye(outputs * sites[-1]) / np.sqrt(sites[-1])
    for size, B in zip(sizes, factors, strict=True):
        G = F @ B / np.sqrt(size.width)
        G = G.reshape(G.shape[:-2] + (outputs, sites[size.layer], size.rank))
        if size.layer > 1:
            below = size.layer - 1
            F = _spread(G, sites[below], net.masks[below], net.steps[below])
            F = F.reshape(F.shape[:-3] + (-1, F.shape[-1]))
    return _checks.defined("latents", G)


def conv_covariance(
    net: ConvLinear, X: ArrayLike, factor: ArrayLike
) -> Float[Array, "*batch output point output_bis point_bis"]:
    r"""Return the covariance (..., c, n, c, n) of the outputs given Q, without noise.

    It is :math:`\sum_{ij}Q_{(ai),(bj)}K_{ij}(x,x')` (arXiv 2406.03260).

    Parameters
    ----------
    net : ConvLinear
    X : (n, C_0, S_0), inputs
    factor : (..., c, S_1, r), factor of Q, from `conv_factor`

    Raises
    ------
    ValueError
        For mismatched shapes, or numbers that are not finite.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    X, factor = net.check(X), _checks.finite("factor", factor)
    expected = (net.outputs, net.sites(X.shape[2])[1])
    if factor.ndim < 3 or factor.shape[-3:-1] != expected or not factor.size:
        raise ValueError(
            f"factor has shape {factor.shape}; give (..., {expected[0]}, {expected[1]}, r), as "
            "conv_factor returns it for the sites of X"
        )

    # The covariance is a product F F^T: row (a, n) of F sums the patches of x_n, weighed by G.
    columns = jnp.einsum("nip,...air->...anpr", net.patches(X), factor)
    flat = columns.reshape(columns.shape[:-2] + (-1,))
    return _checks.defined("X or factor", jnp.einsum("...anq,...bmq->...anbm", flat, flat))


def _spread(G, sites, mask, stride):
    r"""Return a factor (..., c, sites, mask r) of :math:`T[GG^T]`, for G (..., c, S, r)."""
    # Site i of a layer sees the sites stride i + k below, for k up to the mask.
    parts = []
    for k in range(mask):
        seen = stride * np.arange(G.shape[-2]) + k
        parts.append(jnp.zeros(G.shape[:-2] + (sites, G.shape[-1])).at[..., seen, :].set(G))
    return jnp.concatenate(parts, -1) / np.sqrt(mask)
