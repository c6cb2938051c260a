# SPDX-License-Identifier: Apache-2.0
"""Checks of data before a deep linear network is fitted to them."""

import numpy as np
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._covariance.noiseless import RANGE, check_range
from ..networks import DeepLinear
from .problem import singular

SMALL = 1e-3  # noise variance over mean squared target below which weights mix too slowly


def check_observed(
    net: DeepLinear, X: ArrayLike, Y: ArrayLike | None, *, weights: bool, force: bool = False
) -> Array | None:
    """Check data for a network whose posterior is to be sampled, and return the targets.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d), inputs
    Y : (n,) for one output, (n, c) for several, or None
        Targets; None samples the prior.
    weights : bool, True if all weights are sampled, False if only the order parameter is
    force : bool, allow sampling of weights at any noise above zero

    Returns
    -------
    (n,) for one output, (n, c) for several, or None
        The targets.

    Raises
    ------
    ValueError
        For mismatched shapes or non-finite numbers. For sampled weights with a noise variance
        below a thousandth of the mean squared target. Without noise: for sampled weights, a layer
        narrower than the number of outputs, targets outside the range of the kernel, or targets
        of so low a rank that the evidence diverges.

    Warns
    -----
    UserWarning
        Without noise, if the kernel is singular and the targets lie in its range: the density is
        then a density on that range.

    Notes
    -----
    Inside a compiled program numbers cannot be read, and only shapes are checked.
    """
    X = _checks.finite("X", X)
    Y = Y if Y is None else _checks.finite("y", Y)
    shapes = f"X has shape {np.shape(X)} and y {None if Y is None else np.shape(Y)}"
    if np.ndim(X) != 2 or (Y is not None and np.ndim(Y) not in (1, 2)):
        raise ValueError(f"{shapes}; give (n, d) and (n,) or (n, c)")
    if Y is not None and np.shape(X)[0] != np.shape(Y)[0]:
        raise ValueError(f"{shapes}; give one target per row")
    _refuse_no_noise(net, weights)
    if Y is None:
        return None
    Y = _checks.finite("y", Y)
    if (1 if Y.ndim == 1 else Y.shape[1]) != net.outputs:
        raise ValueError(
            f"y has shape {Y.shape} and the network {net.outputs} output(s); give one column per "
            "output, or outputs= the columns of y"
        )
    if weights and not force:
        _refuse_small_noise(net, Y)
    _refuse_divergence(net, X, Y.reshape(X.shape[0], -1))
    return Y.reshape(-1) if net.outputs == 1 else Y


def noiseless(ridge: ArrayLike) -> bool:
    """Return whether ``ridge`` is the number 0; a value that cannot be read counts as positive.

    Raises
    ------
    ValueError
        For a zero in a JAX array, because compiled programs cannot read it.
    """
    if not _checks.known(ridge) or np.any(np.asarray(ridge) != 0):
        return False
    if isinstance(ridge, Array):
        raise ValueError("ridge is an array that holds 0; give the number 0.0")
    return True


def _no_noise(net):
    return _checks.known(net.ridge) and float(net.ridge) == 0.0


def _refuse_no_noise(net, weights):
    if not _no_noise(net):
        return
    if weights:
        raise ValueError(
            "ridge is 0, and without noise weights have no posterior density; use the model "
            "deep_linear_collapsed, or deep_linear.exact for one output"
        )


def _refuse_small_noise(net, Y):
    if not (_checks.known(net.noise_variance) and _checks.known(Y)):
        return
    noise, power = float(net.noise_variance), float((np.asarray(Y) ** 2).mean())
    if noise < SMALL * power:
        raise ValueError(
            f"the noise variance {noise:.3g} is below {SMALL:g} of the mean squared target "
            f"{power:.3g}: weights then lie close to a curved surface, along which samplers move "
            "slowly; use the model deep_linear_collapsed, or force=True"
        )


def _refuse_divergence(net, X, Y):
    if not _no_noise(net) or not (_checks.known(X) and _checks.known(Y)):
        return
    X, Y = np.asarray(X, float), np.asarray(Y, float)
    c, rank = net.outputs, int(np.linalg.matrix_rank(Y))
    U = singular(X)[0]
    points = U.shape[1]
    least = min(net.widths, default=c)

    if least < c:
        more = f"; width {least} below rank {rank}: interpolation impossible, evidence is zero"
        raise ValueError(
            f"ridge is 0 and width {least} is below the {c} outputs: Q is singular, no zero-noise "
            f"density{more if least < rank else ''}; give a positive ridge or wider layers"
        )

    # The integral over the c - rank directions without targets must converge at Q = 0.
    if rank < c and net.widths and least <= points + c - rank - 1:
        raise ValueError(
            f"ridge is 0, y has rank {rank} with {c} outputs, and the smallest width {least} is "
            f"not above {points} + {c} - {rank} - 1: the evidence diverges; give a positive ridge, "
            "wider layers, or drop outputs that are zero or repeated"
        )

    stray = np.linalg.norm(Y - U @ (U.T @ Y)) > RANGE * np.linalg.norm(Y)
    check_range(X.shape[0], points, stray)
