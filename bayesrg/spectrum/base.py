# SPDX-License-Identifier: Apache-2.0
"""What every spectrum is: eigenvalues of a kernel under a data measure, with mode functions."""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._prior import PriorAt

# A warning points at the user's line, which is in neither of these.
LIBRARIES = str(Path(__file__).parents[1]), str(Path(eqx.__file__).parent)


@jax.jit
def left_out(variance, features, values):
    """What is left of a variance (n,) without modes: features (n, k), values (k,)."""
    return jnp.clip(variance - features**2 @ values, 0.0)


@jax.jit
def left_out_cov(K, left, values, right):
    """What is left of a covariance (n, m) without modes: features (n, k), (m, k), values (k,)."""
    return K - (left * values) @ right.T


class Spectrum(eqx.Module):
    r"""Mercer pairs of a kernel, :math:`k(x, z) = \sum_k \lambda_k \phi_k(x)\phi_k(z) + \ldots`.

    A subclass writes ``features``. What the modes leave out is taken from its ``kernel``; without
    one it writes ``residual`` and ``residual_cov`` too.
    ``scale * spectrum`` is the spectrum of the kernel times an amplitude ``scale`` ().

    Attributes
    ----------
    values : (k,)
        Eigenvalues under a probability measure, falling, in units of variance.
    degeneracy : (k,)
        Modes that each value stands for, 1 unless levels are kept whole.
    complete : bool
        Whether the modes are all there is, so that the residual vanishes.
    orthonormal : bool
        Whether the modes are orthonormal under the data measure.
    """

    values: eqx.AbstractVar[Float[Array, " mode"]]
    degeneracy: eqx.AbstractVar[Float[Array, " mode"]]
    complete: ClassVar[bool] = False
    orthonormal: ClassVar[bool] = True
    __array_ufunc__ = None  # so that a NumPy number times a spectrum calls `__rmul__`

    @property
    def tail(self) -> Array | None:
        """Mean () of the residual over the data measure, or None where it is not known.

        A spectrum made from a sample does not know it: its modes fit that sample too well.
        `bayesrg.spectrum.levels` measures it at other inputs.
        """
        return jnp.zeros(()) if self.complete else None

    def __mul__(self, scale) -> "Spectrum":
        return ScaledSpectrum(self, _checks.nonnegative("the scale of a spectrum", scale, ndim=0))

    __rmul__ = __mul__

    @abstractmethod
    def features(self, X: ArrayLike) -> Float[Array, "point mode"]:
        """Mode functions at X (n, d): (n, k), of unit second moment under the data measure."""

    def residual(self, X: ArrayLike) -> Float[Array, " point"]:
        """Prior variance at X (n, d) that the modes leave out: (n,), non-negative.

        Its mean over inputs that the spectrum was not made from is the ``tail`` that functions of
        eigenvalues take.
        """
        X = _checks.inputs("X", X, wide=True)
        return left_out(self.kernel.diag(X), self.features(X), self.values)

    def residual_cov(self, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        """Prior covariance that the modes leave out, (n, n) or with Z (n, m); PSD everywhere."""
        X = _checks.inputs("X", X, wide=True)
        Z = None if Z is None else _checks.inputs("Z", Z, wide=True)
        left = self.features(X)
        right = left if Z is None else self.features(Z)
        return left_out_cov(self.kernel(X, Z), left, self.values, right)

    def at(self, X: ArrayLike) -> PriorAt:
        """Return the prior at X (n, d): the modes there, and the covariance that they leave out.

        Its method ``eigenpairs`` makes the ``eigen`` of `bayesrg.gp.marginal`, and with a cutoff
        that of `bayesrg.rg.Coarse`.
        """
        X = _checks.inputs("X", X, wide=True)
        residual = None if self.complete else self.residual_cov(X)
        return PriorAt(self.features(X), self.values, residual, orthonormal=self.orthonormal)

    def warn_if_shared(self, X: Array) -> None:
        """Warn if modes were made from the training inputs X (n, d), or cannot tell some apart."""

    def power(self, y: ArrayLike, X: ArrayLike) -> Float[Array, " mode"]:
        """Squared coefficients (k,) of a target y (n,) in the modes: the mean over the rows of X.

        Its sampling error is about ``var(y) / n`` a mode. At the sample that Nystrom modes were
        made from it is exact for that sample, and for the population too small in what the modes
        miss: a learning curve from it is too low once n is not small beside the sample.
        """
        X = _checks.inputs("X", X)
        y = _checks.finite("y", y, ndim=1)
        _checks.targets("y", y, X.shape[0])
        return (self.features(X).T @ y / X.shape[0]) ** 2

    def __len__(self) -> int:
        """Return the number of values."""
        return self.values.shape[0]


class ScaledSpectrum(Spectrum):
    """Spectrum of a kernel times an amplitude: the same mode functions, scaled eigenvalues."""

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

    def warn_if_shared(self, X):
        self.base.warn_if_shared(X)
