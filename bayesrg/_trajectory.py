# SPDX-License-Identifier: Apache-2.0
"""Algorithms that move a position step by step, and the one function that runs them."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random
from jaxtyping import Float, Int, PyTree, Shaped

from . import _checks
from ._callables import hold
from ._checks import ArrayLike
from ._warnings import warn

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
    report : callable, optional
        From the `Trajectory` of a run, whose numbers can be read. `run` calls it at the end, so
        that it can warn.
    """

    init: Callable
    step: Callable
    dt: ArrayLike = 1.0
    report: Callable | None = None


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
    time: Float[Array, " step"] | Float[Array, "chain step"]
    x: Shaped[Array, "step *position"] | PyTree
    observables: PyTree[Shaped[Array, " each_step"] | Shaped[Array, "each_step *_observable"]]
    last: State
    steps: Int[Array, ""] | Int[Array, " chain"]
    status: Int[Array, ""] | Int[Array, " chain"]


def run(
    algorithm: Algorithm,
    x0: PyTree,
    steps: int,
    key: Array | int,
    every: int = 1,
    *,
    keep: Callable | None = None,
    chains: int | None = None,
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
    keep : callable, optional
        From a `State` to what is recorded in place of the position, such as the levels of a matrix.
        It is evaluated at records alone.
    chains : int, optional
        Number of runs made at once. ``x0`` is shared, or its leaves have a leading axis of this
        length. Chain i draws as a single run with ``jax.random.split(key, chains)[i]``.
    allow_divergence : bool
        Whether to return a run that diverged, with status `DIVERGED`, instead of raising. With
        ``chains`` the others are returned in any case, with a warning, unless all diverge.

    Returns
    -------
    Trajectory
        With ``chains`` all its fields begin with an axis of chains, except ``step``.

    Raises
    ------
    ValueError
        If ``every`` does not divide ``steps``, or if the run diverges: then the attribute
        ``trajectory`` of the error is what would be returned. Under a JAX transformation divergence
        cannot raise: look at ``status``.

    Warns
    -----
    UserWarning
        If some chains diverge; ``status`` says which. An algorithm may have other warnings.
    """
    steps, every = _checks.whole("steps", steps), _checks.whole("every", every)
    if steps % every:
        raise ValueError(f"every is {every} for {steps} steps; give an every that divides them")
    allow_divergence = _checks.flag("allow_divergence", allow_divergence)
    key = _checks.random_key(key)
    what = "an Algorithm, which dynamics.gradient_descent and others make"
    report = _checks.instance("algorithm", algorithm, Algorithm, what).report
    algorithm = hold(algorithm)
    keep = None if keep is None else hold(_checks.function("keep", keep, "a function of a State"))
    x0 = position("x0", x0)
    if chains is None:
        found = _run(algorithm, algorithm.open().init(x0), key, keep, steps, every)
    else:
        chains = _checks.whole("chains", chains)
        state, shared = _starts(algorithm.open(), x0, chains)
        keys = random.split(key, chains)
        found = _run_chains(algorithm, state, keys, keep, steps, every, shared)
    # under jax.grad the status is known and what was observed is not
    if all(map(_checks.known, jax.tree.leaves((found.status, found.observables)))):
        _check_divergence(found, allow_divergence)
        if report is not None:
            report(found)
    return found


def _starts(algorithm, x0, chains):
    """Return the state at the start, and whether all chains share it.

    An axis of the length ``chains`` may be one of the position. So each reading is tried on shapes.
    """

    def fits(x):
        """Whether a step keeps the shapes of the state that starts at x."""

        def both(x):
            state = algorithm.init(x)
            return state, algorithm.step(state, random.key(0))[0]

        try:
            old, new = jax.eval_shape(both, x)
        except (TypeError, ValueError, IndexError):
            return False
        return jax.tree.map(jnp.shape, old) == jax.tree.map(jnp.shape, new)

    leading = {jnp.shape(v)[:1] for v in jax.tree.leaves(x0)} == {(chains,)}
    if leading and fits(jax.tree.map(lambda v: v[0], x0)):
        return jax.vmap(algorithm.init)(x0), False
    return algorithm.init(x0), True


def position(name: str, tree: PyTree) -> PyTree:
    """Return a pytree with its leaves as JAX arrays of floats; raise unless they are finite."""
    return jax.tree.map(partial(_checks.finite, name), _checks.parameters(name, tree))


def _check_divergence(found, allowed):
    """Raise if a run diverged, or all chains did; warn if some did."""
    lost = np.flatnonzero(np.atleast_1d(found.status) == DIVERGED)
    if not lost.size or allowed:
        return
    first = int(lost[0])
    chains = np.ndim(found.status) == 1
    which = (lambda v: v[first]) if chains else (lambda v: v)
    leaves = jax.tree.leaves_with_path(jax.tree.map(which, found.observables))
    name = partial(jax.tree_util.keystr, simple=True)
    seen = ", ".join(f"{name(path)} {float(v[-1]):.3g}" for path, v in leaves if v.ndim == 1)
    where = f"after {int(which(found.steps))} steps{' at ' * bool(seen)}{seen}"
    advice = (
        "lower the rate of the optimizer, step_size, learning_rate or dt; "
        "dynamics.stability_limit bounds the step size of least squares"
    )
    message = f"the run diverged: it stopped {where}; {advice}"
    if chains:
        several = f"{lost.size} of {len(found.status)} chains diverged, chain {first}"
        message = f"{several} {where}; {advice}"
    if not chains or lost.size == len(found.status):
        error = ValueError(message)
        error.trajectory = found
        raise error
    warn(message)


@eqx.filter_jit
def _run(algorithm, state, key, keep, steps, every):
    return _scan(algorithm.open(), state, key, keep and keep.open(), steps, every)


@eqx.filter_jit
def _run_chains(algorithm, state, keys, keep, steps, every, shared):
    algorithm, keep = algorithm.open(), keep and keep.open()

    def one(state, key):
        found = _scan(algorithm, state, key, keep, steps, every)
        return eqx.tree_at(lambda f: f.step, found, None)  # the same for all chains

    found = jax.vmap(one, (None if shared else 0, 0))(state, keys)
    at = every * jnp.arange(steps // every + 1)
    return eqx.tree_at(lambda f: f.step, found, at, is_leaf=lambda v: v is None)


def _scan(algorithm, state, key, keep, steps, every):
    """Return the trajectory of one run: a scan over records, each a scan over steps."""
    recorded = (lambda state: state.x) if keep is None else keep

    def move(carry, t):
        state, status, done, seen = carry

        def go():
            new, info = algorithm.step(state, random.fold_in(key, t))
            halt = jnp.asarray(info.stop, jnp.int32)

            # step number ``steps``, counted from 0, is made only for what it measures
            moves = (halt == GO) & (t < steps)
            kept = jax.tree.map(lambda a, b: jnp.where(moves, b, a), state, new)
            return kept, halt, done + moves, info.observables

        # after a stop nothing changes any more
        state, status, done, seen = lax.cond(status == GO, go, lambda: carry)
        return (state, status, done, seen), seen

    def record(carry, start):
        carry, seen = lax.scan(move, carry, start + jnp.arange(every))
        return carry, (recorded(carry[0]), seen)

    shapes = jax.eval_shape(algorithm.step, state, key)[1].observables
    unseen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    zero = jnp.zeros((), jnp.int32)
    at = every * jnp.arange(steps // every + 1)
    carry, (x, seen) = lax.scan(record, (state, zero, zero, unseen), at[:-1])
    (last, status, done, _), end = move(carry, jnp.asarray(steps))

    x = jax.tree.map(lambda first, v: jnp.concatenate([first[None], v]), recorded(state), x)
    seen = jax.tree.map(
        lambda v, e: jnp.concatenate([v.reshape(steps, *e.shape), e[None]]), seen, end
    )
    time = jnp.asarray(algorithm.dt, float) * jnp.minimum(at, done)
    return Trajectory(at, time, x, seen, last, done, status)


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
