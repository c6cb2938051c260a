# SPDX-License-Identifier: Apache-2.0
"""Errors and warnings about matrices whose results lose digits.

They read numbers, so they do nothing inside a JAX transformation.
"""

import jax
import numpy as np
from scipy.linalg import solve_triangular

from .._warnings import warn

LARGER = "give a larger ridge"
LEFT_OUT = 16.0  # margin for leave-one-out, which also divides by the diagonal of the inverse


def check_factor(L, remedy=LARGER, margin=1.0):
    """Check a Cholesky factor L (..., n, n): raise if it failed, warn if half its digits are lost.

    It failed if an entry is not finite: the matrix is not positive definite at this precision.
    Half of the digits are lost if the condition number, times ``margin``, is above 1 / sqrt(eps).
    A result that is more sensitive than a quadratic form has a ``margin`` above 1. The message
    advises the ``remedy``. A traced factor is not checked: if it failed it is nan, and samplers
    reject it.
    """
    if isinstance(L, jax.core.Tracer) or not L.size:
        return
    host = np.asarray(L)
    if not np.isfinite(host).all():
        raise ValueError(
            f"a matrix of shape {host.shape} is not positive definite in {host.dtype}: its "
            f"smallest eigenvalue is not larger than the rounding error; {remedy}"
        )

    # Of a batch check one matrix, that whose largest squared row and smallest squared pivot differ
    # most: their ratio is a lower bound on the condition number.
    flat = host.reshape((-1,) + host.shape[-2:])
    squares, pivots = (flat**2).sum(-1), np.diagonal(flat, axis1=-2, axis2=-1) ** 2
    worst = flat[np.argmax(squares.max(-1) / pivots.min(-1))].astype(float)

    # Rows in different units raise the condition number, but not the rounding error of a Cholesky
    # factor: take the better of the matrix and the one scaled to a diagonal of ones.
    scaled = worst / np.sqrt((worst**2).sum(-1, keepdims=True))
    condition = min(_condition(worst), _condition(scaled))
    warn_condition(condition, host.shape, host.dtype, remedy, margin)


def warn_condition(condition, shape, dtype, remedy=LARGER, margin=1.0):
    """Warn if a matrix with this condition number loses half of the digits of ``dtype``.

    ``shape`` and ``remedy`` go into the message. ``margin`` is a factor on the condition number.
    """
    eps = float(np.finfo(dtype).eps)
    lost = float(condition) * eps * margin
    if lost > np.sqrt(eps):
        warn(
            f"a matrix of shape {shape} has condition number {float(condition):.1e}: "
            f"{max(0.0, -np.log10(lost)):.0f} of {-np.log10(eps):.0f} digits are left in results "
            f"computed from it; {remedy}"
        )


def _condition(L):
    """Return a lower bound on the condition number of L L^T, for L (n, n) on the host."""
    # power iteration with L L^T for its largest eigenvalue, with its inverse for the smallest
    v = u = np.random.default_rng(0).standard_normal(L.shape[0])
    for _ in range(6):
        v, u = v / np.linalg.norm(v), u / np.linalg.norm(u)
        v = L @ (L.T @ v)
        u = solve_triangular(L, u, lower=True, check_finite=False)
        u = solve_triangular(L, u, lower=True, trans=1, check_finite=False)
    return np.linalg.norm(v) * np.linalg.norm(u)
