# SPDX-License-Identifier: Apache-2.0
"""The covariance of several correlated outputs, one small block an eigenvalue of the kernel."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve
from jaxtyping import Float

from .._linalg import factor, judge, quad_logdet
from . import sound

_RANK = 1e-10  # eigenvalues below this part of the largest are none, where there is no noise
_RANGE = 1e-8  # so far observations may stand off the range of K, relative to their size


class Kronecker(NamedTuple):
    """Columns of low modes and what mixes the outputs: ``root @ w`` is left w right^T.

    ``left`` is (n, k) and ``right`` (..., c, c), the modes w are (..., k, c).
    """

    left: Float[Array, "point mode"]
    right: Float[Array, "*batch output output_bis"]

    @property
    def dtype(self):
        """Precision of the columns."""
        return self.left.dtype

    def __matmul__(self, modes):
        return self.left @ modes @ jnp.swapaxes(self.right, -1, -2)


@eqx.filter_custom_jvp
def log_density(prior, blocks, r):
    """Log density of r (..., n, c) by the ``blocks`` of a `PriorAt`, with its derivative in K.

    It is not taken through eigenvectors, which have none where eigenvalues meet. The derivative is
    half of the inner product of dK with ``a Q a^T - P``, where a = C^-1 r and P is the trace of
    C^-1 (I x Q) over outputs.
    """
    return blocks.log_density(r)


@log_density.def_jvp
def _log_density_jvp(primals, tangents):
    (prior, blocks, r), (d_prior, d_blocks, dr) = primals, tangents
    blocks = blocks.held(prior)
    moved = d_prior is not None and bool(jax.tree.leaves(d_prior))
    if moved and d_blocks is not None:  # unless eigenvalues alone move
        moved = d_blocks.vectors is not None or d_blocks.kappa is None
    if moved and d_blocks is not None:
        d_blocks = d_blocks._replace(vectors=None, kappa=None)
    value, change = eqx.filter_jvp(lambda blocks, r: blocks.log_density(r), (blocks, r),
                                   (d_blocks, dr))  # fmt: skip

    if moved:
        inverses, U = blocks.inverses(), blocks.vectors
        a = blocks.solve(r, inverses)
        share = jnp.einsum("...iab,...ba->...i", inverses, blocks.order)
        U_share = U * share[..., None, :]
        pull = a @ blocks.order @ jnp.swapaxes(a, -1, -2) - U_share @ U.T
        dK = eqx.filter_jvp(lambda prior: prior.dense(), (prior,), (d_prior,))[1]
        change_K = 0.5 * (pull * dK).sum((-2, -1))
        change = change_K if change is None else change + change_K
    return value, change


_HELD = (
    "of a MatrixMercerNormal only log_prob and draws have a derivative in features, values and "
    "residual, and that is a first one; fix these, and differentiate ridge, order or observations"
)


@eqx.filter_custom_jvp
def _held(vectors, kappa, prior):
    """Return eigenpairs of K that refuse a derivative in K; eigenvalues alone may move."""
    return vectors, kappa


@_held.def_jvp
def _held_jvp(primals, tangents):
    if tangents[0] is not None or tangents[1] is None:
        raise NotImplementedError(_HELD)
    return primals[:2], (jnp.zeros_like(primals[0]), tangents[1])


class Blocks(NamedTuple):
    r"""``K_ij Q_ab + ridge I`` in eigenvectors of K, where it is ``M_i = kappa_i Q + ridge I``.

    ``vectors`` is (n, r), None for the identity, ``kappa`` (r,), ``order`` (..., c, c) and
    ``ridge`` (...). Nothing here diagonalises Q, so all is smooth where its eigenvalues coincide.
    Directions that have neither variance nor noise are left out.
    """

    vectors: Array | None
    kappa: Float[Array, " mode"]
    order: Float[Array, "*batch output output_bis"]
    ridge: Float[Array, "*batch"]

    def held(self, prior):
        """Return blocks that refuse a derivative in the prior whose eigenvectors they hold."""
        if self.vectors is None:
            return self
        vectors, kappa = _held(self.vectors, self.kappa, prior)
        return self._replace(vectors=vectors, kappa=kappa)

    def matrices(self):
        """Return the blocks (..., r, c, c), and which of them have any variance (..., r)."""
        noise = self.ridge[..., None]
        live = (noise > 0) | (self.kappa > _RANK * jnp.max(self.kappa, initial=0.0))
        eye = jnp.eye(self.order.shape[-1], dtype=self.order.dtype)
        M = self.kappa[:, None, None] * self.order[..., None, :, :] + noise[..., None, None] * eye
        return jnp.where(live[..., None, None], M, eye), live

    def coordinates(self, r):
        """Coordinates of r (..., n, c) in the eigenvectors, and what is left, None if nothing."""
        if self.vectors is None:
            return r, None
        inside = self.vectors.T @ r
        complete = self.vectors.shape[0] == self.vectors.shape[1]
        return inside, None if complete else r - self.vectors @ inside

    def log_density(self, r):
        """Log density of centred observations (..., n, c), with all batch axes in front."""
        n, c = r.shape[-2:]
        inside, outside = self.coordinates(r)
        M, live = self.matrices()
        if not isinstance(M, jax.core.Tracer):
            judge(jnp.linalg.cholesky(M))
        M = jnp.broadcast_to(M, r.shape[:-2] + M.shape[-3:])
        quad, log_det = quad_logdet(M, inside[..., None, :])
        terms = jnp.where(live, quad[..., 0] + log_det + c * np.log(2 * np.pi), 0.0)
        missing = n - self.kappa.shape[0]
        outside = 0.0 if outside is None else (outside**2).sum((-2, -1))
        ridge = jnp.where(self.ridge > 0, self.ridge, 1.0)
        null = missing * c * jnp.log(2 * np.pi * ridge) + outside / ridge
        stray = outside + jnp.where(live, 0.0, (inside**2).sum(-1)).sum(-1)
        stray = stray > _RANGE**2 * (r**2).sum((-2, -1))
        sound.refuse_outside(stray, self.ridge, missing + (~live).sum(-1), n)
        null = jnp.where(self.ridge > 0, null, jnp.where(stray, jnp.inf, 0.0))
        return -0.5 * (terms.sum(-1) + null)

    def inverses(self):
        """Inverse blocks (..., r, c, c), zero where there is no variance."""
        M, live = self.matrices()
        eye = jnp.broadcast_to(jnp.eye(M.shape[-1], dtype=M.dtype), M.shape)
        return cho_solve((factor(M), True), eye) * live[..., None, None]

    def _precision(self):
        positive = self.ridge > 0
        return jnp.where(positive, 1.0 / jnp.where(positive, self.ridge, 1.0), 0.0)

    def solve(self, r, inverses):
        """Inverse covariance times r (..., n, c)."""
        inside, outside = self.coordinates(r)
        weight = (inverses @ inside[..., None])[..., 0]
        if self.vectors is not None:
            weight = self.vectors @ weight
        if outside is None:
            return weight
        return weight + outside * self._precision()[..., None, None]

    def inverse_diag(self, inverses):
        """Blocks on the diagonal of the inverse covariance, (..., n, c, c)."""
        if self.vectors is None:
            return inverses
        inside = jnp.einsum("ij,...jab->...iab", self.vectors**2, inverses)
        if self.vectors.shape[0] == self.vectors.shape[1]:
            return inside
        rest = (1.0 - (self.vectors**2).sum(-1)) * self._precision()[..., None]
        return inside + rest[..., None, None] * jnp.eye(inside.shape[-1], dtype=inside.dtype)
