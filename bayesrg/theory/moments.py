# SPDX-License-Identifier: Apache-2.0
"""Second moments of features and target: all that ridge regression sees of a population."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import eigh, safe_sqrt
from .._warnings import warn
from ..spectrum.levels import LevelsLike, without_tail


class Moments(eqx.Module):
    r"""Second moments of features phi and a target y.

    Made by `moments`, `population_moments` or `spectral_moments`. With c targets on the same rows,
    fields that depend on the target have a last axis of length c.

    Attributes
    ----------
    values : (p,) eigenvalues of the second moment of the features, falling
    projection : (p,) coefficients b of :math:`E[\phi y]` in its eigenvectors
    power : (p,) what each eigenvector explains of the target, :math:`b^2/\omega`
    Ey2 : () second moment of the target, label noise included
    unexplained : () part of Ey2 that no read-out explains: label noise and misspecification
    vectors : (p, p) one eigenvector per column; None for features that are uncorrelated already
    mean : (p,) of the features; None if it is not known
    N : number of rows averaged over; None for exact moments
    rank_tol : relative size below which a value counts as zero where the rank matters
    """

    values: Float[Array, " mode"]
    projection: Float[Array, " mode"] | Float[Array, "mode target"]
    power: Float[Array, " mode"] | Float[Array, "mode target"]
    Ey2: Float[Array, ""] | Float[Array, " target"]
    unexplained: Float[Array, ""] | Float[Array, " target"]
    vectors: Float[Array, "feature mode"] | None
    mean: Float[Array, " feature"] | None
    N: int | None = eqx.field(static=True)
    rank_tol: float = eqx.field(static=True)

    @property
    def Omega(self) -> Float[Array, "feature feature_bis"]:
        r"""Second moment :math:`E[\phi\phi^T]`, (p, p)."""
        if self.vectors is None:
            return jnp.diag(self.values)
        return (self.vectors * self.values) @ self.vectors.T

    @property
    def psi(self) -> Float[Array, " feature"] | Float[Array, "feature target"]:
        r"""Overlap :math:`E[\phi y]` with the target, (p,), in the range of ``Omega``."""
        return self.projection if self.vectors is None else self.vectors @ self.projection

    @property
    def rank(self) -> Array:
        """Number () of values that count."""
        return (self.values > self.floor).sum()

    @property
    def floor(self) -> Array:
        """Size () up to which a value counts as zero where the rank matters."""
        return self.rank_tol * self.values.max(initial=0.0)


def moments(
    F: ArrayLike, y: ArrayLike, *, centre: bool = False, rank_tol: float | None = None
) -> Moments:
    r"""Estimate the moments from a sample, :math:`\Omega = F^T F/N` and :math:`\psi = F^T y/N`.

    Parameters
    ----------
    F : (n, p) features of n = N rows that the read-out is not trained on
    y : (n,) targets, or (n, c) for c regressions on the same rows
    centre : bool
        Whether the sample means of features and targets are subtracted.
    rank_tol : float, optional
        Relative size below which an eigenvalue counts as zero; by default p times the rounding
        error of the floats.

    Returns
    -------
    Moments
        ``mean`` is that of the features, also if it is not subtracted.

    Raises
    ------
    ValueError
        For non-finite entries, or numbers of rows that differ.

    Warns
    -----
    UserWarning
        For fewer than 10 rows per feature: the bias of the errors grows like p/N.

    References
    ----------
    arXiv 2402.13999: the population covariance of a trained network, from data.
    """
    _checks.warn_32_bits("theory.moments")
    centre = _checks.flag("centre", centre)
    F = _checks.squares("F", _checks.inputs("F", F))
    y = _checks.squares("y", _checks.targets("y", y, F.shape[0]))
    N, p = F.shape
    if N < 10 * p:
        singular = "; with fewer rows than features Omega is singular" if N < p else ""
        warn(
            f"moments: F has {N} rows for {p} features, N/p = {N / p:.3g}; errors are biased by "
            f"p/N to 2 p/N, so give at least 10 rows per feature{singular}"
        )
    Omega, psi, Ey2, mean = _sample(F, y, centre)
    rank_tol = _tolerance(rank_tol, Omega)
    _, found = _in_eigenvectors(Omega, psi, Ey2, rank_tol)
    return Moments(**found, mean=mean, N=N, rank_tol=rank_tol)


@partial(jax.jit, static_argnames="centre")
def _sample(F, y, centre):
    """Moments Omega, psi and E y^2 of a sample, and the mean of its features."""
    mean = F.mean(0)
    if centre:
        F, y = F - mean[None], y - y.mean(0)
    return F.T @ F / len(F), F.T @ y / len(F), (y**2).mean(0), mean


def population_moments(
    Omega: ArrayLike, psi: ArrayLike, Ey2: ArrayLike, *, rank_tol: float | None = None
) -> Moments:
    r"""Make moments that are known, for example of a linearised network.

    Parameters
    ----------
    Omega : (p, p) second moment of the features; or covariance, if psi and Ey2 are centred too
    psi : (p,) overlap :math:`E[\phi y]`
    Ey2 : () second moment of the target, label noise included
    rank_tol : float, optional
        Relative size below which an eigenvalue counts as zero; by default p times the rounding
        error of the floats.

    Raises
    ------
    ValueError
        For a matrix that is not square, symmetric and positive semi-definite; an overlap of
        another length or outside the range of Omega, or one that explains more than ``Ey2``.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.population_moments")
    Omega = symmetric("Omega", _checks.finite("Omega", Omega, ndim=2))
    psi = _checks.shaped("psi", psi, Omega.shape[:1], "one entry per feature")
    Ey2 = _checks.nonnegative("Ey2", Ey2, ndim=0)
    rank_tol = _tolerance(rank_tol, Omega)
    raw, found = _in_eigenvectors(Omega, psi, Ey2, rank_tol)
    semidefinite("Omega", raw)
    found = Moments(**found, mean=None, N=None, rank_tol=rank_tol)
    if all(map(_checks.known, (Omega, psi, Ey2))):
        _feasible(np.asarray(psi), float(Ey2), found)
    return found


