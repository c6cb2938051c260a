# SPDX-License-Identifier: Apache-2.0
"""Training by gradient descent, for networks whose learnt weights are to be studied."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import optax
from jax import Array, random

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import optax_descent, position, run


class Trained(NamedTuple):
    """Result of `train`.

    ``params`` are the last parameters, ``loss`` (epochs,) the mean loss of each epoch, and
    ``snapshots`` the parameters at the epochs ``at`` (k,), stacked along a new first axis;
    epoch 0 is the start.
    """

    params: object
    loss: Array
    snapshots: object
    at: Array


def train(
    apply: Callable,
    params,
    X: ArrayLike,
    y: ArrayLike,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    key: Array | int,
    batch: int | None = None,
    every: int | None = None,
) -> Trained:
    """Train a network on the mean squared error, halved.

    Parameters
    ----------
    apply : callable
        From ``params`` and inputs (b, d) to outputs, of the shape of the targets. Arrays that it
        or ``optimizer`` captured may be traced.
    params : pytree
        Where training starts.
    X : (n, d)
    y : (n,) or (n, c)
    optimizer : optax.GradientTransformation
    epochs : int
        Passes over the data.
    key : JAX key, or int
        For the order of the data. An ensemble is `jax.vmap` over keys, or over ``params``.
    batch : int, optional
        Points per step; by default all. Points left over after whole batches of an epoch are not
        used in it; every epoch has a new order.
    every : int, optional
        Epochs between snapshots, a divisor of ``epochs``; by default all: start and end.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        For sizes out of range, outputs of another shape than the targets, or a loss that is no
        longer finite; under `jax.vmap` or `jax.jit` only ``loss`` shows the last.
    """
    X = _checks.inputs("X", X)
    n = X.shape[0]
    y = _checks.targets("y", y, n)
    epochs = _checks.whole("epochs", epochs)
    batch = _checks.whole("batch", n if batch is None else batch, most=n)
    every = epochs if every is None else every
    _checks.function("apply", apply)
    params, task = position("params", params), _Regression(apply, X, y, batch)
    found = run(optax_descent(task.loss, optimizer, task.epoch), params, epochs, key, every)
    return Trained(found.last.x, found.observables["loss"][:-1], found.x, found.step)


class _Regression(eqx.Module):
    """Half the mean squared error of a network on some rows, and an epoch's batches of rows."""

    apply: Callable
    X: Array
    y: Array
    batch: int = eqx.field(static=True)

    def loss(self, params, rows):
        f, y = _checks.returned("apply", self.apply(params, self.X[rows])), self.y[rows]
        if f.shape != y.shape:
            raise ValueError(f"apply returns shape {f.shape} for targets of shape {y.shape}")
        return 0.5 * ((f - y) ** 2).mean()

    def epoch(self, key):
        n, b = len(self.X), self.batch
        return random.permutation(key, n)[: n // b * b].reshape(-1, b)
