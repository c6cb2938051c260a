# SPDX-License-Identifier: Apache-2.0
"""Linear algebra that JAX lacks: Cholesky factors with checks, and derivatives that keep digits."""

import functools
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import cho_solve, solve_triangular

LARGER = "give a larger ridge"
LEFT_OUT = 16.0  # margin for leave-one-out, which also divides by the diagonal of the inverse


def factor(C, remedy=LARGER, margin=1.0):
    """Return the Cholesky factor (..., n, n) of C (..., n, n), after the checks of `judge`."""
    L = jnp.linalg.cholesky(C)
    judge(L, remedy, margin)
    return L


def judge(L, remedy=LARGER, margin=1.0):
    """Check a Cholesky factor L: raise if it failed, warn if half of its digits are lost.

    Traced values are not checked: a factor that failed is nan, and samplers reject it.

    Parameters
    ----------
    L : (..., n, n)
    remedy : str
        What the message advises.
    margin : float
        How many times larger the error of the result is than that of a quadratic form.

    Raises
    ------
    ValueError
        If an entry is not finite: the matrix is not positive definite at this precision.

    Warns
    -----
    UserWarning
        If the condition number of the matrix, times ``margin``, is above 1 / sqrt(eps) for the
        machine precision eps.
    """
    if isinstance(L, jax.core.Tracer) or not L.size:
        return
    host = np.asarray(L)
    if not np.isfinite(host).all():
        raise ValueError(
            f"a matrix of shape {host.shape} is not positive definite in {host.dtype}: its "
            f"smallest eigenvalue is not larger than the rounding error; {remedy}"
        )

    flat = host.reshape((-1,) + host.shape[-2:])
    # Of a batch check one matrix, that whose largest squared row and smallest squared pivot differ
    # most: their ratio is a lower bound on the condition number.
    squares, pivots = (flat**2).sum(-1), np.diagonal(flat, axis1=-2, axis2=-1) ** 2
    worst = flat[np.argmax(squares.max(-1) / pivots.min(-1))].astype(float)

    # Rows in different units raise the condition number, but not the rounding error of a Cholesky
    # factor: take the better of the matrix and the one scaled to a diagonal of ones.
    scaled = worst / np.sqrt((worst**2).sum(-1, keepdims=True))
    judge_condition(
        min(_condition(worst), _condition(scaled)), host.shape, host.dtype, remedy, margin
    )


def judge_condition(condition, shape, dtype, remedy=LARGER, margin=1.0):
    """Warn if a matrix with this condition number loses half of the digits of ``dtype``.

    ``shape`` and ``remedy`` go into the message. ``margin`` is a factor on the condition number.
    """
    lost = float(condition) * float(np.finfo(dtype).eps) * margin
    if lost > np.sqrt(np.finfo(dtype).eps):
        left, of = max(0.0, -np.log10(lost)), -np.log10(np.finfo(dtype).eps)
        warnings.warn(
            f"a matrix of shape {shape} has condition number {float(condition):.1e}: {left:.0f} of "
            f"{of:.0f} digits are left in results computed from it; {remedy}",
            stacklevel=4,
        )


def _condition(L):
    """Return a lower bound on the condition number of L L^T, for L (n, n) on the host."""
    # power iteration with L L^T for its largest eigenvalue, with its inverse for the smallest
    v = u = np.random.default_rng(0).standard_normal(L.shape[0])
    for _ in range(6):
        v, u = v / np.linalg.norm(v), u / np.linalg.norm(u)
        v = L @ (L.T @ v)
        u = scipy.linalg.solve_triangular(L, u, lower=True, check_finite=False)
        u = scipy.linalg.solve_triangular(L, u, lower=True, trans=1, check_finite=False)
    return np.linalg.norm(v) * np.linalg.norm(u)


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
    return _inner_product(_invert(L))


_BLOCK = 64  # smaller matrices are not split into blocks: the overhead would cost more


