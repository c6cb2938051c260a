# SPDX-License-Identifier: Apache-2.0
"""The local order parameter of a network of convolutions: its law, and the functions given it."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import quad_logdet
from ..networks import ConvLinear
from .order import Bartlett, bartlett_factors

_LARGEST = 500  # rows of the covariance that every draw factorises
_CONV = "a ConvLinear"


def conv_sizes(net: ConvLinear, inputs: int) -> tuple[Bartlett, ...]:
    """List the sizes of the random factors, in the order L, ..., 1 in which they multiply.

    Parameters
    ----------
    net : ConvLinear
    inputs : int
        Number S_0 of sites of X (n, C_0, S_0).

    Returns
    -------
    tuple of Bartlett, (L,)
        Each factor is (rows, rank); the first has a row for each output and site of layer L.

    Raises
    ------
    ValueError
        If ``net`` is of another kind, or a mask is wider than what it looks at.

    References
    ----------
    arXiv 2406.03260.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    sites, result = net.sites(inputs), []
    rows = net.outputs * sites[-1]
    for layer in range(net.depth, 0, -1):
        result.append(Bartlett(layer, net.channels[layer - 1], rows))
        rows = result[-1].rank * net.masks[layer - 1]
    return tuple(result)


def conv_factor(
    net: ConvLinear, inputs: int, latents: Mapping[str, ArrayLike]
) -> Float[Array, "*batch output site rank"]:
    r"""Factor G of the order parameter :math:`Q_1 = GG^T` that correlates sites and outputs.

    :math:`Q_L` is Wishart with :math:`C_L` degrees of freedom around :math:`1/S_L`, and
    :math:`Q_{l-1}` given :math:`Q_l` with :math:`C_{l-1}` around :math:`T_l[Q_l]`, which adds
    up what the mask sees. Factors and not matrices are mapped, so that sites which a stride
    skips do no harm.

    Parameters
    ----------
    net : ConvLinear
    inputs : int
        Number S_0 of sites of X (n, C_0, S_0).
    latents : mapping
        For every layer ``c{l}`` (..., pivots) and ``t{l}`` (..., entries), the numbers that
        `conv_sizes` counts: sites of the model deep_linear_conv, or draws of them. A name without
        numbers is left out.

    Returns
    -------
    (..., c, S_1, r)

    Raises
    ------
    ValueError
        As `conv_sizes`, and for latents that are missing, not finite or of another shape, or
        negative squares ``c{l}``.

    References
    ----------
    arXiv 2406.03260.
    """
    sizes = conv_sizes(net, inputs)
    factors = bartlett_factors(sizes, latents)
    sites, outputs = net.sites(inputs), net.outputs
    F = jnp.eye(outputs * sites[-1]) / np.sqrt(sites[-1])
    for size, B in zip(sizes, factors, strict=True):
        G = F @ B / np.sqrt(size.width)
        G = G.reshape(G.shape[:-2] + (outputs, sites[size.layer], size.rank))
        if size.layer > 1:
            i = size.layer - 1
            F = _spread(G, sites[i], net.masks[i], net.steps[i])
            F = F.reshape(F.shape[:-3] + (outputs * sites[i], F.shape[-1]))
    return _checks.defined("latents", G)


