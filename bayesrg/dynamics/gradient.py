# SPDX-License-Identifier: Apache-2.0
"""Gradient descent and gradient flow on any loss, as algorithms for `run`."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import DIVERGED, GO, Algorithm, Info, State, check_loss


def add(x: PyTree, scale: ArrayLike, change: PyTree) -> PyTree:
    """Return ``x + scale * change`` for each leaf, in the precision of ``x``."""
    return jax.tree.map(lambda a, b: a + (scale * b).astype(a.dtype), x, change)


def gradient_descent(loss: Callable, step_size: ArrayLike) -> Algorithm:
    r"""Return the algorithm :math:`x \leftarrow x - \eta\nabla L(x)` for `run`.

    Parameters
    ----------
    loss : callable
        From a position, any pytree of arrays, to one number ().
    step_size : ()
        Step :math:`\eta`.

    Returns
    -------
    Algorithm
        It observes the loss, and diverges where that is not finite.
    """
    return _algorithm(_Descent, loss, _checks.positive("step_size", step_size, ndim=0))


def gradient_flow(loss: Callable, dt: ArrayLike) -> Algorithm:
    r"""Return an algorithm that follows :math:`\dot x = -\nabla L(x)`, for `run`.

    It is the Runge-Kutta method of order four.

    Parameters
    ----------
    loss : callable
        From a position, any pytree of arrays, to one number ().
    dt : ()
        Time per step. The method is stable below 2.78 over the largest curvature of the loss.

    Returns
    -------
    Algorithm
        It observes the loss, and diverges where that is not finite.
    """
    return _algorithm(_Flow, loss, _checks.positive("dt", dt, ndim=0))


def _algorithm(kind, loss, dt):
    rule = kind(_checks.function("loss", loss, "a function of a position"), dt)
    return Algorithm(rule.init, rule.step, dt)


class _Descent(eqx.Module):
    loss: Callable
    step_size: Float[Array, ""]

    def init(self, x0):
        check_loss(self.loss, x0)
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
