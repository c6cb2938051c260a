# SPDX-License-Identifier: Apache-2.0
"""Algebra of a covariance that is stored as a matrix, and what other algebras share."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from .._linalg import LARGER, LEFT_OUT, factor, log_det, quad_logdet
from .._numbers import known
from .._warnings import warn

REMEDY = (
    "give a larger ridge, or eigen = gp.eigenpairs(features, values) of a prior that is given by "
    "its features"
)


def transpose(A):
    return jnp.swapaxes(A, -1, -2)


def whiten(L, B, trans=0):
    """Return ``L^-1 B``, or ``L^-T B`` with ``trans=1``, for L (..., n, n) and B (..., n, m).

    L is lower triangular. Axes in front are broadcast, which `solve_triangular` does not do.
    """
    batch = jnp.broadcast_shapes(L.shape[:-2], B.shape[:-2])
    L, B = (jnp.broadcast_to(x, batch + x.shape[-2:]) for x in (L, B))
    return solve_triangular(L, B, lower=True, trans=trans)


def warn_if_lost(what, share):
    """Warn if a difference has lost half of its digits.

    ``what`` names the difference and ``share`` is the difference over the number from which
    something was subtracted.
    """
    if not known(share) or not share.size:
        return
    least = float(np.asarray(share).min())
    if least < np.sqrt(float(np.finfo(share.dtype).eps)):
        warn(
            f"{what} is a difference of nearly equal numbers, {max(least, 0.0):.1e} of their size, "
            f"so half of its digits are lost or more; {LARGER}"
        )


class Dense(NamedTuple):
    """Algebra of a ``matrix`` (..., n, n), by Cholesky factors; the cost is cubic in n."""

    matrix: Array

    def inner(self):
        return self.matrix

    def factor(self, margin=1.0):
        return factor(self.matrix, REMEDY, margin)

    def quad_logdet(self, r):
        if not known(self.matrix):
            return quad_logdet(self.matrix, r)
        L = self.factor()
        return (whiten(L, transpose(r)) ** 2).sum(-2), log_det(L)

    def solve(self, B):
        L = self.factor()
        return whiten(L, whiten(L, B), trans=1)

    def inverse_diag(self):
        eye = jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype)
        return (whiten(self.factor(LEFT_OUT), eye) ** 2).sum(-2)

    def white_size(self):
        return self.matrix.shape[-1]

    def colour(self, z):
        return (self.factor() @ z[..., None])[..., 0]

    root = colour

    def multiply(self, B):
        return self.matrix @ B

    def curved(self, s):
        eye = jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype)
        return Dense(eye + s[..., :, None] * self.matrix * s[..., None, :])
