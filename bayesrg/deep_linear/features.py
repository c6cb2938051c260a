# SPDX-License-Identifier: Apache-2.0
"""Posterior feature kernels of every layer of a deep linear network, from its order parameter."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from .._checks import ArrayLike
from .._linalg import eigh
from .order import Bartlett, bartlett_factor
from .problem import Problem


class Features(NamedTuple):
    """One posterior draw: ``f`` (n, c) and the feature ``kernels`` (L, n, n) of all layers."""

    f: Float[Array, "point output"]
    kernels: Float[Array, "layer point point_bis"]


def _given(data, Q):
    """Posterior of f at an order parameter: V, and means and variances (r, c) in both bases."""
    q, V = eigh(Q)
    q = jnp.clip(q, 0.0)
    signal = data.values[:, None] * q
    total = signal + data.ridge
    share = jnp.where(total > 0, signal / jnp.where(total > 0, total, 1.0), 0.0)
    return V, share * (data.targets @ V), share * data.ridge, total, signal


def drive(data: Problem, Q: ArrayLike) -> Float[Array, ""]:
    r"""Drive :math:`\Delta(Q)` of the order parameter by the data.

    .. math:: \Delta(Q) = \sum_{ia}\left[\kappa_i q_a R_{ia}^2/C_{ia}^2 - \kappa_i q_a/C_{ia}
              \right],\qquad C_{ia} = \kappa_i q_a + T.

    Its posterior mean equals that of the excess of every layer, at any width: a test of samplers.

    Parameters
    ----------
    data : Problem, of JAX arrays
    Q : (c, c)

    Returns
    -------
    ()
    """
    Q = jnp.asarray(Q)
    V, _, _, total, signal = _given(data, Q)
    safe = jnp.where(total > 0, total, 1.0)
    R = data.targets @ V
    return jnp.where(total > 0, signal / safe * (R**2 / safe - 1.0), 0.0).sum()


def _left_inverse(G):
    """Pseudo-inverse (r, c) of a factor (c, r); one of full size is a lower triangle."""
    if G.shape[-1] == G.shape[-2]:
        return solve_triangular(G, jnp.eye(G.shape[-1], dtype=G.dtype), lower=True)
    return jnp.linalg.pinv(G)


def prior_features(data: Problem) -> Float[Array, "layer point point_bis"]:
    r"""Prior means :math:`s_1^2\cdots s_l^2 XX^T/N_0` of the feature kernels of ``data``.

    (L, n, n), l = 1..L.
    """
    X = (data.vectors * data.input_values) @ data.vectors.T
    return jnp.cumprod(data.scales[:-1] ** 2)[:, None, None] * X


def feature_means(
    data: Problem, chain: Sequence[ArrayLike]
) -> Float[Array, "layer point point_bis"]:
    r"""Posterior means of all feature kernels given the chain of the order parameter.

    .. math:: M_l = (1 - r_l/N_l) s_l^2 M_{l-1}
              + E[f Q_{l+1}^+ f^T | chain, Y]/(N_l t_l),\qquad M_0 = XX^T/N_0.

    Averaged over posterior draws of the chain it is the mean of :math:`\Phi_l = H_l H_l^T/N_l`
    with less noise than the average of `feature_draw` (Rao-Blackwell).

    Parameters
    ----------
    data : Problem, of JAX arrays
    chain : (G_1, ..., G_L), factors (c, r_l) of `order_parameter`

    Returns
    -------
    (L, n, n)

    References
    ----------
    arXiv 2111.11954 for the first layer; the recursion is the package's own.
    """
    chain = [jnp.asarray(G) for G in chain]
    Q = chain[0] @ chain[0].T if chain else jnp.eye(data.outputs)
    V, mean, variance, _, _ = _given(data, Q)
    variance = variance * (data.values[:, None] > 0)
    U, scales = data.vectors, data.scales
    M, result = (U * data.input_values) @ U.T, []
    for layer, (G, width) in enumerate(zip(chain, data.widths, strict=True)):
        side = _left_inverse(G) @ V
        low = U @ (mean @ side.T)
        spread = (U * (variance @ (side**2).sum(0))) @ U.T
        above = (scales[layer + 1 :] ** 2).prod()
        free = (1.0 - G.shape[1] / width) * scales[layer] ** 2
        M = free * M + (low @ low.T + spread) / (width * above)
        result.append(M)
    return jnp.stack(result) if result else jnp.zeros((0, *M.shape))


def feature_draw(key: Array, data: Problem, chain: Sequence[ArrayLike]) -> Features:
    r"""Draw the function and all feature kernels given the chain of the order parameter.

    In every layer the units along the weights above are fixed by f; the others stay at the prior:
    :math:`N_l\Phi_l = Z_l Z_l^T + W_P(N_l - r_l, s_l^2\Phi_{l-1})`, :math:`W_P` a Wishart matrix.
    The cost does not depend on the widths.

    Parameters
    ----------
    key : JAX key
    data : Problem, of JAX arrays
    chain : (G_1, ..., G_L), factors (c, r_l) of `order_parameter`, one posterior draw

    Returns
    -------
    Features
        With the law of f and kernels under a draw of all weights.

    References
    ----------
    arXiv 2111.11954 for the first layer; the recursion is the package's own.
    """
    chain = [jnp.asarray(G) for G in chain]
    Q = chain[0] @ chain[0].T if chain else jnp.eye(data.outputs)
    V, mean, variance, _, _ = _given(data, Q)
    U, scales = data.vectors, data.scales
    keys = random.split(key, 3)
    f = mean + jnp.sqrt(variance) * random.normal(keys[0], mean.shape, mean.dtype)
    f = U @ f @ V.T
    A, result = U * jnp.sqrt(data.input_values), []
    factors = _white_factors(keys[1:], data.widths, chain, A)
    for layer, (G, width, B) in enumerate(zip(chain, data.widths, factors, strict=True)):
        above = (scales[layer + 1 :] ** 2).prod()
        Z = f @ _left_inverse(G).T / jnp.sqrt(above)
        A = jnp.concatenate([Z, scales[layer] * A @ B], 1) / np.sqrt(width)
        result.append(A @ A.T)
    return Features(f, jnp.stack(result) if result else jnp.zeros((0, U.shape[0], U.shape[0])))


def _white_factors(keys, widths, chain, A):
    """Factors of unit Wishart matrices, one per layer, for the units that f does not see."""
    sizes, columns = [], A.shape[1]
    for layer, (G, width) in enumerate(zip(chain, widths, strict=True), 1):
        sizes.append(Bartlett(layer, width - G.shape[1], columns))
        columns = G.shape[1] + sizes[-1].rank
    dof = np.concatenate([np.empty(0), *(size.dof for size in sizes)])
    squares = 2.0 * random.gamma(keys[0], dof / 2.0, dtype=A.dtype)
    normals = random.normal(keys[1], (sum(size.normals for size in sizes),), A.dtype)
    first = np.cumsum([0] + [size.rank for size in sizes])
    other = np.cumsum([0] + [size.normals for size in sizes])
    return [
        bartlett_factor(size, squares[i : i + size.rank], normals[j : j + size.normals])
        for size, i, j in zip(sizes, first, other, strict=False)
    ]
