# SPDX-License-Identifier: Apache-2.0
"""What the covariance of a law is made of, and which algebra suits it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _linalg
from .dense import Dense
from .low_rank import LowRank


class Prior(NamedTuple):
    """``features diag(values) features^T + residual``, the covariance of the functions.

    ``features`` is (n, k), ``values`` (..., k) and ``residual`` None, (n,) or (n, n).
    """

    features: Array
    values: Array
    residual: Array | None

    def matrix(self):
        """The matrix, (..., n, n)."""
        K = (self.features * self.values[..., None, :]) @ self.features.T
        if self.residual is None:
            return K
        return K + (jnp.diag(self.residual) if self.residual.ndim == 1 else self.residual)


class Covariance(NamedTuple):
    """``scale prior + ridge I`` by its parts.

    ``scale`` is (...), ``ridge`` (..., 1) or (..., n) and ``gram`` None or ``features^T features``.
    """

    prior: Prior
    scale: Array
    ridge: Array
    gram: Array | None = None

    def matrix(self):
        """The matrix, (..., n, n)."""
        K = self.prior.matrix()
        noise = self.ridge[..., None] * jnp.eye(K.shape[-1], dtype=K.dtype)
        return self.scale[..., None, None] * K + noise

    @property
    def thin(self):
        """Whether the columns are fewer than the points, and all else is diagonal."""
        n, k = self.prior.features.shape
        return k < n and (self.prior.residual is None or self.prior.residual.ndim == 1)

    def algebra(self):
        """Low rank where the prior is thin, else dense."""
        if not self.thin:
            return Dense(self.matrix())
        noise = self.ridge
        if self.prior.residual is not None:
            noise = noise + self.scale[..., None] * self.prior.residual
        return LowRank(self.prior.features, self.amplitude(), noise, self.gram)

    def amplitude(self):
        """Prior standard deviation of the modes, (..., k)."""
        return _linalg.safe_sqrt(self.scale)[..., None] * _linalg.safe_sqrt(self.prior.values)