def _invert(L):
    """Return the inverse (..., n, n) of lower triangular matrices L (..., n, n)."""
    # Split into blocks [[A, 0], [B, C]]: matrix products are faster than triangular solves.
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
    """Return ``R^T R`` (..., n, n) of lower triangular matrices R (..., n, n)."""
    # in blocks [[A, 0], [B, C]], without the products with zeros
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
    """Return the log-determinant (...) of ``L L^T`` for lower triangular L (..., n, n)."""
    return 2.0 * jnp.log(jnp.diagonal(L, axis1=-2, axis2=-1)).sum(-1)


@jax.jit  # else the loop would compile at every call
def cholesky(A):
    """Return the Cholesky factor of a symmetric matrix plus the smallest jitter that it needs.

    Jitters of n eps, 10 n eps, ... times the mean of the diagonal are tried in turn, after none.

    Parameters
    ----------
    A : (n, n)

    Returns
    -------
    factor : (n, n)
        Lower triangular. It has nan entries if no jitter was large enough.
    jitter : ()
        Number that was added to the diagonal; zero for a well-conditioned matrix. It acts as a
        larger ridge, so callers report it.
    """
    # find the jitter without derivatives, then factor once more with them
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


@jax.custom_jvp
def square_root(S):
    """Return the symmetric square root of a positive semi-definite S (n, n), and S's eigenvalues.

    The square root is continuous and has a first derivative, also where eigenvalues are equal.
    """
    values, V = jnp.linalg.eigh(S)
    return (V * jnp.sqrt(jnp.clip(values, 0.0))) @ V.T, values


@square_root.defjvp
def _square_root_jvp(primals, tangents):
    (S,), (dS,) = primals, tangents
    values, V = jnp.linalg.eigh(jax.lax.stop_gradient(S))
    V = once(V, S)
    roots = jnp.sqrt(jnp.clip(values, 0.0))
    # the derivative of R R = S, R dR + dR R = dS, is solved entry by entry in the eigenbasis
    total = roots[:, None] + roots
    ratio = jnp.where(total > 0, (V.T @ dS @ V) / jnp.where(total > 0, total, 1.0), 0.0)
    d_values = jnp.einsum("pi,pq,qi->i", V, dS, V)
    return ((V * roots) @ V.T, values), (V @ ratio @ V.T, d_values)


def _unless_they_meet(values):
    """Return nan for sorted values (k,) with a neighbour that is nearly equal, 1 for others.

    Values as small as rounding errors do not count as equal.
    """
    size = jnp.abs(values)
    near = jnp.abs(jnp.diff(values)) <= 1e-6 * jnp.maximum(size[1:], size[:-1])
    near = jnp.pad(near, (1, 0)) | jnp.pad(near, (0, 1))
    real = size > values.size * jnp.finfo(values.dtype).eps * size.max(initial=0.0)
    return jnp.where(near & real, jnp.nan, 1.0)


@jax.custom_jvp
def eigh(A):
    """Return eigenvalues (n,), smallest first, and eigenvectors (n, n) of a symmetric matrix.

    Where eigenvalues are equal, eigenvectors have no derivative: here it is nan. JAX's own is nan
    or a number there, depending on rounding.
    """
    return tuple(jnp.linalg.eigh(A))


@eigh.defjvp
def _eigh_jvp(primals, tangents):
    (values, V), (d_values, dV) = jax.jvp(lambda A: tuple(jnp.linalg.eigh(A)), primals, tangents)
    return (values, V), (d_values, dV * _unless_they_meet(values))


