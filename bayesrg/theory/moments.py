# SPDX-License-Identifier: Apache-2.0
"""Second moments of features and target: all that ridge regression sees of a population."""

import warnings
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
from ..spectrum.levels import LevelsLike, without_tail


class Moments(eqx.Module):
    r"""Moments of features phi and target y; see `moments`, `population_moments`, `spectral_moments`.

    With c targets on the same rows, fields that depend on targets have a last axis of c.

    Attributes
    ----------
    values : (p,) eigenvalues of the second moment of the features, falling
    projection : (p,) coefficients b of :math:`E[\phi y]` in its eigenvectors
    power : (p,)
        What each eigenvector explains of the target, :math:`b^2/\omega`.
    Ey2 : () second moment of the target, label noise included
    unexplained : ()
        The part of it that no read-out explains: label noise and misspecification.
    vectors : (p, p), a column an eigenvector; None for features that are uncorrelated already
    mean : (p,) of the features, or None if not known
    N : () number of rows averaged over, or None for exact moments
    rank_tol : () relative size below which a value counts as zero where the rank matters
    """  # noqa: E501

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
        """Number of values that count, ()."""
        return (self.values > self.floor).sum()

    @property
    def floor(self) -> Array:
        """Size up to which a value counts as zero where the rank matters, ()."""
        return self.rank_tol * self.values.max(initial=0.0)


def moments(
    F: ArrayLike, y: ArrayLike, *, centre: bool = False, rank_tol: float | None = None
) -> Moments:
    r"""Estimate the moments from a sample, :math:`\Omega = F^T F/N` and :math:`\psi = F^T y/N`.

    Parameters
    ----------
    F : (n, p) features of rows that the read-out is not trained on, n = N of them
    y : (n,) targets, or (n, c) of c regressions on the same rows
    centre : bool
        Whether the sample means of features and targets are subtracted.
    rank_tol : float, optional
        Relative size below which an eigenvalue counts as zero; p times the float's epsilon.

    Returns
    -------
    Moments
        ``mean`` is that of the features, also where it is not subtracted.

    Raises
    ------
    ValueError
        For non-finite entries, or numbers of rows that differ.

    Warns
    -----
    UserWarning
        For fewer than 10 rows a feature: the bias of the errors grows like p/N.

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
        warnings.warn(
            f"moments: F has {N} rows for {p} features, N/p = {N / p:.3g}; errors are biased by "
            f"p/N to 2 p/N, so give at least 10 rows a feature{singular}",
            stacklevel=2,
        )
    Omega, psi, Ey2, mean = _sample(F, y, centre)
    return _decompose(Omega, psi, Ey2, mean, N, rank_tol)


@partial(jax.jit, static_argnames="centre")
def _sample(F, y, centre):
    """Moments Omega, psi and E y^2 of a sample, and the mean of its features."""
    mean = F.mean(0)
    if centre:
        F, y = F - mean[None], y - y.mean(0)
    return F.T @ F / len(F), F.T @ y / len(F), (y**2).mean(0), mean


def population_moments(
    Omega: ArrayLike,
    psi: ArrayLike,
    Ey2: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    rank_tol: float | None = None,
) -> Moments:
    r"""Take moments that are known: of a linearised network, or measured elsewhere.

    Parameters
    ----------
    Omega : (p, p) second moment of the features; or covariance, if the others are centred too
    psi : (p,) overlap :math:`E[\phi y]`
    Ey2 : () second moment of the target, label noise included
    mean : (p,), optional
        Mean of the features, kept for reference.
    rank_tol : float, optional
        As in `moments`.

    Returns
    -------
    Moments

    Raises
    ------
    ValueError
        For a matrix that is not square, symmetric and positive semi-definite, an overlap of
        another length or outside its range, or one that would explain more than ``Ey2``.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.population_moments")
    Omega = _checks.finite("Omega", Omega, ndim=2)
    psi = _checks.finite("psi", psi, ndim=1)
    Ey2 = _checks.nonnegative("Ey2", Ey2, ndim=0)
    if Omega.shape[0] != Omega.shape[1] or psi.shape != Omega.shape[:1] or not psi.size:
        raise ValueError(
            f"Omega has shape {Omega.shape} and psi {psi.shape}; give (p, p) and (p,) of the same "
            "features"
        )
    if mean is not None:
        mean = _checks.finite("mean", mean, ndim=1)
        if mean.shape != psi.shape:
            raise ValueError(
                f"mean has shape {mean.shape} and psi {psi.shape}; give one per feature"
            )
    if _checks.known(Omega):
        host = np.asarray(Omega)
        gap, scale = float(np.abs(host - host.T).max()), float(np.abs(host).max())
        if gap > max(1e-10, float(jnp.finfo(Omega.dtype).eps)) * scale:
            raise ValueError(
                f"Omega of shape {Omega.shape} is asymmetric by up to {gap}; give (A + A.T) / 2 if "
                "that is round-off"
            )
    found = _decompose(Omega, psi, Ey2, mean, None, rank_tol)
    _feasible(Omega, psi, Ey2, found)
    return found


