# SPDX-License-Identifier: Apache-2.0
"""Eigenpairs that are made once, and need no factorisation."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _linalg
from .._numbers import known
from .dense import Dense, transpose, warn_if_lost
from .low_rank import LowRank
from .parts import Covariance

_NO_DRAWS = "draws by eigen have no derivative in features, values and residual; leave eigen out"


@eqx.filter_custom_jvp
def _by_pairs(verb, pairs, *args):
    """Call a verb of `Eigen`; if the matrix moves, take the derivative from the matrix."""
    return getattr(pairs, "_" + verb)(*args)


@_by_pairs.def_jvp
def _by_pairs_jvp(primals, tangents):
    (verb, pairs, *args), (_, d_pairs, *d_args) = primals, tangents
    source, d_source = pairs.source, None if d_pairs is None else d_pairs.source
    if d_source is not None and any(x is not None for x in d_source.fixed):
        # if eigenvalues move alone, with fixed vectors, the formula of the pairs has the derivative
        if d_pairs.U is not None or d_pairs.eigenvalues is None:
            return _by_matrix(verb, pairs, args, d_source, d_args)

    # the matrix is fixed in this derivative; a later one in the matrix must not pass unseen
    if source is not None:
        U, eigenvalues = _held(pairs.U, pairs.eigenvalues, source.fixed)
        pairs = pairs._replace(U=U, eigenvalues=eigenvalues)

    def fixed(pairs, *args):
        return getattr(pairs, "_" + verb)(*args)

    return eqx.filter_jvp(fixed, (pairs, *args), (d_pairs, *d_args))


def _by_matrix(verb, pairs, args, d_source, d_args):
    """Take the value from eigenpairs, the derivative from the algebra without them."""
    source = pairs.source

    # the derivative divides by that algebra's factor: let it warn or raise while numbers are known
    if all(known(x) for x in jax.tree.leaves(source)):
        source.algebra().inverse_diag()

    def whole(source, *args):
        return getattr(source.algebra(), verb)(*args)

    change = eqx.filter_jvp(whole, (source, *args), (d_source, *d_args))[1]
    return getattr(pairs, "_" + verb)(*args), change


@eqx.filter_custom_jvp
def _held(U, eigenvalues, parts):
    """Refuse a further derivative in the parts of a matrix whose pairs are constants."""
    return U, eigenvalues


@_held.def_jvp
def _held_jvp(primals, tangents):
    given, moved = primals[:2], tangents[:2]
    if all(x is None for x in moved):  # only parts of the matrix move
        raise NotImplementedError(_linalg.FIRST_ONLY)
    changes = (jnp.zeros_like(x) if d is None else d for x, d in zip(given, moved, strict=True))
    return given, tuple(changes)


class Eigen(NamedTuple):
    """``U diag(l) U^T + ridge I``: no factorisation at all.

    ``U`` is (..., n, r) with orthonormal columns, ``l`` (..., r), ``ridge`` (..., 1). Directions
    outside the columns of a thin ``U`` carry the ridge alone. Derivatives in the matrix come from
    ``source``, the same matrix as a `Covariance`, because eigenvectors have none where eigenvalues
    meet. With a source, ``l`` are eigenvalues before its scale multiplies them.
    """

    U: Array
    eigenvalues: Array
    ridge: Array
    source: Covariance | None = None

    @property
    def levels(self):
        """Prior variances along the columns of U, (..., r)."""
        return (
            self.eigenvalues
            if self.source is None
            else self.source.scale[..., None] * self.eigenvalues
        )

    def judged(self, margin=1.0, dense=False):
        """Return itself, with a warning if round-off of the matrix is not below the ridge.

        Eigenpairs made from columns have no such limit, unless ``dense`` says that the matrix
        itself is used too.
        """
        if dense or (self.source is not None and self.source.prior.correlated):
            readable = known(self.levels) and known(self.ridge)
            if readable and self.levels.size:
                total = np.asarray(self.levels + self.ridge)
                condition = (total.max(-1) / np.maximum(total.min(-1), 1e-300)).max()
                _linalg.judge_condition(condition, self.U.shape, self.U.dtype, margin=margin)
        return self

    def _parts(self, B):
        """Split columns into coordinates in ``U`` and the rest, None if ``U`` is square."""
        inside = transpose(self.U) @ B
        complete = self.U.shape[-1] == self.U.shape[-2]
        return inside, None if complete else B - self.U @ inside

    def quad_logdet(self, r):
        return _by_pairs("quad_logdet", self.judged(), r)

    def _quad_logdet(self, r):
        variance = self.levels + self.ridge
        n, rank = self.U.shape[-2:]
        log_det = jnp.log(variance).sum(-1)
        if rank < n:
            log_det = log_det + (n - rank) * jnp.log(self.ridge[..., 0])
        return self._quad(transpose(r)), log_det

    def solve(self, B):
        return _by_pairs("solve", self.judged(), B)

    def _solve(self, B):
        inside, outside = self._parts(B)
        result = self.U @ (inside / (self.levels + self.ridge)[..., None])
        return result if outside is None else result + outside / self.ridge[..., None]

    def quad(self, B):
        return _by_pairs("quad", self.judged(), B)

    def _quad(self, B):
        inside, outside = self._parts(B)
        weights = 1.0 / (self.levels + self.ridge)
        result = (weights[..., None, :] @ inside**2)[..., 0, :]
        return result if outside is None else result + (outside**2).sum(-2) / self.ridge

    def inverse_diag(self):
        if self.U.shape[-1] < self.U.shape[-2]:
            warn_if_lost("the inverse's diagonal", 1.0 - (self.U**2).sum(-1))
        return _by_pairs("inverse_diag", self.judged(_linalg.LEFT_OUT))

    def _inverse_diag(self):
        weights = 1.0 / (self.levels + self.ridge)
        inside = (self.U**2 @ weights[..., None])[..., 0]
        if self.U.shape[-1] == self.U.shape[-2]:
            return inside
        return inside + (1.0 - (self.U**2).sum(-1)) / self.ridge

    def white_size(self):
        return self.U.shape[-2]

    def root(self, z):
        U = self.U if self.source is None else _linalg.once(self.U, self.source.fixed, _NO_DRAWS)
        noise = jnp.sqrt(self.ridge)  # of the directions outside a thin U
        weights = jnp.sqrt(self.levels + self.ridge) - noise
        inside = weights[..., None] * (transpose(U) @ z[..., None])
        return (U @ inside)[..., 0] + noise * z

    colour = root

    def multiply(self, B):
        if self.source is not None:
            return self.source.algebra().multiply(B)
        inside = self.levels[..., None] * (transpose(self.U) @ B)
        return self.U @ inside + self.ridge[..., None] * B

    def curved(self, s):
        if self.source is not None:
            return self.source.algebra().curved(s)
        n, rank = self.U.shape[-2:]
        if rank < n:
            return LowRank(self.U, jnp.sqrt(self.levels), self.ridge).curved(s)
        return Dense(self.multiply(jnp.eye(n, dtype=self.U.dtype))).curved(s)