@jax.custom_jvp
def svd(A):
    """Return the thin singular value decomposition ``U, s, Vt``.

    Where singular values are equal, the derivatives of U and Vt are nan: they do not exist.
    """
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
    """Return eigenvectors (n, n) and eigenvalues (n,), largest first, of a symmetric matrix.

    The derivative of eigenvectors is nan, since it does not exist where eigenvalues are equal. Code
    that uses the eigenvectors must treat them as constant, and take derivatives from the matrix.
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
    """Return eigenvectors (n, r) and eigenvalues (r,), largest first, of A A^T for A (n, k).

    r is min(n, k). The singular values of A keep the digits of eigenvalues that are smaller than
    the rounding error of the largest. The derivative of eigenvectors is nan, as in `pairs`.
    """
    if A.shape[1] > A.shape[0]:  # with A^T = Q R, A A^T is R^T R, and R is only (n, n)
        A = jnp.linalg.qr(A.T, mode="r").T
    U, singular, _ = jnp.linalg.svd(A, full_matrices=False)
    return U, singular**2


@pairs_of_root.defjvp
def _pairs_of_root_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    U, values = pairs_of_root(A)
    # of an eigenvalue, u^T (dA A^T + A dA^T) u
    change = 2.0 * ((U.T @ A) * (U.T @ dA)).sum(-1)
    return (U, values), (U * jnp.nan * dA.sum(), change)


def ratio(a, b, otherwise=0.0):
    """Return ``a / b``, and ``otherwise`` where b is zero. The derivative is zero there."""
    zero = b == 0
    return jnp.where(zero, otherwise, a / jnp.where(zero, 1.0, b))


def safe_sqrt(x):
    """Return the square root of ``max(x, 0)``, with derivative 0 instead of infinity at zero."""
    # the inner where keeps infinity out of the derivative, where 0 * infinity would be nan
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_jvp
def with_value(x, value):
    """Return ``value`` (...), with the derivatives, of every order, of ``x`` (...).

    Use it if a value is known with more digits than the formula for ``x`` gives. Replacing x by
    the value would lose the derivatives of the formula.
    """
    return value


@with_value.defjvp
def _with_value_jvp(primals, tangents):
    return with_value(*primals), tangents[0]


def matrix_function(A, f):
    r"""Return factors V, W of a function of a symmetric matrix, :math:`f(A) = V W V^T`.

    The function acts on each eigenvalue.

    Parameters
    ----------
    A : (n, n)
        Symmetric, and positive semi-definite up to rounding.
    f : callable (values, largest) -> array like values
        Elementwise in eigenvalues of any shape. It also receives the largest eigenvalue, which must
        be simple if f uses it. To be differentiated, parameters of f must be arrays of a pytree,
        not variables that a plain function captured.

    Returns
    -------
    V : (n, n)
        Eigenvectors, constant under differentiation.
    W : (n, n)
        ``diag(f)``. Its derivative includes the change of the eigenvectors. Eigenvalues not above
        ``n eps`` times the largest count as zero, and have f = 0.

    Notes
    -----
    The derivative of W is :math:`F \circ (V^T dA\, V)` with divided differences
    :math:`F_{ij} = (f_i - f_j)/(l_i - l_j)`. If two eigenvalues agree to a relative 1e-6, F is
    :math:`f'` at their mean. So it also holds for equal eigenvalues, at which eigenvectors have no
    derivative. Second derivatives in A raise an error. V and W are not multiplied here: f may be
    as large as an inverse eigenvalue, and ``(B @ V) @ W @ (B @ V).T`` keeps more digits.

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
    """W of `matrix_function`, for eigenvalues e (n,) with zeros where they count as zero."""
    return jnp.diag(_positive(f, largest, e))


def _positive(f, largest, e):
    """``f(e, largest)``; 0 where e is 0."""
    return jnp.where(e > 0, f(jnp.where(e > 0, e, 1.0), largest), 0.0)


@_weights.def_jvp
def _weights_jvp(primals, tangents):
    (A, f, largest, e, V), (dA, df, d_largest, *_) = primals, tangents
    e, V = once((e, V), A)
    parts = eqx.filter_jvp(lambda f, top: _positive(f, top, e), (f, largest), (df, d_largest))
    values = parts[0]
    # first the change of f itself, then that of the eigenvalues and eigenvectors
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
    "a second derivative is not available: results made of eigenpairs have first derivatives only "
    "in the matrix (modified kernels in their base, linear dynamics in K and S, laws with eigen=); "
    "sample with gradients, as NUTS does, leave eigen out, or fix the matrix and differentiate "
    "other arguments"
)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def once(V, A, message=FIRST_ONLY):
    """Return V, eigenvectors of A or made from them, but raise ``message`` if it is differentiated.

    Derivative rules that are right only for the first derivative use it.
    """
    return V


@once.defjvp
def _refuse(message, primals, tangents):
    raise NotImplementedError(message)