def conv_covariance(
    net: ConvLinear, X: ArrayLike, factor: ArrayLike
) -> Float[Array, "*batch output point output_bis point_bis"]:
    r"""Covariance :math:`\sum_{ii'}Q_{(ai),(bi')}K_{ii'}(x,x')` of the functions given Q.

    Parameters
    ----------
    net : ConvLinear
    X : (n, C_0, S_0)
    factor : (..., c, S_1, r)
        Factor of the order parameter, from `conv_factor`.

    Returns
    -------
    (..., c, n, c, n)
        Without noise.

    Raises
    ------
    ValueError
        For mismatched shapes, or numbers that are not finite.

    References
    ----------
    arXiv 2406.03260.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    X, factor = net.check(X), _checks.finite("factor", factor)
    expected = (net.outputs, net.sites(X.shape[2])[1])
    if factor.ndim < 3 or factor.shape[-3:-1] != expected or not factor.size:
        raise ValueError(
            f"factor has shape {factor.shape}; give (..., {expected[0]}, {expected[1]}, r), as "
            "conv_factor returns it for the sites of X"
        )
    columns = jnp.einsum("nip,...air->...anpr", net.patches(X), factor)
    flat = columns.reshape(columns.shape[:-2] + (-1,))
    return _checks.defined("X or factor", jnp.einsum("...anq,...bmq->...anbm", flat, flat))


def conv_log_likelihood(
    net: ConvLinear, X: ArrayLike, Y: ArrayLike, factor: ArrayLike
) -> Float[Array, "*batch"]:
    """Log density of targets given the order parameter, by one dense Cholesky factor.

    Parameters
    ----------
    net : ConvLinear
    X : (n, C_0, S_0)
    Y : (n,) or (n, c), with n c at most 500, as local kernels share no eigenvectors
    factor : (..., c, S_1, r)
        Factor of the order parameter, from `conv_factor`.

    Returns
    -------
    (...)

    Raises
    ------
    ValueError
        For mismatched shapes, numbers that are not finite, more than 500 targets, or a covariance
        that is singular because there is no noise.

    References
    ----------
    arXiv 2406.03260.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    X = net.check(X)
    Y = _checks.targets("Y", Y, X.shape[0]).reshape(X.shape[0], -1)
    n, c = Y.shape
    if c != net.outputs:
        raise ValueError(
            f"Y has {c} columns and the network {net.outputs} output(s); give one column per output"
        )
    if n * c > _LARGEST:
        raise ValueError(
            f"Y has {n * c} entries, and their covariance is factorised at every draw; give "
            f"at most {_LARGEST}"
        )
    C = conv_covariance(net, X, factor)
    C = C.reshape(C.shape[:-4] + (n * c, n * c)) + net.ridge * jnp.eye(n * c)
    y = jnp.broadcast_to(Y.T.reshape(-1), C.shape[:-1])
    quad, log_det = quad_logdet(C, y[..., None, :])
    density = -0.5 * (quad[..., 0] + log_det + n * c * np.log(2 * np.pi))
    return _checks.defined("X, Y or factor", density)


def _spread(G, sites, mask, stride):
    r"""Factor of :math:`T[GG^T]`: (..., c, sites, mask r) from (..., c, S, r)."""
    parts = []
    for k in range(mask):
        seen = stride * np.arange(G.shape[-2]) + k
        parts.append(jnp.zeros(G.shape[:-2] + (sites, G.shape[-1])).at[..., seen, :].set(G))
    return jnp.concatenate(parts, -1) / np.sqrt(mask)


def order_fourth_moment(net: ConvLinear, inputs: int) -> Float[np.ndarray, "i j k l"]:
    r"""Prior mean of :math:`Q_{ij}Q_{kl}` over outputs and sites.

    For W Wishart with C degrees of freedom around :math:`\Sigma`,
    :math:`E W_{ij}W_{kl} = E\Sigma_{ij}\Sigma_{kl} + (E\Sigma_{ik}\Sigma_{jl} +
    E\Sigma_{il}\Sigma_{jk})/C`, then T on both pairs of indices.

    Parameters
    ----------
    net : ConvLinear
    inputs : sites S_0 of X

    Returns
    -------
    (s, s, s, s), with s = D S_1
        On the host, with outputs slowest; the mean of Q is 1 / S_L through all T.
    """
    _checks.instance("net", net, ConvLinear, _CONV)
    sites, c = net.sites(inputs), net.outputs
    eye = np.eye(c * sites[-1]) / sites[-1]
    E = np.einsum("ij,kl->ijkl", eye, eye)
    for layer in range(net.depth, 0, -1):
        other = np.einsum("ikjl->ijkl", E) + np.einsum("iljk->ijkl", E)
        E = E + other / net.channels[layer - 1]
        if layer > 1:
            T = _transfer(net, sites, layer)
            E = np.einsum("kia,kjb,hlc,hmd,abcd->ijlm", T, T, T, T, E, optimize=True)
    return E


def _transfer(net, sites, layer):
    """Matrices (m, D S_{l-1}, D S_l) with T[Q] the sum of A Q A^T over the first axis."""
    i = layer - 1
    G = np.eye(net.outputs * sites[layer]).reshape(net.outputs, sites[layer], -1)
    F = np.asarray(_spread(jnp.asarray(G), sites[i], net.masks[i], net.steps[i]))
    F = F.reshape(net.outputs * sites[i], net.masks[i], -1)
    return np.moveaxis(F, 1, 0)