def spectral_moments(
    values: LevelsLike,
    power: ArrayLike,
    label_noise: ArrayLike = 0.0,
    *,
    rank_tol: float | None = None,
) -> Moments:
    r"""Make the moments of a kernel's eigenfunctions, scaled by the root of their eigenvalues.

    Ridge regression on them is Gaussian-process regression with the ridge as noise variance.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure, falling
        One value per mode. Only the modes of a spectrum count: add its tail to the ridge.
    power : (k,) squared coefficients of the target in the orthonormal modes
    label_noise : () variance
        Any variance of the target outside the modes acts as label noise: add it here.
    rank_tol : float, optional
        Relative size below which an eigenvalue counts as zero; by default k times the rounding
        error of the floats.

    Raises
    ------
    ValueError
        For negative numbers, or if power and values differ in shape.

    References
    ----------
    arXiv 2402.13999; arXiv 2405.06008 for the same averages of Gaussian processes.
    """
    _checks.warn_32_bits("theory.spectral_moments")
    values = without_tail(values, single=True).values
    power = _checks.nonnegative("power", power)
    if power.shape != values.shape:
        raise ValueError(f"power has shape {power.shape} and values {values.shape}; give both (k,)")
    label_noise = _checks.nonnegative("label_noise", label_noise, ndim=0)
    found = _of_modes(values, power, label_noise)
    return Moments(**found, vectors=None, mean=None, N=None, rank_tol=_tolerance(rank_tol, values))


