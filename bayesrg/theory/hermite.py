# SPDX-License-Identifier: Apache-2.0
"""Hermite coefficients: four numbers for what an activation does to a Gaussian."""

import equinox as eqx
import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _activations, _checks
from .._activations import Activation
from .._checks import ArrayLike
from .._warnings import warn


class Hermite(eqx.Module):
    r"""Coefficients of f(x) for :math:`x\sim N(h, r)`; see `hermite`.

    Attributes
    ----------
    a0, k1, k2 : (...) means of f, f' and f''
    ks2 : (...) variance of f minus that of its linear part
    """

    a0: Float[Array, "*batch"]
    k1: Float[Array, "*batch"]
    k2: Float[Array, "*batch"]
    ks2: Float[Array, "*batch"]


def hermite(activation, variance: ArrayLike, mean: ArrayLike = 0.0) -> Hermite:
    r"""Return the coefficients of an activation f at a Gaussian argument.

    :math:`a_0 = E f`, :math:`\kappa_1 = E f'`, :math:`\kappa_2 = E f''` and
    :math:`\kappa_*^2 = Var f - r\kappa_1^2`.

    Parameters
    ----------
    activation : str, callable or Activation
        One of relu, erf, linear, leaky_relu (slope 0.2), abs, erf_sqrt2, sin, cos, step, sign,
        gelu, tanh, sigmoid, silu, softplus, softsign, elu and hard_tanh, or an elementwise
        function of JAX arrays. A function is integrated as if it were smooth except at 0; for
        kinks elsewhere give ``theory.Activation(f, kinks=(...))``.
    variance : (...) of the argument
    mean : (...) of the argument

    Returns
    -------
    Hermite
        Arrays of the shape to which variance and mean broadcast.

    Raises
    ------
    ValueError
        For an unknown name, a function that is not elementwise, or a negative variance.

    Warns
    -----
    UserWarning
        If ks2 was clipped because it was below zero by more than 1e-10.

    Notes
    -----
    Derivatives, not projections on normalised polynomials: the linear part of f has variance
    :math:`r\kappa_1^2`. Errors are about 1e-14 for variances below 100. At variance 0 the
    coefficients are limits from above, and infinite limits (k1 of the step) are set to 0.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.hermite")
    variance = _checks.nonnegative("variance", variance)
    mean = _checks.finite("mean", mean)
    _checks.fit(variance=variance.shape, mean=mean.shape)
    moments = _moments(_activations.resolve(activation), variance, mean)
    warn_clipped(moments.clipped)
    return Hermite(*moments[:4])


@jax.jit
def _moments(activation: Activation, variance, mean):
    return _activations.gaussian_moments(activation, variance, mean)


def warn_clipped(clipped):
    """Warn if a residual variance was clipped by more than round-off."""
    if _checks.known(clipped) and np.asarray(clipped).max(initial=0.0) > 1e-10:
        warn(
            f"ks2 was negative by {np.asarray(clipped).max():.1e} of the second moment and is "
            "taken as zero; mean and variance are too far apart for this precision"
        )
