# SPDX-License-Identifier: Apache-2.0
"""The loop over the steps of a sampler, and for `fit` this loop in compiled blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from .processes import gather, share_of, spread, together
from .progress import Meter, Progress
from .samplers import Sampler


class Size(NamedTuple):
    """How much to sample.

    Attributes
    ----------
    draws, warmup : draws per chain that are kept, and steps before these that are discarded
    chains : number of chains
    block : steps per compiled block
    devices : number of devices, of all processes together, that share the chains
    thin : steps from one draw that is kept to the next
    """

    draws: int
    warmup: int
    chains: int
    block: int
    devices: int
    thin: int = 1

    @property
    def steps(self) -> int:
        """Number of steps per chain, warm-up included."""
        return self.warmup + self.thin * self.draws

    @property
    def blocks(self) -> int:
        """Number of blocks of warm-up and draws together; the last may have more draws."""
        return -(-self.steps // self.block)

    @property
    def most(self) -> int:
        """Largest number of draws that a block can have."""
        return -(-self.block // self.thin)

    def kept_steps(self, done: int) -> slice:
        """Return the steps that are kept of the block after ``done`` blocks; there may be none."""
        skip = self.warmup - done * self.block  # steps of the block in the warm-up
        first = skip + self.thin - 1 if skip > 0 else (skip - 1) % self.thin
        return slice(first, None, self.thin)


def scan(
    sampler: Sampler,
    state: Any,
    args: tuple,
    steps: int,
    keep: Callable[[Any], Any] = lambda state: None,
) -> tuple[Any, Any]:
    """Take ``steps`` steps of a sampler; return the last state and the kept values, stacked.

    After each step ``keep(state)`` is kept. ``args`` are the arguments of the model.
    """

    def step(state, _):
        state = sampler.step(state, args)
        return state, keep(state)

    return jax.lax.scan(step, state, length=steps)


def _over_chains(sampler):
    """Return a sampler of many chains: the functions of ``sampler`` mapped over a leading axis."""
    if sampler.vectorised:
        return sampler
    return sampler._replace(
        init=lambda keys, *given: jax.vmap(lambda key: sampler.init(key, *given))(keys),
        step=jax.vmap(sampler.step, (0, None)),
        draw=jax.vmap(sampler.draw),
        stats=jax.vmap(sampler.stats),
        vectorised=True,
    )


def pick(part: tuple[dict, dict], size: Size, done: int) -> tuple[dict, dict]:
    """Return the draws of a block that are kept; arrays have the axes (chain, step, ...)."""
    steps = size.kept_steps(done)
    return jax.tree.map(lambda value: value[:, steps], part)


class Draws:
    """The draws of a run, kept in memory.

    Parameters
    ----------
    size : Size
    kept : says which sites and densities are kept, a `kept.Kept`; None for all sites and nothing
        else

    Attributes
    ----------
    size : Size
    kept : as given
    done : number of blocks that are finished; a run that is continued starts with more than zero
    meter : counts what the blocks have done
    """

    def __init__(self, size: Size, kept: Any = None, fit: str = "fit"):
        self.size, self.kept, self.done = size, kept, 0
        self.meter = Meter(size, fit)
        self._whole, self._filled = None, 0

    def restore(self, state: Any) -> Any:
        """Return the state from which the run goes on, given the state of a new run."""
        return state

    def pick(self, part: tuple[dict, dict]) -> tuple[dict, ...]:
        """Return what is kept of the samples and statistics of all steps of the next block."""
        if self.kept is None:
            return pick(part, self.size, self.done)
        return self.kept.pick(part, self.size, self.done)

    def add(self, part: tuple[dict, ...] | None, state: Any) -> None:
        """Keep the draws of the next block, None if it has none, and the state after it.

        ``part`` has samples, statistics and, if they are kept, log densities, as dicts of arrays
        (chain, draw, ...).
        """
        self.done += 1
        if part is None:
            return
        # arrays for the whole run, filled block by block, so that nothing is joined at the end
        if self._whole is None:
            self._whole = jax.tree.map(self._empty, part)
        start = self._filled
        stop = min(self.size.draws, start + jax.tree.leaves(part)[0].shape[1])

        def fill(whole, value):
            whole[:, start:stop] = value[:, : stop - start]

        jax.tree.map(fill, self._whole, part)
        self._filled = stop

    def _empty(self, value):
        """Return an array for all draws; numbers have 64 bits, as in the result."""
        dtype = np.float64 if value.dtype.kind == "f" else value.dtype
        return np.empty((len(value), self.size.draws, *value.shape[2:]), dtype)

    def all(self) -> tuple[dict, ...]:
        """Return the groups of all blocks: dicts of arrays (chain, draw, ...)."""
        return self._whole


def sample_in_blocks(
    sampler: Sampler,
    key: jax.Array,
    args: tuple,
    draws: Draws,
    after_block: Callable[[Progress], None] | None,
) -> None:
    """Sample with one or more chains in blocks of steps; add the blocks to ``draws``.

    All blocks have the same length, so one program is compiled for all of them. The data are
    arguments of this program, not constants, so large arrays cost no compile time. On one device
    the draws of a NumPyro kernel equal those of ``numpyro.infer.MCMC`` with
    ``chain_method="vectorized"`` and ``jit_model_args=True`` bit for bit.

    Parameters
    ----------
    sampler : Sampler
    key : JAX key
    args : arguments of the model, a pytree of arrays
    draws : Draws
        Says how much to sample, and how many blocks are finished already.
    after_block : called with the `Progress` after each block; None if nobody asks for it
    """
    _, warmup, chains, block, devices, _ = draws.size
    several = chains > 1
    sampler = _over_chains(sampler) if several else sampler
    # A run that is continued makes its first state again, which also sets up NumPyro's kernels.
    state = sampler.init(jax.random.split(key, chains) if several else key, warmup, args)
    state = jax.tree.map(_strong, draws.restore(state))

    def advance(state, args):
        def keep(state):
            return sampler.draw(state), sampler.stats(state)

        state, (drawn, stats) = scan(sampler, state, args, block, keep)
        state = jax.tree.map(_strong, state)
        sites = jax.vmap(lambda draw: _needed(sampler.sites(draw, args), draws))
        return state, ((jax.vmap(sites) if several else sites)(drawn), stats)

    if devices > 1:  # chains are divided among devices, arguments are copied to all
        mesh = Mesh(np.array(share_of(devices)), ("chain",), axis_types=(AxisType.Auto,))
        chain, everywhere = jax.P("chain"), jax.P()
        state, args = spread(state, mesh, chain), spread(args, mesh, everywhere)
        advance = jax.shard_map(
            advance,
            mesh=mesh,
            in_specs=(chain, everywhere),
            out_specs=(chain, jax.P(None, "chain")),
            check_vma=False,
        )
    run_blocks(jax.jit(advance), state, args, draws, together(after_block))


def _strong(leaf):
    """Return a leaf of the state as an array of a fixed dtype.

    The dtype of a Python number is weak, and may be weak before a block and not after it, or the
    other way round. Then the second block would compile the program again.
    """
    if isinstance(leaf, jax.Array) and not jax.typeof(leaf).weak_type:
        return leaf
    if isinstance(leaf, jax.core.Tracer):
        return jax.lax.convert_element_type(leaf, leaf.dtype)
    return jnp.asarray(np.asarray(leaf))


def run_blocks(
    advance: Callable[[Any, tuple], tuple],
    state: Any,
    args: tuple,
    draws: Draws,
    after_block: Callable[[Progress], None] | None,
) -> None:
    """Run the blocks of ``draws`` that are not finished, from ``state`` on.

    ``advance(state, args)`` returns the next state, and samples and statistics of the block, dicts
    of arrays (step, chain, ...), or (step, ...) if there is one chain.
    """
    size = draws.size
    while draws.done < size.blocks:
        state, (samples, stats) = jax.block_until_ready(advance(state, args))
        stats = gather(stats)
        if (draws.done + 1) * size.block > size.warmup:
            part = draws.pick(_chains_first((gather(samples), stats), size.chains > 1))
        else:
            part = None
        if after_block is not None:
            draws.meter.after_block(part and part[:2], stats.get("step_size"))
        draws.add(part, state)
        if after_block is not None:
            after_block(draws.meter.facts)


def _needed(sites, draws):
    """Return the sites of a draw that leave the device; the others are not computed."""
    if draws.kept is None:
        return sites
    return {name: value for name, value in sites.items() if name in draws.kept.needed}


def _chains_first(part, several):
    """Return the arrays of a block with the axes (chain, step, ...)."""
    return jax.tree.map(lambda v: np.swapaxes(v, 0, 1) if several else v[None], part)
