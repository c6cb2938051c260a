# SPDX-License-Identifier: Apache-2.0
"""Fourier modes of periodic functions of one input."""

import warnings
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .base import LIBRARIES, Spectrum


class FourierSpectrum(Spectrum):
    """Modes 1, sqrt(2) cos 2 pi x, sqrt(2) sin 2 pi x, ... of x over the period; see `fourier`."""

    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    period: Float[Array, ""] = eqx.field(default=1.0, converter=jnp.asarray)
    complete: ClassVar[bool] = True

    def features(self, X):
        X = _checks.inputs("X", X)
        if X.shape[1] != 1:
            raise ValueError(f"X has {X.shape[1]} columns; Fourier modes take one, shape (n, 1)")
        j = jnp.arange(len(self))
        wave_number = (j + 1) // 2
        # The remainder is exact, so that far inputs lose no digit. The first operation is already
        # one of all modes: XLA then moves all of them out of a sampler's loop, otherwise none.
        turn = jnp.mod(jnp.where(j > 0, X, 0.0) / self.period.astype(X.dtype), 1.0)
        phase = 2 * jnp.pi * wave_number * turn
        wave = jnp.where(j % 2 == 1, jnp.cos(phase), jnp.sin(phase))
        return jnp.where(j == 0, 1.0, jnp.sqrt(2.0) * wave)

    def warn_if_shared(self, X):
        X = _checks.inputs("X", X)
        if not (_checks.known(X) and _checks.known(self.period)):
            return
        turns = np.asarray(X, float).ravel() / float(self.period)
        tolerance = max(1e-9, 8 * float(jnp.finfo(X.dtype).eps) * np.abs(turns).max(initial=0.0))
        part = (turns + tolerance) % 1.0
        order = np.argsort(part, kind="stable")
        near = np.diff(part[order]) < 2 * tolerance
        apart = near & (np.abs(np.diff(turns[order])) > 0.5)
        if apart.any():
            i, j = sorted(order[apart.argmax() :][:2].tolist())
            a, b = (np.asarray(X).ravel()[k] for k in (i, j))
            warnings.warn(
                f"rows {i} and {j} of X, {a:g} and {b:g}, are one point to modes of period "
                f"{float(self.period):g}, as other rows may be; give spectrum.fourier a longer "
                "period, or ignore this if the target repeats itself like that",
                skip_file_prefixes=LIBRARIES,
            )

    def residual(self, X):
        return jnp.zeros(_checks.inputs("X", X).shape[0])

    def residual_cov(self, X, Z=None):
        X = _checks.inputs("X", X)
        return jnp.zeros((X.shape[0], (X if Z is None else _checks.inputs("Z", Z)).shape[0]))


def fourier(
    values_fn: Callable[[Array], Array], modes: int, *, period: ArrayLike = 1.0
) -> FourierSpectrum:
    """Build a spectrum on Fourier modes of one input, uniform on one period.

    Parameters
    ----------
    values_fn : callable
        Eigenvalues (variances) from mode indices 0, 1, 2, ...: the modes 1, cos 2 pi x,
        sin 2 pi x, cos 4 pi x, ... of x over the period. It may hold parameters that are sampled.
    modes : int
        Modes kept, at least one.
    period : float
        In the units of the inputs, above zero; it may be sampled. Inputs that differ by a multiple
        of it are one point. For a target that does not repeat itself take one longer than the
        range of the inputs, training and new together.

    Returns
    -------
    FourierSpectrum
        Complete: it has no residual. Its features stay fixed when the values move.

    Raises
    ------
    ValueError
        For values that are negative or do not fall with the index, or a period that is not
        positive.

    Warns
    -----
    UserWarning
        If training inputs of a model or marginal differ, but are equal modulo the period.

    References
    ----------
    arXiv 2405.06008 takes any such spectrum; the modes are those of every kernel of ``x - z``.
    """
    modes = _checks.whole("modes", modes)
    period = _checks.positive("period", period, ndim=0)
    _checks.function("values_fn", values_fn, "a function of mode indices")
    values = _checks.returned("values_fn", values_fn(jnp.arange(float(modes))))
    if values.shape not in ((), (modes,)):
        raise ValueError(
            f"values_fn returned shape {values.shape} for {modes} indices; return one value each"
        )
    values = jnp.broadcast_to(values, (modes,))
    values = _checks.eigenvalues(values)
    return FourierSpectrum(values, jnp.ones_like(values), period)
