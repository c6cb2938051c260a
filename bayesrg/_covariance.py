# SPDX-License-Identifier: Apache-2.0
"""Three algebras for one covariance matrix ``C``: dense, low rank plus diagonal, eigenpairs.

`Covariance` holds what a covariance is made of, and picks one by shape.

Each offers the same verbs, with batches in front: ``quad_logdet(r)`` for rows ``r`` (..., m, n),
``solve(B)``, ``multiply(B)`` and ``quad(B)`` = diag(B^T C^-1 B) for columns ``B`` (..., n, m),
``inverse_diag()`` = diag(C^-1) (..., n), ``curved(s)``, the algebra of ``I + diag(s) C diag(s)``,
and two square roots of ``C`` applied to white noise: ``colour(z)``, the cheapest, which takes
``white_size()`` numbers, and ``root(z)``, which takes n of them. Both are continuous in ``C``.

What is computed outside a JAX transformation is judged: a factor that failed raises, and one that
lost half of its digits warns, see `_linalg.judge`.
"""

import warnings
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from . import _linalg
from ._linalg import factor, quad_logdet

REMEDY = (
    "give a larger ridge, or eigen = gp.eigenpairs(features, values) of a prior that is given by "
    "its features"
)
_LARGER = _linalg.LARGER


def _t(A):
    return jnp.swapaxes(A, -1, -2)


def _known(x):
    return not isinstance(x, jax.core.Tracer)


def warn_if_lost(what, share, remedy=_LARGER):
    """Warn where a difference is below the square root of round-off of what it was taken from."""
    if not _known(share) or not share.size:
        return
    least = float(np.asarray(share).min())
    if least < np.sqrt(float(np.finfo(share.dtype).eps)):
        warnings.warn(
            f"{what} is a difference that leaves {max(least, 0.0):.1e} of what it is taken from, "
            f"so half of its digits are lost or more; {remedy}",
            stacklevel=3,
        )


class Covariance(NamedTuple):
    """``scale (features diag(values) features^T + residual) + ridge I``, as a law is given it.

    ``features`` is (n, k), ``values`` (..., k), ``residual`` None, (n,) or (n, n), ``scale`` (...),
    ``ridge`` (..., 1) or (..., n) and ``gram`` None or ``features^T features``.
    """

    features: Array
    values: Array
    residual: Array | None
    scale: Array
    ridge: Array
    gram: Array | None = None

    def matrix(self):
        """The matrix, (..., n, n)."""
        prior = (self.features * self.values[..., None, :]) @ self.features.T
        if self.residual is not None:
            prior = prior + (jnp.diag(self.residual) if self.residual.ndim == 1 else self.residual)
        noise = self.ridge[..., None] * jnp.eye(prior.shape[-1], dtype=prior.dtype)
        return self.scale[..., None, None] * prior + noise

    def algebra(self):
        """Dense or low rank."""
        n, k = self.features.shape
        if k >= n or (self.residual is not None and self.residual.ndim == 2):
            return Dense(self.matrix())
        noise = self.ridge
        if self.residual is not None:
            noise = noise + self.scale[..., None] * self.residual
        return LowRank(self.features, self.amplitude(), noise, self.gram)

    def amplitude(self):
        """Prior standard deviation of the modes, (..., k)."""
        return _linalg.safe_sqrt(self.scale)[..., None] * _linalg.safe_sqrt(self.values)


class Dense(NamedTuple):
    """The matrix itself: cubic in the number of points."""

    matrix: Array

    def quad_logdet(self, r):
        if not _known(self.matrix):
            return quad_logdet(self.matrix, r)
        L, white = self._whiten(_t(r))
        return (white**2).sum(-2), _linalg.log_det(L)

    def _whiten(self, B):
        L = factor(self.matrix, REMEDY)
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
        return (factor(self.matrix, REMEDY) @ z[..., None])[..., 0]

    root = colour

    def multiply(self, B):
        return self.matrix @ B

    def curved(self, s):
        eye = jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype)
        return Dense(eye + s[..., :, None] * self.matrix * s[..., None, :])


