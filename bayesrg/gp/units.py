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
    n, d = X.shape
    spread = X.std(0)
    spread = np.where(spread > 0, spread, np.maximum(np.abs(X).max(0), np.finfo(float).tiny))
    rows = X[np.unique(np.linspace(0, n - 1, 8).astype(int))] / spread

    def log_change(t, scale, vary):
        """Return the derivative of the Gram matrix, by central differences."""
        up, down = vary(t, scale, _STEP), vary(t, scale, -_STEP)
        return (gram(*up) - gram(*down)).ravel() / (2 * _STEP)

    def parameter(i):
        return lambda t, scale, h: (t + h * (np.arange(t.size) == i), rows * np.exp(scale))

    def column(j):
        return lambda t, scale, h: (t, rows * np.exp(scale + h * (np.arange(d) == j)))

    def together(t, scale, h):
        return t, rows * np.exp(scale + h)

    # Columns of ``change``: parameters, all inputs together, then every input column by itself.
    each = 1 < d <= min(start.size, _COLUMNS)  # perhaps one length per column
    kinds = [parameter(i) for i in range(start.size)] + [together]
    kinds += [column(j) for j in range(d)] if each else []

    # Skip decades at which the kernel is zero, infinite or not a number.
    blocks, values, scales = [], [], []
    for scale in _DECADES:
        K = gram(start, rows * np.exp(scale)).ravel()
        change = np.stack([log_change(start, scale, vary) for vary in kinds], 1)
        size = np.abs(K).max()
        if np.isfinite(change).all() and np.isfinite(size) and size > 0:
            blocks.append(change / size)
            values.append(K / size)
            scales.append(scale)
    if not blocks:
        return Units(start, np.zeros((0, start.size)))

    blocks, values, scales = np.stack(blocks), np.concatenate(values), np.asarray(scales)
    by_parameter = blocks[..., : start.size].reshape(-1, start.size)
    by_input = blocks[..., start.size :]
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
        K = gram(anchor, X[np.unique(np.linspace(0, n - 1, 8).astype(int))])
        typical = np.diagonal(K).mean()
        if np.isfinite(typical) and typical > 0:
            anchor = anchor + np.log(variance / typical) * amplitude
        directions.append(amplitude)
    return Units(anchor, np.reshape(directions, (-1, start.size)))


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
