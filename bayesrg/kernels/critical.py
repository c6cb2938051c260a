# SPDX-License-Identifier: Apache-2.0
"""How signals and gradients grow with depth, and the initialisation at which they do not."""

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
from .network import NNGP

__all__ = ["JacobianFlow", "critical_point", "jacobian_flow"]


class JacobianFlow(NamedTuple):
    """Variances and gradients layer by layer, from the first pre-activations on.

    Attributes
    ----------
    K : (depth + 1, ...)
        Variance of pre-activations.
    chi : (depth + 1, ...)
        Growth of squared gradients in the layer that follows, through its weights.
    J : (depth + 1, ...)
        Averaged partial Jacobian norm: mean squared derivative of a layer's pre-activation in
        those of the first, summed over these.
    """

    K: Float[Array, "layer *batch"]
    chi: Float[Array, "layer *batch"]
    J: Float[Array, "layer *batch"]


def jacobian_flow(
    network: NNGP, K0: ArrayLike, depth: int, *, residual: ArrayLike = 0.0
) -> JacobianFlow:
    r"""Follow variance and averaged partial Jacobian norm through an infinitely wide network.

    .. math:: \chi_l = \sigma_w^2 E f'(\sqrt{K_l} z)^2, \quad
              K_{l+1} = \sigma_w^2 E f(\sqrt{K_l} z)^2 + \sigma_b^2 + \mu^2 K_l, \quad
              J_{l+1} = (\chi_l + \mu^2) J_l

    With layer normalisation moments are at unit variance and :math:`\chi_l` is divided by
    :math:`K_l`.

    Parameters
    ----------
    network : NNGP or NTK
        Gives activation, variances, ``layernorm`` and ``skip``: blocks of strength alpha have
        :math:`\mu = 1` and variances and chi times alpha squared. Its depth is not used.
    K0 : (...)
        Variance of the first pre-activations, ``weight_var |x|^2/d + bias_var``.
    depth : int
        Layers to follow.
    residual : ()
        Strength mu of a connection that skips a layer.

    Returns
    -------
    JacobianFlow
        (depth + 1, ...) each; J starts at 1.

    Raises
    ------
    ValueError
        For variances that differ between layers, or both ``skip`` and ``residual``.

    References
    ----------
    arXiv 2111.12143.
    """
    if not isinstance(network, NNGP):
        raise ValueError(f"network must be an NNGP or NTK, got {type(network).__name__}; make one")
    if network.weight_var.ndim or network.bias_var.ndim:
        raise ValueError(
            f"weight_var has shape {network.weight_var.shape} and bias_var "
            f"{network.bias_var.shape}; the flow is that of equal layers: give one number each"
        )
    K0 = _checks.nonnegative("K0", K0)
    residual = _checks.finite("residual", residual, ndim=0)
    if network.skip is not None:
        if not _checks.known(residual) or residual != 0:
            raise ValueError(
                "network has skip and residual is given as well; a block's own path counts as 1, "
                "leave residual out"
            )
        residual = jnp.ones_like(K0, shape=())
    return _follow(network, K0, _checks.whole("depth", depth, most=2**31 - 2), residual)


@partial(jax.jit, static_argnames="depth")
def _follow(network, K0, depth, residual):
    dual = dual_of(network.activation, network.slope, network.order)
    if dual.slope is None:
        raise ValueError(f"{network.activation} has no derivative; take a continuous activation")
    strength = 1.0 if network.skip is None else network.skip**2

    def growth(K):
        p = dual.prepare(jnp.ones_like(K) if network.layernorm else K)
        scale = jnp.where(K > 0, 1 / jnp.where(K > 0, K, 1.0), 0.0) if network.layernorm else 1.0
        chi = strength * network.weight_var * dual.slope_diagonal(p) * scale
        return chi, strength * (network.weight_var * dual.diagonal(p) + network.bias_var)

    def step(carry, _):
        K, J = carry
        chi, branch = growth(K)
        return (branch + residual**2 * K, (chi + residual**2) * J), (K, chi, J)

    return JacobianFlow(*lax.scan(step, (K0, jnp.ones_like(K0)), length=depth + 1)[1])


def critical_point(
    activation: str | tuple | Callable,
    bias_var: ArrayLike = 0.0,
    *,
    bracket: tuple[float, float] = (0.01, 100.0),
    slope: float = SLOPE,
    order: int = 64,
) -> float:
    r"""Find the weight variance at which gradients neither grow nor decay with depth.

    At the fixed point :math:`K^* = \sigma_w^2 E f^2 + \sigma_b^2` of the variance,
    :math:`\chi^* = \sigma_w^2 E f'^2 = 1`.

    Parameters
    ----------
    activation, slope, order
        As in `NNGP`.
    bias_var : ()
        Variance of a bias. At zero the fixed point of a function with f(0) = 0 is at K = 0.
    bracket : (low, high)
        Weight variances that are allowed.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is none in the bracket.

    Notes
    -----
    Of several the one with the smallest variance is returned. The fixed point may repel, as that
    of gelu does: `jacobian_flow` tells.

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
    _checks.on_host("kernels.critical_point", held)

    def moments(K):
        found = _moments(held, jnp.asarray(K, float))
        _checks.on_host("kernels.critical_point", found)
        return (float(v) for v in found)

    def weight(K):
        _, slope = moments(K)
        return 1 / slope

    def imbalance(log_K):
        square, slope = moments(np.exp(log_K))
        return 1 - (square / slope + bias_var) / np.exp(log_K)

    found = []
    if bias_var == 0 and next(moments(0.0)) == 0:
        found.append(weight(0.0))
    grid = np.linspace(np.log(1e-4), np.log(1e4), 161)
    values = [imbalance(g) for g in grid]
    for i in np.flatnonzero(np.diff(np.sign(values)) != 0):
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
    dual = dual.open()
    p = dual.prepare(K)
    return dual.diagonal(p), dual.slope_diagonal(p)
