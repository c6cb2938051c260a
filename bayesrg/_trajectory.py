# SPDX-License-Identifier: Apache-2.0
"""Algorithms that move a position step by step, and the one function that runs them."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array, lax, random
from jaxtyping import Float, Int, PyTree, Shaped

from . import _checks
from ._callables import hold
from ._checks import ArrayLike

GO, REACHED, DIVERGED = 0, 1, 2


class State(eqx.Module):
    """State of a run: its position ``x``, and ``memory`` for what else the algorithm needs."""

    x: PyTree
    memory: PyTree = None


class Info(eqx.Module):
    """What a step measures at the state from which it starts.

    Attributes
    ----------
    observables : pytree of arrays
        Such as ``{"loss": loss}``.
    stop : ()
        `GO`, or why the run ends at that state: `REACHED` (a tolerance) or `DIVERGED`.
    """

    observables: PyTree
    stop: Int[Array, ""]


class Algorithm(eqx.Module):
    """A rule that moves a position step by step; run it with `run`.

    Arrays that ``init`` and ``step`` captured, or that the module whose methods they are holds, may
    be traced. If only their numbers change, the compiled program is used again.

    Attributes
    ----------
    init : callable
        From a position, any pytree, to a `State`.
    step : callable
        From a state and a JAX key to the next state, and an `Info` about the first state.
    dt : ()
        Time that one step takes. For descents it is the step size, so that times are those of
        gradient flow.
    """

    init: Callable
    step: Callable
    dt: ArrayLike = 1.0


class Trajectory(eqx.Module):
    """Result of `run`. After a stop, positions, times and observables stay as they are.

    Attributes
    ----------
    step : (s,)
        Numbers of steps after which there is a record; the first is 0.
    time : (s,)
        Times of the records.
    x : pytree
        Positions at the records, stacked along a new first axis (s, ...).
    observables : pytree
        What the algorithm measured at every step and at the end, (steps + 1, ...).
    last : State
        State at the end.
    steps : ()
        Number of steps until the run stopped.
    status : ()
        `GO` if all steps were made, else `REACHED` or `DIVERGED`.
    """

    step: Int[Array, " step"]
    time: Float[Array, " step"]
    x: Shaped[Array, "step *position"] | PyTree
    observables: PyTree[Shaped[Array, " each_step"] | Shaped[Array, "each_step *_observable"]]
    last: State
    steps: Int[Array, ""]
    status: Int[Array, ""]


def run(
    algorithm: Algorithm,
    x0: PyTree,
    steps: int,
    key: Array | int,
    every: int = 1,
    *,
    allow_divergence: bool = False,
) -> Trajectory:
    """Run an algorithm from a position and return its trajectory.

    Parameters
    ----------
    algorithm : Algorithm
    x0 : pytree
        Position at the start.
    steps : int
        Largest number of steps; an algorithm may stop earlier.
    key : JAX key, or int
        Step t draws from ``fold_in(key, t)``, whatever ``every`` is.
    every : int
        Number of steps between records.
    allow_divergence : bool
        Whether to return a run that diverged, with status `DIVERGED`, instead of raising.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If ``every`` does not divide ``steps``, or if the run diverges. Under a JAX transformation
        divergence cannot raise: look at ``status``.
    """
    steps, every = _checks.whole("steps", steps), _checks.whole("every", every)
    if steps % every:
        raise ValueError(f"every is {every} for {steps} steps; give an every that divides them")
    allow_divergence = _checks.flag("allow_divergence", allow_divergence)
    key = _checks.random_key(key)
    what = "an Algorithm, which dynamics.gradient_descent and others make"
    algorithm = hold(_checks.instance("algorithm", algorithm, Algorithm, what))
    state = algorithm.open().init(position("x0", x0))
    found = _scan(algorithm, state, key, steps, every)
    diverged = _checks.known(found.status) and int(found.status) == DIVERGED
    if diverged and not allow_divergence:
        raise ValueError(_divergence(found))
    return found


def position(name: str, tree: PyTree) -> PyTree:
    """Return a pytree with its leaves as JAX arrays of floats; raise unless they are finite."""
    return jax.tree.map(partial(_checks.finite, name), _checks.parameters(name, tree))


def _divergence(found):
    """Return the message of a run that diverged: where it stopped, and what it observed there."""
    leaves = jax.tree.leaves_with_path(found.observables)
    name = partial(jax.tree_util.keystr, simple=True)
    seen = [f"{name(path)} {float(v[-1]):.3g}" for path, v in leaves if v.ndim == 1]
    return (
        f"the run diverged: it stopped after {int(found.steps)} steps"
        f"{' at ' * bool(seen)}{', '.join(seen)}; lower step_size, dt or the rate of the "
        "optimizer; dynamics.stability_limit bounds the step size of least squares"
    )


@eqx.filter_jit
def _scan(algorithm, state, key, steps, every):
    algorithm = algorithm.open()

    def move(carry, t):
        state, status, done, seen, x = carry

        # each position is written into the next record; the last one written before it stays
        def write(kept, v):
            return lax.dynamic_update_index_in_dim(kept, v, -(-t // every), 0)

        x = jax.tree.map(write, x, state.x)

        def go():
            new, info = algorithm.step(state, random.fold_in(key, t))
            halt = jnp.asarray(info.stop, jnp.int32)

            # step number ``steps``, counted from 0, is made only for what it measures
            moves = (halt == GO) & (t < steps)
            kept = jax.tree.map(lambda a, b: jnp.where(moves, b, a), state, new)
            return kept, halt, done + moves, info.observables

        # after a stop nothing changes any more
        state, status, done, seen = lax.cond(status == GO, go, lambda: (state, status, done, seen))
        return (state, status, done, seen, x), seen

    shapes = jax.eval_shape(algorithm.step, state, key)[1].observables
    unseen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    records = jax.tree.map(lambda v: jnp.zeros((steps // every + 1, *v.shape), v.dtype), state.x)
    zero = jnp.zeros((), jnp.int32)
    carry, observables = lax.scan(move, (state, zero, zero, unseen, records), jnp.arange(steps + 1))
    last, status, done, _, x = carry
    at = every * jnp.arange(steps // every + 1)
    time = jnp.asarray(algorithm.dt, float) * jnp.minimum(at, done)
    return Trajectory(at, time, x, observables, last, done, status)


def check_loss(loss, *given):
    """Raise unless a loss returns one number; only shapes are computed."""
    found = jax.eval_shape(lambda *x: _checks.returned("loss", loss(*x)), *given)
    if found.shape:
        raise ValueError(f"loss returns shape {found.shape}; return one number")


def optax_descent(
    loss: Callable, optimizer: optax.GradientTransformation, batches: Callable | None = None
) -> Algorithm:
    r"""Return an algorithm that lowers a loss by an optimizer of optax, for `run`.

    Parameters
    ----------
    loss : callable
        From a position, any pytree of arrays, to a number; with ``batches`` from a position and a
        batch. It may return a pair of the number and a pytree, which is then observed.
    optimizer : optax.GradientTransformation
    batches : callable, optional
        From a JAX key to the b batches of one step of the run, such as an epoch: a pytree of arrays
        (b, ...). The optimizer makes one update per batch.

    Returns
    -------
    Algorithm
        It observes ``{"loss": loss}``, the mean over the batches of a step, and diverges where
        the loss is not finite. One step takes time 1.
    """
    _checks.function("loss", loss, "a function of a position")
    _checks.optimizer("optimizer", optimizer)
    if batches is not None:
        _checks.function("batches", batches, "a function of a key")
    rule = _Optax(loss, optimizer, batches)
    return Algorithm(rule.init, rule.step)


class _Optax(eqx.Module):
    loss: Callable
    optimizer: optax.GradientTransformation
    batches: Callable | None

    def init(self, x0):
        def first(x, key):
            batch = jax.tree.map(lambda v: v[0], self._batches(key))
            return self._measured(x, batch)[0]

        check_loss(first, x0, random.key(0))
        return State(x0, self.optimizer.init(x0))

    def step(self, state, key):
        def move(carry, batch):
            x, memory = carry
            slope, found = jax.grad(self._measured, has_aux=True)(x, batch)
            change, memory = self.optimizer.update(slope, memory, x)
            return (optax.apply_updates(x, change), memory), found

        start = state.x, state.memory
        (x, memory), (values, seen) = lax.scan(move, start, self._batches(key))
        stop = jnp.where(jnp.isfinite(values).all(), GO, DIVERGED)
        return State(x, memory), Info(jax.tree.map(lambda v: v.mean(0), seen), stop)

    def _measured(self, x, batch):
        """Return the loss, and again the loss with what is observed (auxiliary for `jax.grad`)."""
        found = self.loss(x) if self.batches is None else self.loss(x, batch)
        value, seen = found if isinstance(found, tuple) else (found, {"loss": found})
        return value, (value, seen)

    def _batches(self, key):
        batches = jnp.zeros(1) if self.batches is None else self.batches(key)
        lengths = {jnp.shape(v)[:1] for v in jax.tree.leaves(batches)}
        if len(lengths) != 1 or () in lengths:
            raise ValueError(
                "batches returned no arrays with a leading axis of one length; return a pytree of "
                "arrays (b, ...), one entry for each of b batches"
            )
        return batches
