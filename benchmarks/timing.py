# SPDX-License-Identifier: Apache-2.0
"""NumPyro models as contenders of `race`: a gradient alone, a gradient inside NUTS, and draws.

This file needs only JAX and NumPyro, so that it also runs in the environments of other packages.
"""

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import NUTS, init_to_median
from numpyro.infer.util import initialize_model, potential_energy


class Sampled:
    """A NumPyro model whose gradients are timed inside blocks of NUTS transitions.

    A variant that is fast alone can be slow inside the loops of a sampler, so this is what counts.

    Parameters
    ----------
    model : NumPyro model
    args : its arguments, arrays; none is a constant of the compiled programs
    draws : transitions per block; as many are used to adapt, before the first round
    role : see `race.Call`
    watch : names of latent sites whose effective sample size counts; by default all
    answers : False if other contenders have another posterior
    least : seconds that one round takes at least; short blocks are repeated
    """

    def __init__(self, model, args, draws, role="peer", watch=None, answers=True, least=0.2):
        self.model, self.args, self.draws, self.role = model, args, draws, role
        self.watch, self.answers, self.least = watch, answers, least

    def first(self):
        """Compile and adapt; return value and gradient of the log density at one point."""
        self.density, self.z = density(self.model, self.args)
        value, gradient = self.density(self.z, self.args)
        flat = np.concatenate([np.ravel(gradient[site]) for site in sorted(gradient)])
        self.advance, self.state, reserved = block(self.model, self.args, self.draws)
        found = {"role": self.role, "reserved": reserved, "peak": None}
        return found | ({"answer": [float(value), *flat.tolist()]} if self.answers else {})

    def round(self):
        """Return seconds per gradient in NUTS and alone, and effective draws per second."""
        alone = per_call(self.density, self.z, self.args)
        wall, busy, steps, draws = 0.0, time.process_time(), 0, []
        while wall < self.least:
            start = time.perf_counter()
            self.state, (z, n) = jax.block_until_ready(self.advance(self.state, self.args))
            wall += time.perf_counter() - start
            steps, draws = steps + int(n.sum()), [*draws, z]
        cpu = time.process_time() - busy
        z = {name: np.concatenate([block[name] for block in draws]) for name in draws[0]}
        found = {"seconds": wall / steps, "cpu": cpu / steps, "gradient alone, ms": 1e3 * alone}
        return found | {"ESS/s": ess(z, self.watch) / wall, "gradients": steps}


def density(model, args):
    """Return the compiled value and gradient of a model's potential energy, and a point."""
    start = initialize_model(
        jax.random.key(0), model, init_strategy=init_to_median, model_args=args
    ).param_info.z
    z = jax.tree.map(lambda v: v + 0.1, start)
    return jax.jit(jax.value_and_grad(lambda z, args: potential_energy(model, args, {}, z))), z


def block(model, args, draws):
    """Compile a scan of transitions, and adapt by running it once; return its memory too."""
    kernel = NUTS(model, max_tree_depth=6, init_strategy=init_to_median)
    state = kernel.init(jax.random.key(1), draws, None, args, {})

    def advance(state, args):
        def step(state, _):
            state = kernel.sample(state, args, {})
            return state, (state.z, state.num_steps)

        return jax.lax.scan(step, state, length=draws)

    program = jax.jit(advance).lower(state, args).compile()
    state = jax.block_until_ready(program(state, args))[0]
    return program, state, program.memory_analysis().temp_size_in_bytes


def ess(z, watch=None):
    """Return the least effective sample size of all coordinates of draws, arrays (draws, ...)."""
    sizes = [
        effective_sample_size(np.asarray(v)[None]).min()
        for name, v in z.items()
        if watch is None or name in watch
    ]
    return float(min(sizes))


def per_call(function, *args, least=0.1):
    """Return mean seconds per call of a JAX function, over calls of at least ``least`` seconds."""
    calls, spent, start = 0, 0.0, time.perf_counter()
    while spent < least:
        jax.block_until_ready(function(*args))
        calls, spent = calls + 1, time.perf_counter() - start
    return spent / calls


class Fresh:
    """A contender that is a line of Python in a fresh process, timed by itself."""

    def __init__(self, python, line, role="peer", environment=None, warm_up=True):
        self.warm_up = warm_up
        code = f"import time; t = time.perf_counter(); {line}; print(time.perf_counter() - t)"
        self.command, self.role = [python, "-c", code], role
        self.environment = os.environ | (environment or {})

    def first(self):
        """Run once: this compiles bytecode and fills the cache of files."""
        if self.warm_up:
            self.round()
        return {"role": self.role, "reserved": None, "peak": None}

    def round(self):
        run = {"check": True, "stdout": subprocess.PIPE, "env": self.environment}
        return {"seconds": float(subprocess.run(self.command, **run).stdout.split()[-1])}


def facts(*packages):
    """Return the machine and the versions of packages, in one line."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} missing")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    device = jax.devices()[0].device_kind
    return f"{platform.machine()}, {cores} cores, load {load:.1f}, {device}; {', '.join(found)}"
