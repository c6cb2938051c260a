# SPDX-License-Identifier: Apache-2.0
"""Stochastic gradient descent and Langevin dynamics on any gradient."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import DIVERGED, GO, Algorithm, Info, State, check_loss
from .gradient import add


def sgld(
    gradient: Callable, *, learning_rate: ArrayLike, temperature: ArrayLike = 0.0
) -> Algorithm:
    r"""Return the algorithm :math:`x \leftarrow x - \alpha g + \sqrt{2\alpha T}\,\xi` for `run`.

    With the temperature zero it is stochastic gradient descent, with noise from the batches alone.

    Parameters
    ----------
    gradient : callable
        From a position, any pytree, and a JAX key to the loss () and its gradient, for example
        from `minibatch`.
    learning_rate : ()
        :math:`\alpha`; it is also the time of a step.
    temperature : ()
        T. If the loss is half the mean square of n residuals with noise of standard deviation s,
        the posterior is reached at T = s^2/n.

    Returns
    -------
    Algorithm
        It observes the loss, and diverges where that is not finite.

    References
    ----------
    Welling and Teh (2011); arXiv 2407.16427.
    """
    _checks.function("gradient", gradient, "a function of a position and a key")
    rate = _checks.positive("learning_rate", learning_rate, ndim=0)
    temperature = _checks.nonnegative("temperature", temperature, ndim=0)
    rule = _Langevin(gradient, rate, temperature)
    return Algorithm(rule.init, rule.step, rate)


class _Langevin(eqx.Module):
    gradient: Callable
    learning_rate: Float[Array, ""]
    temperature: Float[Array, ""]

    def init(self, x0):
        found = jax.eval_shape(self.gradient, x0, random.key(0))
        pair = isinstance(found, tuple) and len(found) == 2
        shapes = partial(jax.tree.map, jnp.shape)
        if not pair or shapes(found[0]) != () or shapes(found[1]) != shapes(x0):
            raise ValueError(
                "gradient must return a pair: the loss, one number, and an array like each of the "
                "position; dynamics.minibatch makes one that does"
            )
        return State(x0)

    def step(self, state, key):
        batch, kick = random.split(key)
        loss, slope = self.gradient(state.x, batch)
        leaves, tree = jax.tree.flatten(state.x)
        keys = random.split(kick, len(leaves))
        noise = [random.normal(k, v.shape, v.dtype) for k, v in zip(keys, leaves, strict=True)]
        x = add(state.x, -self.learning_rate, slope)
        size = jnp.sqrt(2 * self.learning_rate * self.temperature)
        x = add(x, size, jax.tree.unflatten(tree, noise))
        return State(x), Info({"loss": loss}, jnp.where(jnp.isfinite(loss), GO, DIVERGED))


def minibatch(loss: Callable, X: ArrayLike, y: ArrayLike, *, batch: int) -> Callable:
    """Return the mean gradient over a batch of rows, drawn with replacement, for `sgld`.

    Parameters
    ----------
    loss : callable
        From a position, inputs (b, d) and targets (b, ...) to the mean loss () of these rows.
    X : (n, d)
    y : (n,) or (n, c)
    batch : int
        Rows per batch; n or more means all rows, without drawing.

    Returns
    -------
    callable
        From a position and a JAX key to the loss of the batch and its gradient.
    """
    X = _checks.inputs("X", X)
    y = _checks.targets("y", y, len(X))
    _checks.function("loss", loss, "a function of a position, inputs and targets")
    return _Batch(loss, X, y, _checks.whole("batch", batch))


class _Batch(eqx.Module):
    loss: Callable
    X: Array
    y: Array
    batch: int = eqx.field(static=True)

    def __call__(self, x, key):
        X, y = self.X, self.y
        if self.batch < len(X):
            rows = random.randint(key, (self.batch,), 0, len(X))
            X, y = X[rows], y[rows]
        check_loss(self.loss, x, X, y)
        return jax.value_and_grad(self.loss)(x, X, y)
