# SPDX-License-Identifier: Apache-2.0
"""Three algebras for one covariance matrix ``C``: dense, low rank plus diagonal, eigenpairs.

Each offers the same verbs, with batches in front: ``quad_logdet(r)`` for rows ``r`` (..., m, n),
``solve(B)``, ``multiply(B)`` and ``quad(B)`` = diag(B^T C^-1 B) for columns ``B`` (..., n, m),
``inverse_diag()`` = diag(C^-1) (..., n), ``curved(s)``, the algebra of ``I + diag(s) C diag(s)``,
and two square roots of ``C`` applied to white noise: ``colour(z)``, the cheapest, which takes
``white_size()`` numbers, and ``root(z)``, which takes n of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from ._linalg import quad_logdet


def _t(A):
    return jnp.swapaxes(A, -1, -2)


class Dense(NamedTuple):
    """The matrix itself: cubic in the number of points."""

    matrix: Array

    def quad_logdet(self, r):
        return quad_logdet(self.matrix, r)

    def _whiten(self, B):
        L = jnp.linalg.cholesky(self.matrix)
        batch = jnp.broadcast_shapes(L.shape[:-2], B.shape[:-2])
        L = jnp.broadcast_to(L, batch + L.shape[-2:])
        return L, solve_triangular(L, jnp.broadcast_to(B, batch + B.shape[-2:]), lower=True)

    def solve(self, B):
        L, white = self._whiten(B)
        return solve_triangular(L, white, lower=True, trans=1)

    def quad(self, B):
        return (self._whiten(B)[1] ** 2).sum(-2)

    def inverse_diag(self):
        return self.quad(jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype))

    def white_size(self):
        return self.matrix.shape[-1]

    def colour(self, z):
        return (jnp.linalg.cholesky(self.matrix) @ z[..., None])[..., 0]

    root = colour

    def multiply(self, B):
        return self.matrix @ B

    def curved(self, s):
        eye = jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype)
        return Dense(eye + s[..., :, None] * self.matrix * s[..., None, :])


class LowRank(NamedTuple):
    """``A A^T + diag(D)``, ``A = F diag(w)``, by Woodbury: cubic only in the columns of ``F``.

    ``F`` is (..., n, k), ``w`` (..., k), ``D`` (..., n) or (..., 1), ``gram`` = ``F^T F`` (k, k) if
    it is known. Where ``D`` is constant over points, all that is linear in n touches ``F`` and the
    observations alone: a sampler does not move these, so it is computed once, outside its loop.
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
            gram = _t(self.F) @ self.F if self.gram is None else self.gram
            inner = self.w[..., :, None] * gram * self.w[..., None, :] / self.D[..., None]
        else:
            inner = _t(self.A) @ (self.A / self.D[..., None])
        return inner + jnp.eye(self.F.shape[-1], dtype=inner.dtype)

    def quad_logdet(self, r):
        n, D = self.F.shape[-2], self.D
        if D.shape[-1] == 1:
            b = (r @ self.F) * (self.w / D)[..., None, :]
            square, noise = (r**2).sum(-1) / D, n * jnp.log(D[..., 0])
        else:
            b = (r / D[..., None, :]) @ self.A
            square, noise = (r**2 / D[..., None, :]).sum(-1), jnp.log(D).sum(-1)
        quad, log_det = quad_logdet(self._inner(), b)
        return square - quad, log_det + noise

    def solve(self, B):
        scaled = B / self.D[..., None]
        correction = Dense(self._inner()).solve(_t(self.A) @ scaled)
        return scaled - (self.A @ correction) / self.D[..., None]

    def quad(self, B):
        return (B * self.solve(B)).sum(-2)

    def inverse_diag(self):
        n = self.F.shape[-2]
        D = jnp.broadcast_to(self.D, self.D.shape[:-1] + (n,))
        return 1.0 / D - Dense(self._inner()).quad(_t(self.A)) / D**2

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
        inside = (_t(self.A) @ (z / noise)[..., None])[..., 0]
        S = jnp.linalg.cholesky(self._inner())
        S = S + jnp.eye(S.shape[-1], dtype=S.dtype)
        if S.ndim == 2:  # one factor for the whole batch
            rows = inside.reshape(-1, S.shape[-1])
            low = solve_triangular(S, rows.T, lower=True).T.reshape(inside.shape)
        else:
            S = jnp.broadcast_to(S, inside.shape[:-1] + S.shape[-2:])
            low = solve_triangular(S, inside[..., None], lower=True)[..., 0]
        return noise * z + (self.A @ low[..., None])[..., 0]

    def multiply(self, B):
        return self.A @ (_t(self.A) @ B) + self.D[..., None] * B

    def curved(self, s):
        return LowRank(s[..., None] * self.F, self.w, 1.0 + s**2 * self.D)


class Eigen(NamedTuple):
    """``U diag(l) U^T + ridge I``: no factorisation at all.

    ``U`` is (..., n, r) with orthonormal columns, ``l`` (..., r), ``ridge`` (..., 1). Directions
    outside the columns of a thin ``U`` carry the ridge alone.
    """

    U: Array
    eigenvalues: Array
    ridge: Array

    def _parts(self, B):
        """Split columns into coordinates in ``U`` and what is left over, None if nothing can be."""
        inside = _t(self.U) @ B
        complete = self.U.shape[-1] == self.U.shape[-2]
        return inside, None if complete else B - self.U @ inside

    def quad_logdet(self, r):
        variance = self.eigenvalues + self.ridge
        n, rank = self.U.shape[-2:]
        log_det = jnp.log(variance).sum(-1)
        if rank < n:
            log_det = log_det + (n - rank) * jnp.log(self.ridge[..., 0])
        return self.quad(_t(r)), log_det

    def solve(self, B):
        inside, outside = self._parts(B)
        result = self.U @ (inside / (self.eigenvalues + self.ridge)[..., None])
        return result if outside is None else result + outside / self.ridge[..., None]

    def quad(self, B):
        inside, outside = self._parts(B)
        weights = 1.0 / (self.eigenvalues + self.ridge)
        result = (weights[..., None, :] @ inside**2)[..., 0, :]
        return result if outside is None else result + (outside**2).sum(-2) / self.ridge

    def inverse_diag(self):
        weights = 1.0 / (self.eigenvalues + self.ridge)
        inside = (self.U**2 @ weights[..., None])[..., 0]
        if self.U.shape[-1] == self.U.shape[-2]:
            return inside
        return inside + (1.0 - (self.U**2).sum(-1)) / self.ridge

    def white_size(self):
        return sum(self.U.shape[-2:])

    def colour(self, z):
        rank = self.U.shape[-1]
        inside = (self.U @ (jnp.sqrt(self.eigenvalues) * z[..., :rank])[..., None])[..., 0]
        return inside + jnp.sqrt(self.ridge) * z[..., rank:]

    def root(self, z):
        noise = jnp.sqrt(self.ridge)  # of the directions outside a thin U
        weights = jnp.sqrt(self.eigenvalues + self.ridge) - noise
        inside = weights[..., None] * (_t(self.U) @ z[..., None])
        return (self.U @ inside)[..., 0] + noise * z

    def multiply(self, B):
        inside = self.eigenvalues[..., None] * (_t(self.U) @ B)
        return self.U @ inside + self.ridge[..., None] * B

    def curved(self, s):
        n, rank = self.U.shape[-2:]
        if rank < n:
            return LowRank(self.U, jnp.sqrt(self.eigenvalues), self.ridge).curved(s)
        return Dense(self.multiply(jnp.eye(n, dtype=self.U.dtype))).curved(s)
