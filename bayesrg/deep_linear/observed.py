# SPDX-License-Identifier: Apache-2.0
"""Checks of data before a deep linear network is fitted to them."""

import numpy as np
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._covariance.noiseless import RANGE, check_range
from ..networks import DeepLinear
from .problem import check_targets, singular

SMALL = 1e-3  # noise variance over mean squared target below which weights mix too slowly


def check_observed(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike | None = None,
    *,
    weights: bool,
    force: bool = False,
) -> Array | None:
    """Check data against a network before its posterior is sampled, and return the targets.

    Inside a compiled program numbers cannot be read, and only shapes are checked.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d), inputs
    y : (n,) or (n, 1) for one output, (n, c) for several, optional
        Targets. They are returned as (n,) for one output, and as (n, c) for several.
    weights : bool
        Whether weights are sampled, and not the order parameter alone.
    force : bool
        Whether to let weights be sampled at any noise above zero.

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
    """
    _checks.instance("net", net, DeepLinear, _checks.NET)
    weights, force = _checks.flag("weights", weights), _checks.flag("force", force)
    X = _checks.inputs("X", _checks.finite("X", X, ndim=2))
    no_noise = _checks.known(net.ridge) and float(net.ridge) == 0.0
    if no_noise and weights:
        raise ValueError(
            "ridge is 0, and without noise weights have no posterior density; use the model "
            "deep_linear_collapsed, or deep_linear.exact for one output"
        )
    if y is None:
        return None

    y = check_targets("y", y, net, X.shape[0])
    if weights and not force:
        _check_small_noise(net, y)
    if no_noise and _checks.known(X) and _checks.known(y):
        X, Y = np.asarray(X, float), np.asarray(y, float).reshape(X.shape[0], -1)
        U = singular(X)[0]
        check_density(net, U.shape[1], Y)
        stray = np.linalg.norm(Y - U @ (U.T @ Y)) > RANGE * np.linalg.norm(Y)
        check_range(X.shape[0], U.shape[1], stray)
    return y.reshape(-1) if net.outputs == 1 else y


def noiseless(ridge: ArrayLike) -> bool:
    """Return whether the noise variance ``ridge`` () is the number 0.

    A value that JAX traces cannot be read, and counts as positive.

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


def _check_small_noise(net, y):
    """Raise if samplers of the weights would move slowly, because the noise is small."""
    if not (_checks.known(net.noise_variance) and _checks.known(y)):
        return
    variance, power = float(net.noise_variance), float((np.asarray(y) ** 2).mean())
    if variance < SMALL * power:
        raise ValueError(
            f"the noise variance {variance:.3g} is below {SMALL:g} of the mean squared target "
            f"{power:.3g}: weights then lie close to a curved surface, along which samplers move "
            "slowly; use the model deep_linear_collapsed, or force=True"
        )


def check_density(net, points, Y):
    """Raise unless targets Y (n, c) have a density and an evidence without noise.

    ``points`` is the rank of the kernel.
    """
    c, rank = net.outputs, int(np.linalg.matrix_rank(Y))
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
