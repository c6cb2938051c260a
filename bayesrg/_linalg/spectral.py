# SPDX-License-Identifier: Apache-2.0
"""Eigenvectors, singular vectors and functions of matrices, with derivatives where they exist.

Eigenvectors have no derivative where eigenvalues are equal. The functions here avoid it, return nan
for it, or raise an error.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp

from .safe import ratio


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

    # The derivative of R R = S, R dR + dR R = dS, is solved entry by entry in the eigenbasis.
    change = V.T @ dS @ V
    d_root = ratio(change, roots[:, None] + roots)
    return ((V * roots) @ V.T, values), (V @ d_root @ V.T, jnp.diagonal(change))


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
    (values, V), (d_values, dV) = jax.jvp(jnp.linalg.eigh, primals, tangents)
    return (values, V), (d_values, dV * _unless_they_meet(values))


_thin_svd = functools.partial(jnp.linalg.svd, full_matrices=False)


@jax.custom_jvp
def svd(A):
    """Return the thin singular value decomposition ``U, s, Vt``.

    Where singular values are equal, the derivatives of U and Vt are nan: they do not exist.
    """
    return tuple(_thin_svd(A))


@svd.defjvp
def _svd_jvp(primals, tangents):
    (U, s, Vt), (dU, ds, dVt) = jax.jvp(_thin_svd, primals, tangents)
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
    U, singular, _ = _thin_svd(A)
    return U, singular**2


@pairs_of_root.defjvp
def _pairs_of_root_jvp(primals, tangents):
    (A,), (dA,) = primals, tangents
    U, values = pairs_of_root(A)
    # of an eigenvalue, u^T (dA A^T + A dA^T) u
    change = 2.0 * ((U.T @ A) * (U.T @ dA)).sum(-1)
    return (U, values), (U * jnp.nan * dA.sum(), change)


@eqx.filter_jit
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
    e, V = jnp.linalg.eigh(jax.lax.stop_gradient(A))
    largest = V[:, -1] @ A @ V[:, -1]
    kept = e > A.shape[0] * jnp.finfo(A.dtype).eps * e[-1]
    return V, _weights(A, f, largest, jnp.where(kept, e, 0.0), V)


@eqx.filter_custom_jvp
def _weights(A, f, largest, e, V):
    """Return W of `matrix_function`, for eigenvalues e (n,) with zeros where they count as zero."""
    return jnp.diag(_positive(f, largest, e))


def _positive(f, largest, e):
    """Return ``f(e, largest)``, and 0 where e is 0."""
    return jnp.where(e > 0, f(jnp.where(e > 0, e, 1.0), largest), 0.0)


@_weights.def_jvp
def _weights_jvp(primals, tangents):
    (A, f, largest, e, V), (dA, df, d_largest, *_) = primals, tangents
    e, V = once((e, V), A)
    parts = eqx.filter_jvp(lambda f, top: _positive(f, top, e), (f, largest), (df, d_largest))
    values = parts[0]

    # First the change of f itself, then that of the eigenvalues and eigenvectors.
    change = jnp.diag(jnp.zeros_like(values) if parts[1] is None else parts[1])
    if dA is not None:
        gap, total = e[:, None] - e, e[:, None] + e
        both = (e[:, None] > 0) & (e > 0)
        close = jnp.abs(gap) <= 1e-6 * total
        middle = jnp.where(both, 0.5 * total, 1.0)
        slope = jax.jvp(lambda v: f(v, largest), (middle,), (jnp.ones_like(middle),))[1]
        secant = (values[:, None] - values) / jnp.where(close, 1.0, gap)
        change = change + jnp.where(close, jnp.where(both, slope, 0.0), secant) * (V.T @ dA @ V)
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
def _raise(message, primals, tangents):
    raise NotImplementedError(message)
