# SPDX-License-Identifier: Apache-2.0
"""How much of a target lies in each mode, estimated from a few labels."""

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.linalg import qr
from scipy.optimize import isotonic_regression

from .. import _checks
from .._checks import ArrayLike
from ..spectrum import Spectrum

_BLOCKS = 10  # of the jackknife
_DEPENDENT = 1e-8  # a column with less of its norm left depends on those before it


class TargetPower(eqx.Module):
    """Power of a target in m modes and outside the first of them; made by `target_power`.

    Attributes
    ----------
    power : (m,) squared coefficient of the target in each mode, at least 0
    remainder : (m + 1,) variance of the target outside the first 0, 1, ..., m modes, noise included
    remainder_error : (m + 1,) jackknife errors of ``remainder``, before it was made to fall
    exponent : () b, where the remainder falls as k^-b at the last modes
    """

    power: Float[np.ndarray, " mode"]
    remainder: Float[np.ndarray, " first"]
    remainder_error: Float[np.ndarray, " first"]
    exponent: float

    def extend(self, values: ArrayLike) -> tuple[np.ndarray, float]:
        """Return the power in as many modes as there are values, and the label noise left.

        Beyond the m modes the remainder goes on as a power law.

        Parameters
        ----------
        values : (k,)
            Eigenvalues; only their number counts.

        Returns
        -------
        power : (k,)
        noise : variance of the target outside all k modes
        """
        count = len(_checks.nonnegative("values", values, ndim=1))
        m = self.power.size
        if count <= m:
            return self.power[:count], float(self.remainder[count])
        beyond = np.maximum(np.arange(m, count + 1), 1) / max(m, 1)
        remainder = np.append(self.remainder[:m], self.remainder[m] * beyond**-self.exponent)
        return -np.diff(remainder), float(remainder[-1])


def target_power(
    spectrum: Spectrum, X: ArrayLike, y: ArrayLike, modes: int | None = None
) -> TargetPower:
    r"""Estimate the power of a target in the modes of a spectrum from n labelled rows.

    The target is fitted by the first k modes, for every k. The sum of squares left over n - k is an
    unbiased estimate of the variance outside these modes, noise included, so no noise has to be
    subtracted. Differences of these estimates, which are made to fall by isotonic regression, are
    the power.

    Parameters
    ----------
    spectrum : Spectrum
    X : (n, d)
    y : (n,)
    modes : int, optional
        Number of modes, at most n/2, which is the default if there are as many.

    Returns
    -------
    TargetPower
        ``power`` and ``extend`` are what `learning_curve` takes. A mode that depends on those
        before it at these rows has no power.

    Raises
    ------
    ValueError
        If there are more modes than n/2, or fewer in the spectrum.

    Notes
    -----
    It runs on the host in 64-bit floats. Errors are those of a jackknife over ten interleaved
    blocks. The mean of y times a mode function, squared, is larger by var(y)/n for each mode.
    """
    _checks.require_x64("theory.target_power")
    _checks.on_host("theory.target_power", spectrum, X, y, modes)
    spectrum = _checks.instance("spectrum", spectrum, Spectrum, "a Spectrum, as nystrom makes it")
    X = _checks.inputs("X", X)
    n = X.shape[0]
    y = _checks.finite("y", _checks.targets("y", y, n), ndim=1)
    y = np.asarray(_checks.squares("y", y), float)
    most = min(n // 2, spectrum.values.size)
    m = most if modes is None else _checks.whole("modes", modes, least=0, most=most)

    H = np.asarray(spectrum.features(X), float)[:, :m]
    raw = _remainders(H, y)
    power = _falling(raw, n)
    parts = []
    for first in range(_BLOCKS):
        rest = np.arange(n) % _BLOCKS != first
        if rest.sum() > m + 1:
            parts.append(_remainders(H[rest], y[rest]))
    spread = (
        np.sqrt((len(parts) - 1) * np.var(parts, 0)) if len(parts) > 1 else np.full(m + 1, np.nan)
    )
    return TargetPower(-np.diff(power), power, spread, _exponent(power))


def _remainders(H, y):
    """Return the variance of y (n,) outside the first 0, 1, ..., m columns of H (n, m)."""
    n, free = len(y), np.ones(H.shape[1], bool)
    norms = np.linalg.norm(H, axis=0)
    while True:
        Q, upper = qr(H[:, free], mode="economic")
        own = np.abs(np.diagonal(upper))
        independent = own > _DEPENDENT * norms[free]
        if independent.all():
            break
        free[free] = independent  # else rounding would take a direction from the later columns
    taken = np.zeros(H.shape[1])
    taken[free] = (Q.T @ y) ** 2
    left = np.maximum(y @ y - np.append(0.0, np.cumsum(taken)), 0.0)
    return left / (n - np.append(0, np.cumsum(free)))


def _falling(remainder, n):
    """Return remainders made to fall, weighted by their degrees of freedom."""
    weights = n - np.arange(len(remainder))
    return isotonic_regression(remainder, weights=weights, increasing=False).x


def _exponent(remainder):
    """Return the exponent of the remainders of the last modes, at least 0."""
    m = len(remainder) - 1
    k = np.arange(max(1, m // 8), m + 1)
    if len(k) < 2 or remainder[-1] <= 0:
        return 0.0
    return max(0.0, -float(np.polyfit(np.log(k), np.log(remainder[k]), 1)[0]))
