# SPDX-License-Identifier: Apache-2.0
"""Linear algebra that JAX lacks: judged factors, differentiable blocks, safe roots."""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import cho_solve, solve_triangular

LARGER = "give a larger ridge"
LEFT_OUT = 16.0  # margin for leave-one-out, which divides by the diagonal of the inverse


def factor(C, remedy=LARGER, margin=1.0):
    """Cholesky factor of C (..., n, n), judged by `judge` where its numbers can be read."""
    L = jnp.linalg.cholesky(C)
    judge(L, remedy, margin)
    return L


def judge(L, remedy=LARGER, margin=1.0):
    """Refuse a Cholesky factor L (..., n, n) that failed; warn if it lost half of its digits.

    Under a JAX transformation nothing is said: a factor that failed is nan there, which samplers
    reject. ``margin`` says how many times more the result loses than a quadratic form does.

    Raises
    ------
    ValueError
        If an entry is not finite: the matrix is not positive definite at this precision.

    Warns
    -----
    UserWarning
        If the matrix has a condition number above one over the square root of the round-off.
    """
    if isinstance(L, jax.core.Tracer) or not L.size:
        return
    host = np.asarray(L)
    if not np.isfinite(host).all():
        raise ValueError(
            f"a matrix of shape {host.shape} is not positive definite in {host.dtype}: its "
            f"smallest eigenvalue drowns in round-off; {remedy}"
        )
    flat = host.reshape((-1,) + host.shape[-2:])
    # of a batch look at the matrix whose squared rows and pivots differ most
    squares, pivots = (flat**2).sum(-1), np.diagonal(flat, axis1=-2, axis2=-1) ** 2
    worst = flat[np.argmax(squares.max(-1) / pivots.min(-1))].astype(float)
    scaled = worst / np.sqrt((worst**2).sum(-1, keepdims=True))  # rounding ignores units of rows
    judge_condition(
        min(_condition(worst), _condition(scaled)), host.shape, host.dtype, remedy, margin
    )


def judge_condition(condition, shape, dtype, remedy=LARGER, margin=1.0):
    """Warn if a condition number costs half of the digits; arguments as in `judge`."""
    lost = float(condition) * float(np.finfo(dtype).eps) * margin
    if lost > np.sqrt(np.finfo(dtype).eps):
        left, of = max(0.0, -np.log10(lost)), -np.log10(np.finfo(dtype).eps)
        warnings.warn(
            f"a matrix of shape {shape} has condition number {float(condition):.1e}: {left:.0f} of "
            f"{of:.0f} digits are left of what it gives; {remedy}",
            stacklevel=4,
        )


def _condition(L):
    """Lower bound on the condition number of L L^T: power iteration on it and its inverse."""
    v = u = np.random.default_rng(0).standard_normal(L.shape[0])
    for _ in range(6):
        v, u = v / np.linalg.norm(v), u / np.linalg.norm(u)
        v = L @ (L.T @ v)
        u = scipy.linalg.solve_triangular(L, u, lower=True, check_finite=False)
        u = scipy.linalg.solve_triangular(L, u, lower=True, trans=1, check_finite=False)
    return np.linalg.norm(v) * np.linalg.norm(u)


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
    return (z**2).sum(-2), log_det(L)


@quad_logdet.defjvp
def _quad_logdet_jvp(primals, tangents):
    C, b = primals
    dC, db = tangents
    L = jnp.linalg.cholesky(C)
    precision = inverse(L)
    a = b @ precision
    d_quad = 2.0 * (a * db).sum(-1) - jnp.einsum("...mi,...ij,...mj->...m", a, dC, a)
    return ((a * b).sum(-1), log_det(L)), (d_quad, (precision * dC).sum((-2, -1)))


def inverse(L):
    """Inverse (..., n, n) of ``L L^T`` for lower triangles."""
    return _inner_product(_invert(L))


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


def log_det(L):
    """Log-determinant (...) of ``L L^T`` for lower triangles (..., n, n)."""
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


@jax.custom_jvp
def square_root(S):
    """Symmetric square root (n, n) of a positive semi-definite matrix, and its eigenvalues.

    It is continuous and has a first derivative, also where eigenvalues meet.
    """
    values, V = jnp.linalg.eigh(S)
    return (V * jnp.sqrt(jnp.clip(values, 0.0))) @ V.T, values


@square_root.defjvp
def _square_root_jvp(primals, tangents):
    (S,), (dS,) = primals, tangents
    values, V = jnp.linalg.eigh(jax.lax.stop_gradient(S))
    V = once(V, S)
    roots = jnp.sqrt(jnp.clip(values, 0.0))
    total = roots[:, None] + roots  # from R dR + dR R = dS, R the root
    ratio = jnp.where(total > 0, (V.T @ dS @ V) / jnp.where(total > 0, total, 1.0), 0.0)
    d_values = jnp.einsum("pi,pq,qi->i", V, dS, V)
    return ((V * roots) @ V.T, values), (V @ ratio @ V.T, d_values)


