# SPDX-License-Identifier: Apache-2.0
"""Parts of the covariance of a distribution, and the choice of an algebra for it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _linalg
from .dense import Dense
from .low_rank import LowRank


class Prior(NamedTuple):
    """Covariance ``features diag(values) features^T + residual`` of a function at n points.

    ``features`` is (n, k) and ``values`` (..., k). ``residual`` is None, a diagonal (n,) or a
    matrix (n, n).
    """

    features: Array
    values: Array
    residual: Array | None

    def matrix(self):
        """Return the matrix, (..., n, n)."""
        K = (self.features * self.values[..., None, :]) @ self.features.T
        if self.residual is None:
            return K
        return K + (jnp.diag(self.residual) if self.residual.ndim == 1 else self.residual)


class Covariance(NamedTuple):
    """Covariance ``scale prior + diag(ridge)`` of observations at n points.

    ``scale`` is (...) and ``ridge`` (..., 1) or (..., n). ``gram`` is ``features^T features``, or
    None if it has not been computed.
    """

    prior: Prior
    scale: Array
    ridge: Array
    gram: Array | None = None

    def matrix(self):
        """Return the matrix, (..., n, n)."""
        K = self.prior.matrix()
        noise = self.ridge[..., None] * jnp.eye(K.shape[-1], dtype=K.dtype)
        return self.scale[..., None, None] * K + noise

    @property
    def thin(self):
        """True if there are fewer columns than points and all other parts are diagonal."""
        n, k = self.prior.features.shape
        return k < n and (self.prior.residual is None or self.prior.residual.ndim == 1)

    def algebra(self):
        """Return a `LowRank` algebra if the prior is thin, else a `Dense` one."""
        if not self.thin:
            return Dense(self.matrix())
        noise = self.ridge
        if self.prior.residual is not None:
            noise = noise + self.scale[..., None] * self.prior.residual
        return LowRank(self.prior.features, self.amplitude(), noise, self.gram)

    def amplitude(self):
        """Return the prior standard deviations of the modes, (..., k)."""
        return _linalg.safe_sqrt(self.scale)[..., None] * _linalg.safe_sqrt(self.prior.values)
