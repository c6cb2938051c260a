# SPDX-License-Identifier: Apache-2.0
"""Depth limits of a deep linear network of one output without noise."""

import numpy as np
from scipy.optimize import brentq
from scipy.special import psi, wrightomega

from .. import _checks
from .._checks import ArrayLike


def wide_and_deep(energy: ArrayLike, effective_depth: ArrayLike) -> np.ndarray:
    r"""Order parameter of many points and wide layers at fixed effective depth.

    The root of :math:`\log q = \lambda(r/q - 1)`: 1 in a shallow network, r in a very deep one,
    which is the signal variance that maximises the evidence of the shallow model.

    Parameters
    ----------
    energy : (...) positive, :math:`r = y^TK^{-1}y/P`
    effective_depth : (...) :math:`\lambda = LP/N`, not negative

    Returns
    -------
    (...)
        On the host; the error is of order 1/P.

    References
    ----------
    arXiv 2212.14457.
    """
    _checks.on_host("deep_linear.wide_and_deep", energy, effective_depth)
    r = _checks.on_64_bits("energy", energy, _checks.positive)
    depth = _checks.on_64_bits("effective_depth", effective_depth, _checks.nonnegative)
    _checks.fit(energy=r.shape, effective_depth=depth.shape)
    safe = np.where(depth > 0, depth, 1.0)
    log_q = wrightomega(np.log(safe * r) + safe) - safe  # x + log x = log(depth r) + depth
    return np.where(depth > 0, np.exp(log_q), 1.0)


def leading_log_evidence(
    energy: ArrayLike, effective_depth: ArrayLike, points: ArrayLike
) -> np.ndarray:
    r"""Log evidence at the order of P, up to a constant: it never falls with depth.

    :math:`-P[(\log q)^2/4\lambda + (\log q)/2 + r/2q]` at the root of `wide_and_deep`.

    Parameters
    ----------
    energy, effective_depth : (...) as in `wide_and_deep`
    points : (...) number P of them

    Returns
    -------
    (...)

    Notes
    -----
    Do not select a depth by it. The next order holds :math:`-\frac12\log(1 + \lambda r/q)`, so that
    the exact evidence has a maximum at finite depth: use `exact`.

    References
    ----------
    arXiv 2212.14457.
    """
    _checks.on_host("deep_linear.leading_log_evidence", energy, effective_depth, points)
    q = wide_and_deep(energy, effective_depth)
    r = _checks.on_64_bits("energy", energy, _checks.positive)
    depth = _checks.on_64_bits("effective_depth", effective_depth, _checks.nonnegative)
    points = _checks.on_64_bits("points", points, _checks.positive)
    _checks.fit(energy=q.shape, points=points.shape)
    prior = np.log(q) ** 2 / np.where(depth > 0, 4.0 * depth, 1.0)
    return np.asarray(-points * (prior + 0.5 * np.log(q) + 0.5 * r / q))


def infinite_depth(width: int, points: int, energy: ArrayLike):
    r"""Posterior of the order parameter of infinitely many layers of one width.

    Inverse gamma, of shape P/2 + c and scale s/2, with :math:`\psi(N/2 + c) = \log(N/2)`.

    Parameters
    ----------
    width : N
    points : P
    energy : () positive, :math:`s = y^TK^{-1}y`

    Returns
    -------
    shape, scale : float
        The mean of q is scale / (shape - 1), infinite for one point.

    References
    ----------
    arXiv 2212.14457.
    """
    given = {"width": width, "points": points, "energy": energy}
    given = [_checks.positive(name, value, ndim=0) for name, value in given.items()]
    _checks.on_host("deep_linear.infinite_depth", given)
    width, points, energy = (float(value) for value in given)
    b = width / 2.0
    c = brentq(lambda x: psi(b + x) - np.log(b), 0.0, 1.0, xtol=1e-14)
    return points / 2.0 + c, energy / 2.0
