# SPDX-License-Identifier: Apache-2.0
"""Ways to sample that compile fast, for tests that are not about samplers."""

from jax import random
from numpyro import handlers
from numpyro.infer import HMC

from bayesrg.inference import Sampler


def two_steps(model):
    """HMC with two steps: a third of what NUTS takes to compile."""
    return HMC(model, num_steps=2, trajectory_length=None)


def from_prior(model):
    """Sampler whose draws are those of the prior, for what holds at any draw."""

    def sites(key, args):
        trace = handlers.trace(handlers.seed(model, key)).get_trace(*args)
        return {
            name: site["value"] for name, site in trace.items()
            if site["type"] == "deterministic"
            or site["type"] == "sample" and not site["is_observed"]
        }  # fmt: skip

    return Sampler(
        init=lambda key, warmup, args: key,
        step=lambda key, args: random.split(key)[0],
        draw=lambda key: key,
        sites=sites,
        stats=lambda key: {},
    )