@jax.jit
def _of_modes(values, power, label_noise):
    """Fields of `Moments` for orthonormal modes; a mode of value zero explains nothing."""
    power, label_noise = power.astype(values.dtype), label_noise.astype(values.dtype)
    held = jnp.where(values > 0, power, 0.0)
    return {
        "values": values,
        "projection": safe_sqrt(values * power),
        "power": held,
        "Ey2": power.sum() + label_noise,
        "unexplained": label_noise + (power - held).sum(),
    }


def _tolerance(given, values):
    if given is None:
        return values.shape[-1] * float(jnp.finfo(values.dtype).eps)
    return _checks.number("rank_tol", given, least=0, most=1)


@jax.jit
def _in_eigenvectors(Omega, psi, Ey2, rank_tol):
    """Eigenvalues of Omega before they are clipped at zero, and fields of `Moments`."""
    values, vectors = eigh((Omega + Omega.T) / 2)
    raw, vectors = values[::-1], vectors[:, ::-1]
    values = jnp.clip(raw, 0.0)

    # The overlap with eigenvectors below the tolerance is a rounding error. Divided by such a small
    # eigenvalue it could be any number.
    sound = values > rank_tol * values.max(initial=0.0)
    keep = sound if psi.ndim == 1 else sound[:, None]
    projection = jnp.where(keep, vectors.T @ psi, 0.0)
    power = projection**2 / jnp.where(keep, values.reshape(keep.shape), 1.0)
    return raw, {
        "values": values,
        "projection": projection,
        "power": power,
        "Ey2": Ey2,
        "unexplained": jnp.clip(Ey2 - power.sum(0), 0.0),
        "vectors": vectors,
    }


def symmetric(name, Omega):
    """Return Omega (p, p); raise unless it is square and symmetric up to rounding errors."""
    if Omega.shape[0] != Omega.shape[1] or not Omega.size:
        raise ValueError(f"{name} must be square, got shape {Omega.shape}; give E x x^T, (p, p)")
    if _checks.known(Omega):
        gap = _checks.asymmetry(Omega)
        if gap > max(1e-10, 1e3 * float(jnp.finfo(Omega.dtype).eps)):
            raise ValueError(
                f"{name} is not symmetric: entries differ by {gap:.3g} of the largest from those "
                f"across the diagonal; give 0.5 * ({name} + {name}.T) if these are rounding errors"
            )
    return Omega


def semidefinite(name, values):
    """Raise if an eigenvalue (p,) of a second moment is negative beyond rounding errors."""
    if not _checks.known(values):
        return
    eps = float(jnp.finfo(values.dtype).eps)
    values = np.asarray(values)
    lowest, largest = float(values.min()), float(np.abs(values).max())
    if lowest < -max(1e-10, values.size * eps) * largest:
        raise ValueError(
            f"{name} is not positive semi-definite: its lowest eigenvalue is {lowest:.3g}, its "
            f"largest {largest:.3g}; give a second moment, which has none below zero"
        )


def _feasible(psi, Ey2, found):
    """Raise for moments that no distribution has."""
    slack = 1 + (1e-8 if found.values.dtype == jnp.float64 else 1e-4)

    # by Cauchy and Schwarz, (E phi_k y)^2 <= E phi_k^2 E y^2 along each eigenvector
    values = np.asarray(found.values)
    b2 = (np.asarray(found.vectors).T @ psi) ** 2
    bound = np.maximum(values, found.rank_tol * values.max(initial=0.0)) * Ey2 * slack
    if (b2 > bound).any():
        k = int(np.argmax(b2 - bound))
        raise ValueError(
            f"psi of shape {psi.shape} is not in the range of Omega: along eigenvector {k} its "
            f"square is {b2[k]}, at most {bound[k]} with Ey2 = {Ey2}; psi, Omega and Ey2 are not "
            "moments of one distribution"
        )
    explained = float(np.asarray(found.power).sum())
    if explained > Ey2 * slack:
        raise ValueError(
            f"psi, Omega and Ey2 are not moments of one distribution: psi of shape {psi.shape} "
            f"explains {explained} of Ey2 = {Ey2}; take all three from the same features and target"
        )
