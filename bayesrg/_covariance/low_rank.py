# SPDX-License-Identifier: Apache-2.0
"""Algebra of a low-rank covariance plus a diagonal, in the space of the columns' weights."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from .._linalg import factor, inverse, log_det, ratio
from .dense import REMEDY, transpose, warn_if_lost, whiten


def _system(F, w, D):
    """Return ``A = F diag(w)``, ``D^-1 A``, and the Cholesky factor of ``M = I + A^T D^-1 A``."""
    A = F * w[..., None, :]
    scaled = A / D[..., :, None]
    inner = transpose(A) @ scaled + jnp.eye(A.shape[-1], dtype=A.dtype)
    return A, scaled, factor(inner, REMEDY)


def _back(L, rows):
    """Return the inverse of ``L L^T`` times each of the rows (..., m, k)."""
    return transpose(whiten(L, whiten(L, transpose(rows)), trans=1))


def _weights(A, scaled, back, b):
    """Return the weights u of rows b and the residuals ``b - A u``.

    ``back`` multiplies rows by the inverse of M.
    """
    # One step of iterative refinement removes most of the round-off of the factor.
    u = back(b @ scaled)
    u = u + back((b - u @ transpose(A)) @ scaled - u)
    return u, b - u @ transpose(A)


@jax.custom_jvp
def _regress(F, w, D, b):
    """Return the weights u that minimise ``|b - A u|^2 / D + |u|^2``, and the residuals b - A u.

    ``A = F diag(w)`` with ``F`` (..., p, k) and ``w`` (..., k); ``D`` is (..., p) or (..., 1) and
    ``b`` (..., m, p). The weights are (..., m, k), the residuals (..., m, p).
    """
    A, scaled, L = _system(F, w, D)
    return _weights(A, scaled, partial(_back, L), b)


@_regress.defjvp
def _regress_jvp(primals, tangents):
    """Derivative of `_regress`, with ``A^T D^-1 e`` written as u.

    The two are equal at the minimum, but the sum loses digits where D is small.
    """
    (F, w, D, b), (dF, dw, dD, db) = primals, tangents
    A, scaled, L = _system(F, w, D)
    u, e = _weights(A, scaled, partial(_back, L), b)

    # From (I + A^T D^-1 A) u = A^T D^-1 b, with M the matrix on the left:
    #   M du = dA^T D^-1 e - A^T D^-2 dD e + A^T D^-1 (db - dA u).
    # Of dA = dF w + F dw the second part gives 2 q - M q, with q = u dw / w: F^T D^-1 e is u / w.
    q, moved = ratio(u, w[..., None, :]) * dw[..., None, :], dF * w[..., None, :]
    if D.shape[-1] == 1:
        louder = u * (dD / D)[..., None, :]
    else:
        louder = (e * (dD / D)[..., None, :]) @ scaled
    given = db - u @ transpose(moved)
    push = 2.0 * q - louder + (e / D[..., None, :]) @ moved + given @ scaled
    step = _back(L, push)
    return (u, e), (step - q, given - step @ transpose(A))


@jax.custom_jvp
def _fit(F, w, D, b):
    """Return the least value of ``|b - A u|^2 / D + |u|^2`` per row, and ``ln|I + A^T D^-1 A|``.

    The least value is the quadratic form of ``A A^T + D``, here as a sum of positive terms;
    Woodbury's formula is a difference. ``A = F diag(w)`` with ``F`` (..., p, k) and ``w``
    (..., k); ``D`` is (..., p) or (..., 1), ``b`` (..., m, p) and the values are (..., m).
    """
    A, scaled, L = _system(F, w, D)
    u, e = _weights(A, scaled, partial(_back, L), b)
    return (e**2 / D[..., None, :]).sum(-1) + (u**2).sum(-1), log_det(L)


@_fit.defjvp
def _fit_jvp(primals, tangents):
    # Products of F and k x k matrices alone: A = F diag(w) and D^-1 A are not stored.
    (F, w, D, b), (dF, dw, dD, db) = primals, tangents
    k, noise = F.shape[-1], D[..., None, :]
    gram = (transpose(F) / noise) @ F
    inner = w[..., :, None] * gram * w[..., None, :]
    M_inverse = inverse(L := factor(inner + jnp.eye(k, dtype=inner.dtype), REMEDY))
    row = w[..., None, :]

    # as in `_weights`, with one step of iterative refinement
    u = ((b / noise) @ F * row) @ M_inverse
    e = b - (u * row) @ transpose(F)
    u = u + ((e / noise) @ F * row - u) @ M_inverse
    e = b - (u * row) @ transpose(F)

    # u minimises the quadratic form, so that its change is of second order: keep F, w, D and b
    steep = e / noise
    moved = dF * row
    d_quad = 2.0 * (steep * (db - u @ transpose(moved))).sum(-1)
    d_quad = d_quad - 2.0 * (u * ratio(u, row) * dw[..., None, :]).sum(-1)
    d_quad = d_quad - (steep**2 * dD[..., None, :]).sum(-1)

    # d ln|M| = tr(M^-1 dM), with slope = D^-1 F w M^-1 w
    slope = F @ (w[..., :, None] * M_inverse * row) / D[..., None]
    d_log_det = 2.0 * (slope * dF).sum((-2, -1))
    d_log_det = d_log_det + 2.0 * ((gram * M_inverse * row).sum(-1) * dw).sum(-1)
    d_log_det = d_log_det - ((slope * F).sum(-1) / D * dD).sum(-1)
    quad = (e * steep).sum(-1) + (u**2).sum(-1)
    return (quad, log_det(L)), (d_quad, d_log_det)


@jax.custom_jvp
def _precision(F, w, D):
    """Return the diagonal of the inverse of ``C = A A^T + D``, (..., p)."""
    A, scaled, L = _system(F, w, D)
    return (1.0 - (A * _back(L, scaled)).sum(-1)) / D


@_precision.defjvp
def _precision_jvp(primals, tangents):
    """Return `_precision` and minus the diagonal of ``C^-1 dC C^-1``.

    All products are of thin matrices, with ``T = C^-1 A = D^-1 A M^-1``.
    """
    (F, w, D), (dF, dw, dD) = primals, tangents
    A, scaled, L = _system(F, w, D)
    T, moved = _back(L, scaled), dF * w[..., None, :]
    known = (A * T).sum(-1)  # C^-1 has the diagonal (1 - known) / D

    # dC = dA A^T + A dA^T + dD with dA = dF w + A dw/w: parts by columns, by values and by noise.
    by_columns = ((moved / D[..., None] - T @ (transpose(scaled) @ moved)) * T).sum(-1)
    by_values = (T**2 * ratio(dw, w)[..., None, :]).sum(-1)
    if D.shape[-1] == 1:
        by_noise = (1.0 - known - D * (T**2).sum(-1)) * dD / D**2
    else:
        spread = ((T @ (transpose(scaled) @ (dD[..., None] * scaled))) * T).sum(-1)
        by_noise = (1.0 - 2.0 * known) * dD / D**2 + spread
    return (1.0 - known) / D, -2.0 * (by_columns + by_values) - by_noise


def _by_qr(F, w, D, r, G, v):
    """Return the results of `_fit` for a constant ``D`` (..., 1) and rows r - G v (..., m, n).

    With [F G] = Q R the fit runs in the coordinates of Q; only products of F, G and r are linear in
    n. Q has orthonormal columns, so that no digits are lost.
    """
    Q, R = jnp.linalg.qr(jnp.concatenate([F, G], 1))
    k = F.shape[1]
    b = r @ Q
    quad, log_det = _fit(R[:, :k], w, D, b - R[:, k:] @ v)
    return quad + ((r - b @ Q.T) ** 2).sum(-1) / D, log_det


_reduced = eqx.filter_custom_jvp(_by_qr)


@_reduced.def_jvp
def _reduced_jvp(primals, tangents):
    # R has no derivative where columns are dependent
    moved = tangents[0] is not None or tangents[4] is not None

    def directly(F, w, D, r, G, v):
        return _fit(F, w, D, r - G @ v)

    return eqx.filter_jvp(directly if moved else _by_qr, primals, tangents)


class LowRank(NamedTuple):
    """Algebra of ``A A^T + diag(D)`` with ``A = F diag(w)``; cubic only in the columns of ``F``.

    ``F`` is (..., n, k), ``w`` (..., k), ``D`` (..., n) or (..., 1), ``gram`` = ``F^T F`` (k, k) if
    it is known. If ``D`` is constant over points, only products of ``F`` and the observations have
    a cost linear in n. They do not depend on sampled parameters, so that a compiled sampler
    computes them once, outside its loop.
    """

    F: Array
    w: Array
    D: Array
    gram: Array | None = None

    @property
    def A(self):
        return self.F * self.w[..., None, :]

    def inner(self):
        if self.D.shape[-1] == 1:
            gram = transpose(self.F) @ self.F if self.gram is None else self.gram
            inner = self.w[..., :, None] * gram * self.w[..., None, :] / self.D[..., None]
        else:
            inner = transpose(self.A) @ (self.A / self.D[..., None])
        return inner + jnp.eye(self.F.shape[-1], dtype=inner.dtype)

    @property
    def reducible(self):
        """Whether `quad_logdet` needs only products of F and the rows that are linear in n."""
        return self.D.shape[-1] == 1 and self.F.ndim == 2 and self.F.shape[-1] > 0

    def quad_logdet(self, r, low=None):
        """Return what all algebras do; if `reducible`, for rows ``r - G @ v`` with (G, v) = low.

        ``G`` is (n, c) and ``v`` (c,). Apart from each other, neither costs anything that is linear
        in n and depends on v.
        """
        n, D = self.F.shape[-2], self.D
        if self.reducible:
            G, v = (self.F[:, :0], self.w[..., :0].reshape(-1)[:0]) if low is None else low
            quad, log_det = _reduced(self.F, self.w, D, r, G, v)
        else:
            quad, log_det = _fit(self.F, self.w, D, r)
        return quad, log_det + (n / D.shape[-1]) * jnp.log(D).sum(-1)

    def solve(self, B):
        return transpose(_regress(self.F, self.w, self.D, transpose(B))[1]) / self.D[..., None]

    def leverage(self, A):
        """Return the variance of ``A @ w`` given observations, (..., m), for rows A (..., m, k)."""
        return (whiten(factor(self.inner(), REMEDY), transpose(A)) ** 2).sum(-2)

    def inverse_diag(self):
        precision = _precision(self.F, self.w, self.D)
        warn_if_lost("the inverse's diagonal", precision * self.D)
        return precision

    def expected(self, r, A):
        """Return the mean of ``A @ w`` (..., m) given one row r (..., n) of observations."""
        u = _regress(self.F, self.w, self.D, r[..., None, :])[0]
        return (u @ transpose(A))[..., 0, :]

    def white_size(self):
        return sum(self.F.shape[-2:])

    def colour(self, z):
        k = self.F.shape[-1]
        return (self.A @ z[..., :k, None])[..., 0] + jnp.sqrt(self.D) * z[..., k:]

    def root(self, z):
        # A root that takes n numbers. With B = D^-1/2 A and any S S^T = I + B^T B, the matrix
        # W = I + B (I + S)^-1 B^T has W W^T = I + B B^T. To see it, multiply out and use
        # (I + S)(I + S)^T = 2 I + S + S^T + B^T B.
        noise = jnp.sqrt(self.D)
        if self.F.shape[-1] == 0:
            return noise * z
        inside = (transpose(self.A) @ (z / noise)[..., None])[..., 0]
        S = factor(self.inner(), REMEDY)
        S = S + jnp.eye(S.shape[-1], dtype=S.dtype)
        if S.ndim == 2:  # one factor for the whole batch
            rows = inside.reshape(-1, S.shape[-1])
            low = solve_triangular(S, rows.T, lower=True).T.reshape(inside.shape)
        else:
            low = whiten(S, inside[..., None])[..., 0]
        return noise * z + (self.A @ low[..., None])[..., 0]

    def multiply(self, B):
        return self.A @ (transpose(self.A) @ B) + self.D[..., None] * B

    def curved(self, s):
        return LowRank(s[..., None] * self.F, self.w, 1.0 + s**2 * self.D)
