# SPDX-License-Identifier: Apache-2.0
"""Run a NumPyro kernel in blocks: one compiled scan, warm-up included."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel

from .. import _checks

_STATISTICS = {
    "acceptance_rate": lambda s: s.accept_prob,
    "diverging": lambda s: s.diverging,
    "energy": lambda s: s.energy,
    "lp": lambda s: -s.potential_energy,
    "n_steps": lambda s: s.num_steps,
    "step_size": lambda s: s.adapt_state.step_size,
}


def statistics(state) -> dict:
    """Sampler statistics of a state under ArviZ's names; those that the kernel keeps."""
    found = {}
    for name, read in _STATISTICS.items():
        try:
            found[name] = read(state)
        except AttributeError:
            continue
    if "n_steps" in found:
        found["tree_depth"] = jnp.ceil(jnp.log2(found["n_steps"] + 1.0)).astype(int)
    return found


def kernel_of(sampler, model) -> MCMCKernel:
    """Make the NumPyro kernel of a model, by NUTS where ``sampler`` is None."""
    what = "a function from a model to a NumPyro kernel, e.g. NUTS"
    make = NUTS if sampler is None else _checks.function("sampler", sampler, what)
    return _checks.instance("sampler", make(model), MCMCKernel, what)


def sample_in_blocks(
    kernel: MCMCKernel,
    key: jax.Array,
    args: tuple,
    *,
    warmup: int,
    draws: int,
    chains: int,
    block: int,
    devices: int,
    after_block: Callable[[int, int], None],
) -> tuple[dict, dict]:
    """Sample with a kernel, all steps in scans of one length.

    On one device draws equal those of ``numpyro.infer.MCMC`` with ``chain_method="vectorized"``
    and ``jit_model_args=True`` bit for bit: data enter as arguments, not as constants of the
    program, so that large arrays cost no compile time.

    Parameters
    ----------
    kernel : MCMCKernel
    key : JAX key
    args : arguments of the model, a pytree of arrays
    warmup, draws, chains, block, devices : int
    after_block : called with the number of blocks done and of all blocks

    Returns
    -------
    samples : from latent or deterministic site to (chain, draw, ...)
    stats : from statistic to (chain, draw)
    """
    keys = jax.random.split(key, chains) if chains > 1 else key
    state = kernel.init(keys, warmup, None, args, {})
    field = kernel.sample_field

    def advance(state, args):
        def step(state, _):
            state = kernel.sample(state, args, {})
            return state, (getattr(state, field), statistics(state))

        state, (z, stats) = jax.lax.scan(step, state, length=block)
        constrain = jax.vmap(kernel.postprocess_fn(args, {}))
        return state, (jax.vmap(constrain)(z) if chains > 1 else constrain(z), stats)

    if devices > 1:
        mesh = jax.make_mesh((devices,), ("chain",), axis_types=(AxisType.Auto,))
        chain, everywhere = jax.P("chain"), jax.P()
        state = jax.device_put(state, NamedSharding(mesh, chain))
        args = jax.device_put(args, NamedSharding(mesh, everywhere))
        advance = jax.shard_map(
            advance, mesh=mesh, in_specs=(chain, everywhere),
            out_specs=(chain, jax.P(None, "chain")), check_vma=False,
        )  # fmt: skip
    advance = jax.jit(advance)
    blocks = -(-(warmup + draws) // block)
    collected = []
    for i in range(blocks):
        state, part = advance(state, args)
        if (i + 1) * block > warmup:
            collected.append(jax.device_get(part))
        else:
            jax.block_until_ready(part)
        after_block(i + 1, blocks)
    skip = warmup % block if warmup < blocks * block else 0

    def join(*parts):
        whole = np.concatenate(parts)[skip : skip + draws]
        return np.swapaxes(whole, 0, 1) if chains > 1 else whole[None]

    return jax.tree.map(join, *collected)
