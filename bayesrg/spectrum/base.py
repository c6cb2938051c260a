# SPDX-License-Identifier: Apache-2.0
"""Base class of spectra: eigenvalues of a kernel under a measure of inputs, and mode functions."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._prior import PriorAt


@jax.jit
def _products(weights, left, right):
    """Weighted products of features (n, k) and (m, k), summed over modes: (n, m)."""
    return (left * weights) @ right.T


@jax.jit
def _squares(weights, features):
    """Weighted squares of features (n, k), summed over modes: (n,)."""
    return features**2 @ weights


class Spectrum(eqx.Module):
    r"""Eigenvalues and mode functions of a kernel, :math:`\sum_k \lambda_k \phi_k(x) \phi_k(z)`.

    The residual is the covariance that the modes leave out. A subclass defines ``features``; if it
    has no field ``kernel``, it defines ``residual`` and ``residual_cov`` too. ``scale * spectrum``
    is the spectrum of the kernel times an amplitude ``scale`` ().

    Attributes
    ----------
    values : (k,)
        Eigenvalues under a probability measure of the inputs, falling, in units of variance.
    degeneracy : (k,)
        Number of modes that each value stands for. It is 1 unless levels are kept whole.
    complete : bool
        Whether the residual is zero.
    orthonormal : bool
        Whether the mode functions are orthonormal under the measure.
    """

    values: eqx.AbstractVar[Float[Array, " mode"]]
    degeneracy: eqx.AbstractVar[Float[Array, " mode"]]
    complete: ClassVar[bool] = False
    orthonormal: ClassVar[bool] = True
    __array_ufunc__ = None  # so that a NumPy number times a spectrum calls `__rmul__`

    @property
    def tail(self) -> Array | None:
        """Mean () of the residual over the measure, or None if it is not known.

        The modes of a sample fit that sample too well to tell. `bayesrg.spectrum.levels` computes
        the mean at other inputs.
        """
        return jnp.zeros(()) if self.complete else None

    def __mul__(self, scale) -> "Spectrum":
        return ScaledSpectrum(self, _checks.nonnegative("the scale of a spectrum", scale, ndim=0))

    __rmul__ = __mul__

    @abstractmethod
    def features(self, X: ArrayLike) -> Float[Array, "point mode"]:
        """Mode functions (n, k) at X (n, d). Their mean square under the measure is 1."""

    def residual(self, X: ArrayLike) -> Float[Array, " point"]:
        """Prior variance (n,) at X (n, d) that the modes leave out, at least 0."""
        X = _checks.inputs("X", X, wide=True)
        return jnp.clip(self.kernel.diag(X) - self.mode_variance(self.values, X), 0.0)

    def residual_cov(self, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        """Prior covariance that the modes leave out: (n, n) at X (n, d), or (n, m) with Z (m, d).

        It is positive semi-definite at any inputs.
        """
        X = _checks.inputs("X", X, wide=True)
        Z = None if Z is None else _checks.inputs("Z", Z, wide=True)
        return self.kernel(X, Z) - self.mode_sum(self.values, X, Z)

    def mode_sum(self, weights: Array, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        """Sum (n, m) over modes of ``weights`` (k,) times the functions at X (n, d) and Z (m, d).

        With the weights ``values`` it is the covariance of the modes.
        """
        left = self.features(X)
        return _products(weights, left, left if Z is None else self.features(Z))

    def mode_variance(self, weights: Array, X: ArrayLike) -> Float[Array, " point"]:
        """Diagonal (n,) of ``mode_sum(weights, X)``, computed without the matrix."""
        return _squares(weights, self.features(X))

    def at(self, X: ArrayLike) -> PriorAt:
        """Return the prior at X (n, d): the mode functions there, and the residual covariance."""
        X = _checks.inputs("X", X, wide=True)
        residual = None if self.complete else self.residual_cov(X)
        return PriorAt(self.features(X), self.values, residual, orthonormal=self.orthonormal)

    def warn_if_shared(self, X: Array) -> None:
        """Warn if the modes were made from the training inputs X (n, d), or take two for one."""

    def power(self, y: ArrayLike, X: ArrayLike) -> Float[Array, " mode"]:
        """Estimate the squared coefficients (k,) of a target in the modes, from y (n,) at X (n, d).

        A coefficient is the mean of target times mode over the rows of X; its square has an error
        of about ``var(y) / n``. If X is the sample that the modes were made from, the coefficients
        are exact for this sample, but they miss what the modes miss of the population. A learning
        curve made of them is then too low, unless n is small compared with the sample.
        """
        X = _checks.inputs("X", X)
        y = _checks.finite("y", y, ndim=1)
        _checks.targets("y", y, X.shape[0])
        return (self.features(X).T @ y / X.shape[0]) ** 2

    def __len__(self) -> int:
        """Return the number of values."""
        return self.values.shape[0]


class ScaledSpectrum(Spectrum):
    """Spectrum times an amplitude: eigenvalues and residual are scaled, mode functions are not."""

    base: Spectrum
    scale: Float[Array, ""]

    @property
    def values(self):
        return self.scale * self.base.values

    @property
    def degeneracy(self):
        return self.base.degeneracy

    @property
    def complete(self):
        return self.base.complete

    @property
    def orthonormal(self):
        return self.base.orthonormal

    @property
    def tail(self):
        return None if self.base.tail is None else self.scale * self.base.tail

    def features(self, X):
        return self.base.features(X)

    def residual(self, X):
        return self.scale * self.base.residual(X)

    def residual_cov(self, X, Z=None):
        return self.scale * self.base.residual_cov(X, Z)

    def mode_sum(self, weights, X, Z=None):
        return self.base.mode_sum(weights, X, Z)

    def mode_variance(self, weights, X):
        return self.base.mode_variance(weights, X)

    def warn_if_shared(self, X):
        self.base.warn_if_shared(X)
