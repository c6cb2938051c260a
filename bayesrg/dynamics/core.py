# SPDX-License-Identifier: Apache-2.0
"""Whatever moves in time: a pair of functions, and the one scan that runs all of them."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jaxtyping import Float, Int, PyTree, Shaped

from .. import _checks
from .._callables import hold

GO, REACHED, DIVERGED = 0, 1, 2


class State(eqx.Module):
    """Where a run stands: its position ``x`` and what else the algorithm must remember."""

    x: PyTree
    memory: PyTree = None


class Info(eqx.Module):
    """What a step measured at the state from which it starts.

    ``loss`` () in the units of the algorithm, ``stop`` () whether that state is the last one:
    `GO`, `REACHED` (its tolerance) or `DIVERGED`.
    """

    loss: Float[Array, ""]
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
    """

    init: Callable
    step: Callable


class Trajectory(eqx.Module):
    """Result of `run`.

    Attributes
    ----------
    step : (s,)
        Steps after which there is a record; the start is 0. A run that stops stays where it is.
    x : pytree
        Positions, stacked along a new first axis (s, ...).
    loss : (s,)
    last : State
    steps : ()
        Steps that were made before the run stopped.
    status : ()
        `GO` if the steps ran out, `REACHED` or `DIVERGED`.
    """

    step: Int[Array, " step"]
    x: Shaped[Array, "step *position"] | PyTree
    loss: Float[Array, " step"]
    last: State
    steps: Int[Array, ""]
    status: Int[Array, ""]


def run(
    algorithm: Algorithm, x0: PyTree, steps: int, key: Array | int = 0, every: int = 1
) -> Trajectory:
    """Run an algorithm by one compiled scan.

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

    Returns
    -------
    Trajectory

    Raises
    ------
    ValueError
        If ``every`` does not divide the steps, or if the run diverges.
    """
    steps, every = _checks.whole("steps", steps), _checks.whole("every", every)
    if steps % every:
        raise ValueError(f"every is {every} for {steps} steps; give an every that divides them")
    key = _checks.random_key(key)
    what = "an Algorithm, which dynamics.gradient_descent and others make"
    algorithm = hold(_checks.instance("algorithm", algorithm, Algorithm, what))
    state = algorithm.open().init(jax.tree.map(lambda leaf: _checks.finite("x0", leaf), x0))
    found = _scan(algorithm, state, key, steps // every, every)
    if _checks.known(found.status) and int(found.status) == DIVERGED:
        raise ValueError(
            f"the run diverged: it stopped after {int(found.steps)} steps at a loss of "
            f"{float(found.loss[-1]):.3g}; lower step_size, which dynamics.stability_limit bounds"
        )
    return found


@eqx.filter_jit
def _scan(algorithm, state, key, records, every):
    algorithm = algorithm.open()

    def move(carry, t):
        def go():
            new, info = algorithm.step(state, random.fold_in(key, t))
            halt = jnp.asarray(info.stop, jnp.int32)
            kept = jax.tree.map(lambda a, b: jnp.where(halt == GO, b, a), state, new)
            return (kept, halt, done + (halt == GO), info.loss), None

        state, status, done, _ = carry
        return lax.cond(status == GO, go, lambda: (carry, None))

    def stretch(carry, first):
        start = carry[0].x

        def inner(both, i):
            carry, loss = both
            carry, _ = move(carry, first + i)
            return (carry, jnp.where(i == 0, carry[3], loss)), None

        (carry, loss), _ = lax.scan(inner, (carry, carry[3]), jnp.arange(every))
        return carry, (start, loss)

    shape = jax.eval_shape(algorithm.step, state, key)[1].loss
    zero = jnp.zeros((), jnp.int32)
    carry = (state, zero, zero, jnp.full(shape.shape, jnp.nan, shape.dtype))
    at = every * jnp.arange(records + 1)
    carry, (x, loss) = lax.scan(stretch, carry, at[:-1])
    last, _, done, _ = carry
    (_, status, _, final), _ = move(carry, at[-1])
    x = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), x, last.x)
    return Trajectory(at, x, jnp.append(loss, final), last, done, status)
