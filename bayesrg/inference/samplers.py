# SPDX-License-Identifier: Apache-2.0
"""`Sampler`, the form in which `fit`, `sbc` and `path_evidence` take samplers of any library."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpyro.infer.mcmc import MCMCKernel

from .. import _checks

SAMPLER = "a function from a model to a NumPyro kernel, e.g. NUTS, or to an inference.Sampler"


class Sampler(NamedTuple):
    """Five functions that run a Markov chain over the latent sites of a model.

    The state of a chain is any pytree of arrays. It holds all that the next step needs, also the
    random key.

    Attributes
    ----------
    init : ``init(key, warmup, args)`` returns the first state of a chain that will take ``warmup``
        steps before its draws are kept; ``args`` are the arguments of the model.
    step : ``step(state, args)`` returns the next state.
    draw : ``draw(state)`` returns the part of a state that is kept at every step.
    sites : ``sites(draw, args)`` returns a dict with the values of latent and deterministic sites.
    stats : ``stats(state)`` returns a dict of numbers about the step. `fit` warns and `sbc` counts
        if ``diverging`` is among them and true.
    vectorised : False if the functions are those of one chain; they are then mapped over chains.
        True if ``init`` takes one key per chain, and ``step``, ``draw`` and ``stats`` take the
        state of all chains.
    """

    init: Callable
    step: Callable
    draw: Callable
    sites: Callable
    stats: Callable
    vectorised: bool = False


def sampler_of(make: Callable, model: Callable) -> Sampler:
    """Call ``make(model)`` and return the result as a `Sampler`, also if it is a NumPyro kernel."""
    made = _checks.function("sampler", make, SAMPLER)(model)
    _checks.instance("sampler", made, MCMCKernel | Sampler, SAMPLER)
    return _of_numpyro(made) if isinstance(made, MCMCKernel) else made


def _of_numpyro(kernel):
    """Return a NumPyro kernel as a `Sampler`."""
    return Sampler(
        init=lambda key, warmup, args: kernel.init(key, warmup, None, args, {}),
        step=lambda state, args: kernel.sample(state, args, {}),
        draw=lambda state: getattr(state, kernel.sample_field),
        sites=lambda draw, args: kernel.postprocess_fn(args, {})(draw),
        stats=lambda state: _statistics(state, np.max(getattr(kernel, "_max_tree_depth", 10))),
        vectorised=True,
    )


_STATISTICS = {
    "acceptance_rate": lambda s: s.accept_prob,
    "diverging": lambda s: s.diverging,
    "energy": lambda s: s.energy,
    "lp": lambda s: -s.potential_energy,
    "n_steps": lambda s: s.num_steps,
    "step_size": lambda s: s.adapt_state.step_size,
}


def _statistics(state, max_tree_depth):
    """Return the statistics that the state of a NumPyro kernel has, under their names in ArviZ."""
    found = {}
    for name, read in _STATISTICS.items():
        try:
            found[name] = read(state)
        except AttributeError:  # this kernel has no such statistic
            continue
    if "n_steps" in found:
        found["tree_depth"] = jnp.ceil(jnp.log2(found["n_steps"] + 1.0)).astype(int)
        found["reached_max_tree_depth"] = found["tree_depth"] >= max_tree_depth
    return found
