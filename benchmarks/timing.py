# SPDX-License-Identifier: Apache-2.0
"""Time NumPyro models of one posterior: a gradient alone, and a gradient inside NUTS.

This file needs only JAX and NumPyro, so that it also runs in the environments of other packages.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import jax
import numpy as np
from numpyro.infer import NUTS, init_to_median
from numpyro.infer.util import initialize_model, potential_energy


class Contest:
    """Compiled NumPyro models of the same latent sites, and their results so far."""

    def __init__(self, models, args, draws):
        self.args, self.prepared, self.results = args, {}, {}
        for name, model in models.items():
            density, z = _density(model, args)
            value, gradient = density(z, args)
            flat = np.concatenate([np.ravel(gradient[site]) for site in sorted(gradient)])
            self.results[name] = {"value": float(value), "gradient": flat.tolist()}
            self.prepared[name] = density, z, *_block(model, args, draws)

    def seconds(self):
        """Return seconds per gradient of every model: ``alone``, and in ``nuts``."""
        seconds = {}
        for name, (density, z, advance, state) in self.prepared.items():
            alone, _ = _time(density, z, self.args)
            block, (_, steps) = _time(advance, state, self.args)
            seconds[name] = {"alone": alone, "nuts": block / int(steps.sum())}
        return seconds


def measure(models, args, *, draws, repeats, worker=None):
    """Check that models agree, then time them in turns.

    Parameters
    ----------
    models : mapping from names to NumPyro models of the same latent sites
    args : arguments of all models, arrays; none is a constant of the compiled programs
    draws : transitions per block
    repeats : rounds
    worker : command of a process that calls `serve`; its models are timed in every round too

    Returns
    -------
    dict
        For each name ``value`` and ``gradient`` of the log density at one point, and seconds per
        gradient in each round: ``alone`` (one call) and ``nuts`` (a block, per leapfrog step).
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(worker, **pipes) if worker else nullcontext() as process:
        contest = Contest(models, args, draws)
        results = contest.results | _ask(process)
        check(results)
        rounds = [contest.seconds() | _ask(process, "\n") for _ in range(repeats)]
    for name, result in results.items():
        result |= {key: [r[name][key] for r in rounds] for key in rounds[0][name]}
    return results


def _ask(process, line=""):
    if process is None:
        return {}
    process.stdin.write(line)
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def serve(models, args, draws):
    """Time models for another process that calls `measure`."""
    contest = Contest(models, args, draws)
    print(json.dumps(contest.results), flush=True)
    for _ in sys.stdin:
        print(json.dumps(contest.seconds()), flush=True)


def check(results):
    """Assert that log densities agree to 1e-8, and gradients to 1e-6 of their largest entry."""
    first, *others = results.values()
    scale = np.abs(first["gradient"]).max()
    for name, result in zip(list(results)[1:], others, strict=True):
        np.testing.assert_allclose(result["value"], first["value"], rtol=1e-8, err_msg=name)
        np.testing.assert_allclose(
            result["gradient"], first["gradient"], rtol=0, atol=1e-6 * scale, err_msg=name
        )


COLUMNS = {
    "alone": ("alone, ms", 1e3),
    "nuts": ("in NUTS, ms", 1e3),
    "import": ("s", 1.0),
}


def report(title, results):
    """Print medians and their ratios to those of the first entry."""
    first = next(iter(results.values()))
    columns = {key: column for key, column in COLUMNS.items() if key in first}
    heads = "".join(f"{head:>13}{'ratio':>8}" for head, _ in columns.values())
    print(f"\n{title:<46}{heads}")
    for name, result in results.items():
        cells = ""
        for key, (_, unit) in columns.items():
            spent = median(result[key])
            cells += f"{unit * spent:13.3f}{spent / median(first[key]):8.2f}"
        print(f"  {name:<44}{cells}", flush=True)


def environment(folder, *requirements):
    """Return the Python of an environment in ``folder``, which uv makes if it is missing."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        uv = shutil.which("uv") or "uv"
        make = [uv, "venv", "-q", "--clear", "--python", sys.executable, folder]
        fill = [uv, "pip", "install", "-q", "--only-binary", ":all:", "--python", python]
        for command in (make, [*fill, *requirements]):
            subprocess.run(command, check=True)
        (folder / "complete").touch()
    return python


def import_times(lines, repeats):
    """Return seconds of lines of code, (python, line) by name, in fresh processes.

    A first round is dropped, since it compiles bytecode and fills the file cache.
    """
    spent = {name: [] for name in lines}
    for _ in range(1 + repeats):
        for name, (python, line) in lines.items():
            code = f"import time; t = time.perf_counter(); {line}; print(time.perf_counter() - t)"
            out = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE).stdout
            spent[name].append(float(out))
    return {name: seconds[1:] for name, seconds in spent.items()}


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


def _density(model, args):
    start = initialize_model(
        jax.random.key(0), model, init_strategy=init_to_median, model_args=args
    ).param_info.z
    z = jax.tree.map(lambda v: v + 0.1, start)
    return jax.jit(jax.value_and_grad(lambda z, args: potential_energy(model, args, {}, z))), z


def _time(function, *args, least=0.2):
    """Return mean seconds per call, over calls of at least ``least`` seconds, and the result."""
    calls, spent, start = 0, 0.0, time.perf_counter()
    while spent < least:
        result = jax.block_until_ready(function(*args))
        calls, spent = calls + 1, time.perf_counter() - start
    return spent / calls, result


def _block(model, args, draws):
    """Compile a scan of transitions, and adapt by running it once."""
    kernel = NUTS(model, max_tree_depth=6, init_strategy=init_to_median)
    state = kernel.init(jax.random.key(1), draws, None, args, {})

    @jax.jit
    def advance(state, args):
        def step(state, _):
            state = kernel.sample(state, args, {})
            return state, state.num_steps

        return jax.lax.scan(step, state, length=draws)

    return advance, jax.block_until_ready(advance(state, args))[0]