def _unless_they_meet(values):
    """For sorted values: 1, or nan where a neighbour is close and both are above round-off."""
    size = jnp.abs(values)
    near = jnp.abs(jnp.diff(values)) <= 1e-6 * jnp.maximum(size[1:], size[:-1])
    near = jnp.pad(near, (1, 0)) | jnp.pad(near, (0, 1))
    real = size > values.size * jnp.finfo(values.dtype).eps * size.max(initial=0.0)
    return jnp.where(near & real, jnp.nan, 1.0)


@jax.custom_jvp
def eigh(A):
    """Eigenvalues, rising, and eigenvectors, whose derivative is nan where eigenvalues meet.

    It does not exist there; JAX gives a number or nan, as round-off has it.
    """
    return tuple(jnp.linalg.eigh(A))


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (values, V), (d_values, dV) = jax.jvp(lambda A: tuple(jnp.linalg.eigh(A)), primals, tangents)
    return (values, V), (d_values, dV * _unless_they_meet(values))


@jax.custom_jvp
def svd(A):
    """Thin singular value decomposition ``U, s, Vt`` with derivatives as those of `eigh`."""
    return tuple(jnp.linalg.svd(A, full_matrices=False))


@svd.defjvp
def _svd_jvp(primals, tangents):
    (U, s, Vt), (dU, ds, dVt) = jax.jvp(
        lambda A: tuple(jnp.linalg.svd(A, full_matrices=False)), primals, tangents
    )
    sign = _unless_they_meet(s)
    return (U, s, Vt), (dU * sign, ds, dVt * sign[:, None])


@jax.custom_jvp
def pairs(K):
    """Eigenvectors (n, n) and eigenvalues (n,), falling, of a symmetric matrix.

    Derivatives of eigenvectors are nan, as they do not exist where eigenvalues meet: code that uses
    the pairs must hold them fixed, and take its derivative from the matrix.
    """
    values, vectors = jnp.linalg.eigh(K)
    return vectors[:, ::-1], values[::-1]


@pairs.defjvp
def _pairs_jvp(primals, tangents):
    V, values = pairs(primals[0])
    change = jnp.einsum("pi,pq,qi->i", V, tangents[0], V)
    return (V, values), (V * jnp.nan * tangents[0].sum(), change)


@jax.custom_jvp
def pairs_of_root(A):
    """Eigenpairs of A A^T for A (n, k) as `pairs`, (n, r) and (r,), with r = min(n, k).

    Singular values keep the digits of eigenvalues below the round-off of the largest.
    """
    if A.shape[1] > A.shape[0]:
        A = jnp.linalg.qr(A.T, mode="r").T
    U, singular, _ = jnp.linalg.svd(A, full_matrices=False)
    return U, singular**2


@pairs_of_root.defjvp
def _pairs_of_root_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    U, values = pairs_of_root(A)
    change = 2.0 * ((U.T @ A) * (U.T @ dA)).sum(-1)
    return (U, values), (U * jnp.nan * dA.sum(), change)


def safe_sqrt(x):
    """Square root of ``max(x, 0)`` whose derivative at zero is 0 in place of infinity."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_jvp
def with_value(x, value):
    """Return ``value``, whose derivatives of every order are those of ``x`` (...).

    For a value that is known more precisely than the formula gives it: a `jnp.where` would cut the
    derivatives that the formula has.
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
    return _matrix_function(A, f)


@eqx.filter_jit
def _matrix_function(A, f):
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
    e, V = once((e, V), A)
    parts = eqx.filter_jvp(lambda f, top: _positive(f, top, e), (f, largest), (df, d_largest))
    values = parts[0]
    change = jnp.diag(jnp.zeros_like(values) if parts[1] is None else parts[1])
    if dA is not None:
        gap, total = e[:, None] - e, e[:, None] + e
        both = (e[:, None] > 0) & (e > 0)
        close = jnp.abs(gap) <= 1e-6 * total
        middle = jnp.where(both, 0.5 * total, 1.0)
        slope = jax.jvp(lambda v: f(v, largest), (middle,), (jnp.ones_like(middle),))[1]
        ratio = (values[:, None] - values) / jnp.where(close, 1.0, gap)
        change = change + jnp.where(close, jnp.where(both, slope, 0.0), ratio) * (V.T @ dA @ V)
    return jnp.diag(values), change


FIRST_ONLY = (
    "in their matrix, results of eigenpairs have first derivatives only (modified kernels in their "
    "base, linear dynamics in K and S, laws with eigen=); sample with gradients, as NUTS does, "
    "leave eigen out, or fix the matrix and differentiate other arguments"
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def once(V, A, message=FIRST_ONLY):
    """Return V, eigenvectors of A or made from them, in a rule that takes no derivative in A again.

    A derivative in A or V raises ``message``.
    """
    return V


@once.defjvp
def _refuse(message, primals, tangents):
    raise NotImplementedError(message)
