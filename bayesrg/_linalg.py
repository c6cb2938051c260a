# SPDX-License-Identifier: Apache-2.0
"""Linear algebra that JAX lacks: differentiable blocks, a guarded Cholesky, safe roots."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular


@jax.custom_jvp
def quad_logdet(C, b):
    r"""Return :math:`b^T C^{-1} b` for every row ``b``, and :math:`\ln|C|`, from one factor.

    Parameters
    ----------
    C : (..., n, n) symmetric positive definite
    b : (..., m, n), one right-hand side a row

    Returns
    -------
    quad : (..., m)
    log_det : (...)

    Notes
    -----
    The derivative is written out: with :math:`a = C^{-1}b`, the changes are
    :math:`2 a^T db - a^T dC\, a` and :math:`\mathrm{tr}(C^{-1} dC)`. Automatic differentiation
    of a Cholesky factor needs triangular solves with wide right-hand sides instead, which are
    several times slower inside a sampler. A matrix that is not positive definite gives nan.
    """
    L = jnp.linalg.cholesky(C)
    z = solve_triangular(L, jnp.swapaxes(b, -1, -2), lower=True)
    return (z**2).sum(-2), _log_det(L)


@quad_logdet.defjvp
def _quad_logdet_jvp(primals, tangents):
    C, b = primals
    dC, db = tangents
    L = jnp.linalg.cholesky(C)
    inverse = _inner_product(_invert(L))
    a = b @ inverse
    d_quad = 2.0 * (a * db).sum(-1) - jnp.einsum("...mi,...ij,...mj->...m", a, dC, a)
    return ((a * b).sum(-1), _log_det(L)), (d_quad, (inverse * dC).sum((-2, -1)))


_BLOCK = 64  # below it LAPACK's overhead outweighs the products that blocks save


def _invert(L):
    """Invert lower triangles (..., n, n) by halves: dense products in place of wide solves."""
    n = L.shape[-1]
    if n <= _BLOCK:
        eye = jnp.broadcast_to(jnp.eye(n, dtype=L.dtype), L.shape)
        return solve_triangular(L, eye, lower=True)
    h = n // 2
    A, C = _invert(L[..., :h, :h]), _invert(L[..., h:, h:])
    B = -C @ (L[..., h:, :h] @ A)
    top = jnp.concatenate([A, jnp.zeros_like(jnp.swapaxes(B, -1, -2))], -1)
    return jnp.concatenate([top, jnp.concatenate([B, C], -1)], -2)


def _inner_product(R):
    """``R^T R`` of lower triangles (..., n, n), leaving out the products with their zeros."""
    n = R.shape[-1]
    if n <= _BLOCK:
        return jnp.swapaxes(R, -1, -2) @ R
    h = n // 2
    A, B, C = R[..., :h, :h], R[..., h:, :h], R[..., h:, h:]
    lower = jnp.swapaxes(C, -1, -2) @ B
    left = jnp.concatenate([_inner_product(A) + jnp.swapaxes(B, -1, -2) @ B, lower], -2)
    right = jnp.concatenate([jnp.swapaxes(lower, -1, -2), _inner_product(C)], -2)
    return jnp.concatenate([left, right], -1)


def _log_det(L):
    return 2.0 * jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)).sum(-1)


@jax.jit  # else the loop would compile at every call
def cholesky(A):
    """Factor a symmetric matrix, adding the least jitter of a fixed ladder that it needs.

    Parameters
    ----------
    A : (n, n)

    Returns
    -------
    factor : (n, n) lower triangular
    jitter : ()
        What was added to the diagonal: a ridge shift, so callers report it. Zero for a
        well-conditioned matrix; nan entries in ``factor`` mean that no rung was enough.
    """
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
    """Solve ``L L^T x = B`` for a Cholesky factor ``L`` (n, n) and ``B`` (n,) or (n, c)."""
    return cho_solve((L, True), B)


def safe_sqrt(x):
    """Square root of ``max(x, 0)`` whose derivative at zero is 0 in place of infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_jvp
