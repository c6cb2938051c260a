# SPDX-License-Identifier: Apache-2.0
"""One trained matrix against matrices of independent entries: bulk, outliers, tail.

All functions take the levels (q,) of one matrix: the eigenvalues of W^T W that are not zero by
construction.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from ... import _checks
from ..._checks import ArrayLike


class Bulk(NamedTuple):
    """Result of `bulk`: standard deviation ``s`` of the entries, ``edge``, number ``above`` it."""

    s: float
    edge: float
    above: int


class Outliers(NamedTuple):
    """Result of `outliers`.

    ``edge`` of the law; ``null`` (2,), 5th and 95th percentile of the largest level of the null;
    ``count``, levels above (1 + margin) edge; ``beyond``, levels above the null's 95th percentile;
    ``ratio`` of the largest level to the edge; ``strength`` (count,), see `outliers`.
    """

    edge: float
    null: np.ndarray
    count: int
    beyond: int
    ratio: float
    strength: np.ndarray


class Hill(NamedTuple):
    """Result of `hill`: ``exponent`` of the density, its 89 % ``interval`` (2,), and ``k``."""

    exponent: float
    interval: np.ndarray
    k: int


def checked(levels, shape):
    """Return ascending levels, and the larger and the smaller side of the matrix."""
    levels = np.sort(_checks.on_64_bits("levels", levels, _checks.positive, ndim=1))
    sides = _checks.whole_numbers("shape", shape)
    if len(sides) != 2 or not 0 < len(levels) <= min(sides):
        raise ValueError(
            f"shape {sides} does not fit {len(levels)} levels; give (M, N) of the matrix"
        )
    return levels, max(sides), min(sides)


def edge_of(s, m, n):
    """Return the upper edge of the law of Marchenko and Pastur."""
    return s**2 * (np.sqrt(m) + np.sqrt(n)) ** 2


def bulk(levels: ArrayLike, shape: tuple[int, int]) -> Bulk:
    """Fit the standard deviation of independent entries to the levels below the edge.

    A perturbation of rank k that lifts k levels above the edge leaves those of a matrix of
    independent entries with k rows and k columns less. Of these the maximum likelihood estimate is
    the sum of the levels over the number of entries. The edge follows, and k, until k stays.

    Parameters
    ----------
    levels : (q,), positive
    shape : (M, N) of the matrix

    Returns
    -------
    Bulk

    Raises
    ------
    ValueError
        For levels that are not positive, or more than the smaller side of the matrix.

    References
    ----------
    arXiv 2411.13512.
    """
    levels, m, n = checked(levels, shape)
    above = -1
    for k in range(len(levels)):  # k never falls: fewer levels mean a lower edge
        s = np.sqrt(levels[: len(levels) - k].sum() / ((m - k) * (n - k)))
        above = int((levels > edge_of(s, m, n)).sum())
        if above <= k:
            break
    return Bulk(float(s), float(edge_of(s, m, n)), above)


def outliers(
    levels: ArrayLike,
    shape: tuple[int, int],
    null: ArrayLike,
    *,
    s: ArrayLike | None = None,
    margin: ArrayLike = 0.05,
) -> Outliers:
    r"""Count the levels above those of independent entries, and say what perturbation lifts them.

    A perturbation :math:`\theta u v^T` of W lifts a level out of the bulk if
    :math:`\theta > s(MN)^{1/4}`, to :math:`(\theta^2 + s^2M)(\theta^2 + s^2N)/\theta^2`.

    Parameters
    ----------
    levels : (q,), positive
    shape : (M, N) of the matrix
    null : (draws, q)
        From `bayesrg.ensembles.marchenko_pastur_null` for this shape.
    s : float, optional
        Standard deviation of the entries; by default that of `bulk`.
    margin : float
        Levels within this share above the edge are not counted.

    Returns
    -------
    Outliers
        ``strength`` is :math:`\theta/(s(MN)^{1/4})` of each counted level, the largest first.

    Raises
    ------
    ValueError
        For levels that are not positive, or more than the smaller side of the matrix.

    References
    ----------
    Baik, Ben Arous and Peche (2005); arXiv 2411.13512.
    """
    levels, m, n = checked(levels, shape)
    margin = _checks.number("margin", margin, least=0.0)
    s = bulk(levels, shape).s if s is None else _checks.number("s", s, above=0.0, most=1e100)
    null = _checks.on_64_bits("null", null, ndim=2)
    if null.shape[1] != n or not len(null):
        raise ValueError(
            f"null has shape {null.shape}; give (draws, {n}), from marchenko_pastur_null of {shape}"
        )
    low, high = s**2 * np.percentile(null.max(-1), [5.0, 95.0])
    edge = edge_of(s, m, n)
    out = levels[levels > (1 + margin) * edge][::-1]

    excess = out / s**2 - m - n
    theta = np.sqrt((excess + np.sqrt(excess**2 - 4 * m * n)) / 2)
    strength = theta / (m * n) ** 0.25
    beyond = int((levels > high).sum())
    ratio = float(levels[-1] / edge)
    return Outliers(float(edge), np.array([low, high]), len(out), beyond, ratio, strength)


def hill(levels: ArrayLike, k: int, *, key: Array | int, draws: int = 1000) -> Hill:
    r"""Estimate the exponent of a power-law tail, :math:`1 + k/\sum_{i \le k}\ln(x_i/x_{k+1})`.

    It is no evidence that there is a power law: every sample has an exponent.

    Parameters
    ----------
    levels : (q,), positive
    k : int
        Number of the largest levels that are used, below q.
    key : JAX key, or int
        For the bootstrap over these levels.
    draws : int
        Bootstrap resamples.

    Returns
    -------
    Hill

    Raises
    ------
    ValueError
        For a k that is not below the number of levels.

    References
    ----------
    Hill (1975); arXiv 2411.13512.
    """
    levels = np.sort(_checks.on_64_bits("levels", levels, _checks.positive, ndim=1))[::-1]
    k = _checks.whole("k", k, most=max(1, len(levels) - 1))
    key, draws = _checks.random_key(key), _checks.whole("draws", draws)
    if len(levels) < 2:
        raise ValueError("levels has one entry; an exponent needs two")
    logs = np.log(levels[:k] / levels[k])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    low, high = np.percentile(rng.choice(logs, (draws, k)).mean(-1), [5.5, 94.5])
    with np.errstate(divide="ignore"):  # equal levels have no finite exponent
        found, *interval = 1 + 1 / np.array([logs.mean(), high, low])
    return Hill(float(found), np.array(interval), k)
