# SPDX-License-Identifier: Apache-2.0
"""Kernels of infinitely wide deep equilibrium models: one layer, applied until it converges."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._activations import SLOPE, Activation, dual_of, named, still_number
from .._fixedpoint import implicit
from .base import Kernel
from .recursion import beyond, prepared, settled
from .rows import row_hashes, same_rows
from .tiles import BLOCK_BYTES, side, tiled

__all__ = ["DEQ"]

_STEPS = 200  # of Newton's method, at most


class DEQ(Kernel):
    r"""Kernel of a deep equilibrium model: the fixed point of one infinitely wide random layer.

    The layer is :math:`h = \sigma_w W f(h)/\sqrt N + \sigma_u U x/\sqrt d + \sigma_b b` with
    standard normal W, U and b. Its covariance S and tangent kernel Theta solve, for every pair of
    inputs,

    .. math:: S = \sigma_w^2 V(S) + \sigma_u^2\, x\cdot z/d + \sigma_b^2, \qquad
              \Theta = \frac{S}{1 - \sigma_w^2 \dot V(S)},

    where :math:`V = E f(u) f(v)` and :math:`\dot V = E f'(u) f'(v)`.

    Parameters
    ----------
    activation : str or callable
        Name of an activation, or an elementwise function with a derivative.
    weight_var, input_var, bias_var : ()
        The variances :math:`\sigma_w^2`, :math:`\sigma_u^2` and :math:`\sigma_b^2`.
    train : "last" or "all"
        "last": the covariance S. "all": the tangent kernel Theta of all parameters.
    slope : () or float
        Slope of "leaky_relu" below zero.
    order : int
        Number of terms of the Hermite series, for activations without closed form.
    block_bytes : int
        Memory in bytes for work arrays with one number per pair of inputs. Larger Gram matrices
        are computed in tiles.

    Raises
    ------
    ValueError
        When called with an input at which :math:`\chi = \sigma_w^2 E f'^2 \ge 1`: the layer does
        not contract.

    Notes
    -----
    Derivatives come from the equation at its solution, not from the iteration. At equal rows Theta
    of relu, leaky relu and abs has a cusp; its derivatives there follow the convention of `NTK`.

    References
    ----------
    arXiv 2307.14531, section 2.
    """

    activation: str | Activation = eqx.field(converter=named, default="erf")
    weight_var: Float[Array, ""] = eqx.field(
        converter=partial(_checks.positive, "weight_var", ndim=0), default=0.5
    )
    input_var: Float[Array, ""] = eqx.field(
        converter=partial(_checks.positive, "input_var", ndim=0), default=1.0
    )
    bias_var: Float[Array, ""] = eqx.field(
        converter=partial(_checks.nonnegative, "bias_var", ndim=0), default=0.0
    )
    train: str = eqx.field(
        converter=lambda v: _checks.choice("train", v, ("last", "all")),
        static=True,
        default="last",
        kw_only=True,
    )
    slope: float | Array = eqx.field(
        converter=partial(still_number, "slope"), default=SLOPE, kw_only=True
    )
    order: int = eqx.field(static=True, default=64, kw_only=True)
    block_bytes: int = eqx.field(static=True, default=BLOCK_BYTES, kw_only=True)

    def __check_init__(self):
        _checks.whole("order", self.order)
        _checks.whole("block_bytes", self.block_bytes)
        if self._dual.slope is None:
            raise ValueError(
                f"{self.activation} has no derivative, so a layer of it never contracts; take a "
                "continuous activation"
            )

    @property
    def _dual(self):
        return dual_of(self.activation, self.slope, self.order)

    def gram(self, X, Z):
        self._check_contraction(X, Z)
        return _gram(self, X, Z)[self.train == "all"]

    def symmetric_gram(self, X):
        self._check_contraction(X)
        return _gram(self, X, None)[self.train == "all"]

    def gram_diag(self, X):
        self._check_contraction(X)
        S, theta, _ = _diag(self, X)
        return S if self.train == "last" else theta

    def _check_contraction(self, *inputs):
        """Raise if chi reaches 1 at a row of the inputs; traced values are not checked."""
        if not all(_checks.known(v) for v in (*inputs, *jax.tree.leaves(self))):
            return
        for X in inputs:
            # chi of a pair is not larger than that of its rows, by Cauchy and Schwarz
            chi = float(np.max(_diag(self, X)[2]))
            if not chi < 1:
                raise ValueError(
                    f"the layer does not contract: chi = weight_var E f'^2 = {chi:.4g} at an input "
                    f"with weight_var {float(self.weight_var):.4g}, not below 1; lower weight_var"
                )


def _settle(update, slope, start, args):
    """Return the solution of ``x = update(x, *args)``, entry by entry, by Newton's method.

    ``slope(x)`` is the derivative of ``update`` in x. Where it is 1 or more, the step is the plain
    iteration. The solution has derivatives of every order in ``args``.
    """
    digits = 8 * float(jnp.finfo(start.dtype).eps)  # a change this small is a rounding error

    def step(x):
        rate = slope(x)
        return x + (update(x, *args) - x) / jnp.where(rate < 1, 1 - rate, 1.0)

    def moving(state):
        x, before, count = state
        return (jnp.abs(x - before).max() > digits * jnp.abs(x).max()) & (count < _STEPS)

    def advance(state):
        x, _, count = state
        return step(x), x, count + 1

    # only the root is differentiated, by the implicit function theorem
    first = lax.stop_gradient(start)
    found, *_ = lax.while_loop(moving, advance, (step(first), first, 0))
    return implicit(lambda x, _: x - update(x, *args), found, (), _divide)


def _divide(equation, x, change):
    """Return ``change`` divided by the slope of the equation at x, where this is positive."""
    slope = jax.jvp(equation, (x,), (jnp.ones_like(x),))[1]
    return change / jnp.where(slope > 0, slope, 1.0)


def _diagonal_update(a, dual, own, weight):
    """Right-hand side of the equation for variances a (n,)."""
    return own + weight * dual.diagonal(prepared(dual, a))


def _update(c, dual, inner, weight, p, q, rest):
    """Right-hand side of the equation for covariances c (n, m)."""
    return inner + weight * (dual.covariance(p, q, c) + rest)


@jax.jit
def _diag(kernel, X):
    """S, Theta and chi, (n,) each, of every row of X (n, d) with itself."""
    dual, own = kernel._dual, kernel.input_var / X.shape[1] * (X**2).sum(-1) + kernel.bias_var
    args = dual, own, kernel.weight_var

    def slope(a):
        return jax.jvp(lambda a: _diagonal_update(a, *args), (a,), (jnp.ones_like(a),))[1]

    a = _settle(_diagonal_update, slope, own, args)
    chi = kernel.weight_var * dual.slope_diagonal(prepared(dual, a))
    return a, a / (1 - chi), chi


@jax.jit
def _gram(kernel, X, Z):
    """S and Theta (n, m) in tiles; Z None means X."""
    dual = kernel._dual

    def points(X):
        a, theta, _ = _diag(kernel, X)
        return X, row_hashes(X), a, theta, prepared(dual, a)

    def pairs(left, right):
        x, h, a, own, p = left
        z, g, b, other, q = right
        p = jax.tree.map(lambda v: v[:, None], p)
        q = jax.tree.map(lambda v: v[None], q)
        same = same_rows(h, g)
        inner = kernel.input_var / x.shape[1] * x @ z.T + kernel.bias_var
        # what a series leaves out of V and V' at equal rows, so that they agree with the diagonal
        rest, slope_rest = (beyond(dual, same, p, q, of) for of in ("value", "slope"))

        def slope(c):
            return kernel.weight_var * (dual.slope(p, q, c) + slope_rest)

        S = _settle(_update, slope, inner, (dual, inner, kernel.weight_var, p, q, rest))
        S = settled(same, S, a, b)
        return S, settled(same, S / (1 - slope(S)), own, other)

    left = points(X)
    size = side(kernel.block_bytes, X.dtype.itemsize)
    return tiled(pairs, left, left if Z is None else points(Z), size, symmetric=Z is None)
