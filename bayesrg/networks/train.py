# SPDX-License-Identifier: Apache-2.0
"""Training of networks by gradient descent, with snapshots of the weights on the way."""

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

    Attributes
    ----------
    params : pytree
        Parameters at the end.
    loss : (epochs,)
        Mean loss of each epoch.
    snapshots : pytree
        Parameters at the epochs ``at``, stacked along a new first axis.
    at : (k,)
        Epochs of the snapshots; 0 is the start.
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
    loss: Callable | None = None,
) -> Trained:
    """Train a network by gradient descent on the mean loss of batches.

    Parameters
    ----------
    apply : callable
        From ``params`` and inputs (b, d) to outputs (b,) or (b, c). Arrays that it or
        ``optimizer`` captured may be traced.
    params : pytree
        Parameters at the start.
    X : (n, d)
    y : (n,) or (n, c)
    optimizer : optax.GradientTransformation
        Such as ``optax.adam(1e-3)``.
    epochs : int
        Passes over the data.
    key : JAX key, or int
        For the order of the points, which is new in every epoch. For an ensemble use `jax.vmap`
        over keys, or over ``params``.
    batch : int, optional
        Points per step; by default all. If ``batch`` does not divide n, each epoch leaves out the
        points after its last whole batch.
    every : int, optional
        Epochs between snapshots, a divisor of ``epochs``; by default only start and end are kept.
    loss : callable, optional
        From outputs and targets of a batch to a number; by default half the mean squared error.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        For sizes out of range, outputs of another shape than the targets, or a loss that becomes
        infinite or nan. Under `jax.vmap` or `jax.jit` the last cannot raise: look at ``loss``.
    """
    X = _checks.inputs("X", X)
    n = X.shape[0]
    y = _checks.targets("y", y, n)
    epochs = _checks.whole("epochs", epochs)
    batch = _checks.whole("batch", n if batch is None else batch, most=n)
    every = epochs if every is None else every
    _checks.function("apply", apply)
    loss = half_mean_square if loss is None else _checks.function("loss", loss)
    params, task = position("params", params), _Task(apply, loss, X, y, batch)
    found = run(optax_descent(task.loss, optimizer, task.epoch), params, epochs, key, every)
    return Trained(found.last.x, found.observables["loss"][:-1], found.x, found.step)


def half_mean_square(f, y):
    """Return half the mean squared difference of outputs and targets of one shape."""
    if f.shape != y.shape:
        raise ValueError(f"apply returns shape {f.shape} for targets of shape {y.shape}")
    return 0.5 * ((f - y) ** 2).mean()


class _Task(eqx.Module):
    """The loss of a network on some rows, and an epoch's batches of rows."""

    apply: Callable
    of_outputs: Callable
    X: Array
    y: Array
    batch: int = eqx.field(static=True)

    def loss(self, params, rows):
        f = _checks.returned("apply", self.apply(params, self.X[rows]))
        return _checks.returned("loss", self.of_outputs(f, self.y[rows]))

    def epoch(self, key):
        n, b = len(self.X), self.batch
        return random.permutation(key, n)[: n // b * b].reshape(-1, b)
