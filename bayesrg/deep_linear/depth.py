# SPDX-License-Identifier: Apache-2.0
"""Limits of many layers, for a deep linear network of one output without noise.

Formulas are from arXiv 2212.14457. The data enter by their energy: r per point, s = r P in total.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import psi, wrightomega

from .. import _checks
from .._checks import ArrayLike


def wide_and_deep(energy: ArrayLike, effective_depth: ArrayLike) -> np.ndarray:
    r"""Return the order parameter q for many points and wide layers at fixed effective depth.

    q is the root of :math:`\log q = \lambda(r/q - 1)`. It is 1 in a shallow network and r in a very
    deep one. The value r is also the signal variance that maximises the evidence of the shallow
    model. The result (...) has an error of order 1/P (arXiv 2212.14457).

    Parameters
    ----------
    energy : (...), :math:`r = y^TK^{-1}y/P` for P points, positive
    effective_depth : (...), :math:`\lambda = LP/N` for L layers of width N, at least 0
    """
    _checks.on_host("deep_linear.wide_and_deep", energy, effective_depth)
    r = _checks.on_64_bits("energy", energy, _checks.positive)
    depth = _checks.on_64_bits("effective_depth", effective_depth, _checks.nonnegative)
    _checks.fit(energy=r.shape, effective_depth=depth.shape)

    # With x = depth r/q the equation reads x + log x = log(depth r) + depth: x is Wright's omega,
    # and log q = x - depth.
    safe = np.where(depth > 0, depth, 1.0)
    log_q = wrightomega(np.log(safe * r) + safe) - safe
    return np.where(depth > 0, np.exp(log_q), 1.0)


def leading_log_evidence(
    energy: ArrayLike, effective_depth: ArrayLike, points: ArrayLike
) -> np.ndarray:
    r"""Return the leading part (...) of the log evidence, proportional to P, up to a constant.

    :math:`-P[(\log q)^2/4\lambda + (\log q)/2 + r/2q]`, where q is the root that `wide_and_deep`
    finds. Do not select a depth by this number: it never falls with depth. The next order contains
    :math:`-\frac12\log(1 + \lambda r/q)`, which gives the exact evidence a maximum at finite
    depth. Use `exact` instead (arXiv 2212.14457).

    Parameters
    ----------
    energy : (...), :math:`r = y^TK^{-1}y/P`, positive
    effective_depth : (...), :math:`\lambda = LP/N` for L layers of width N, at least 0
    points : (...), number of points P
    """
    _checks.on_host("deep_linear.leading_log_evidence", energy, effective_depth, points)
    log_q = np.log(wide_and_deep(energy, effective_depth))
    points = _checks.on_64_bits("points", points, _checks.positive)
    _checks.fit(energy=log_q.shape, points=points.shape)
    r, depth = np.asarray(energy, float), np.asarray(effective_depth, float)
    prior = log_q**2 / np.where(depth > 0, 4.0 * depth, 1.0)
    return np.asarray(-points * (prior + 0.5 * log_q + 0.5 * r * np.exp(-log_q)))


def infinite_depth(width: int, points: int, energy: ArrayLike) -> tuple[float, float]:
    r"""Return shape and scale of the posterior of q for infinitely many layers of one width.

    The posterior of the order parameter q is an inverse gamma distribution of shape P/2 + c and
    scale s/2, where c solves :math:`\psi(N/2 + c) = \log(N/2)`. The mean of q is
    scale / (shape - 1); it is infinite for one point (arXiv 2212.14457).

    Parameters
    ----------
    width : int, N, the width of every layer
    points : int, number of points P
    energy : (), :math:`s = y^TK^{-1}y`, positive
    """
    b = _checks.number("width", width, above=0.0) / 2.0
    points = _checks.number("points", points, above=0.0)
    energy = _checks.number("energy", energy, above=0.0)
    c = brentq(lambda x: psi(b + x) - np.log(b), 0.0, 1.0, xtol=1e-14)
    return points / 2.0 + c, energy / 2.0
