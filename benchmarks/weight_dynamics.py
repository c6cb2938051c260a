# SPDX-License-Identifier: Apache-2.0
"""Runs of weights against a bare scan, the gas inside NUTS, and the report against NumPy's SVD."""

import argparse
import json
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from timing import Contest, check, environment, facts, report

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
    title = f"{chains} chains {N} x {N}, {steps} steps"
    report(title, {name: {"import": seconds} for name, seconds in spent.items()})
    rounds = zip(spent["dynamics.run"], spent["bare scan"], strict=True)
    print("  ratio in each round:", *(f"{ours / theirs:.2f}" for ours, theirs in rounds))

    long = 20 * steps
    reset_peak()
    before, start = memory("VmRSS"), time.perf_counter()
    found = dynamics.run(found.algorithm, found.start, long, key, 10 * steps, chains=chains)
    jax.block_until_ready(found)
    more, spent = memory("VmHWM") - before, time.perf_counter() - start
    state = chains * N * N * 8 / 2**20
    batch = 2 * chains * BATCH * N * 8 / 2**20
    records = 3 * state + chains * long * 8 / 2**20  # positions, and a loss of each step
    print(
        f"  {long} steps: {spent:.0f} s, peak memory {more:+.0f} MiB, of which twice a state "
        f"({state:.0f}), a batch ({batch:.0f}) and records ({records:.0f}) would be "
        f"{2 * (state + batch + records):.0f}"
    )


def reset_peak():
    """Forget the peak of memory so far. Works on Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name):
    """Return MiB of this process, resident (VmRSS) or the peak of it (VmHWM). Works on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def latent():
    """Sample width and repulsion of a gas of known centre."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    return scale, numpyro.sample("beta", dist.LogNormal(0.0, 1.0))


def gas(statistics):
    """A model that reads statistics of as many spectra as it is given."""

    def model(y):
        scale, beta = latent()
        law = CoulombGas(y.shape[1], scale, 0.0, beta, validate_args=False)
        numpyro.sample("y", IndependentSpectra(law, statistics[len(y)]), obs=y)

    return model


def by_pairs(standardised):
    """A model that sums over pairs of levels, written as in the formula.

    No parameter enters the pairs of raw levels, so XLA takes their sum out of the loop of the
    sampler. It cannot do so with levels divided by the width.
    """

    def model(y):
        scale, beta = latent()
        m, n = y.shape
        x = y / scale if standardised else y
        i, j = np.triu_indices(n, 1)
        pairs = jnp.log(x[:, j] - x[:, i]).sum()
        squares = (x**2).sum() if standardised else (x**2).sum() / scale**2
        k = jnp.arange(1, n + 1)
        gammas = (gammaln(1 + k * beta / 2) - gammaln(1 + beta / 2)).sum()
        power = n if standardised else n + beta * n * (n - 1) / 2
        each = gammaln(n + 1.0) - gammas - power * jnp.log(scale) - n / 2 * np.log(2 * np.pi)
        numpyro.factor("y", beta * pairs - squares / 2 + m * each)

    return model


def without_levels(y):
    """A model of the same latents and curvature whose density costs next to nothing."""
    found, centre = gas_statistics(y), np.log([0.3, 1.0])

    def log_prob(z):
        return CoulombGas(y.shape[1], jnp.exp(z[0]), 0.0, jnp.exp(z[1])).of_statistics(found)

    curvature = np.asarray(-jax.hessian(log_prob)(centre))

    def model(y):
        z = jnp.log(jnp.stack(latent())) - centre
        numpyro.factor("y", -z @ curvature @ z / 2)

    return model


def sampler(options):
    """Time a gradient of the gas inside NUTS at few and many spectra, and beside pair sums."""
    key = jax.random.key(1)
    few, many = (CoulombGas(20, 0.3).sample(key, (m,)) for m in (100, options.spectra))
    both = {len(y): gas_statistics(y) for y in (few, many)}
    contests = [
        Contest({f"statistics of {len(y)} spectra": gas(both)}, (y,), options.draws)
        for y in (few, many)
    ]
    report("gas of 20 levels", in_turns(contests, options.repeats))

    y = CoulombGas(20, 0.3).sample(key, (40,))
    models = {
        "statistics": gas({40: gas_statistics(y)}),
        "pair sum, levels over the width": by_pairs(True),
        "pair sum, raw levels": by_pairs(False),
    }
    contest = Contest(models, (y,), options.draws)
    check(contest.results)
    floor = Contest({"no levels": without_levels(y)}, (y,), options.draws)
    found = in_turns([contest, floor], options.repeats)
    report("gas of 20 levels, 40 spectra", found)
    # other processes only add time, so the least of the rounds is nearest to the cost
    ours, pairs, _, least = (min(result["nuts"]) for result in found.values())
    print(
        f"  least of the rounds: statistics cost 1/{pairs / ours:.0f} of the pair sum; above a "
        f"model without levels {1e6 * (ours - least):.2f} against {1e6 * (pairs - least):.1f} us"
    )


def in_turns(contests, repeats):
    """Return the seconds of several contests, which need not be of one posterior."""
    rounds = [{n: s for c in contests for n, s in c.seconds().items()} for _ in range(repeats)]
    names = rounds[0]
    return {n: {key: [r[n][key] for r in rounds] for key in ("alone", "nuts")} for n in names}


def spectra(options):
    """Compare processor time of the report on ten matrices and of their singular values alone."""
    gen = np.random.default_rng(0)
    net = {str(i): gen.normal(size=(1024, 512)) for i in range(10)}
    calls = {
        "numpy.linalg.svd": lambda: [np.linalg.svd(W, compute_uv=False) for W in net.values()],
        "report, 200 nulls": lambda: weights.report(net, key=0, draws=200),
    }
    rounds = []
    with watcher(options.weightwatcher) as peer:
        for _ in range(options.repeats + 1):
            found = {}
            for name, call in calls.items():
                start = time.process_time()
                call()
                found[name] = time.process_time() - start
            rounds.append(found | peer())
    rounds = rounds[1:]  # the first one compiles
    spent = {name: {"import": [found[name] for found in rounds]} for name in rounds[0]}
    report("ten matrices 1024 x 512, processor time", spent)


@contextmanager
def watcher(wanted):
    """Yield a function that times WeightWatcher in its own environment, if that is wanted."""
    if not wanted:
        yield dict
        return
    here = Path(__file__).parent
    python = environment(here.parent / ".venv-weightwatcher", "weightwatcher==0.7.7", "torch")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([python, here / "weightwatcher_peer.py"], **pipes) as process:

        def peer():
            process.stdin.write("\n")
            process.stdin.flush()
            line = process.stdout.readline()
            while not line.startswith("{"):  # words that it prints when it is imported
                if not line:
                    raise RuntimeError("WeightWatcher stopped; its message stands above")
                line = process.stdout.readline()
            return json.loads(line)

        yield peer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=["runs", "sampler", "spectra"])
    parser.add_argument("--chains", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--spectra", type=int, default=100_000)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--weightwatcher", action="store_true", help="beside the report; installs PyTorch, 5 GB"
    )
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
