# SPDX-License-Identifier: Apache-2.0
"""Fourier modes of periodic functions of one input."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from .base import Spectrum


class FourierSpectrum(Spectrum):
    """Modes 1, sqrt(2) cos(2 pi x/p), sqrt(2) sin(2 pi x/p), ... of period p; see `fourier`."""

    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]
    period: Float[Array, ""] = eqx.field(default=1.0, converter=jnp.asarray)
    complete: ClassVar[bool] = True

    def features(self, X):
        X = _checks.inputs("X", X)
        if X.shape[1] != 1:
            raise ValueError(f"X has {X.shape[1]} columns; Fourier modes take one, shape (n, 1)")
        j = jnp.arange(len(self))
        wave_number = (j + 1) // 2  # 0, 1, 1, 2, 2, ...: a cosine and a sine of each
        # The remainder is exact, so far inputs lose no digits. With `where` the first operation is
        # one of all modes: then XLA moves all of them out of a sampler's loop, otherwise none.
        turn = jnp.mod(jnp.where(j > 0, X, 0.0) / self.period.astype(X.dtype), 1.0)
        phase = 2 * jnp.pi * wave_number * turn
        wave = jnp.where(j % 2 == 1, jnp.cos(phase), jnp.sin(phase))
        return jnp.where(j == 0, 1.0, jnp.sqrt(2.0) * wave)

    def warn_if_shared(self, X):
        X = _checks.inputs("X", X)
        if not (_checks.known(X) and _checks.known(self.period)):
            return

        # sort inputs by their part of a period, and look for neighbours from different periods
        turns = np.asarray(X, float).ravel() / float(self.period)
        tolerance = max(1e-9, 8 * float(jnp.finfo(X.dtype).eps) * np.abs(turns).max(initial=0.0))
        part = (turns + tolerance) % 1.0
        order = np.argsort(part, kind="stable")
        near = np.diff(part[order]) < 2 * tolerance
        apart = near & (np.abs(np.diff(turns[order])) > 0.5)
        if apart.any():
            i, j = sorted(order[apart.argmax() :][:2].tolist())
            a, b = (np.asarray(X).ravel()[k] for k in (i, j))
            warn(
                f"rows {i} and {j} of X, {a:g} and {b:g}, are one point to modes of period "
                f"{float(self.period):g}, and so may others be; give spectrum.fourier a longer "
                "period, or ignore this if the target has this period"
            )

    def residual(self, X):
        return jnp.zeros(_checks.inputs("X", X).shape[0])

    def residual_cov(self, X, Z=None):
        X = _checks.inputs("X", X)
        return jnp.zeros((X.shape[0], (X if Z is None else _checks.inputs("Z", Z)).shape[0]))


def fourier(
    values_fn: Callable[[Array], Array], modes: int, *, period: ArrayLike = 1.0
) -> FourierSpectrum:
    """Return a spectrum of Fourier modes of one input, which is uniform on a period.

    Parameters
    ----------
    values_fn : callable
        Maps mode indices 0, 1, 2, ... (k,) to eigenvalues (k,), in units of variance. The modes are
        constant, first cosine, first sine, second cosine, ... Parameters that the function
        captured may be sampled.
    modes : int
        Number of modes k.
    period : ()
        Period in units of the inputs; it may be sampled. Inputs that differ by a multiple of it
        count as one point. If the target does not repeat itself, take a period longer than the
        range of all inputs, training and new ones.

    Returns
    -------
    FourierSpectrum
        It has no residual.

    Raises
    ------
    ValueError
        If values are negative or do not fall with the index, or if the period is not positive.

    Warns
    -----
    UserWarning
        If training inputs of a model or of `bayesrg.gp.marginal` differ by a multiple of the
        period.

    References
    ----------
    arXiv 2405.06008. Every periodic kernel that depends on x - z has these modes.
    """
    modes = _checks.whole("modes", modes)
    period = _checks.positive("period", period, ndim=0)
    _checks.function("values_fn", values_fn, "a function of mode indices")
    values = _checks.returned("values_fn", values_fn(jnp.arange(float(modes))))
    if values.shape not in ((), (modes,)):
        raise ValueError(
            f"values_fn returned shape {values.shape} for {modes} indices; return one value each"
        )
    values = _checks.eigenvalues(jnp.broadcast_to(values, (modes,)))
    return FourierSpectrum(values, jnp.ones_like(values), period)