def _regress(A, D, b):
    """Weights (..., m, k), residuals and a factor of ``I + A^T D^-1 A``, of rows ``b`` (..., m, p).

    The weights minimise ``|b - A w|^2 / D + |w|^2``. The last step is one of refinement.
    """
    scaled = A / D[..., :, None]
    eye = jnp.eye(A.shape[-1], dtype=A.dtype)
    L = factor(_t(A) @ scaled + eye, REMEDY)

    def back(rows):
        batch = jnp.broadcast_shapes(L.shape[:-2], rows.shape[:-2])
        M = jnp.broadcast_to(L, batch + L.shape[-2:])
        rows = jnp.broadcast_to(rows, batch + rows.shape[-2:])
        white = solve_triangular(M, _t(rows), lower=True)
        return _t(solve_triangular(M, white, lower=True, trans=1))

    w = back(b @ scaled)
    w = w + back((b - w @ _t(A)) @ scaled - w)
    return w, b - w @ _t(A), L


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
    d_quad = 2.0 * (steep * (db - w @ _t(dA))).sum(-1) - (steep**2 * dD[..., None, :]).sum(-1)
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
            gram = _t(self.F) @ self.F if self.gram is None else self.gram
            inner = self.w[..., :, None] * gram * self.w[..., None, :] / self.D[..., None]
        else:
            inner = _t(self.A) @ (self.A / self.D[..., None])
        return inner + jnp.eye(self.F.shape[-1], dtype=inner.dtype)

    def quad_logdet(self, r):
        n, D = self.F.shape[-2], self.D
        if D.shape[-1] == 1 and self.F.ndim == 2 and self.F.shape[-1]:
            quad, log_det = _reduced(self.F, self.w, D, r)
        else:
            quad, log_det = _fit(self.A, D, r)
        return quad, log_det + (n / D.shape[-1]) * jnp.log(D).sum(-1)

    def solve(self, B):
        return _t(_regress(self.A, self.D, _t(B))[1]) / self.D[..., None]

    def quad(self, B):
        return _fit(self.A, self.D, _t(B))[0]

    def leverage(self, A):
        """Variance of ``A @ w`` given observations, (..., m), for rows ``A`` (..., m, k)."""
        L = factor(self._inner(), REMEDY)
        batch = jnp.broadcast_shapes(L.shape[:-2], A.shape[:-2])
        L = jnp.broadcast_to(L, batch + L.shape[-2:])
        A = jnp.broadcast_to(A, batch + A.shape[-2:])
        return (solve_triangular(L, _t(A), lower=True) ** 2).sum(-2)

    def inverse_diag(self):
        free = 1.0 - self.leverage(self.A) / self.D
        warn_if_lost("the inverse's diagonal", free, REMEDY)
        return free / self.D

    def foresee(self, r, A):
        """Mean of ``A @ w`` (..., m) given one row r (..., n) of observations."""
        w = _regress(self.A, self.D, r[..., None, :])[0]
        return (w @ _t(A))[..., 0, :]

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
        return self.A @ (_t(self.A) @ B) + self.D[..., None] * B

    def curved(self, s):
        return LowRank(s[..., None] * self.F, self.w, 1.0 + s**2 * self.D)


@eqx.filter_custom_jvp
def _by_pairs(verb, pairs, *args):
    """A verb of `Eigen`, whose derivative is that of the matrix where the matrix moves."""
    return getattr(pairs, "_" + verb)(*args)


@_by_pairs.def_jvp
def _by_pairs_jvp(primals, tangents):
    (verb, pairs, *args), (_, d_pairs, *d_args) = primals, tangents
    source = pairs.source
    d_source = None if d_pairs is None else d_pairs.source
    if d_source is not None and any(x is not None for x in d_source[:3]):

        def whole(source, *args):
            return getattr(source.algebra(), verb)(*args)

        change = eqx.filter_jvp(whole, (source, *args), (d_source, *d_args))[1]
        return getattr(pairs, "_" + verb)(*args), change
    if source is not None:  # and may move elsewhere
        pairs = pairs._replace(U=_linalg.once(pairs.U, source[:3]))

    def fixed(pairs, *args):
        return getattr(pairs, "_" + verb)(*args)

    return eqx.filter_jvp(fixed, (pairs, *args), (d_pairs, *d_args))


