# SPDX-License-Identifier: Apache-2.0
"""Parts of the covariance of a distribution, and the choice of an algebra for it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .._linalg import safe_sqrt
from .._prior import PriorAt
from .dense import Dense
from .low_rank import LowRank


class Covariance(NamedTuple):
    """Covariance ``scale prior + diag(ridge)`` of observations at n points.

    ``scale`` is (...) and ``ridge`` (..., 1) or (..., n). ``gram`` is ``features^T features``, or
    None if it has not been computed.
    """

    prior: PriorAt
    scale: Array
    ridge: Array
    gram: Array | None = None

    @property
    def fixed(self):
        """Parts of the prior that eigenpairs were made of."""
        return self.prior.features, self.prior.values, self.prior.residual

    def matrix(self):
        """Return the matrix, (..., n, n)."""
        K = self.prior.dense()
        ridge = self.ridge[..., None] * jnp.eye(K.shape[-1], dtype=K.dtype)
        return self.scale[..., None, None] * K + ridge

    def algebra(self):
        """Return a `LowRank` algebra if the prior is thin, else a `Dense` one."""
        if not self.prior.thin:
            return Dense(self.matrix())
        D = self.ridge
        if self.prior.residual is not None:
            D = D + self.scale[..., None] * self.prior.residual
        return LowRank(self.prior.features, self.amplitude(), D, self.gram)

    def amplitude(self):
        """Return the prior standard deviations of the modes, (..., k)."""
        return safe_sqrt(self.scale)[..., None] * safe_sqrt(self.prior.values)
