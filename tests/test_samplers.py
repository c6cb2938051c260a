# SPDX-License-Identifier: Apache-2.0
"""Every sampler is one value, whichever library it is from: one problem for all of them."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer import AIES, NUTS
from numpyro.infer.util import constrain_fn, initialize_model, potential_energy
from sampling import two_steps
from scipy.stats import multivariate_normal

import bayesrg as brg
from bayesrg.inference import Sampler

X, y = np.arange(4.0), np.array([0.3, 1.2, -0.4, 0.9])
MEAN, SD = float(y.sum() / 5), 5**-0.5  # of the posterior


def level(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.deterministic("twice", 2.0 * mean)
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def metropolis(model, width=1.0):
    """Random-walk Metropolis, as another library would have it: nothing in it knows NumPyro."""

    def init(key, warmup, args):
        start = initialize_model(key, model, model_args=args).param_info.z
        return key, start, potential_energy(model, args, {}, start), jnp.array(True)

    def step(state, args):
        key, old, energy, _ = state
        key, walk, accept = random.split(key, 3)
        flat, unravel = ravel_pytree(old)
        new = unravel(flat + width * random.normal(walk, flat.shape))
        proposed = potential_energy(model, args, {}, new)
        taken = random.exponential(accept) > proposed - energy
        chosen = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, old)
        return key, chosen, jnp.where(taken, proposed, energy), taken

    return Sampler(
        init,
        step,
        draw=lambda state: state[1],
        sites=lambda draw, args: constrain_fn(model, args, {}, draw, return_deterministic=True),
        stats=lambda state: {"lp": -state[2], "accepted": state[3]},
    )


SAMPLERS = {
    "NUTS": NUTS,
    "HMC": two_steps,
    "ensemble": lambda model: AIES(model, moves={AIES.DEMove(): 1.0}),
    "metropolis": metropolis,
}
LONG = {"draws": 600, "warmup": 100, "block": 100, "progress": False, "devices": 1}


# test_cli and test_inference run NUTS and HMC, the next test Metropolis
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "ensemble" else pytest.mark.slow) for n in SAMPLERS]
)
@pytest.mark.filterwarnings("ignore::bayesrg.inference.SamplingWarning")
def test_a_sampler_draws_from_the_posterior(name):
    """Mean and deviation within five Monte Carlo errors, at a tenth of the draws independent."""
    chains = 6 if name == "ensemble" else 2
    dt = brg.fit(level, (X, y), key=1, chains=chains, sampler=SAMPLERS[name], **LONG)
    draws = dt["posterior"]["mean"].to_numpy()
    assert draws.shape == (chains, 600) and len(np.unique(draws[:, -1])) == chains
    np.testing.assert_allclose(dt["posterior"]["twice"], 2.0 * draws, rtol=1e-15)
    assert all(v.dims == ("chain", "draw") for v in dt["sample_stats"].data_vars.values())
    error = SD / np.sqrt(60 * chains)
    assert abs(draws.mean() - MEAN) < 5 * error and abs(draws.std() - SD) < 5 * error


def test_one_chain_is_the_first_step_of_the_sampler():
    """The loop adds nothing: the draws of one chain are those of a loop in Python."""
    key, args = random.key(3), (X, y)
    with pytest.warns(brg.inference.SamplingWarning, match="too few for these checks"):
        dt = brg.fit(level, args, key=key, draws=3, warmup=2, chains=1, block=4, progress=False,
                     sampler=metropolis)  # fmt: skip
    sampler, found = metropolis(level), []
    step, state = jax.jit(sampler.step), sampler.init(key, 2, args)
    for _ in range(5):
        state = step(state, args)
        found.append(float(sampler.draw(state)["mean"]))
    np.testing.assert_allclose(dt["posterior"]["mean"][0], found[2:], rtol=1e-12)
    lp = multivariate_normal(cov=np.eye(4)).logpdf(np.asarray(y) - np.array(found[2:])[:, None])
    lp += -0.5 * np.array(found[2:]) ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(dt["sample_stats"]["lp"][0], lp, rtol=1e-10)


@pytest.mark.slow
def test_another_sampler_integrates_and_calibrates():
    found = brg.inference.path_evidence(
        level, (X, y), key=1, draws=400, warmup=50, chains=2, sampler=metropolis
    )
    exact = multivariate_normal(cov=np.eye(4) + 1.0).logpdf(y)
    assert abs(found.log_evidence - exact) < 5 * found.standard_error < 0.5
    ranks = brg.inference.sbc(
        level, X, {"mean": lambda sites, y, key: sites["mean"]}, key=2, simulations=100, draws=19,
        warmup=20, thin=4, sampler=metropolis,
    )["sbc"]  # fmt: skip
    assert float(ranks["p_value"][0]) > 1e-3 and not ranks["diverging"].any()


@pytest.mark.parametrize("sampler", [lambda model: None, lambda model: model])
def test_what_is_not_a_sampler_is_named(sampler):
    with pytest.raises(ValueError, match="sampler must be a function from a model to a NumPyro"):
        brg.fit(level, (X, y), key=0, sampler=sampler)
    with pytest.raises(ValueError, match="sampler must be"):
        brg.inference.path_evidence(level, (X, y), key=0, sampler=sampler)


@pytest.mark.filterwarnings("ignore::bayesrg.inference.SamplingWarning")
def test_the_model_is_traced_twice_and_run_by_the_sampler_alone():
    """One trace finds sites, shapes and observations, one the densities; the start is NumPyro's."""
    ran = deque()  # a list that the model captures would be copied

    def counted(X, y=None):
        traced = isinstance(jnp.sum(X), jax.core.Tracer)
        ran.append(("traced" if traced else "run", "prior" if y is None else "data"))
        level(X, y)

    inside = []

    def sampler(model):
        def silent(*args):
            before = len(ran)
            model(*args)
            while len(ran) > before:
                inside.append(ran.pop())

        return two_steps(silent)

    numbers = {"draws": 5, "warmup": 5, "block": 10, "progress": False, "devices": 1}
    brg.fit(counted, (X, y), key=1, chains=2, sampler=sampler, **numbers)
    assert [*ran] == [("traced", "data"), ("traced", "prior")] and ("run", "data") in inside