def with_value(x, value):
    """Return ``value``, whose derivatives of every order are those of ``x`` (...).

    For a value that is known better than the formula gives it, by round-off: a `jnp.where` would
    cut the derivatives that the formula has.
    """
    return value


@with_value.defjvp
def _with_value_jvp(primals, tangents):
    return with_value(*primals), tangents[0]


def matrix_function(A, f):
    r"""Factor an elementwise function of a symmetric matrix: :math:`f(A) = V W V^T`.

    Parameters
    ----------
    A : (n, n) symmetric, positive semi-definite up to round-off
    f : callable
        ``f(values, largest)``, elementwise in eigenvalues of any shape and knowing the largest,
        which is taken to be simple. Its parameters are the arrays of a pytree, not variables that
        a plain function closes over.

    Returns
    -------
    V : (n, n), eigenvectors, constant under differentiation
    W : (n, n)
        ``diag(f)``, whose derivative carries that of the eigenvectors. Eigenvalues at or below
        ``n eps`` of the largest count as zero, with f = 0.

    Notes
    -----
    The derivative of W is :math:`F \circ (V^T dA\, V)` with divided differences
    :math:`F_{ij} = (f_i - f_j)/(l_i - l_j)`, and :math:`f'` of the mean where two eigenvalues
    agree to a relative 1e-6. It holds at any degeneracy, where the derivative of eigenvectors is
    nan or wrong. Second derivatives in A raise. The factors stay apart because f may be as large
    as an inverse eigenvalue, and then the product loses what ``(B @ V) @ W @ (B @ V).T`` keeps.

    References
    ----------
    Daleckii and Krein (1965); Higham (2008), theorem 3.11.
    """
    e, V = jnp.linalg.eigh(jax.lax.stop_gradient(A))
    largest = V[:, -1] @ A @ V[:, -1]
    kept = e > A.shape[0] * jnp.finfo(A.dtype).eps * e[-1]
    return V, _weights(A, f, largest, jnp.where(kept, e, 0.0), V)


@eqx.filter_custom_jvp
def _weights(A, f, largest, e, V):
    return jnp.diag(_positive(f, largest, e))


def _positive(f, largest, e):
    return jnp.where(e > 0, f(jnp.where(e > 0, e, 1.0), largest), 0.0)


@_weights.def_jvp
def _weights_jvp(primals, tangents):
    (A, f, largest, e, V), (dA, df, d_largest, *_) = primals, tangents
    parts = eqx.filter_jvp(lambda f, top: _positive(f, top, e), (f, largest), (df, d_largest))
    values = parts[0]
    change = jnp.diag(jnp.zeros_like(values) if parts[1] is None else parts[1])
    if dA is not None:
        V = once(V, A)
        gap, total = e[:, None] - e, e[:, None] + e
        both = (e[:, None] > 0) & (e > 0)
        close = jnp.abs(gap) <= 1e-6 * total
        middle = jnp.where(both, 0.5 * total, 1.0)
        slope = jax.jvp(lambda v: f(v, largest), (middle,), (jnp.ones_like(middle),))[1]
        ratio = (values[:, None] - values) / jnp.where(close, 1.0, gap)
        change = change + jnp.where(close, jnp.where(both, slope, 0.0), ratio) * (V.T @ dA @ V)
    return jnp.diag(values), change


@jax.custom_jvp
def once(V, A):
    """Return the eigenvectors V of A in a rule that must not be differentiated in A again."""
    return V


@once.defjvp
def _refuse_second(primals, tangents):
    raise NotImplementedError(
        "a function of a matrix that moves has first derivatives only (modified kernels in their "
        "base, linear dynamics in K and S); sample with gradients, as NUTS does, or fix the matrix "
        "and differentiate its other arguments"
    )
