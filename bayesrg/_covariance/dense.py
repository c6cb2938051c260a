# SPDX-License-Identifier: Apache-2.0
"""Algebra of a covariance that is stored as a matrix, and helpers of all algebras."""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from .. import _linalg
from .._linalg import factor, quad_logdet
from .._numbers import known

REMEDY = (
    "give a larger ridge, or eigen = gp.eigenpairs(features, values) of a prior that is given by "
    "its features"
)


def transpose(A):
    return jnp.swapaxes(A, -1, -2)


def warn_if_lost(what, share, remedy=_linalg.LARGER):
    """Warn if a difference has lost half of its digits.

    ``what`` names the difference and ``share`` is the difference over the number from which
    something was subtracted.
    """
    if not known(share) or not share.size:
        return
    least = float(np.asarray(share).min())
    if least < np.sqrt(float(np.finfo(share.dtype).eps)):
        warnings.warn(
            f"{what} is a difference of nearly equal numbers, {max(least, 0.0):.1e} of their size, "
            f"so half of its digits are lost or more; {remedy}",
            stacklevel=3,
        )


class Dense(NamedTuple):
    """Algebra of a ``matrix`` (..., n, n), by Cholesky factors; the cost is cubic in n."""

    matrix: Array

    def inner(self):
        return self.matrix

    def quad_logdet(self, r):
        if not known(self.matrix):
            return quad_logdet(self.matrix, r)
        L, white = self._whiten(transpose(r))
        return (white**2).sum(-2), _linalg.log_det(L)

    def _whiten(self, B, margin=1.0):
        L = factor(self.matrix, REMEDY, margin)
        batch = jnp.broadcast_shapes(L.shape[:-2], B.shape[:-2])
        L = jnp.broadcast_to(L, batch + L.shape[-2:])
        return L, solve_triangular(L, jnp.broadcast_to(B, batch + B.shape[-2:]), lower=True)

    def solve(self, B):
        L, white = self._whiten(B)
        return solve_triangular(L, white, lower=True, trans=1)

    def quad(self, B):
        return (self._whiten(B)[1] ** 2).sum(-2)

    def inverse_diag(self):
        eye = jnp.eye(self.matrix.shape[-1], dtype=self.matrix.dtype)
        return (self._whiten(eye, _linalg.LEFT_OUT)[1] ** 2).sum(-2)

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
