# SPDX-License-Identifier: Apache-2.0
"""Search, by trial, for the changes of a kernel's parameters that correspond to units."""

from typing import NamedTuple

import numpy as np

_DECADES = np.arange(-12, 13) * np.log(10)  # log scales of the inputs at which the kernel is tried
_STEP = 1e-3  # step of a logarithm in finite differences
_COLUMNS = 32  # with more input columns, they are not tried one by one
_SAME = 1e-4  # relative difference up to which two changes count as equal


class Units(NamedTuple):
    """Directions in log parameters that correspond to a change of units, from `units_of`.

    At the log parameters ``anchor`` (p,) the kernel varies on the scale of the inputs and has the
    variance of the targets. A step along one of the ``directions`` (m, p) rescales the inputs or
    the kernel.
    """

    anchor: np.ndarray
    directions: np.ndarray


def units_of(gram, start, X, variance):
    """Find the changes of the parameters that undo a change of units, and return them as `Units`.

    Parameters
    ----------
    gram : callable
        Takes log parameters (p,) and inputs (m, d); returns a Gram matrix (m, m) of NumPy.
    start : (p,), log parameters at which the kernel is tried
    X : (n, d), inputs
    variance : float, variance of the targets

    Returns
    -------
    Units
        If no parameter can undo a change of units (for instance of a kernel of fixed length),
        there is no direction for that change, and the anchor stays at ``start``.

    Notes
    -----
    Let K be the Gram matrix, t the log parameters and s the log scale of the inputs. A change of t
    along b undoes a rescaling of the inputs if dK/dt b = -dK/ds for all entries and all inputs. It
    multiplies the kernel by a factor if dK/dt b = K. Both equations are solved by least squares
    over up to 8 rows of X, rescaled by 25 powers of ten.
    """
    (n, d), p = X.shape, start.size
    spread = X.std(0)
    spread = np.where(spread > 0, spread, np.maximum(np.abs(X).max(0), np.finfo(float).tiny))
    some = X[np.unique(np.linspace(0, n - 1, 8).astype(int))]

    def moved(scale, step):
        """Return the Gram matrix after a step (p + d,) of log parameters and log scales."""
        return gram(start + step[:p], some / spread * np.exp(scale + step[p:])).ravel()

    # Columns of ``change``: parameters, all inputs together, then every input column by itself.
    each = 1 < d <= min(p, _COLUMNS)  # perhaps one length per column
    kinds = [*np.eye(p, p + d), np.r_[np.zeros(p), np.ones(d)]]
    kinds = _STEP * np.array(kinds + list(np.eye(d, p + d, p) if each else []))

    # Skip decades at which the kernel is zero, infinite or not a number.
    blocks, values, scales = [], [], []
    for scale in _DECADES:
        K = moved(scale, np.zeros(p + d))
        change = [(moved(scale, step) - moved(scale, -step)) / (2 * _STEP) for step in kinds]
        change = np.stack(change, 1)
        size = np.abs(K).max()
        if np.isfinite(change).all() and np.isfinite(size) and size > 0:
            blocks.append(change / size)
            values.append(K / size)
            scales.append(scale)
    if not blocks:
        return Units(start, np.zeros((0, p)))

    blocks, values, scales = np.stack(blocks), np.concatenate(values), np.asarray(scales)
    by_parameter, by_input = blocks[..., :p].reshape(-1, p), blocks[..., p:]
    undo = [_exponents(by_parameter, -by_input[..., i].ravel()) for i in range(by_input.shape[-1])]

    # Either every column has parameters of its own, or all columns share them.
    apart = undo[1:] if each and all(b is not None for b in undo[1:]) else None

    anchor, directions = start.copy(), []
    for i, b in enumerate(apart or undo[:1]):
        if b is None or not b.any():
            continue

        # The kernel at `start` suits inputs of the decade at which it changes most.
        weight = np.abs(by_input[..., i + 1 if apart else 0]).max(-1) ** 2
        suits = (weight * scales).sum() / weight.sum()
        size = np.log(spread[i]) if apart else np.log(spread).mean()
        anchor += (size - suits) * b
        directions.append(b)

    # The variance comes last: measure it at parameters whose lengths suit the inputs.
    amplitude = _exponents(by_parameter, values)
    if amplitude is not None:
        typical = np.diagonal(gram(anchor, some)).mean()
        if np.isfinite(typical) and typical > 0:
            anchor = anchor + np.log(variance / typical) * amplitude
        directions.append(amplitude)
    return Units(anchor, np.reshape(directions, (-1, p)))


def _exponents(changes, aim):
    """Return the solution b of ``changes @ b = aim``, or None if there is no solution."""
    if not changes.shape[1] or not np.abs(aim).max() > 0:
        return None
    b = np.linalg.lstsq(changes, aim, rcond=1e-5)[0]
    if np.linalg.norm(changes @ b - aim) > _SAME * np.linalg.norm(aim):
        return None

    # Exponents of common kernels are multiples of 1/2: round, to remove the error of differences.
    halves = np.round(2 * b) / 2
    return halves if np.abs(b - halves).max() < 1e-3 else b
