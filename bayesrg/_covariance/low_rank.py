# SPDX-License-Identifier: Apache-2.0
"""Few columns plus a diagonal, in the space of the columns' weights."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from .. import _linalg
from .._linalg import factor
from .dense import REMEDY, transpose, warn_if_lost


def _regress(A, D, b):
    """Weights (..., m, k), residuals and a factor of ``I + A^T D^-1 A``, of rows ``b`` (..., m, p).

    The weights minimise ``|b - A w|^2 / D + |w|^2``. The last step is one of refinement.
    """
    scaled = A / D[..., :, None]
    eye = jnp.eye(A.shape[-1], dtype=A.dtype)
    L = factor(transpose(A) @ scaled + eye, REMEDY)

    def back(rows):
        batch = jnp.broadcast_shapes(L.shape[:-2], rows.shape[:-2])
        M = jnp.broadcast_to(L, batch + L.shape[-2:])
        rows = jnp.broadcast_to(rows, batch + rows.shape[-2:])
        white = solve_triangular(M, transpose(rows), lower=True)
        return transpose(solve_triangular(M, white, lower=True, trans=1))

    w = back(b @ scaled)
    w = w + back((b - w @ transpose(A)) @ scaled - w)
    return w, b - w @ transpose(A), L


@jax.custom_jvp
def _fit(A, D, b):
    """Least value of ``|b - A w|^2 / D + |w|^2`` for every row, and ``ln|I + A^T D^-1 A|``.

    ``A`` is (..., p, k), ``D`` (..., p) or (..., 1) and ``b`` (..., m, p). It is the quadratic form
    of ``A A^T + D`` as a sum of what has one sign, where Woodbury's is a difference.
    """
    w, e, L = _regress(A, D, b)
    return (e**2 / D[..., None, :]).sum(-1) + (w**2).sum(-1), _linalg.log_det(L)


@_fit.defjvp
def _fit_jvp(primals, tangents):
    (A, D, b), (dA, dD, db) = primals, tangents
    w, e, L = _regress(A, D, b)
    scaled = A / D[..., :, None]
    slope = scaled @ _linalg.inverse(L)
    steep = e / D[..., None, :]
    d_quad = 2.0 * (steep * (db - w @ transpose(dA))).sum(-1) - (steep**2 * dD[..., None, :]).sum(
        -1
    )
    d_log_det = 2.0 * (slope * dA).sum((-2, -1)) - ((slope * scaled).sum(-1) * dD).sum(-1)
    quad = (e**2 / D[..., None, :]).sum(-1) + (w**2).sum(-1)
    return (quad, _linalg.log_det(L)), (d_quad, d_log_det)


def _by_qr(F, w, D, r):
    """`_fit` of ``A = F diag(w)`` at constant ``D`` (..., 1): linear in n only in F and r."""
    Q, R = jnp.linalg.qr(F)
    b = r @ Q
    quad, log_det = _fit(R * w[..., None, :], D, b)
    return quad + ((r - b @ Q.T) ** 2).sum(-1) / D, log_det


_reduced = eqx.filter_custom_jvp(_by_qr)


@_reduced.def_jvp
def _reduced_jvp(primals, tangents):
    moved = tangents[0] is not None  # factors R have no derivative where columns are dependent

    def whole(F, w, D, r):
        return _fit(F * w[..., None, :], D, r)

    return eqx.filter_jvp(whole if moved else _by_qr, primals, tangents)


class LowRank(NamedTuple):
    """``A A^T + diag(D)``, ``A = F diag(w)``, in weight space: cubic only in the columns of ``F``.

    ``F`` is (..., n, k), ``w`` (..., k), ``D`` (..., n) or (..., 1), ``gram`` = ``F^T F`` (k, k) if
    it is known. Where ``D`` is constant over points, all of the density that is linear in n touches
    ``F`` and the observations alone: a sampler does not move these, so it is computed once, outside
    its loop.
    """

    F: Array
    w: Array
    D: Array
    gram: Array | None = None

    @property
    def A(self):
        return self.F * self.w[..., None, :]

    def _inner(self):
        if self.D.shape[-1] == 1:
            gram = transpose(self.F) @ self.F if self.gram is None else self.gram
            inner = self.w[..., :, None] * gram * self.w[..., None, :] / self.D[..., None]
        else:
            inner = transpose(self.A) @ (self.A / self.D[..., None])
        return inner + jnp.eye(self.F.shape[-1], dtype=inner.dtype)

    def quad_logdet(self, r):
        n, D = self.F.shape[-2], self.D
        if D.shape[-1] == 1 and self.F.ndim == 2 and self.F.shape[-1]:
            quad, log_det = _reduced(self.F, self.w, D, r)
        else:
            quad, log_det = _fit(self.A, D, r)
        return quad, log_det + (n / D.shape[-1]) * jnp.log(D).sum(-1)

    def solve(self, B):
        return transpose(_regress(self.A, self.D, transpose(B))[1]) / self.D[..., None]

    def quad(self, B):
        return _fit(self.A, self.D, transpose(B))[0]

    def leverage(self, A):
        """Variance of ``A @ w`` given observations, (..., m), for rows ``A`` (..., m, k)."""
        L = factor(self._inner(), REMEDY)
        batch = jnp.broadcast_shapes(L.shape[:-2], A.shape[:-2])
        L = jnp.broadcast_to(L, batch + L.shape[-2:])
        A = jnp.broadcast_to(A, batch + A.shape[-2:])
        return (solve_triangular(L, transpose(A), lower=True) ** 2).sum(-2)

    def inverse_diag(self):
        free = 1.0 - self.leverage(self.A) / self.D
        warn_if_lost("the inverse's diagonal", free, REMEDY)
        return free / self.D

    def foresee(self, r, A):
        """Mean of ``A @ w`` (..., m) given one row r (..., n) of observations."""
        w = _regress(self.A, self.D, r[..., None, :])[0]
        return (w @ transpose(A))[..., 0, :]

    def white_size(self):
        return sum(self.F.shape[-2:])

    def colour(self, z):
        k = self.F.shape[-1]
        return (self.A @ z[..., :k, None])[..., 0] + jnp.sqrt(self.D) * z[..., k:]

    def root(self, z):
        # With B = D^-1/2 A and any S S^T = I + B^T B, the matrix W = I + B (I + S)^-1 B^T has
        # W W^T = I + B B^T: both sides of (I + S)(I + S)^T = 2 I + S + S^T + B^T B.
        noise = jnp.sqrt(self.D)
        if self.F.shape[-1] == 0:
            return noise * z
        inside = (transpose(self.A) @ (z / noise)[..., None])[..., 0]
        S = factor(self._inner(), REMEDY)
        S = S + jnp.eye(S.shape[-1], dtype=S.dtype)
        if S.ndim == 2:  # one factor for the whole batch
            rows = inside.reshape(-1, S.shape[-1])
            low = solve_triangular(S, rows.T, lower=True).T.reshape(inside.shape)
        else:
            S = jnp.broadcast_to(S, inside.shape[:-1] + S.shape[-2:])
            low = solve_triangular(S, inside[..., None], lower=True)[..., 0]
        return noise * z + (self.A @ low[..., None])[..., 0]

    def multiply(self, B):
        return self.A @ (transpose(self.A) @ B) + self.D[..., None] * B

    def curved(self, s):
        return LowRank(s[..., None] * self.F, self.w, 1.0 + s**2 * self.D)
