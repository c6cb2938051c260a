# SPDX-License-Identifier: Apache-2.0
"""Runs of weights against a bare scan, the gas inside NUTS, and the report against NumPy's SVD."""

import argparse
import resource
import time
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from timing import facts, measure, report

from bayesrg import dynamics
from bayesrg.diagnostics import weights
from bayesrg.ensembles import CoulombGas, IndependentSpectra, gas_statistics

N, BATCH, RATE, NOISE = 32, 32, 0.05, 0.02


def bare(keys, W, steps):
    """The same update with the same random numbers, by one scan under vmap."""

    def one(key):
        def step(W, t):
            inputs, labels = jax.random.split(jax.random.fold_in(key, t))
            x = jax.random.normal(inputs, (BATCH, N))
            r = x @ (W - 2 * jnp.eye(N)).T - NOISE * jax.random.normal(labels, (BATCH, N))
            loss = (r**2).sum() / (2 * BATCH)
            return W - RATE / BATCH * r.T @ x, loss

        return jax.lax.scan(step, W, jnp.arange(steps))

    return jax.vmap(one)(keys)


def runs(options):
    """Time 1,000 chains of a teacher and student, in turns with the bare scan."""
    found = dynamics.teacher_student(2 * jnp.eye(N), noise=NOISE, learning_rate=RATE, batch=BATCH)
    key, chains, steps = jax.random.key(0), options.chains, options.steps
    scan = jax.jit(lambda keys: bare(keys, found.start, steps))
    ours = lambda: dynamics.run(found.algorithm, found.start, steps, key, steps, chains=chains)  # noqa: E731
    theirs = lambda: scan(jax.random.split(key, chains))  # noqa: E731
    np.testing.assert_allclose(ours().last.x, theirs()[0], rtol=1e-9)
    spent = {"bare scan": [], "dynamics.run": []}
    for _ in range(options.repeats):
        for name, call in (("bare scan", theirs), ("dynamics.run", ours)):
            start = time.perf_counter()
            jax.block_until_ready(call())
            spent[name].append(time.perf_counter() - start)
    report(
        f"{chains} chains {N} x {N}, {steps} steps", {n: {"import": s} for n, s in spent.items()}
    )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    long = dynamics.run(found.algorithm, found.start, 20 * steps, key, 10 * steps, chains=chains)
    jax.block_until_ready(long)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    state = chains * N * N * 8 / 2**20
    print(
        f"  {20 * steps} steps: {time.perf_counter() - start:.0f} s, peak memory {more:+.0f} MiB; "
        f"a state has {state:.0f} MiB, a batch {chains * BATCH * N * 16 / 2**20:.0f}, "
        f"records {3 * state:.0f}"
    )


def gas(statistics):
    """A model of width, centre and repulsion that reads statistics, or levels pair by pair."""

    def model(y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        beta = numpyro.sample("beta", dist.LogNormal(0.0, 1.0))
        law = CoulombGas(y.shape[1], scale, 0.0, beta, validate_args=False)
        found = statistics and statistics[len(y)]
        many = None if found is not None else len(y)
        numpyro.sample("y", IndependentSpectra(law, found, spectra=many), obs=y)

    return model


def sampler(options):
    """Time a gradient of the gas inside NUTS at few and at many spectra."""
    key = jax.random.key(1)
    few, many = (CoulombGas(20, 0.3).sample(key, (m,)) for m in (100, options.spectra))
    both = {len(y): gas_statistics(y) for y in (few, many)}
    timing = {"draws": options.draws, "repeats": options.repeats}
    lines = {}
    for y in (few, many):
        name = f"statistics of {len(y)} spectra"
        lines |= measure({name: gas(both)}, (y,), **timing)
    report("gas of 20 levels", lines)
    y = CoulombGas(20, 0.3).sample(key, (40,))
    models = {"statistics": gas({40: gas_statistics(y)}), "pair sum": gas(None)}
    report("gas of 20 levels, 40 spectra", measure(models, (y,), **timing))


def spectra(options):
    """Time the report on ten matrices against their singular values alone."""
    gen = np.random.default_rng(0)
    net = {str(i): gen.normal(size=(1024, 512)) for i in range(10)}
    spent = {"numpy.linalg.svd": [], "report, 200 nulls": []}
    for _ in range(options.repeats + 1):
        start = time.perf_counter()
        for W in net.values():
            np.linalg.svd(W, compute_uv=False)
        spent["numpy.linalg.svd"].append(time.perf_counter() - start)
        start = time.perf_counter()
        weights.report(net, key=0, draws=200)
        spent["report, 200 nulls"].append(time.perf_counter() - start)
    spent = {name: seconds[1:] for name, seconds in spent.items()}  # the first round compiles
    report("ten matrices 1024 x 512", {n: {"import": s} for n, s in spent.items()})
    ratio = median(spent["report, 200 nulls"]) / median(spent["numpy.linalg.svd"])
    print(f"  the report takes {ratio:.2f} times the singular values")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["runs", "sampler", "spectra"])
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    options = parser.parse_args()
    if options.quick:
        options.chains, options.steps, options.spectra = 10, 20, 1000
        options.draws, options.repeats = 20, 1
    numpyro.enable_x64()
    print(facts("jax", "numpyro"))
    for table in (runs, sampler, spectra):
        if options.only is None or table.__name__ in options.only:
            table(options)


if __name__ == "__main__":
    main()
