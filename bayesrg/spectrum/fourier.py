# SPDX-License-Identifier: Apache-2.0
"""Fourier modes on the unit interval."""

from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .base import Spectrum


class FourierSpectrum(Spectrum):
    """Modes 1, sqrt(2) cos 2 pi x, sqrt(2) sin 2 pi x, ... of a periodic kernel; see `fourier`."""

    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    complete: ClassVar[bool] = True

    def features(self, X):
        X = _checks.inputs("X", X)
        if X.shape[1] != 1:
            raise ValueError(f"X has {X.shape[1]} columns; Fourier modes take one, shape (n, 1)")
        j = jnp.arange(len(self))
        phase = 2 * jnp.pi * ((j + 1) // 2) * X
        wave = jnp.where(j % 2 == 1, jnp.cos(phase), jnp.sin(phase))
        return jnp.where(j == 0, 1.0, jnp.sqrt(2.0) * wave)

    def residual(self, X):
        return jnp.zeros(_checks.inputs("X", X).shape[0])

    def residual_cov(self, X, Z=None):
        X = _checks.inputs("X", X)
        return jnp.zeros((X.shape[0], (X if Z is None else _checks.inputs("Z", Z)).shape[0]))


def fourier(values_fn: Callable[[Array], Array], modes: int) -> FourierSpectrum:
    """Build a spectrum on Fourier modes of period 1, uniform inputs on [0, 1].

    Parameters
    ----------
    values_fn : callable
        Eigenvalues (variances) from mode indices 0, 1, 2, ...: the modes 1, cos 2 pi x,
        sin 2 pi x, cos 4 pi x, ... It may hold parameters that are sampled.
    modes : int
        Modes kept, at least one.

    Returns
    -------
    FourierSpectrum
        Complete: it has no residual. Its features stay fixed when the values move.

    Raises
    ------
    ValueError
        For values that are negative or do not fall with the index.

    References
    ----------
    arXiv 2405.06008 takes any such spectrum; the modes are those of every kernel of ``x - z``.
    """
    modes = _checks.whole("modes", modes)
    _checks.function("values_fn", values_fn, "a function of mode indices")
    values = _checks.returned("values_fn", values_fn(jnp.arange(float(modes))))
    if values.shape not in ((), (modes,)):
        raise ValueError(
            f"values_fn returned shape {values.shape} for {modes} indices; return one value each"
        )
    values = jnp.broadcast_to(values, (modes,))
    values = _checks.eigenvalues(values)
    return FourierSpectrum(values, jnp.ones_like(values))
