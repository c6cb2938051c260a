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
    draws, warmup : steps per chain that are kept, and steps before these that are discarded
    chains : number of chains
    block : steps per compiled block
    devices : number of devices, of all processes together, that share the chains
    """

    draws: int
    warmup: int
    chains: int
    block: int
    devices: int

    @property
    def blocks(self) -> int:
        """Number of blocks of warm-up and draws together; the last may have more draws."""
        return -(-(self.warmup + self.draws) // self.block)


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


class Draws:
    """The draws of a run, kept in memory block by block.

    Attributes
    ----------
    size : Size
    done : number of blocks that are finished; a run that is continued starts with more than zero
    meter : counts what the blocks have done
    """

    def __init__(self, size: Size, fit: str = "fit"):
        self.size, self.done, self._parts = size, 0, []
        self.meter = Meter(size, fit)

    def restore(self, state: Any) -> Any:
        """Return the state from which the run goes on, given the state of a new run."""
        return state

    def add(self, part: tuple[dict, dict] | None, state: Any) -> None:
        """Keep the draws of the next block, None if it has none, and the state after it.

        ``part`` has samples and statistics as dicts of arrays (chain, draw, ...).
        """
        self.done += 1
        if part is not None:
            self._parts.append(part)

    def all(self) -> tuple[dict, dict]:
        """Return samples and statistics of all blocks: dicts of arrays (chain, draw, ...)."""

        def join(*parts):
            return np.concatenate(parts, axis=1)[:, : self.size.draws]

        return jax.tree.map(join, *self._parts)


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
    _, warmup, chains, block, devices = draws.size
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
        sites = jax.vmap(lambda draw: sampler.sites(draw, args))
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
        skip = size.warmup - draws.done * size.block  # steps of the block in the warm-up
        if skip < size.block:
            part = (gather(samples), stats)
            part = _chains_first(part, size.chains > 1, max(0, skip))
        else:
            part = None
        if after_block is not None:
            draws.meter.after_block(part, stats.get("step_size"))
        draws.add(part, state)
        if after_block is not None:
            after_block(draws.meter.facts)


def _chains_first(part, several, skip):
    """Return the arrays of a block with the axes (chain, draw, ...), without its first steps."""
    return jax.tree.map(lambda v: (np.swapaxes(v, 0, 1) if several else v[None])[:, skip:], part)
