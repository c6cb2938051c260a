# SPDX-License-Identifier: Apache-2.0
"""Algebra of several correlated outputs: one small block per eigenvalue of the kernel."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .._linalg import check_factor, factor, inverse, quad_logdet, ratio
from .._numbers import known
from .moving import held, matrix_moves
from .noiseless import RANGE, check_range

_RANK = 1e-10  # without noise, eigenvalues below this share of the largest count as zero


class Kronecker(NamedTuple):
    """Linear map from modes w (..., k, c) to functions ``left w right^T`` (..., n, c).

    ``left`` (n, k) holds the columns of the low modes; ``right`` (..., c, c) mixes the outputs.
    """

    left: Float[Array, "point mode"]
    right: Float[Array, "*batch output output_bis"]

    @property
    def dtype(self):
        """Floating-point type of the columns."""
        return self.left.dtype

    def __matmul__(self, modes):
        return self.left @ modes @ jnp.swapaxes(self.right, -1, -2)


@eqx.filter_custom_jvp
def log_density(prior, blocks, r):
    """Return the log density of r (..., n, c), with a derivative in the kernel matrix K.

    ``blocks`` are the `Blocks` of the `PriorAt` with matrix K. The derivative does not use
    eigenvectors, which have no derivative where eigenvalues coincide. It is half the inner product
    of dK with ``a Q a^T - P``, where a = C^-1 r and P is the trace of C^-1 (I x Q) over outputs.
    """
    return blocks.log_density(r)


@log_density.def_jvp
def _log_density_jvp(primals, tangents):
    (prior, blocks, r), (d_prior, d_blocks, dr) = primals, tangents

    # First the derivative in everything but K, with constant eigenpairs.
    blocks = blocks.held(prior)
    pairs = (None, None) if d_blocks is None else (d_blocks.vectors, d_blocks.kappa)
    moved = matrix_moves(d_prior, *pairs)
    if moved and d_blocks is not None:
        d_blocks = d_blocks._replace(vectors=None, kappa=None)
    value, change = eqx.filter_jvp(
        lambda blocks, r: blocks.log_density(r), (blocks, r), (d_blocks, dr)
    )

    # Then the derivative in K: 1/2 <a Q a^T - P, dK>.
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


class Blocks(NamedTuple):
    r"""Algebra of ``K_ij Q_ab + ridge I``: blocks ``M_i = kappa_i Q + ridge I`` per eigenvector.

    ``vectors`` (n, r) are eigenvectors of K, None for the identity. ``kappa`` (r,) are its
    eigenvalues, ``order`` (..., c, c) is Q, and ``ridge`` is (...). Q is not diagonalised, so that
    all results are smooth where its eigenvalues coincide. Directions without variance and without
    noise do not contribute.
    """

    vectors: Array | None
    kappa: Float[Array, " mode"]
    order: Float[Array, "*batch output output_bis"]
    ridge: Float[Array, "*batch"]

    def held(self, prior):
        """Return blocks that raise an error in a derivative with respect to ``prior``."""
        if self.vectors is None:
            return self
        vectors, kappa = held(self.vectors, self.kappa, prior, _HELD, True)
        return self._replace(vectors=vectors, kappa=kappa)

    def matrices(self):
        """Return the blocks (..., r, c, c), and a mask (..., r) of those that are not zero.

        Blocks that are zero are replaced by the identity, so that all of them have an inverse.
        """
        ridge = self.ridge[..., None]
        live = (ridge > 0) | (self.kappa > _RANK * jnp.max(self.kappa, initial=0.0))
        eye = jnp.eye(self.order.shape[-1], dtype=self.order.dtype)
        M = self.kappa[:, None, None] * self.order[..., None, :, :] + ridge[..., None, None] * eye
        return jnp.where(live[..., None, None], M, eye), live

    def coordinates(self, r):
        """Return coordinates of r (..., n, c) in the eigenvectors, and the rest (or None)."""
        if self.vectors is None:
            return r, None
        inside = self.vectors.T @ r
        complete = self.vectors.shape[0] == self.vectors.shape[1]
        return inside, None if complete else r - self.vectors @ inside

    def log_density(self, r):
        """Return the log density (...) of centred observations r (..., n, c).

        Without noise, observations outside the range of K have density zero.
        """
        n, c = r.shape[-2:]
        inside, outside = self.coordinates(r)
        M, live = self.matrices()
        if not isinstance(M, jax.core.Tracer):
            check_factor(jnp.linalg.cholesky(M))
        M = jnp.broadcast_to(M, r.shape[:-2] + M.shape[-3:])
        quad, log_det = quad_logdet(M, inside[..., None, :])
        terms = jnp.where(live, quad[..., 0] + log_det + c * np.log(2 * np.pi), 0.0)

        # Directions outside the given eigenvectors have noise alone.
        missing = n - self.kappa.shape[0]
        outside = 0.0 if outside is None else (outside**2).sum((-2, -1))
        ridge = jnp.where(self.ridge > 0, self.ridge, 1.0)
        null = missing * c * jnp.log(2 * np.pi * ridge) + outside / ridge

        # Without noise nothing may lie outside, or in a direction without variance.
        stray = outside + jnp.where(live, 0.0, (inside**2).sum(-1)).sum(-1)
        stray = stray > RANGE**2 * (r**2).sum((-2, -1))
        self._check_range(stray, missing + (~live).sum(-1), n)
        null = jnp.where(self.ridge > 0, null, jnp.where(stray, jnp.inf, 0.0))
        return -0.5 * (terms.sum(-1) + null)

    def inverses(self):
        """Return the inverse blocks (..., r, c, c), zero where a block is zero."""
        M, live = self.matrices()
        return inverse(factor(M)) * live[..., None, None]

    def _check_range(self, stray, null, n):
        """Without noise, check that observations lie in the range of a kernel of rank below n.

        ``stray`` says which observations do not, ``null`` is n minus the rank.
        """
        if all(known(part) for part in (stray, self.ridge, null)):
            null = np.where(np.asarray(self.ridge) == 0, np.asarray(null), 0)
            check_range(n, n - null.max(), (np.asarray(stray) & (null > 0)).any())

    def solve(self, r, inverses):
        """Return the inverse covariance times r (..., n, c), given the inverse blocks."""
        inside, outside = self.coordinates(r)
        weight = (inverses @ inside[..., None])[..., 0]
        if self.vectors is not None:
            weight = self.vectors @ weight
        if outside is None:
            return weight
        return weight + ratio(outside, self.ridge[..., None, None])

    def inverse_diag(self, inverses):
        """Return the diagonal blocks of the inverse covariance, (..., n, c, c)."""
        if self.vectors is None:
            return inverses
        inside = jnp.einsum("ij,...jab->...iab", self.vectors**2, inverses)
        if self.vectors.shape[0] == self.vectors.shape[1]:
            return inside
        rest = ratio(1.0 - (self.vectors**2).sum(-1), self.ridge[..., None])
        return inside + rest[..., None, None] * jnp.eye(inside.shape[-1], dtype=inside.dtype)
