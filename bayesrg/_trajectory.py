# SPDX-License-Identifier: Apache-2.0
"""Whatever moves in time: a pair of functions, and the one scan that runs all of them."""

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
    """Where a run stands: its position ``x`` and what else the algorithm must remember."""

    x: PyTree
    memory: PyTree = None


class Info(eqx.Module):
    """What a step measured at the state from which it starts.

    ``observables`` is any pytree of arrays, such as ``{"loss": loss}``. ``stop`` () says whether
    that state is the last one: `GO`, `REACHED` (its tolerance) or `DIVERGED`.
    """

    observables: PyTree
    stop: Int[Array, ""]


class Algorithm(eqx.Module):
    """A rule of motion.

    Attributes
    ----------
    init : callable
        From a position, any pytree, to a `State`.
    step : callable
        From a state and a JAX key to the next state and an `Info` of the first. Arrays that the
        functions captured, or that the module holds whose methods they are, may be traced.
        Other arrays of the same shape are not compiled again.
    dt : ()
        Time that one step takes; for descents the step size, so that time is that of the flow.
    """

    init: Callable
    step: Callable
    dt: ArrayLike = 1.0


class Trajectory(eqx.Module):
    """Result of `run`: positions at records, observables at every step.

    Attributes
    ----------
    step : (s,)
        Steps after which there is a record; the start is 0.
    time : (s,)
        Time at the records. A run that stops stays where it is, and its time stands still.
    x : pytree
        Positions at the records, stacked along a new first axis (s, ...).
    observables : pytree
        What the algorithm measured at every step, the end included: (steps + 1, ...). After a
        stop, what was measured there.
    last : State
    steps : ()
        Steps that were made before the run stopped.
    status : ()
        `GO` if the steps ran out, `REACHED` or `DIVERGED`.
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
    """Run an algorithm by one compiled scan, and return what it went through.

    Parameters
    ----------
    algorithm : Algorithm
    x0 : pytree
        Where it starts.
    steps : int
    key : JAX key, or int
        Step t draws from ``fold_in(key, t)``, whatever ``every`` is.
    every : int
        Steps between records.
    allow_divergence : bool
        Whether to return a run that diverged, with the status `DIVERGED`, and not raise.

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If ``every`` does not divide the steps, or if the run diverges; under a JAX transformation
        only its status tells.
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
    """Require finite numbers at all leaves of a pytree, and convert them to floats."""
    return jax.tree.map(partial(_checks.finite, name), _checks.parameters(name, tree))


def _divergence(found):
    """Say where a run stopped, and what it observed there."""
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

        # a position is written to the next record at every step, and the last of them stays
        def write(kept, v):
            return lax.dynamic_update_index_in_dim(kept, v, -(-t // every), 0)

        x = jax.tree.map(write, x, state.x)

        def go():
            new, info = algorithm.step(state, random.fold_in(key, t))
            halt = jnp.asarray(info.stop, jnp.int32)
            moves = (halt == GO) & (t < steps)  # the step after the last one only measures
            kept = jax.tree.map(lambda a, b: jnp.where(moves, b, a), state, new)
            return kept, halt, done + moves, info.observables

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


def optax_descent(
    loss: Callable, optimizer: optax.GradientTransformation, batches: Callable | None = None
) -> Algorithm:
    r"""Descend by a rule of optax, on a whole loss or on batches.

    Parameters
    ----------
    loss : callable
        From a position, any pytree of arrays, to a number; with ``batches`` from a position and a
        batch. If it returns a pair of the number and a pytree, the pytree is what is observed.
    optimizer : optax.GradientTransformation
    batches : callable, optional
        From a JAX key to the batches of one step of the run (such as an epoch), a pytree with a
        leading axis (b, ...). The optimizer moves once for each of them.

    Returns
    -------
    Algorithm
        It observes ``{"loss": loss}``, the mean over the batches of a step, and diverges where
        the loss is not finite. One step takes the time 1.
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
            return _checks.returned("loss", self._measured(x, batch)[0])

        shape = jax.eval_shape(first, x0, random.key(0)).shape
        if shape:
            raise ValueError(f"loss returns shape {shape}; return one number")
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
        """Loss, and with it the pair of the loss and of what is observed."""
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
