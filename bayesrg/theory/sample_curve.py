# SPDX-License-Identifier: Apache-2.0
"""Learning curves read off one labelled sample, with a ridge that depends on the input."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, eigh, eigvalsh, lapack
from scipy.optimize import brentq

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn

_STEPS, _TOLERANCE = 12, 1e-6  # of Newton's method; largest relative change of a ridge at the end
_TWINS = 0.01  # share of equal rows above which leaving one of them out says little
_EPS = np.finfo(float).eps


class SampleCurve(eqx.Module):
    """Learning curve read off a sample of R rows; made by `sample_curve`.

    Attributes
    ----------
    n, ridge : (...) as given, broadcast together
    test : (..., c) mean squared error on new labels, their noise included
    test_error : (..., c) standard error of ``test``, from the spread over the rows
    train : (..., c) mean squared error on the training labels
    effective_ridge : (...) harmonic mean of ``local_ridge``, a variance
    local_ridge : (..., R) effective ridge at each row
    largest_n : (...) number of points below which the sample can be read at this ridge
    """

    n: Float[np.ndarray, " *n_train"]
    ridge: Float[np.ndarray, " *n_train"]
    test: Float[np.ndarray, "*n_train"] | Float[np.ndarray, "*n_train target"]
    test_error: Float[np.ndarray, "*n_train"] | Float[np.ndarray, "*n_train target"]
    train: Float[np.ndarray, "*n_train"] | Float[np.ndarray, "*n_train target"]
    effective_ridge: Float[np.ndarray, " *n_train"]
    local_ridge: Float[np.ndarray, "*n_train row"]
    largest_n: Float[np.ndarray, " *n_train"]


def sample_curve(
    K: ArrayLike,
    y: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    local: bool = True,
    block: int | str = "auto",
) -> SampleCurve:
    r"""Predict the test error of kernel ridge regression on n points from R labelled rows.

    The sample has R points and another ridge, chosen such that its posterior knows as much about
    each row as n points with ``ridge`` know. With the inverse :math:`G = (K + D)^{-1}` of the
    sample, the ridge of row i is the root of :math:`D_i = \sigma^2 + (1 - n/R)/G_{ii}`. Its error
    with n points follows from the leave-one-out residuals :math:`(Gy)_i/G_{ii}` as
    :math:`[1 - (R/n - 1)B]^{-1}` times their squares, where :math:`B_{ij} = (G_{ij}/G_{ii})^2` off
    the diagonal.

    Parameters
    ----------
    K : (R, R)
        Kernel between the rows, not divided by R.
    y : (R,) or (R, c)
        Labels.
    n : (...)
        Numbers of training points, real numbers from 1 to ``largest_n``.
    ridge : (...)
        Noise variance that the regression assumes; its shape fits that of n.
    local : bool
        Whether each row has a ridge of its own. Otherwise one ridge is the same for all, as for
        Gaussian features; that is faster, and too high if n is near R and the features are not
        Gaussian.
    block : int or "auto"
        Rows per block. The sample is divided into blocks of about this size, which are read one by
        one and averaged. By default blocks have at least 2n rows, or all rows if ``local`` is
        False. With much larger blocks rows far from all others are misread.

    Returns
    -------
    SampleCurve
        At n = R and with all rows in one block these are the errors of leave-one-out, or those of
        `gcv` if ``local`` is False.

    Raises
    ------
    ValueError
        If K is not positive semi-definite, sizes differ, numbers are out of range, or n is larger
        than this sample can tell.

    Warns
    -----
    UserWarning
        If the equations have no solution that makes sense, if more than 1 % of the rows have an
        equal one, or if the error is nowhere below the variance of the labels.

    Notes
    -----
    It runs on the host in 64-bit floats. With R = 2,000 rows of images one case was within 7.2 %
    of experiments for n from 50 to 2,000, 3.6 % in the root mean square.

    References
    ----------
    arXiv 2405.06008, equation 8.3, for the local ridge; arXiv 2203.06176 for one ridge.
    """
    _checks.require_x64("theory.sample_curve")
    _checks.on_host("theory.sample_curve", K, y, n, ridge)
    K = np.asarray(_checks.squares("K", _checks.symmetric("K", K)))
    size, local = len(K), _checks.flag("local", local)
    y = np.asarray(_checks.squares("y", _checks.finite("y", _checks.targets("y", y, size))), float)
    n, ridge = _sizes(n, ridge)
    labels = y.reshape(size, -1)
    whole = _Sample(K, labels, vectors=not local)
    largest = np.array([whole.largest(noise) for noise in ridge.flat]).reshape(n.shape)

    cases, paths = {}, {}
    # with n falling, the ridges of one case tell those of the next
    for i in np.lexsort([-n.ravel(), ridge.ravel()]):
        count, noise = n.flat[i], ridge.flat[i]
        whole.check(count, noise)
        many = _parts(size, count, block, local)
        blocks = [slice(first, None, many) for first in range(many)]
        if local:
            path = paths.setdefault(noise, _Path())
            one = np.full(size, whole.effective(count, noise))
            start = path.guess(count) if path.points else one
            read = [_read(K[b, b], labels[b], count, noise, start[b]) for b in blocks]
        else:
            parts = [whole] if many == 1 else [_Sample(K[b, b], labels[b]) for b in blocks]
            read = [part.read(count, noise) for part in parts]
        cases[i] = _joined(blocks, read)
        if local:
            path.points.append((count, cases[i]))

    found = [cases[i] for i in range(n.size)]
    errors = np.array([case.errors for case in found]).reshape(*n.shape, *y.shape)
    ridges = np.array([case.ridge for case in found]).reshape(*n.shape, size)
    axis, extra = n.ndim, (1,) * (y.ndim - 1)
    test = errors.mean(axis)
    unsound = [f"{n.flat[i]:g}" for i, case in enumerate(found) if not case.sound]
    _warn(K, y, test, unsound)
    spread = errors.std(axis, ddof=1) if size > 1 else np.full_like(test, np.nan)
    shrunk = (ridge[..., None] / ridges).reshape(*ridges.shape, *extra) ** 2
    train, effective = (shrunk * errors).mean(axis), 1.0 / (1.0 / ridges).mean(-1)
    means = test, spread / np.sqrt(size), train, effective
    return SampleCurve(n, ridge, *map(np.asarray, means), ridges, largest)


def _sizes(n, ridge):
    """Return n and ridge as NumPy arrays of one shape, or raise."""
    n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
    _checks.fit(n=n.shape, ridge=ridge.shape)
    n, ridge = np.broadcast_arrays(np.asarray(n, float), np.asarray(ridge, float))
    if n.size and n.min() < 1:
        raise ValueError(f"n must be at least 1, got {n.min():g}; give numbers of points")
    return n, ridge


def _parts(size, n, block, local):
    """Return the number of blocks for n points."""
    if isinstance(block, str):
        _checks.choice("block", block, ("auto",))
        return max(1, int(size // (2 * n))) if local else 1
    block = _checks.whole("block", block, most=size)
    if block < size and n > block:
        raise ValueError(
            f"block is {block} and n is {n:g}; a block needs at least n rows, so give block={size}"
        )
    return size // block


class _Reading(NamedTuple):
    """What r rows tell about n points.

    Attributes
    ----------
    errors : (r, c) error at each row
    ridge : (r,) effective ridge at each row
    sound : whether the ridges converged and no error is negative
    slope : (r,) derivative of ln ridge in ln n, None with one ridge
    """

    errors: np.ndarray
    ridge: np.ndarray
    sound: bool
    slope: np.ndarray | None = None


def _joined(blocks, read):
    """Return the readings of several blocks as one; ``blocks`` has the rows of each."""

    def join(values):
        if values[0] is None:
            return None
        whole = np.empty((sum(map(len, values)), *values[0].shape[1:]))
        for rows, part in zip(blocks, values, strict=True):
            whole[rows] = part
        return whole

    errors, ridge, sound, slope = zip(*read, strict=True)
    return _Reading(join(errors), join(ridge), all(sound), join(slope))


class _Sample:
    """Eigenvalues of the kernel of some rows, and with ``vectors`` their labels in these modes."""

    def __init__(self, K, labels, vectors=True):
        values, self.vectors = eigh(K, driver="evd") if vectors else (eigvalsh(K), None)
        self.round_off = len(K) * _EPS * max(values[-1], 0.0)
        if values[0] < -10 * self.round_off or values[-1] <= 0:
            raise ValueError(
                f"K has the eigenvalue {values[0]:.3g} and the largest is {values[-1]:.3g}; give "
                "the positive semi-definite matrix of a kernel between rows"
            )
        self.values = np.where(values > self.round_off, values, 0.0)
        self.overlap = self.vectors.T @ labels if vectors else None

    def largest(self, ridge):
        """Return the number of points at which the one ridge of the sample becomes zero."""
        if self.values[0] == 0:
            return np.inf if ridge > 0 else float(len(self.values))
        return len(self.values) + ridge * (1.0 / self.values).sum()

    def check(self, n, ridge):
        """Raise if the sample cannot tell the error of n points."""
        if ridge <= self.round_off and self.values[0] == 0:
            raise ValueError(
                f"ridge is {ridge:.3g} and K is singular; give a ridge above its rounding error, "
                f"{self.round_off:.2g}"
            )
        limit = self.largest(ridge)
        if n > len(self.values) and n >= limit:
            raise _beyond(n, limit)

    def delta(self, n, ridge):
        """Return the one ridge with which the rows know as much as n points with ``ridge``."""
        size = len(self.values)

        def excess(log_delta):
            delta = np.exp(log_delta)
            return size + (ridge - delta) * (1.0 / (self.values + delta)).sum() - n

        if n == size:
            return ridge
        zeros = (self.values == 0).sum()
        low = 0.5 * ridge * zeros / (n + zeros) if zeros else 1e-300
        high = 2.0 * (self.values[-1] + ridge) * max(1.0, size / n)
        found = brentq(excess, np.log(low), np.log(high), xtol=1e-14, rtol=4 * _EPS)
        return float(np.exp(found))

    def effective(self, n, ridge):
        """Return the effective ridge of n points."""
        return n / (1.0 / (self.values + self.delta(n, ridge))).sum()

    def read(self, n, ridge):
        """Return the reading with one ridge for all rows."""
        size = len(self.values)
        inverse = 1.0 / (self.values + self.delta(n, ridge))
        first, second = inverse.sum(), (inverse**2).sum()
        weighted = inverse[:, None] * self.overlap
        mean = (weighted**2).sum(0) / second / (1.0 - (size - first**2 / second) / n)
        square = (self.vectors @ weighted) ** 2
        share = square / np.where(square.any(0), square.mean(0), 1.0)
        return _Reading(mean * share, np.full(size, n / first), bool((mean >= 0).all()))


class _Path:
    """Effective ridges of all rows along n, at one ridge of the regression."""

    def __init__(self):
        self.points = []

    def guess(self, n):
        """Return the ridges at n, by the cubic through the last two points and slopes."""
        logs = [(np.log(m), np.log(case.ridge), case.slope) for m, case in self.points[-2:]]
        x, (x1, v1, s1) = np.log(n), logs[-1]
        if len(logs) == 1 or logs[0][0] == x1:
            return np.exp(v1 + s1 * (x - x1))
        x0, v0, s0 = logs[0]
        step = x1 - x0
        mean, t = (v1 - v0) / step, (x - x1) / step
        bend, twist = s1 - mean, s0 + s1 - 2.0 * mean
        return np.exp(v1 + step * t * (s1 + t * (bend + twist * (1.0 + t))))


def _read(K, y, n, ridge, start):
    """Return the reading with a ridge for each row, by Newton's method from ``start`` (r,)."""
    size = len(K)
    missing = 1.0 - n / size
    unit = np.diagonal(K).max() + ridge  # squares of G could underflow
    K, ridge = K / unit, ridge / unit
    D = ridge + (size / n - 1.0) * start / unit
    for _ in range(_STEPS):
        G, own = _inverse(K, D, n)
        if missing == 0:  # leave-one-out itself
            solve, converged = _Diagonal(own**2).solve, True
            break
        # errors and Newton's step share the matrix of own^2, and off the diagonal (1 - R/n) G o G
        M = (1.0 - size / n) * G**2
        np.fill_diagonal(M, own**2)
        solve = _solver(M)
        change = (size / n) * solve(own**2 * (D - ridge - missing / own))
        converged = bool((np.abs(change) <= _TOLERANCE * np.abs(D)).all())
        if converged:
            break
        D = D - change
        if missing > 0:
            D = np.maximum(D, ridge)  # the root is above the ridge
    if (D < 0).any():  # with more points than rows
        raise _beyond(n)
    residuals = blas.dsymm(1.0, G, y, lower=1)
    errors = solve(residuals**2)
    if not np.isfinite(errors).all():
        raise _beyond(n)
    ridges = unit * n / (size * own)
    # d ln ridge / d ln n is one plus that of 1/G_ii, and d D / d ln n is -solve(own)
    slope = 1.0 - blas.dsymv(1.0, G**2, solve(own), lower=1) / own
    return _Reading(errors, ridges, converged and bool((errors >= 0).all()), slope)


