# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues, how many modes each stands for, and the variance outside them: one object."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .base import Spectrum


class Levels(eqx.Module):
    """Eigenvalues with their degeneracies and the variance outside them; see `levels`.

    ``scale * levels`` are the levels of the kernel times an amplitude ``scale`` (...).

    Attributes
    ----------
    values : (..., k)
        Eigenvalues under the data measure, falling, in units of variance.
    degeneracy : (..., k)
        Modes that each value stands for.
    tail : (...)
        Variance outside the modes, averaged over the data measure. To the modes it is noise.
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
        """Prior variance (..., k) of all modes of each level together."""
        return self.degeneracy * self.values

    def learnt(self, n: Array, noise: Array) -> Float[Array, "*batch level"]:
        """Share (..., k) of each mode's prior variance that n points determine against noise."""
        return ratio(n[..., None] * self.values, noise[..., None])

    def checked_cutoff(self, cutoff: ArrayLike) -> ArrayLike:
        """Return the numbers of a cutoff (...), checked where they and the modes are known."""
        counts = self.degeneracy
        if _checks.known(counts):
            cutoff = _checks.cutoffs(cutoff, int(np.asarray(counts).sum(-1).max().round()))
        cutoff = _checks.numbers("cutoff", cutoff)
        _checks.fit(cutoff=np.shape(cutoff), values=counts.shape[:-1])
        return cutoff

    def split(self, cutoff: ArrayLike) -> tuple["Levels", "Levels"]:
        """Return the modes below a cutoff (...), without tail, and the modes above it, with tail.

        A cutoff inside a level divides its degeneracy. A level that a part lacks has value zero.
        """
        counts = self.degeneracy
        cutoff = jnp.asarray(self.checked_cutoff(cutoff), counts.dtype)
        low = jnp.clip(cutoff[..., None] - (jnp.cumsum(counts, -1) - counts), 0.0, counts)
        parts = (low, jnp.zeros_like(self.tail)), (counts - low, self.tail)
        return tuple(Levels(jnp.where(g > 0, self.values, 0.0), g, tail) for g, tail in parts)


def ratio(signal, noise):
    """Signal over signal plus noise, zero where there is neither."""
    total = signal + noise
    return jnp.where(total > 0, signal / jnp.where(total > 0, total, 1.0), 0.0)


LevelsLike = Levels | Spectrum | ArrayLike


def levels(
    values: LevelsLike,
    *,
    at: ArrayLike | None = None,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Levels:
    """Make levels of a spectrum or of bare eigenvalues, and check them.

    Functions of `bayesrg.rg` and `bayesrg.theory` call it on their first argument.

    Parameters
    ----------
    values : Spectrum, eigenvalues (..., k), or Levels
        Bare eigenvalues must fall. Levels are returned as they are.
    at : (n, d), optional
        Inputs at which a spectrum measures its tail, the mean of its ``residual`` there. Take
        inputs that the spectrum was not made from, for example the training inputs.
    degeneracy : (..., k), optional
        Modes that each bare eigenvalue stands for, 1 by default.
    tail : (...), optional
        Variance outside the modes. By default 0 for bare eigenvalues, and for a spectrum its own
        ``tail``, which `fourier`, `sphere` and `gaussian_rbf` know exactly.

    Returns
    -------
    Levels

    Raises
    ------
    ValueError
        For values that are negative or rise, shapes that do not fit, a spectrum whose modes are
        not eigenfunctions, and an argument that does not go with ``values``: all of them with
        Levels, ``degeneracy`` with a spectrum, ``at`` with bare eigenvalues, ``at`` with ``tail``.

    Warns
    -----
    UserWarning
        For a spectrum that does not know its tail, as that of `nystrom`, without ``at`` and
        ``tail``. The tail is then zero.

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
    given = [name for name, value in given.items() if value is not None]
    if isinstance(values, Levels):
        _leave_out(given, "Levels, which hold degeneracy and tail")
        return values
    if isinstance(values, Spectrum):
        _leave_out(given, "a Spectrum, which has its own", "degeneracy")
        if len(given) == 2:
            raise ValueError("at and tail both give the variance outside the modes; give one")
        return Levels(values.values, values.degeneracy, _tail_of(values, at, tail))
    _leave_out(given, "bare eigenvalues, whose tail no inputs give; give tail", "at")
    values = _checks.eigenvalues(values)
    tail = _checks.nonnegative("tail", 0.0 if tail is None else tail)
    counts = np.ones(values.shape) if degeneracy is None else degeneracy
    _checks.positive("degeneracy", counts)
    counts = _checks.numbers("degeneracy", counts)
    # known degeneracies stay NumPy's, so that modes can be counted where values are traced
    counts = (np if _checks.known(counts) else jnp).asarray(counts, values.dtype)
    if counts.shape[-1:] != values.shape[-1:]:
        raise ValueError(
            f"degeneracy has shape {counts.shape} but values {values.shape}; give one per level"
        )
    _checks.fit(values=values.shape[:-1], degeneracy=counts.shape[:-1], tail=tail.shape)
    return Levels(values, counts, tail)


def _leave_out(given, what, *names):
    wrong = [name for name in given if name in names or not names]
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} cannot be given with {what}")


def _tail_of(spectrum, at, tail):
    name = type(spectrum).__name__
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
    warnings.warn(
        f"a {name} does not know the variance outside its modes, which is taken as zero; give "
        "spectrum.levels(spectrum, at=X) with inputs X that it was not made from, or tail=",
        stacklevel=5,
    )
    return 0.0


def without_tail(values: LevelsLike, *, falling: bool = True, single: bool = False) -> Levels:
    """Make one-dimensional levels for a function in which a tail has no place.

    Of a Spectrum the modes alone are taken. Bare values may come in any order unless ``falling``;
    ``single`` demands one mode per value.
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
            "values are Levels with a tail, which this function has no place for; give "
            "levels.values, and add the tail to the ridge where there is one"
        )
    if single:
        one_per_mode(values)
    return values


def one_per_mode(levels: Levels) -> None:
    """Require that every value stands for one mode."""
    if _checks.known(levels.degeneracy) and (np.asarray(levels.degeneracy) != 1).any():
        raise ValueError("features need one value per mode; leave degeneracy out")
