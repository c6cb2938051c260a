# SPDX-License-Identifier: Apache-2.0
"""What the covariance of a law is made of, and which algebra suits it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _linalg
from .dense import Dense
from .low_rank import LowRank


class Covariance(NamedTuple):
    """``scale (features diag(values) features^T + residual) + ridge I`` by its parts.

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

    @property
    def thin(self):
        """Whether the columns are fewer than the points, and all else is diagonal."""
        n, k = self.features.shape
        return k < n and (self.residual is None or self.residual.ndim == 1)

    def algebra(self):
        """Low rank where the prior is thin, else dense."""
        if not self.thin:
            return Dense(self.matrix())
        noise = self.ridge
        if self.residual is not None:
            noise = noise + self.scale[..., None] * self.residual
        return LowRank(self.features, self.amplitude(), noise, self.gram)

    def amplitude(self):
        """Prior standard deviation of the modes, (..., k)."""
        return _linalg.safe_sqrt(self.scale)[..., None] * _linalg.safe_sqrt(self.values)
