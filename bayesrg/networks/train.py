# SPDX-License-Identifier: Apache-2.0
"""Training by gradient descent, for networks whose learnt weights are to be studied."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax, random

from .. import _checks
from .._callables import hold
from .._checks import ArrayLike


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
        captured, as those of ``optimizer``, may be traced.
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
        Points a step; by default all. What is left of n after whole batches waits for the next
        epoch's order.
    every : int, optional
        Epochs between snapshots, by default all of them: start and end.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        For sizes out of range, outputs of another shape than the targets, or a loss that is no
        longer finite at the end; under `jax.vmap` or `jax.jit` only ``loss`` shows the last.
    """
    X = _checks.inputs("X", X)
    n = X.shape[0]
    y = _checks.targets("y", y, n)
    epochs = _checks.whole("epochs", epochs)
    batch = _checks.whole("batch", n if batch is None else batch)
    every = _checks.whole("every", epochs if every is None else every)
    if batch > n or epochs % every:
        raise ValueError(
            f"batch is {batch} for {n} points, every {every} for {epochs} epochs; give a batch of "
            "at most all points and an every that divides the epochs"
        )
    _checks.function("apply", apply)
    _checks.optimizer("optimizer", optimizer)
    apply, optimizer = hold(apply), hold(optimizer)
    params = jax.tree.map(jnp.asarray, _checks.parameters("params", params))
    out = jax.eval_shape(lambda p, x: _checks.returned("apply", apply(p, x)), params, X).shape
    if out != y.shape:
        raise ValueError(f"apply returns shape {out} for targets of shape {y.shape}; make it fit")
    key = _checks.random_key(key)
    keys = random.split(key, (epochs // every, every))
    last, values, snapshots = _run(apply, optimizer, params, X, y, keys, batch)
    if _checks.known(values) and not bool(jnp.isfinite(values[-1])):
        raise ValueError(
            f"the loss is {float(values[-1])} after {epochs} epochs: training diverged; lower the "
            "optimizer's learning rate"
        )
    return Trained(last, values, snapshots, jnp.arange(0, epochs + 1, every))


@eqx.filter_jit
def _run(apply, optimizer, params, X, y, keys, batch):
    """Train from ``params``, one epoch per key (stretches, every)."""
    optimizer = optimizer.open()

    def loss(params, rows):
        return 0.5 * ((apply(params, X[rows]) - y[rows]) ** 2).mean()

    def step(state, rows):
        params, memory = state
        value, gradient = jax.value_and_grad(loss)(params, rows)
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), value

    def epoch(state, key):
        order = random.permutation(key, len(X))[: len(X) // batch * batch].reshape(-1, batch)
        state, values = lax.scan(step, state, order)
        return state, values.mean()

    def stretch(state, keys):
        state, values = lax.scan(epoch, state, keys)
        return state, (state[0], values)

    (last, _), (snapshots, values) = lax.scan(stretch, (params, optimizer.init(params)), keys)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), params, snapshots)
    return last, values.reshape(-1), joined