def _inverse(K, D, n):
    """Return the lower triangle of the inverse of K + diag(D), and its diagonal."""
    A = K.copy(order="F")
    A[np.diag_indices_from(A)] += D
    factor, info = lapack.dpotrf(A, lower=1, overwrite_a=1)
    if info == 0:
        G, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info:
        raise _beyond(n)
    return G, np.diagonal(G).copy()


class _Diagonal(NamedTuple):
    """A diagonal matrix."""

    values: np.ndarray

    def solve(self, b):
        """Return the solution x of M x = b."""
        return (b.T / self.values).T


def _solver(M):
    """Return a function that solves M x = b for a symmetric M given by its lower triangle."""
    factor, info = lapack.dpotrf(M, lower=1)
    if info == 0:
        return lambda b: lapack.dpotrs(factor, b, lower=1)[0]
    full = np.tril(M) + np.tril(M, -1).T
    return lambda b: np.linalg.solve(full, b)


def _beyond(n, largest=None):
    """Return the error of a number of points that is too large."""
    limit = "n_max with a ridge for each row" if largest is None else f"n_max={largest:.4g}"
    return ValueError(
        f"n={n:g} is beyond {limit}: this sample cannot tell the error of so many points; "
        "give more rows, or smaller n"
    )


def _warn(K, y, test, unsound):
    """Warn of equations without a good solution, of equal rows, and of labels without a signal."""
    if unsound:
        warn(
            f"the reading at n={', '.join(dict.fromkeys(unsound))} cannot be trusted: errors are "
            "negative or the ridges did not converge; give a smaller block, or n is too small for "
            "these rows"
        )
    own = np.diagonal(K)
    twins = own[:, None] + own - 2.0 * K <= 8 * _EPS * (own[:, None] + own)
    equal = (twins.sum(1) > 1).mean()
    if equal > _TWINS:
        warn(
            f"{100 * equal:.2g}% of the rows have an equal one, so that leaving out one of them "
            "says little about new inputs; remove duplicates"
        )
    variance = np.atleast_1d(y.var(0))
    least = test.reshape(-1, variance.size).min(0, initial=np.inf)
    if ((least >= variance) & (variance > 0)).any():
        warn(
            "the test error is nowhere below the variance of the labels, "
            f"{variance[least >= variance].max():.3g}; look whether labels and rows belong "
            "together, or give a larger ridge"
        )
