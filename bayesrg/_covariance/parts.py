# SPDX-License-Identifier: Apache-2.0
"""What the covariance of a law is made of, and which algebra suits it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _linalg
from .._prior import PriorAt
from .dense import Dense
from .low_rank import LowRank


class Covariance(NamedTuple):
    """``scale * prior + ridge I`` by its parts.

    ``scale`` is (...), ``ridge`` (..., 1) or (..., n), and ``gram`` None or the features' products
    ``features^T features``.
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
        """The matrix, (..., n, n)."""
        K = self.prior.dense()
        noise = self.ridge[..., None] * jnp.eye(K.shape[-1], dtype=K.dtype)
        return self.scale[..., None, None] * K + noise

    def algebra(self):
        """Low rank where the prior is thin, else dense."""
        if not self.prior.thin:
            return Dense(self.matrix())
        noise = self.ridge
        if self.prior.residual is not None:
            noise = noise + self.scale[..., None] * self.prior.residual
        return LowRank(self.prior.features, self.amplitude(), noise, self.gram)

    def amplitude(self):
        """Prior standard deviation of the modes, (..., k)."""
        return _linalg.safe_sqrt(self.scale)[..., None] * _linalg.safe_sqrt(self.prior.values)
