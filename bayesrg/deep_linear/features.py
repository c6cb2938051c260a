# SPDX-License-Identifier: Apache-2.0
"""Posterior feature kernels of all layers of a deep linear network, given its order parameter.

`Problem` arguments hold JAX arrays, from `Problem.as_jax`. The factors G_l (c, r_l) of a chain are
those that `order_parameter` returns. First layer: arXiv 2111.11954; the recursion over layers is
the package's own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from .._checks import ArrayLike
from .._linalg import eigh, ratio
from .order import Bartlett, bartlett_factor
from .problem import Problem


class Features(NamedTuple):
    """One posterior draw: the function ``f`` (n, c) and feature ``kernels`` (L, n, n)."""

    f: Float[Array, "point output"]
    kernels: Float[Array, "layer point point_bis"]


def _eigenbasis(data, Q):
    """Return eigenvectors V (c, c) of Q, and the variance of signal and of targets, (r, c) each.

    In the eigenbases of the kernel and of Q all entries of the targets are independent.
    """
    q, V = eigh(Q)
    signal = data.values[:, None] * jnp.clip(q, 0.0)
    return V, signal, signal + data.ridge


def _function(data, chain):
    """Return V (c, c), and mean and variance of f (r, c) in both eigenbases, given a chain."""
    V, signal, total = _eigenbasis(data, chain[0] @ chain[0].T if chain else jnp.eye(data.outputs))
    share = ratio(signal, total)
    return V, share * (data.targets @ V), share * data.ridge


def drive(data: Problem, Q: ArrayLike) -> Float[Array, ""]:
    r"""Return the drive :math:`\Delta(Q)`: how strongly the data change Q (c, c).

    .. math:: \Delta(Q) = \sum_{ia}\left[\kappa_i q_a R_{ia}^2/C_{ia}^2 - \kappa_i q_a/C_{ia}
              \right],\qquad C_{ia} = \kappa_i q_a + T,

    where R are the targets in the eigenbases of the kernel and of Q. The posterior mean of the
    drive equals the posterior mean of the excess of every layer, at any width. This identity is a
    test of samplers.
    """
    V, signal, total = _eigenbasis(data, jnp.asarray(Q))
    return (ratio(signal, total) * (ratio((data.targets @ V) ** 2, total) - 1.0)).sum()


def _left_inverse(G):
    """Pseudo-inverse (r, c) of a factor G (c, r); a square G is lower triangular."""
    if G.shape[-1] == G.shape[-2]:
        return solve_triangular(G, jnp.eye(G.shape[-1], dtype=G.dtype), lower=True)
    return jnp.linalg.pinv(G)


def prior_features(data: Problem) -> Float[Array, "layer point point_bis"]:
    r"""Return the prior means of the feature kernels of ``data``, (L, n, n).

    Entry l = 1..L is :math:`s_1^2\cdots s_l^2 XX^T/N_0`.
    """
    X = (data.vectors * data.input_values) @ data.vectors.T
    return jnp.cumprod(data.scales[:-1] ** 2)[:, None, None] * X


def feature_means(
    data: Problem, chain: Sequence[ArrayLike]
) -> Float[Array, "layer point point_bis"]:
    r"""Return the posterior means of all feature kernels, (L, n, n), given a chain of factors.

    .. math:: M_l = (1 - r_l/N_l) s_l^2 M_{l-1}
              + E[f Q_{l+1}^+ f^T | chain, Y]/(N_l t_l),\qquad M_0 = XX^T/N_0,

    with :math:`Q_{l+1} = G_l G_l^T` and :math:`t_l` the product of the squared scales above layer
    l. The average of :math:`M_l` over posterior draws of the chain is the posterior mean of
    :math:`\Phi_l = H_l H_l^T/N_l`. It has less noise than an average over draws of :math:`\Phi_l`
    (Rao-Blackwell).
    """
    chain = [jnp.asarray(G) for G in chain]
    V, mean, variance = _function(data, chain)
    U, scales = data.vectors, data.scales
    M, result = (U * data.input_values) @ U.T, []
    for layer, (G, width) in enumerate(zip(chain, data.widths, strict=True)):
        # The r_l units that f depends on: square of their mean, plus the spread of f given Q.
        side = _left_inverse(G) @ V
        low = U @ (mean @ side.T)
        spread = (U * (variance @ (side**2).sum(0))) @ U.T

        # The other N_l - r_l units keep the prior given the layer below.
        above = (scales[layer + 1 :] ** 2).prod()
        free = (1.0 - G.shape[1] / width) * scales[layer] ** 2
        M = free * M + (low @ low.T + spread) / (width * above)
        result.append(M)
    return jnp.stack(result) if result else jnp.zeros((0, *M.shape))


def feature_draw(key: Array, data: Problem, chain: Sequence[ArrayLike]) -> Features:
    r"""Draw the function and all feature kernels, given the chain of factors of one draw of Q.

    In every layer f fixes the :math:`r_l` combinations of units that the weights above read. The
    other combinations keep their prior: :math:`N_l\Phi_l = Z_l Z_l^T + W_l`, where :math:`W_l` is
    a Wishart matrix of :math:`N_l - r_l` degrees of freedom and scale :math:`s_l^2\Phi_{l-1}`. So f
    and kernels have the law of those of a posterior draw of all weights. The cost does not depend
    on the widths.
    """
    chain = [jnp.asarray(G) for G in chain]
    V, mean, variance = _function(data, chain)
    U, scales = data.vectors, data.scales
    keys = random.split(key, 3)
    f = mean + jnp.sqrt(variance) * random.normal(keys[0], mean.shape, mean.dtype)
    f = U @ f @ V.T

    # Every layer is a factor A with kernel A A^T, of at most n + r_l columns, whatever the width.
    A, result = U * jnp.sqrt(data.input_values), []
    factors = _white_factors(keys[1:], data.widths, chain, A)
    for layer, (G, width, B) in enumerate(zip(chain, data.widths, factors, strict=True)):
        above = (scales[layer + 1 :] ** 2).prod()
        Z = f @ _left_inverse(G).T / jnp.sqrt(above)
        A = jnp.concatenate([Z, scales[layer] * A @ B], 1) / np.sqrt(width)
        result.append(A @ A.T)
    return Features(f, jnp.stack(result) if result else jnp.zeros((0, U.shape[0], U.shape[0])))


def _white_factors(keys, widths, chain, A):
    """Draw factors of unit Wishart matrices, one per layer, for the units that f leaves free."""
    # A Wishart matrix around A A^T is A B (A B)^T, with the Bartlett factor B of a unit one.
    sizes, columns = [], A.shape[1]
    for layer, (G, width) in enumerate(zip(chain, widths, strict=True), 1):
        sizes.append(Bartlett(layer, width - G.shape[1], columns))
        columns = G.shape[1] + sizes[-1].rank
    dof = np.concatenate([np.empty(0), *(size.dof for size in sizes)])
    squares = 2.0 * random.gamma(keys[0], dof / 2.0, dtype=A.dtype)
    normals = random.normal(keys[1], (sum(size.normals for size in sizes),), A.dtype)

    # One draw serves all layers; cut it into their parts.
    first = np.cumsum([0] + [size.rank for size in sizes])
    other = np.cumsum([0] + [size.normals for size in sizes])
    return [
        bartlett_factor(size, squares[i : i + size.rank], normals[j : j + size.normals])
        for size, i, j in zip(sizes, first, other, strict=False)
    ]
