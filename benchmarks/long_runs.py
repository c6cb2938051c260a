# SPDX-License-Identifier: Apache-2.0
"""Time of `fit`, alone, with a run folder and with a bar, against `MCMC.run` of NumPyro.

All sample the same posterior with NUTS, four chains side by side and the same key; the benchmark
asserts that their draws are equal bit for bit. Each call is made with two numbers of draws, so that
the difference is the time of the blocks between, without compilation and without what a call does
once. Compiled programs come from JAX's cache on the disk, so that compilation adds little noise.

`MCMC.run` returns draws alone. So do the contenders of this package, except the last, which adds
the density of each observation at each draw, as `fit` does by default.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
from timing import facts

import bayesrg as brg

CHAINS, BLOCK = 4, 100


def regression(X, y=None):
    """Logistic regression with a scale of the weights that is learnt."""
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    weight = numpyro.sample("weight", dist.Normal(0.0, scale).expand((X.shape[1],)).to_event(1))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ weight), obs=y)


def process(X, y=None):
    """Gaussian process with a sampled lengthscale, amplitude and noise."""
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.5))
    variance = numpyro.sample("variance", dist.LogNormal(0.0, 0.5))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 0.5))
    law = brg.gp.marginal(brg.kernels.RBF(lengthscale, variance), X, noise**2)
    numpyro.sample("y", law, obs=y)


def mean(X, y=None):
    """Mean and noise of a few numbers: a gradient takes microseconds."""
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(level + X, noise), obs=y)


def problems(options):
    """Return model, data, and the two numbers of draws of each problem by name."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((options.points, options.inputs)) / np.sqrt(options.inputs)
    y = (rng.random(len(X)) < 1 / (1 + np.exp(-X.sum(1)))).astype(int)
    x = np.arange(5.0)
    few, many = options.draws
    line = np.sort(rng.uniform(-3.0, 3.0, (options.points // 10, 1)), 0)
    wave = np.sin(2 * line[:, 0]) + 0.3 * rng.standard_normal(len(line))
    return {
        "regression": (regression, (X, y), (few, many)),
        "process": (process, (line, wave), (few, few + (many - few) // 3)),
        "tiny": (
            mean,
            (x, x + rng.standard_normal(5)),
            (few, many if options.quick else 10 * many),
        ),
    }


class Terminal(io.StringIO):
    """A place on which the bar is drawn."""

    def isatty(self):
        return True


def contenders(model, data, warmup):
    """Return functions from a number of draws to the draws of one latent site, by name."""
    sites = {regression: "weight", process: "lengthscale", mean: "level"}
    how = {"key": 1, "warmup": warmup, "chains": CHAINS, "block": BLOCK, "devices": 1}

    def numpyro_alone(draws):
        mcmc = MCMC(
            NUTS(model),
            num_warmup=warmup,
            num_samples=draws,
            num_chains=CHAINS,
            chain_method="vectorized",
            progress_bar=False,
            jit_model_args=True,
        )
        mcmc.run(jax.random.key(1), *data)
        return jax.device_get(mcmc.get_samples(group_by_chain=True))[sites[model]]

    def fit(draws, **more):
        given = how | {"progress": False, "log_likelihood": False} | more
        dt = brg.fit(model, data, draws=draws, **given)
        return dt["posterior"][sites[model]].to_numpy()

    def in_folder(draws, **more):
        folder = Path(tempfile.mkdtemp())
        try:
            return fit(draws, path=folder / "run", **more)
        finally:
            shutil.rmtree(folder)

    def with_bar(draws, **more):
        before, sys.stderr = sys.stderr, Terminal()
        try:
            return in_folder(draws, progress=True, **more)
        finally:
            sys.stderr = before

    return {
        "MCMC.run": numpyro_alone,
        "fit": fit,
        "fit, folder": in_folder,
        "fit, folder, bar": with_bar,
        "the same, densities": lambda draws: with_bar(draws, log_likelihood=True),
    }


def measured(functions, lengths, rounds):
    """Return wall and processor seconds (rounds, lengths, 2) of all functions, called in turns."""
    spent = {name: np.zeros((rounds, len(lengths), 2)) for name in functions}
    for number in range(-min(1, rounds - 1), rounds):  # the first fills the cache of programs
        for i, draws in enumerate(lengths):
            results = {}
            for name, function in functions.items():
                start = time.perf_counter(), time.process_time()
                results[name] = function(draws)
                end = time.perf_counter(), time.process_time()
                if number >= 0:
                    spent[name][number, i] = np.subtract(end, start)
            first, *others = results.values()
            for other in others:
                np.testing.assert_array_equal(other, first)
    return spent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    parser.add_argument("--only", nargs="+", default=["regression", "process", "tiny"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draws", type=int, nargs=2, default=[200, 1700])
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--inputs", type=int, default=200)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.draws, options.warmup, options.only = 1, [100, 200], 0, ["tiny"]
    numpyro.enable_x64()
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        print(facts("jax", "numpyro", "numpy", "h5py"), f"{os.environ.get('OPENBLAS_NUM_THREADS')}")
        for name, (model, data, lengths) in problems(options).items():
            if name in options.only:
                functions = contenders(model, data, options.warmup)
                report(name, measured(functions, lengths, options.rounds), lengths)


def report(name, spent, lengths):
    """Print seconds per block of 100 steps, and of the longer call, with ratios to MCMC.run."""
    blocks = (lengths[1] - lengths[0]) / BLOCK
    heads = ("block, ms", "ratio", "lowest", "highest", "CPU, ms", "ratio", "whole, s", "ratio")
    print(f"\n{name:<20}" + "".join(f"{head:>11}" for head in heads))
    differences = {who: (times[:, 1] - times[:, 0]) / blocks for who, times in spent.items()}
    base, whole = differences["MCMC.run"], spent["MCMC.run"][:, 1, 0]
    for who, each in differences.items():
        ratios = each[:, 0] / base[:, 0]
        wall, cpu = (median(each[:, i]) for i in (0, 1))
        cells = [1e3 * wall, wall / median(base[:, 0]), ratios.min(), ratios.max()]
        cells += [1e3 * cpu, cpu / median(base[:, 1])]
        cells += [median(spent[who][:, 1, 0]), median(spent[who][:, 1, 0]) / median(whole)]
        print(f"  {who:<18}" + "".join(f"{cell:11.3f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
