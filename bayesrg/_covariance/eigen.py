# SPDX-License-Identifier: Apache-2.0
"""Algebra of a covariance with known eigenpairs, which needs no factorisation."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._linalg import FIRST_ONLY, LEFT_OUT, once, warn_condition
from .._numbers import known
from .dense import transpose, warn_if_lost
from .moving import held, matrix_moves
from .parts import Covariance

_NO_DRAWS = (
    "draws that use eigen have no derivative in features, values and residual; leave eigen out"
)


@eqx.filter_custom_jvp
def _by_pairs(verb, pairs, *args):
    """Call a method of `Eigen`; if the matrix depends on the parameter, differentiate the matrix.

    Eigenvectors have no derivative where eigenvalues coincide.
    """
    return getattr(pairs, "_" + verb)(*args)


@_by_pairs.def_jvp
def _by_pairs_jvp(primals, tangents):
    (verb, pairs, *args), (_, d_pairs, *d_args) = primals, tangents
    if d_pairs is not None and d_pairs.source is not None:
        if matrix_moves(d_pairs.source.fixed, d_pairs.U, d_pairs.eigenvalues):
            return _by_matrix(verb, pairs, args, d_pairs.source, d_args)

    # The matrix is constant in this derivative. A second derivative in the matrix would be wrong,
    # so mark the eigenpairs to raise an error then.
    U, eigenvalues = held(pairs.U, pairs.eigenvalues, pairs.source.fixed, FIRST_ONLY, False)
    pairs = pairs._replace(U=U, eigenvalues=eigenvalues)

    def fixed(pairs, *args):
        return getattr(pairs, "_" + verb)(*args)

    return eqx.filter_jvp(fixed, (pairs, *args), (d_pairs, *d_args))


def _by_matrix(verb, pairs, args, d_source, d_args):
    """Return the value by eigenpairs and the derivative by the algebra without eigenpairs."""
    source = pairs.source

    # The derivative divides by the factor of that algebra. Compute the factor once where numbers
    # can be read, so that a bad one warns or raises.
    if all(known(x) for x in jax.tree.leaves(source)):
        source.algebra().inverse_diag()

    def whole(source, *args):
        return getattr(source.algebra(), verb)(*args)

    change = eqx.filter_jvp(whole, (source, *args), (d_source, *d_args))[1]
    return getattr(pairs, "_" + verb)(*args), change


class Eigen(NamedTuple):
    """Algebra of ``U diag(l) U^T + ridge I``, where l is ``scale * eigenvalues``.

    ``U`` is (..., n, r) with orthonormal columns, ``eigenvalues`` (..., r) and ``ridge`` (..., 1).
    If r < n, directions outside the columns of ``U`` have the ridge alone. ``source`` is this
    matrix as a `Covariance`, with the scale. Derivatives in the matrix come from it, because
    eigenvectors have no derivative where eigenvalues coincide.
    """

    U: Array
    eigenvalues: Array
    ridge: Array
    source: Covariance

    @property
    def levels(self):
        """Prior variances along the columns of U, (..., r)."""
        return self.source.scale[..., None] * self.eigenvalues

    def checked(self, margin=1.0, dense=False):
        """Return this algebra, after a warning if the matrix has round-off as large as the ridge.

        Eigenpairs computed from columns do not have this round-off. They are checked only if the
        matrix is used too (``dense``). The result loses ``margin`` times more digits than a
        quadratic form.
        """
        if dense or self.source.prior.correlated:
            readable = known(self.levels) and known(self.ridge)
            if readable and self.levels.size:
                total = np.asarray(self.levels + self.ridge)
                condition = (total.max(-1) / np.maximum(total.min(-1), 1e-300)).max()
                warn_condition(condition, self.U.shape, self.U.dtype, margin=margin)
        return self

    def _parts(self, B):
        """Split columns B into coordinates in ``U`` and the rest, which is None if U is square."""
        inside = transpose(self.U) @ B
        complete = self.U.shape[-1] == self.U.shape[-2]
        return inside, None if complete else B - self.U @ inside

    def quad_logdet(self, r):
        return _by_pairs("quad_logdet", self.checked(), r)

    def _quad_logdet(self, r):
        variance = self.levels + self.ridge
        n, rank = self.U.shape[-2:]
        log_det = jnp.log(variance).sum(-1)
        if rank < n:
            log_det = log_det + (n - rank) * jnp.log(self.ridge[..., 0])
        inside, outside = self._parts(transpose(r))
        quad = ((1.0 / variance)[..., None, :] @ inside**2)[..., 0, :]
        if outside is not None:
            quad = quad + (outside**2).sum(-2) / self.ridge
        return quad, log_det

    def solve(self, B):
        return _by_pairs("solve", self.checked(), B)

    def _solve(self, B):
        inside, outside = self._parts(B)
        result = self.U @ (inside / (self.levels + self.ridge)[..., None])
        return result if outside is None else result + outside / self.ridge[..., None]

    def inverse_diag(self):
        if self.U.shape[-1] < self.U.shape[-2]:
            warn_if_lost("the inverse's diagonal", 1.0 - (self.U**2).sum(-1))
        return _by_pairs("inverse_diag", self.checked(LEFT_OUT))

    def _inverse_diag(self):
        weights = 1.0 / (self.levels + self.ridge)
        inside = (self.U**2 @ weights[..., None])[..., 0]
        if self.U.shape[-1] == self.U.shape[-2]:
            return inside
        return inside + (1.0 - (self.U**2).sum(-1)) / self.ridge

    def white_size(self):
        return self.U.shape[-2]

    def root(self, z):
        U = once(self.U, self.source.fixed, _NO_DRAWS)
        noise = jnp.sqrt(self.ridge)  # for all directions; those in U get the difference
        weights = jnp.sqrt(self.levels + self.ridge) - noise
        inside = weights[..., None] * (transpose(U) @ z[..., None])
        return (U @ inside)[..., 0] + noise * z

    colour = root

    def multiply(self, B):
        return self.source.algebra().multiply(B)

    def curved(self, s):
        return self.source.algebra().curved(s)
