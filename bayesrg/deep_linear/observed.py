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
    net: DeepLinear,
    X: ArrayLike,
    Y: ArrayLike | None = None,
    *,
    weights: bool,
    force: bool = False,
) -> Array | None:
    """Check data against a network before its posterior is sampled, and return the targets.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d)
    Y : (n,) or (n, 1) for one output, (n, c) for several, optional
    weights : bool
        Whether weights are sampled, and not the order parameter alone.
    force : bool
        Whether to let weights be sampled at any noise above zero.

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
    _checks.instance("net", net, DeepLinear, _checks.NET)
    weights, force = _checks.flag("weights", weights), _checks.flag("force", force)
    X = _checks.inputs("X", _checks.finite("X", X, ndim=2))
    _refuse_no_noise(net, weights)
    if Y is None:
        return None
    Y = _checks.targets("y", Y, X.shape[0])
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

    Parameters
    ----------
    ridge : ()
        Noise variance.

    Returns
    -------
    bool
        False for a ridge that JAX traces.

    Raises
    ------
    ValueError
        For a negative ridge, or a zero in a JAX array: compiled programs could not tell it from
        another number.
    """
    _checks.nonnegative("ridge", ridge, ndim=0)
    if not _checks.known(ridge) or np.asarray(ridge) != 0:
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
