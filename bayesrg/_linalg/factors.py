# SPDX-License-Identifier: Apache-2.0
"""Cholesky factors, and what is computed from them."""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from .digits import LARGER, check_factor


def factor(C, remedy=LARGER, margin=1.0):
    """Return the Cholesky factor (..., n, n) of C (..., n, n), after `check_factor`."""
    L = jnp.linalg.cholesky(C)
    check_factor(L, remedy, margin)
    return L


@jax.custom_jvp
def quad_logdet(C, b):
    r"""Return :math:`b^T C^{-1} b` for every row of ``b``, and :math:`\ln|C|`, from one factor.

    Parameters
    ----------
    C : (..., n, n)
        Symmetric and positive definite; otherwise the results are nan.
    b : (..., m, n)
        One right-hand side per row.

    Returns
    -------
    quad : (..., m)
    log_det : (...)

    Notes
    -----
    The derivative is written by hand. With :math:`a = C^{-1}b` the changes are
    :math:`2 a^T db - a^T dC\, a` and :math:`\mathrm{tr}(C^{-1} dC)`. The automatic derivative of
    a Cholesky factor is several times slower inside a sampler, because it solves triangular
    systems with n right-hand sides.
    """
    L = jnp.linalg.cholesky(C)
    z = solve_triangular(L, jnp.swapaxes(b, -1, -2), lower=True)
    return (z**2).sum(-2), log_det(L)


@quad_logdet.defjvp
def _quad_logdet_jvp(primals, tangents):
    C, b = primals
    dC, db = tangents
    L = jnp.linalg.cholesky(C)
    precision = inverse(L)
    a = b @ precision  # rows C^-1 b
    d_quad = 2.0 * (a * db).sum(-1) - jnp.einsum("...mi,...ij,...mj->...m", a, dC, a)
    return ((a * b).sum(-1), log_det(L)), (d_quad, (precision * dC).sum((-2, -1)))


def inverse(L):
    """Return the inverse (..., n, n) of ``L L^T`` for lower triangular L (..., n, n)."""
    return _inverses(L, factor=False)[1]


_BLOCK = 64  # smaller matrices are not split into blocks: the overhead would cost more


def _inverses(L, factor=True):
    """Return the inverses (..., n, n) of lower triangular matrices L (..., n, n), and of L L^T.

    The first is None if it is not asked for (``factor``).
    """
    # Split into blocks [[A, 0], [B, C]]: matrix products are faster than triangular solves. Only
    # the inverse of A is needed to find that of L L^T, besides (A A^T)^-1 and (C C^T)^-1.
    n = L.shape[-1]
    if n <= _BLOCK:
        eye = jnp.broadcast_to(jnp.eye(n, dtype=L.dtype), L.shape)
        R = solve_triangular(L, eye, lower=True)
        return R, _transpose(R) @ R
    h = n // 2
    A, first = _inverses(L[..., :h, :h])
    C, last = _inverses(L[..., h:, h:], factor)
    moved = L[..., h:, :h] @ A
    cross = -last @ moved
    whole = _blocks(first - _transpose(moved) @ cross, _transpose(cross), cross, last)
    if not factor:
        return None, whole
    return _blocks(A, jnp.zeros_like(_transpose(cross)), -C @ moved, C), whole


def _transpose(A):
    return jnp.swapaxes(A, -1, -2)


def _blocks(A, B, C, D):
    """Return the matrix [[A, B], [C, D]]."""
    return jnp.concatenate([jnp.concatenate([A, B], -1), jnp.concatenate([C, D], -1)], -2)


def log_det(L):
    """Return the log-determinant (...) of ``L L^T`` for lower triangular L (..., n, n)."""
    return 2.0 * jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)).sum(-1)


@jax.jit  # else the loop would compile at every call
def cholesky(A):
    """Return the Cholesky factor of a symmetric A (n, n) plus the smallest jitter that it needs.

    The jitter () is returned too. It was added to the diagonal, where it acts as a larger ridge, so
    callers report it. Jitters of 0, n eps, 10 n eps, ... times the mean of the diagonal are tried
    in turn. The factor has nan entries if the largest of them is not enough.
    """
    # Find the jitter without derivatives, then factor once more with them.
    fixed = jax.lax.stop_gradient(A)
    scale = jnp.diagonal(fixed).mean() * jnp.finfo(A.dtype).eps * A.shape[0]
    eye = jnp.eye(A.shape[0], dtype=A.dtype)

    def failed(state):
        rung, L = state
        return ~jnp.isfinite(L).all() & (rung < 5)

    def climb(state):
        rung, _ = state
        return rung + 1, jnp.linalg.cholesky(fixed + scale * 10.0**rung * eye)

    rung, _ = jax.lax.while_loop(failed, climb, (0, jnp.linalg.cholesky(fixed)))
    jitter = jnp.where(rung == 0, 0.0, scale * 10.0 ** (rung - 1))
    return jnp.linalg.cholesky(A + jitter * eye), jitter


def solve(L, B):
    """Return the solution x of ``L L^T x = B``, for L (n, n) and B (n,) or (n, c)."""
    return cho_solve((L, True), B)