def spectral_moments(
    values: LevelsLike,
    power: ArrayLike,
    label_noise: ArrayLike = 0.0,
    *,
    rank_tol: float | None = None,
) -> Moments:
    r"""Take the moments of a kernel's eigenfunctions, scaled by the root of their eigenvalues.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure, falling
        One value per mode. Of a spectrum its modes alone count: add its tail to the ridge.
    power : (k,) squared coefficients of the target in the orthonormal modes
    label_noise : () variance
        What the target has outside the modes acts alike: add it.
    rank_tol : float, optional
        As in `moments`.

    Returns
    -------
    Moments
        Read-out by ridge regression is then Gaussian-process regression with that ridge.

    Raises
    ------
    ValueError
        For negative numbers, or power of another shape than values.

    References
    ----------
    arXiv 2402.13999; arXiv 2405.06008 for the same averages of Gaussian processes.
    """
    _checks.warn_32_bits("theory.spectral_moments")
    values = without_tail(values, single=True).values
    power = _checks.nonnegative("power", power)
    if power.shape != values.shape:
        raise ValueError(f"power has shape {power.shape} and values {values.shape}; give (k,) both")
    noise = _checks.nonnegative("label_noise", label_noise, ndim=0)
    return Moments(
        values=values,
        **_of_modes(values, power, noise),
        vectors=None,
        mean=None,
        N=None,
        rank_tol=_tolerance(rank_tol, values),
    )


@jax.jit
def _of_modes(values, power, noise):
    """Fields of `Moments` that depend on the target, for orthonormal modes."""
    power, noise = power.astype(values.dtype), noise.astype(values.dtype)
    held = jnp.where(values > 0, power, 0.0)
    return {
        "projection": safe_sqrt(values * power),
        "power": held,
        "Ey2": power.sum() + noise,
        "unexplained": noise + (power - held).sum(),
    }


def _tolerance(given, values):
    if given is None:
        return values.shape[-1] * float(jnp.finfo(values.dtype).eps)
    given = _checks.number("rank_tol", given)
    if not 0 <= given < 1:
        raise ValueError(f"rank_tol must lie in [0, 1), got {given}; leave it out for p * eps")
    return float(given)


def _decompose(Omega, psi, Ey2, mean, N, rank_tol):
    rank_tol = _tolerance(rank_tol, Omega)
    found, lowest, largest = _in_eigenvectors(Omega, psi, Ey2, rank_tol)
    _definite(lowest, largest, Omega)
    return Moments(**found, Ey2=Ey2, mean=mean, N=N, rank_tol=rank_tol)


@jax.jit
def _in_eigenvectors(Omega, psi, Ey2, rank_tol):
    """Fields of `Moments` that follow from Omega's eigenvectors; its lowest and largest value."""
    values, vectors = eigh((Omega + Omega.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    lowest, largest = values.min(initial=jnp.inf), jnp.abs(values).max(initial=0.0)
    values = jnp.clip(values, 0.0)

    # below it an eigenvector's overlap is round-off, and divided by its value anything at all
    sound = values > rank_tol * values.max(initial=0.0)
    keep = sound if psi.ndim == 1 else sound[:, None]
    projection = jnp.where(keep, vectors.T @ psi, 0.0)
    power = projection**2 / jnp.where(keep, values.reshape(keep.shape), 1.0)
    found = {
        "values": values,
        "projection": projection,
        "power": power,
        "unexplained": jnp.clip(Ey2 - power.sum(0), 0.0),
        "vectors": vectors,
    }
    return found, lowest, largest


def _definite(lowest, largest, Omega):
    """Reject eigenvalues that are negative by more than round-off."""
    if not _checks.known(lowest):
        return
    eps = max(1e-10, len(Omega) * float(jnp.finfo(Omega.dtype).eps))
    lowest, largest = float(lowest), float(largest)
    if lowest < -eps * largest:
        raise ValueError(
            f"Omega of shape {Omega.shape} is indefinite: its lowest eigenvalue is {lowest}, its "
            f"largest {largest}; a second moment has none below zero"
        )


def _feasible(Omega, psi, Ey2, found):
    """Reject moments that no distribution has, by Cauchy and Schwarz and by what is explained."""
    if not all(_checks.known(x) for x in (Omega, psi, Ey2)):
        return
    slack = 1 + (1e-8 if Omega.dtype == jnp.float64 else 1e-4)
    values, Ey2 = np.asarray(found.values), float(Ey2)
    b2 = (np.asarray(found.vectors).T @ np.asarray(psi)) ** 2
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
