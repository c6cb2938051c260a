# SPDX-License-Identifier: Apache-2.0
"""Gradient descent and gradient flow of any loss, as algorithms for `run`."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from .. import _checks
from .._checks import ArrayLike
from .core import DIVERGED, GO, Algorithm, Info, State


def add(x: PyTree, scale: ArrayLike, change: PyTree) -> PyTree:
    """Return ``x + scale * change``, leaf by leaf, in the precision of ``x``."""
    return jax.tree.map(lambda a, b: a + (scale * b).astype(a.dtype), x, change)


def gradient_descent(loss: Callable, step_size: ArrayLike) -> Algorithm:
    r"""Descend: :math:`x \leftarrow x - \eta\nabla L(x)`.

    Parameters
    ----------
    loss : callable
        From a position, any pytree of arrays, to a scalar ().
    step_size : ()
        Step :math:`\eta`.

    Returns
    -------
    Algorithm
        It diverges where the loss is no longer finite.
    """
    _checks.function("loss", loss, "a function of a position")
    rule = _Descent(loss, _checks.positive("step_size", step_size, ndim=0))
    return Algorithm(rule.init, rule.step, rule.step_size)


def gradient_flow(loss: Callable, dt: ArrayLike) -> Algorithm:
    r"""Follow :math:`\dot x = -\nabla L(x)` by the classical Runge-Kutta rule of order four.

    Parameters
    ----------
    loss : callable
        As in `gradient_descent`.
    dt : ()
        Time of a step; the rule is stable below 2.78 over the largest curvature of the loss.

    Returns
    -------
    Algorithm
    """
    _checks.function("loss", loss, "a function of a position")
    rule = _Flow(loss, _checks.positive("dt", dt, ndim=0))
    return Algorithm(rule.init, rule.step, rule.step_size)


class _Descent(eqx.Module):
    loss: Callable
    step_size: Float[Array, ""]

    def init(self, x0):
        shape = jax.eval_shape(lambda x: _checks.returned("loss", self.loss(x)), x0).shape
        if shape:
            raise ValueError(f"loss returns shape {shape}; return one number")
        return State(x0)

    def step(self, state, key):
        loss, slope = jax.value_and_grad(self.loss)(state.x)
        stop = jnp.where(jnp.isfinite(loss), GO, DIVERGED)
        return State(self.move(state.x, slope)), Info({"loss": loss}, stop)

    def move(self, x, slope):
        return add(x, -self.step_size, slope)


class _Flow(_Descent):
    def move(self, x, slope):
        h, grad = self.step_size, jax.grad(self.loss)
        second = grad(add(x, -0.5 * h, slope))
        third = grad(add(x, -0.5 * h, second))
        fourth = grad(add(x, -h, third))
        total = jax.tree.map(
            lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, slope, second, third, fourth
        )
        return add(x, -h, total)
