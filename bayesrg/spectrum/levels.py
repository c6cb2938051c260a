# SPDX-License-Identifier: Apache-2.0
"""One object for eigenvalues, the modes that each stands for, and the variance outside them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import ratio
from .._warnings import warn
from .base import Spectrum


class Levels(eqx.Module):
    """Eigenvalues, their degeneracies, and the variance outside the modes. Made by `levels`.

    ``scale * levels`` returns the levels of the kernel multiplied by an amplitude ``scale`` (...).

    Attributes
    ----------
    values : (..., k)
        Eigenvalues under a measure of the inputs, falling, in units of variance.
    degeneracy : (..., k)
        Number of modes that each value stands for.
    tail : (...)
        Mean variance outside the modes. It adds to the ridge.
    """

    values: Float[Array, "... level"]
    degeneracy: Float[Array | np.ndarray, "... level"]
    tail: Float[Array, "..."] = eqx.field(default=0.0, converter=jnp.asarray)
    __array_ufunc__ = None  # so that a NumPy number times levels calls `__rmul__`

    def __len__(self) -> int:
        """Return the number of values."""
        return self.values.shape[-1]

    def __mul__(self, scale) -> "Levels":
        scale = _checks.nonnegative("the scale of levels", scale)
        _checks.fit(scale=scale.shape, values=self.values.shape[:-1], tail=self.tail.shape)
        return Levels(scale[..., None] * self.values, self.degeneracy, scale * self.tail)

    __rmul__ = __mul__

    @property
    def variance(self) -> Float[Array, "*batch level"]:
        """Prior variance (..., k) of each level, summed over its modes."""
        return self.degeneracy * self.values

    def learnt(self, n: Array, ridge: Array) -> Float[Array, "*batch level"]:
        """Learnability (..., k) of the modes from n (...) points: n values / (n values + ridge)."""
        return signal_share(n[..., None] * self.values, ridge[..., None])

    def checked_cutoff(self, cutoff: ArrayLike) -> ArrayLike:
        """Return a cutoff (...) as an array of numbers; raise if it is not from 0 to all modes.

        Where JAX traces the cutoff or the degeneracy, only shapes are checked.
        """
        counts = self.degeneracy
        if _checks.known(counts):
            cutoff = _checks.cutoffs(cutoff, int(np.asarray(counts).sum(-1).max().round()))
        cutoff = _checks.numbers("cutoff", cutoff)
        _checks.fit(cutoff=np.shape(cutoff), values=counts.shape[:-1])
        return cutoff

    def split(self, cutoff: ArrayLike) -> tuple["Levels", "Levels"]:
        """Return two parts: the modes below a cutoff (...), and those above it with the tail.

        A cutoff inside a level divides its degeneracy. In each part, levels without a mode have
        value zero.
        """
        counts = self.degeneracy
        cutoff = jnp.asarray(self.checked_cutoff(cutoff), counts.dtype)
        # of each level take what the levels before it leave of the cutoff, but at most all modes
        before = jnp.cumsum(counts, -1) - counts
        low = jnp.clip(cutoff[..., None] - before, 0.0, counts)
        parts = (low, jnp.zeros_like(self.tail)), (counts - low, self.tail)
        return tuple(Levels(jnp.where(g > 0, self.values, 0.0), g, tail) for g, tail in parts)


def signal_share(signal, noise):
    """Return ``signal / (signal + noise)``, zero where both are zero."""
    return ratio(signal, signal + noise)


LevelsLike = Levels | Spectrum | ArrayLike


def levels(
    values: LevelsLike,
    *,
    at: ArrayLike | None = None,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Levels:
    """Return the `Levels` of a spectrum or of bare eigenvalues, after checking them.

    Functions of `bayesrg.rg` and `bayesrg.theory` that take eigenvalues call `levels` on them.

    Parameters
    ----------
    values : Spectrum, eigenvalues (..., k), or Levels
        Bare eigenvalues must be sorted, the largest first. Levels are returned unchanged.
    at : (n, d), optional
        Inputs over which the tail of a spectrum is averaged. Take inputs that the spectrum was not
        made from, for example the training inputs.
    degeneracy : (..., k), optional
        Number of modes that each bare eigenvalue stands for, by default 1.
    tail : (...), optional
        Variance outside the modes. By default 0 for bare eigenvalues, and for a spectrum its own
        ``tail``, which `fourier`, `sphere` and `gaussian_rbf` know exactly.

    Returns
    -------
    Levels

    Raises
    ------
    ValueError
        If values are negative or not sorted, if shapes do not fit, or if the modes of a spectrum
        are not eigenfunctions. Also for arguments that exclude each other: Levels and any other
        argument, a spectrum and ``degeneracy``, bare eigenvalues and ``at``, ``at`` and ``tail``.

    Warns
    -----
    UserWarning
        If the tail of a spectrum is not known, as with `nystrom`, and neither ``at`` nor ``tail``
        is given. The tail is then set to zero.

    References
    ----------
    arXiv 2405.06008: variance outside the modes renormalises the ridge.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesrg import rg
    >>> from bayesrg.spectrum import levels
    >>> prior = levels([1.0, 0.1], degeneracy=[1, 3], tail=0.05)
    >>> rg.cutoff(0.8 * prior, n=40, ridge=0.1)
    4
    """
    given = {"at": at, "degeneracy": degeneracy, "tail": tail}
    given = {name for name, value in given.items() if value is not None}
    if isinstance(values, Levels):
        wrong, kind = given, "Levels, which hold degeneracy and tail"
    elif isinstance(values, Spectrum):
        wrong, kind = given & {"degeneracy"}, "a Spectrum, which has its own"
    else:
        wrong, kind = given & {"at"}, "bare eigenvalues, which have no mode functions; give tail"
    if wrong:
        raise ValueError(f"{' and '.join(sorted(wrong))} cannot be given with {kind}")

    if isinstance(values, Levels):
        return values
    if isinstance(values, Spectrum):
        return Levels(values.values, values.degeneracy, _tail_of(values, at, tail))
    values = _checks.eigenvalues(values)
    tail = _checks.nonnegative("tail", 0.0 if tail is None else tail)
    counts = np.ones(values.shape) if degeneracy is None else degeneracy
    _checks.positive("degeneracy", counts)
    counts = _checks.numbers("degeneracy", counts)
    # known degeneracies stay in NumPy, so that modes can be counted even if values are traced
    counts = (np if _checks.known(counts) else jnp).asarray(counts, values.dtype)
    if counts.shape[-1:] != values.shape[-1:]:
        raise ValueError(
            f"degeneracy has shape {counts.shape} but values {values.shape}; give one per level"
        )
    _checks.fit(values=values.shape[:-1], degeneracy=counts.shape[:-1], tail=tail.shape)
    return Levels(values, counts, tail)


def _tail_of(spectrum, at, tail):
    """Variance () outside the modes of a spectrum: as given, averaged over inputs, or its own."""
    name = type(spectrum).__name__
    if at is not None and tail is not None:
        raise ValueError("at and tail both give the variance outside the modes; give one")
    if not spectrum.orthonormal:
        raise ValueError(
            f"the modes of a {name} are not eigenfunctions, so it has no eigenvalues under the "
            "data measure; give the spectrum that it was made from"
        )
    if tail is not None:
        return _checks.nonnegative("tail", tail)
    if at is not None:
        return spectrum.residual(_checks.inputs("at", at)).mean()
    if spectrum.tail is not None:
        return spectrum.tail
    warn(
        f"a {name} does not know the variance outside its modes, so zero is used; give "
        "spectrum.levels(spectrum, at=X) with inputs X that it was not made from, or tail="
    )
    return 0.0


def without_tail(values: LevelsLike, *, falling: bool = True, single: bool = False) -> Levels:
    """Return one-dimensional levels for a function that cannot take a tail.

    A Spectrum counts by its modes alone; Levels with a tail raise. Bare values must fall if
    ``falling``. With ``single`` every value must stand for one mode.
    """
    if isinstance(values, Spectrum):
        values = levels(values, tail=0.0)
    elif not isinstance(values, Levels):
        values = _checks.eigenvalues(values, falling=falling)
        values = Levels(values, np.ones(values.shape, values.dtype))
    if values.values.ndim != 1:
        raise ValueError(f"values has shape {values.values.shape}; give one spectrum, (k,)")
    if _checks.known(values.tail) and np.asarray(values.tail).any():
        raise ValueError(
            "values are Levels with a tail, which this function cannot take; give "
            "levels.values, and add the tail to the ridge if there is one"
        )
    if single:
        one_per_mode(values)
    return values


def one_per_mode(levels: Levels) -> None:
    """Raise unless every value stands for one mode."""
    if _checks.known(levels.degeneracy) and (np.asarray(levels.degeneracy) != 1).any():
        raise ValueError("features need one value per mode; leave degeneracy out")
