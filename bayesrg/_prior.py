# SPDX-License-Identifier: Apache-2.0
"""Gaussian prior of a function at points: modes, their variances, and what the modes leave out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from . import _checks
from ._checks import ArrayLike
from ._linalg import pairs, pairs_of_root, safe_sqrt, square_root


class PriorAt(eqx.Module):
    """Gaussian prior of a function at n points, as modes and what they leave out.

    Its covariance is ``features diag(values) features^T + residual``. The method ``at`` of a kernel
    or a spectrum returns one.

    Parameters
    ----------
    features : (n, k), mode functions at the points
    values : (..., k), prior variances of the modes
    residual : (n,) or (n, n), optional
        Prior covariance that the modes leave out; (n,) is a diagonal matrix.
    tail : (), optional
        Mean prior variance outside the modes; by default that of the residual at the points.
    orthonormal : bool
        Whether the features are orthonormal under the data measure.
    """

    features: Float[Array, "point mode"]
    values: Float[Array, "*batch mode"]
    residual: Float[Array, " point"] | Float[Array, "point point"] | None
    tail: Float[Array, "..."] | None
    orthonormal: bool = eqx.field(static=True)

    def __init__(
        self,
        features: ArrayLike,
        values: ArrayLike,
        residual: ArrayLike | None = None,
        tail: ArrayLike | None = None,
        orthonormal: bool = True,
    ):
        self.features = _checks.features("features", features)
        n, k = self.features.shape
        self.values = _checks.eigenvalues(values, falling=False)
        if self.values.shape[-1:] != (k,):
            raise ValueError(
                f"values has shape {self.values.shape} but features has {k} columns; give one "
                "value per mode, shape (..., k)"
            )
        self.residual = None if residual is None else _rest(residual, n)
        self.tail = None if tail is None else _checks.nonnegative("tail", tail)
        self.orthonormal = _checks.flag("orthonormal", orthonormal)

    @property
    def correlated(self) -> bool:
        """Whether the residual is a full matrix, (n, n)."""
        return self.residual is not None and self.residual.ndim == 2

    @property
    def thin(self) -> bool:
        """Whether there are fewer modes than points, and the residual is diagonal or absent."""
        n, k = self.features.shape
        return k < n and not self.correlated

    def rows(self, rows: slice) -> "PriorAt":
        """Return the prior at some of the points."""
        residual = self.residual
        if residual is not None:
            residual = residual[rows, rows] if self.correlated else residual[rows]
        return self._with(features=self.features[rows], residual=residual)

    def low(self, cutoff: int) -> "PriorAt":
        """Return the first ``cutoff`` modes alone, without the residual."""
        cutoff = _checks.cutoff(cutoff, self.features.shape[1])
        features, values = self.features[:, :cutoff], self.values[..., :cutoff]
        return self._with(features=features, values=values, residual=None, tail=None)

    def high(self, cutoff: int) -> "PriorAt":
        """Return the modes from ``cutoff`` on, with the residual."""
        cutoff = _checks.cutoff(cutoff, self.features.shape[1])
        if cutoff == 0:
            return self
        return self._with(features=self.features[:, cutoff:], values=self.values[..., cutoff:])

    def variance(self) -> Float[Array, "*batch point"]:
        """Return the prior variance at each point, (..., n)."""
        variance = self.values @ self.features.T**2
        if self.residual is None:
            return variance
        return variance + (jnp.diagonal(self.residual) if self.correlated else self.residual)

    def cross(self, n: int) -> Float[Array, "*batch first other"]:
        """Return the prior covariance between the first n points and the others, (..., n, m)."""
        n = _checks.whole("n", n, most=self.features.shape[0])
        cross = (self.features[:n] * self.values[..., None, :]) @ self.features[n:].T
        return cross + self.residual[:n, n:] if self.correlated else cross

    def dense(self) -> Float[Array, "*batch point point_bis"]:
        """Return the prior covariance of all points, (..., n, n)."""
        K = (self.features * self.values[..., None, :]) @ self.features.T
        if self.residual is None:
            return K
        return K + (self.residual if self.correlated else jnp.diag(self.residual))

    def columns(self) -> Float[Array, "*batch point mode"]:
        """Return features times prior standard deviations, (..., n, k)."""
        return self.features * safe_sqrt(self.values)[..., None, :]

    def root(self) -> Float[Array, "*batch point column"]:
        """Return columns A (..., n, p) of the whole prior, whose covariance is ``A @ A.T``.

        Derivatives in features, values and residual exist, also where eigenvalues are equal.
        """
        columns = self.columns()
        if self.residual is None:
            return columns
        rest = self.residual
        rest = square_root(rest)[0] if self.correlated else jnp.diag(safe_sqrt(rest))
        return jnp.concatenate([columns, rest], 1)

    def eigenpairs(
        self, cutoff: int = 0
    ) -> tuple[Float[Array, "point mode"], Float[Array, " mode"]]:
        """Return eigenpairs of the modes from ``cutoff`` on with the residual.

        Compute them once, outside a sampler. The eigenvectors are (n, r), the eigenvalues (r,),
        largest first, as `bayesrg.gp.eigenpairs` describes.
        """
        _checks.require_x64("gp.eigenpairs")
        high = jax.tree.map(lambda x: x.astype(float), self.high(cutoff))
        if not high.correlated:
            return pairs_of_root(high.root())
        columns = high.columns()
        vectors, eigenvalues = pairs(columns @ columns.T + high.residual)
        return vectors, jnp.clip(eigenvalues, 0.0)

    def _with(self, **changes):
        """Return a copy with some fields replaced by parts of them.

        It does not call ``__init__``: parts of what was checked need no check.
        """
        new = object.__new__(PriorAt)
        for name, value in (vars(self) | changes).items():
            object.__setattr__(new, name, value)
        return new


def _rest(residual, n):
    """Check what the modes leave out, (n,) or (n, n)."""
    residual = _checks.finite("residual", residual, ndim=(1, 2))
    if residual.shape not in ((n,), (n, n)):
        raise ValueError(f"residual has shape {residual.shape}; give ({n},) or ({n}, {n})")
    if residual.ndim == 1 and _checks.known(residual):
        host = np.asarray(residual)  # an operation of JAX would be traced under jit
        if (host < -1e-8 * np.abs(host).max(initial=0.0)).any():
            raise ValueError("residual has variances below zero; give what the modes leave out")
    return residual
