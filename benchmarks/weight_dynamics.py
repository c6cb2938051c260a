# SPDX-License-Identifier: Apache-2.0
"""Runs of weights against a bare scan, the gas inside NUTS, and the report against NumPy's SVD."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from peers import python_of
from race import Call, Worker, race
from timing import Sampled

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
    chains, steps = (10, 20) if options.quick else (1000, 500)
    found = dynamics.teacher_student(2 * jnp.eye(N), noise=NOISE, learning_rate=RATE, batch=BATCH)
    key = jax.random.key(0)
    scan = jax.jit(lambda keys: bare(keys, found.start, steps)[0])
    run = partial(dynamics.run, found.algorithm, found.start)
    contenders = {
        "dynamics.run": Call(
            lambda: jax.block_until_ready(run(steps, key, steps, chains=chains)),
            role="ours",
            answer=lambda result: result.last.x,
        ),
        "bare scan": Call(
            lambda: jax.block_until_ready(scan(jax.random.split(key, chains))),
            role="floor",
            answer=lambda W: W,
        ),
    }
    title = f"{chains} chains of {N} x {N} weights, {steps} steps"
    return race(title, contenders, options.rounds)


def long(options):
    """Compare the memory of a long run of a hundred chains with that of its state and records."""
    chains, steps, kept = 100, 10_000, 5_000
    found = dynamics.teacher_student(2 * jnp.eye(N), noise=NOISE, learning_rate=RATE, batch=BATCH)
    run = partial(dynamics.run, found.algorithm, found.start, steps, jax.random.key(0), kept)
    call = Call(lambda: jax.block_until_ready(run(chains=chains)), role="ours", least=0.0)
    state, batch = chains * N * N * 8, 2 * chains * BATCH * N * 8
    records = 3 * state + chains * steps * 8  # positions, and a loss of each step
    twice = 2 * (state + batch + records) / 2**20
    text = f"Twice a state, a batch and the records have {twice:.0f} MiB."
    title = f"{chains} chains of {N} x {N} weights, {steps} steps"
    return race(title, {"dynamics.run": call}, 1, notes=[text])


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
    draws, many = (20, 200) if options.quick else (300, 100_000)
    y = CoulombGas(20, 0.3).sample(jax.random.key(1), (40,))
    levels = CoulombGas(20, 0.3).sample(jax.random.key(1), (many,))
    statistics = {len(v): gas_statistics(v) for v in (y, levels)}
    alike = {"role": "other", "answers": False}
    contenders = {
        "bayesrg, statistics": Sampled(gas(statistics), (y,), draws, "ours"),
        "pair sum, levels over the width": Sampled(by_pairs(True), (y,), draws),
        "pair sum, raw levels": Sampled(by_pairs(False), (y,), draws, "other"),
        f"statistics of {many} spectra": Sampled(gas(statistics), (levels,), draws, **alike),
        "no levels": Sampled(without_levels(y), (y,), draws, "floor", answers=False),
    }
    if options.quick:
        contenders = dict(list(contenders.items())[:2])
    title = "A gradient in NUTS, gas of 20 levels, 40 spectra"
    return race(title, contenders, options.rounds)


def spectra(options):
    """Time the report on ten matrices against their singular values alone."""
    shape, draws = ((64, 32), 20) if options.quick else ((1024, 512), 200)
    gen = np.random.default_rng(0)
    net = {str(i): gen.normal(size=shape) for i in range(10)}
    contenders = {
        f"report, {draws} nulls": Call(
            lambda: weights.report(net, key=0, draws=draws), role="ours"
        ),
        "numpy.linalg.svd": Call(
            lambda: [np.linalg.svd(W, compute_uv=False) for W in net.values()], role="floor"
        ),
    }
    notes, workers = [], []
    if options.weightwatcher:
        python, reason = python_of("weightwatcher")
        notes = [f"weightwatcher is left out: {reason}"] if reason else []
        file = Path(__file__).parent / "weightwatcher_peer.py"
        workers = [Worker(python, file)] if python else []
    title = f"Report on ten matrices {shape[0]} x {shape[1]}"
    return race(title, contenders, options.rounds, workers=workers, notes=notes)


def figures(options):
    """Yield names and records of all figures of this file; with --quick of three of them."""
    yield "runs", runs(options)
    yield "sampler", sampler(options)
    yield "spectra", spectra(options)
    if not options.quick:
        yield "long", long(options)
