# SPDX-License-Identifier: Apache-2.0
"""Growth of signals and gradients with depth, and the weight variance at which it stops."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float
from scipy.optimize import brentq

from .. import _checks
from .._activations import SLOPE, dual_of
from .._callables import hold
from .._checks import ArrayLike
from .._linalg import ratio
from .network import NNGP

__all__ = ["JacobianFlow", "critical_point", "jacobian_flow"]


class JacobianFlow(NamedTuple):
    """Variances and gradients per layer, beginning with the first pre-activations.

    Attributes
    ----------
    K : (depth + 1, ...)
        Variance of the pre-activations of a layer.
    chi : (depth + 1, ...)
        Factor by which the weights of the next layer multiply squared gradients.
    J : (depth + 1, ...)
        Averaged partial Jacobian norm. Take the squared derivative of a pre-activation of this
        layer in each pre-activation of the first layer, sum over those of the first, and average
        over those of this layer.
    """

    K: Float[Array, "layer *batch"]
    chi: Float[Array, "layer *batch"]
    J: Float[Array, "layer *batch"]


def jacobian_flow(network: NNGP, K0: ArrayLike, depth: int) -> JacobianFlow:
    r"""Return variance and partial Jacobian norm of each layer of an infinitely wide network.

    .. math:: \chi_l = \sigma_w^2 E f'(\sqrt{K_l} z)^2, \quad
              K_{l+1} = \sigma_w^2 E f(\sqrt{K_l} z)^2 + \sigma_b^2, \quad
              J_{l+1} = \chi_l J_l

    In residual blocks of strength alpha the right-hand sides of the first two equations are
    multiplied by alpha squared, :math:`K_l` is added to the second, and :math:`J_l` to the third.
    With layer normalisation the expectations are taken at variance 1, and :math:`\chi_l` is divided
    by :math:`K_l`.

    Parameters
    ----------
    network : NNGP or NTK
        Gives activation, variances, ``layernorm``, and alpha as ``skip``. Its depth is not used.
    K0 : (...)
        Variance of the first pre-activations, ``weight_var |x|^2/d + bias_var``.
    depth : int
        Number of layers after the first.

    Returns
    -------
    JacobianFlow
        Three arrays (depth + 1, ...). J starts at 1.

    Raises
    ------
    ValueError
        If variances differ between layers, or if the activation has no derivative.

    References
    ----------
    arXiv 2111.12143.
    """
    what = "an NNGP or NTK, such as kernels.NNGP(depth, activation)"
    _checks.instance("network", network, NNGP, what)
    if network.weight_var.ndim or network.bias_var.ndim:
        raise ValueError(
            f"weight_var has shape {network.weight_var.shape} and bias_var "
            f"{network.bias_var.shape}, but all layers must be alike here; give one number each"
        )
    K0 = _checks.nonnegative("K0", K0)
    return _follow(network, K0, _checks.whole("depth", depth, most=2**31 - 2))


@partial(jax.jit, static_argnames="depth")
def _follow(network, K0, depth):
    """`JacobianFlow` of checked arguments."""
    dual = dual_of(network.activation, network.slope, network.order)
    if dual.slope is None:
        raise ValueError(f"{network.activation} has no derivative; take a continuous activation")
    blocks = network.skip is not None
    strength, skipped = (network.skip**2, 1.0) if blocks else (1.0, 0.0)

    def step(carry, _):
        # K and J of this layer are kept, those of the next are carried on
        K, J = carry
        p = dual.prepare(jnp.ones_like(K) if network.layernorm else K)
        scale = ratio(1.0, K) if network.layernorm else 1.0
        chi = strength * network.weight_var * dual.slope_diagonal(p) * scale
        branch = strength * (network.weight_var * dual.diagonal(p) + network.bias_var)
        return (branch + skipped * K, (chi + skipped) * J), (K, chi, J)

    return JacobianFlow(*lax.scan(step, (K0, jnp.ones_like(K0)), length=depth + 1)[1])


def critical_point(
    activation: str | tuple | Callable,
    bias_var: ArrayLike = 0.0,
    *,
    bracket: tuple[float, float] = (0.01, 100.0),
    slope: float = SLOPE,
    order: int = 64,
) -> float:
    r"""Return the weight variance at which gradients neither grow nor decay with depth.

    It solves :math:`\chi^* = \sigma_w^2 E f'(x)^2 = 1` for x of variance :math:`K^*`, the fixed
    point :math:`K^* = \sigma_w^2 E f(x)^2 + \sigma_b^2` of the variance.

    Parameters
    ----------
    activation : str or callable
        Name of an activation, or an elementwise function.
    bias_var : ()
        Variance of a bias. At zero, a function with f(0) = 0 has its fixed point at K = 0.
    bracket : (low, high)
        Smallest and largest weight variance that may be returned.
    slope : float
        Slope of "leaky_relu" below zero.
    order : int
        Number of terms of the Hermite series, for activations without closed form.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If no solution lies in the bracket.

    Notes
    -----
    If there are several solutions, the one with the smallest :math:`K^*` is returned. The fixed
    point may be unstable, as that of gelu is: `jacobian_flow` shows whether K stays there.

    References
    ----------
    arXiv 2111.12143.
    """
    bias_var = _checks.nonnegative("bias_var", bias_var, ndim=0)
    _checks.on_host("kernels.critical_point", bias_var, bracket, slope)
    bias_var, (low, high) = float(bias_var), _checks.interval("bracket", bracket)
    slope, order = _checks.number("slope", slope), _checks.whole("order", order)
    dual = dual_of(activation, slope, order)
    if dual.slope is None:
        raise ValueError(f"{activation} has no derivative; take a continuous activation")
    held = hold(dual)

    def moments(K):
        found = _moments(held, jnp.asarray(K, float))
        _checks.on_host("kernels.critical_point", found)
        return (float(v) for v in found)

    def weight(K):
        """Weight variance at which chi is 1, if the variance is K."""
        _, slope = moments(K)
        return 1 / slope

    def imbalance(log_K):
        """Relative distance of K from a fixed point, with the weight variance for chi = 1."""
        square, slope = moments(np.exp(log_K))
        return 1 - (square / slope + bias_var) / np.exp(log_K)

    found = []
    if bias_var == 0 and next(moments(0.0)) == 0:
        found.append(weight(0.0))

    # There may be several roots: look for changes of sign on a grid.
    grid = np.linspace(np.log(1e-4), np.log(1e4), 161)
    values = [imbalance(g) for g in grid]
    for i in np.flatnonzero(np.diff(np.sign(values)) != 0):
        # For a relu without bias every K is a fixed point: there only rounding changes the sign.
        if min(abs(values[i]), abs(values[i + 1])) > 1e-12:
            found.append(weight(np.exp(brentq(imbalance, grid[i], grid[i + 1], xtol=1e-14))))

    allowed = [w for w in found if low <= w <= high]
    if not allowed:
        raise ValueError(
            f"no critical sigma_w^2 in [{low}, {high}] for activation {activation!r} with bias_var "
            f"{bias_var}; widen bracket, or lower bias_var"
        )
    return allowed[0]


@jax.jit
def _moments(dual, K):
    """``E f(x)^2`` and ``E f'(x)^2`` at variance K ()."""
    dual = dual.open()
    p = dual.prepare(K)
    return dual.diagonal(p), dual.slope_diagonal(p)
