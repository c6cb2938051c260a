# SPDX-License-Identifier: Apache-2.0
"""The loop over the steps of a sampler, and for `fit` this loop in compiled blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding

from .samplers import Sampler


class Size(NamedTuple):
    """How much to sample.

    Attributes
    ----------
    draws, warmup : steps per chain that are kept, and steps before these that are discarded
    chains : number of chains
    block : steps per compiled block
    devices : number of devices that share the chains
    """

    draws: int
    warmup: int
    chains: int
    block: int
    devices: int


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


def sample_in_blocks(
    sampler: Sampler,
    key: jax.Array,
    args: tuple,
    size: Size,
    after_block: Callable[[int, int], None],
) -> tuple[dict, dict]:
    """Sample with one or more chains in blocks of steps; return draws and statistics.

    All blocks have the same length, so one program is compiled for all of them. The data are
    arguments of this program, not constants, so large arrays cost no compile time. On one device
    the draws of a NumPyro kernel equal those of ``numpyro.infer.MCMC`` with
    ``chain_method="vectorized"`` and ``jit_model_args=True`` bit for bit.

    Parameters
    ----------
    sampler : Sampler
    key : JAX key
    args : arguments of the model, a pytree of arrays
    size : Size
    after_block : called after each block with the number of blocks done and the number of all

    Returns
    -------
    samples : dict from the name of a latent or deterministic site to draws (chain, draw, ...)
    stats : dict from the name of a statistic to values (chain, draw)
    """
    draws, warmup, chains, block, devices = size
    several = chains > 1
    sampler = _over_chains(sampler) if several else sampler
    state = sampler.init(jax.random.split(key, chains) if several else key, warmup, args)

    def advance(state, args):
        def keep(state):
            return sampler.draw(state), sampler.stats(state)

        state, (drawn, stats) = scan(sampler, state, args, block, keep)
        sites = jax.vmap(lambda draw: sampler.sites(draw, args))
        return state, ((jax.vmap(sites) if several else sites)(drawn), stats)

    if devices > 1:  # chains are divided among devices, arguments are copied to all
        mesh = jax.make_mesh((devices,), ("chain",), axis_types=(AxisType.Auto,))
        chain, everywhere = jax.P("chain"), jax.P()
        state = jax.device_put(state, NamedSharding(mesh, chain))
        args = jax.device_put(args, NamedSharding(mesh, everywhere))
        advance = jax.shard_map(
            advance,
            mesh=mesh,
            in_specs=(chain, everywhere),
            out_specs=(chain, jax.P(None, "chain")),
            check_vma=False,
        )
    advance = jax.jit(advance)

    blocks = -(-(warmup + draws) // block)
    collected = []
    for i in range(blocks):
        state, part = advance(state, args)
        if (i + 1) * block > warmup:  # the block has steps after the warm-up
            collected.append(jax.device_get(part))
        else:
            jax.block_until_ready(part)
        after_block(i + 1, blocks)
    skip = warmup % block  # steps of warm-up in the first block that was collected

    def join(*parts):  # steps lead in a block, chains lead in the result
        whole = np.concatenate(parts)[skip : skip + draws]
        return np.swapaxes(whole, 0, 1) if several else whole[None]

    return jax.tree.map(join, *collected)