class Eigen(NamedTuple):
    """``U diag(l) U^T + ridge I``: no factorisation at all.

    ``U`` is (..., n, r) with orthonormal columns, ``l`` (..., r), ``ridge`` (..., 1). Directions
    outside the columns of a thin ``U`` carry the ridge alone. Derivatives in the matrix are those
    of ``source``, the `Covariance` that it is: eigenvectors have none where eigenvalues meet.
    """

    U: Array
    eigenvalues: Array
    ridge: Array
    source: Covariance | None = None

    def judged(self):
        """Return itself, with a warning where round-off of the matrix is not below the ridge."""
        dense = self.source is not None and self.source.residual is not None
        if dense and self.source.residual.ndim == 2:
            known = _known(self.eigenvalues) and _known(self.ridge)
            if known and self.eigenvalues.size:
                total = np.asarray(self.eigenvalues + self.ridge)
                condition = (total.max(-1) / np.maximum(total.min(-1), 1e-300)).max()
                _linalg.judge_condition(condition, self.U.shape, self.U.dtype)
        return self

    def _parts(self, B):
        """Split columns into coordinates in ``U`` and what is left over, None if nothing can be."""
        inside = _t(self.U) @ B
        complete = self.U.shape[-1] == self.U.shape[-2]
        return inside, None if complete else B - self.U @ inside

    def quad_logdet(self, r):
        return _by_pairs("quad_logdet", self.judged(), r)

    def _quad_logdet(self, r):
        variance = self.eigenvalues + self.ridge
        n, rank = self.U.shape[-2:]
        log_det = jnp.log(variance).sum(-1)
        if rank < n:
            log_det = log_det + (n - rank) * jnp.log(self.ridge[..., 0])
        return self._quad(_t(r)), log_det

    def solve(self, B):
        return _by_pairs("solve", self.judged(), B)

    def _solve(self, B):
        inside, outside = self._parts(B)
        result = self.U @ (inside / (self.eigenvalues + self.ridge)[..., None])
        return result if outside is None else result + outside / self.ridge[..., None]

    def quad(self, B):
        return _by_pairs("quad", self.judged(), B)

    def _quad(self, B):
        inside, outside = self._parts(B)
        weights = 1.0 / (self.eigenvalues + self.ridge)
        result = (weights[..., None, :] @ inside**2)[..., 0, :]
        return result if outside is None else result + (outside**2).sum(-2) / self.ridge

    def inverse_diag(self):
        if self.U.shape[-1] < self.U.shape[-2]:
            warn_if_lost("the inverse's diagonal", 1.0 - (self.U**2).sum(-1))
        return _by_pairs("inverse_diag", self.judged())

    def _inverse_diag(self):
        weights = 1.0 / (self.eigenvalues + self.ridge)
        inside = (self.U**2 @ weights[..., None])[..., 0]
        if self.U.shape[-1] == self.U.shape[-2]:
            return inside
        return inside + (1.0 - (self.U**2).sum(-1)) / self.ridge

    def white_size(self):
        return self.U.shape[-2]

    def root(self, z):
        U = self.U if self.source is None else _linalg.once(self.U, self.source[:3])
        noise = jnp.sqrt(self.ridge)  # of the directions outside a thin U
        weights = jnp.sqrt(self.eigenvalues + self.ridge) - noise
        inside = weights[..., None] * (_t(U) @ z[..., None])
        return (U @ inside)[..., 0] + noise * z

    colour = root

    def multiply(self, B):
        if self.source is not None:
            return self.source.algebra().multiply(B)
        inside = self.eigenvalues[..., None] * (_t(self.U) @ B)
        return self.U @ inside + self.ridge[..., None] * B

    def curved(self, s):
        if self.source is not None:
            return self.source.algebra().curved(s)
        n, rank = self.U.shape[-2:]
        if rank < n:
            return LowRank(self.U, jnp.sqrt(self.eigenvalues), self.ridge).curved(s)
        return Dense(self.multiply(jnp.eye(n, dtype=self.U.dtype))).curved(s)
