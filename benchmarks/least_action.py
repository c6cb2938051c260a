# SPDX-License-Identifier: Apache-2.0
"""Training with least action against plain training: transport, accuracy, time and memory."""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from race import Call, race
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits, make_circles, make_moons
from timing import facts

from bayesrg import dynamics, io
from bayesrg.diagnostics import transport
from bayesrg.networks import Residual

RULE = optax.adamw(5e-3, weight_decay=1e-4)
RULES = {"plain": (np.inf, 0.0), "least action": (1.0, 1.0), "fixed .1": (10.0, 0.0)}
COLUMNS = ("train", "test", "T", "D", "straightness", "W2^2/D", "lambda", "|H|")
PLANE = Residual(16, 8, outputs=2, head=[[0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
DIGITS = Residual(32, 6, outputs=10)
HELD = Residual(32, 6, outputs=10, head="fixed")


def entropy(f, y):
    return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()


def plane(make, seed):
    """Return 200 points to train on and 2,000 to test on, with a third coordinate of zeros."""
    both = make(200, random_state=seed), make(2000, random_state=seed + 1000)
    return [(np.pad(X, ((0, 0), (0, 1))).astype(np.float32), y) for X, y in both]


def digits(n, seed):
    """Return n digits to train on, and the others to test on."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(X))
    X, y = (X[order] / 16 - 0.3).astype(np.float32), y[order]
    return (X[:n], y[:n]), (X[n:], y[n:])


# name: (network, from a seed to the data, updates)
PROBLEMS = {
    "circles": (PLANE, partial(plane, partial(make_circles, noise=0.08, factor=0.5)), 1500),
    "moons": (PLANE, partial(plane, partial(make_moons, noise=0.15)), 1500),
    "digits, n = 100": (DIGITS, partial(digits, 100), 500),
    "digits, n = 500": (DIGITS, partial(digits, 500), 500),
    "digits, n = 100, fixed head": (HELD, partial(digits, 100), 500),
    "digits, n = 500, fixed head": (HELD, partial(digits, 500), 500),
}


def start(net, width, key=0):
    """Return weights at the start of training, in 32 bits."""
    return jax.tree.map(lambda v: v.astype(jnp.float32), net.init(key, width))


def efficiency(x, z):
    """Return W2^2 over the displacement of points x (n, d) that go to z (n, d)."""
    x, z = np.asarray(x, float), np.asarray(z, float)
    cost = ((x[:, None] - z) ** 2).sum(-1)
    return cost[linear_sum_assignment(cost)].mean() / np.diag(cost).mean()


def trained(net, data, steps, seeds):
    """Train with all rules and seeds at once; return dicts of arrays (rules, seeds)."""
    sets = [data(seed) for seed in range(seeds)]
    X, y, X_test, y_test = (np.stack([s[i][j] for s in sets]) for i in (0, 1) for j in (0, 1))
    keys = jax.random.split(jax.random.key(0), seeds)
    x0 = jax.vmap(lambda key: start(net, X.shape[2], key))(keys)

    def one(rule, X, y, X_test, y_test, x0):
        lambda0, tau = rule
        algorithm = dynamics.least_action(net, entropy, RULE, X, y, lambda0=lambda0, tau=tau)
        found = dynamics.run(algorithm, x0, steps, 0, steps)
        x = found.last.x
        paths = net.paths(x, X_test)
        return {
            "train": found.observables["accuracy"][-1],
            "test": (net.apply(x, X_test).argmax(1) == y_test).mean(),
            "T": dynamics.transport_cost(paths),
            "D": dynamics.displacement(paths),
            "straightness": dynamics.straightness(paths),
            "W2^2/D": paths.states[:, :300],
            "lambda": found.observables["lambda"][-1],
            "|H|": net.head_norm(x),
        }

    seeds = jax.vmap(one, (None, 0, 0, 0, 0, 0))
    both = jax.jit(jax.vmap(seeds, (0, None, None, None, None, None)))
    rules = np.array(list(RULES.values()), np.float32)
    found = jax.tree.map(np.asarray, both(rules, X, y, X_test, y_test, x0))
    ends = found["W2^2/D"]
    found["W2^2/D"] = np.array([[efficiency(s[0], s[-1]) for s in rule] for rule in ends])
    return {name: found[name] for name in COLUMNS}


def tables(options):
    """Print the transport of test points and the accuracy, by seed and as mean and deviation."""
    for name, (net, data, steps) in PROBLEMS.items():
        found = trained(net, data, max(1, int(options.fraction * steps)), options.seeds)
        print(f"\n{name}\n  {'rule':<14}{'seed':<6}" + "".join(f"{k:>16}" for k in found))
        for i, rule in enumerate(RULES):
            for s in range(options.seeds):
                cells = "".join(f"{v[i, s]:16.4g}" for v in found.values())
                print(f"  {rule:<14}{s:<6}{cells}")
            with np.errstate(invalid="ignore"):
                spread = {k: (v[i].mean(), v[i].std(ddof=1)) for k, v in found.items()}
            print(f"  {rule:<14}{'mean':<6}" + "".join(f"{m:16.4g}" for m, _ in spread.values()))
            print(f"  {rule:<14}{'s.d.':<6}" + "".join(f"{d:16.2g}" for _, d in spread.values()))


def residual(x, layers):
    """Return the last states of points x (n, d) and the transport, by a plain scan."""

    def move(x, p):
        step = jnp.tanh(x @ p["A"].T + p["a"]) @ p["B"].T + p["b"]
        return x + step, step

    x, steps = jax.lax.scan(move, x, layers)
    return x, (steps**2).sum() / len(x)


def bare(params, X, y, steps, penalty=0.0):
    """Train by one scan of the updates of optax, and return weights and losses."""

    def loss(params):
        head = params["head"]
        x, T = residual(X, params["velocity"])
        L = entropy(x @ head["weight"].T + head["bias"], y)
        return (L + penalty * T if penalty else L), L

    def step(carry, _):
        params, memory = carry
        slope, value = jax.grad(loss, has_aux=True)(params)
        change, memory = RULE.update(slope, memory, params)
        return (optax.apply_updates(params, change), memory), value

    (params, _), losses = jax.lax.scan(step, (params, RULE.init(params)), length=steps)
    return params, losses


def ours(net, lambda0, params, X, y, steps):
    """Train by `least_action`, and return weights and losses."""
    rule = dynamics.least_action(net, entropy, RULE, X, y, lambda0=lambda0)
    found = dynamics.run(rule, params, steps, 0, steps)
    return found.last.x, found.observables["loss"][:-1]


def training(options):
    """Time training on 500 digits in turns, and compare the memory that programs reserve."""
    (X, y), _ = digits(500, 0)
    given = jnp.asarray(X), jnp.asarray(y)
    deep = Residual(32, 64, outputs=10)
    few, many = start(DIGITS, 64), start(deep, 64)
    steps = 20 if options.quick else 500
    calls = {
        "bare scan of optax, K = 6": (partial(bare, steps=steps), few),
        "plain by run, K = 6": (partial(ours, DIGITS, np.inf, steps=steps), few),
        "least action, K = 6": (partial(ours, DIGITS, 1.0, steps=steps), few),
        "least action, K = 64": (partial(ours, deep, 1.0, steps=steps), many),
    }
    only_compiled = {
        "bare scan of optax, K = 64": (partial(bare, steps=steps), many),
        "plain by run, K = 64": (partial(ours, deep, np.inf, steps=steps), many),
        "bare scan with transport, K = 64": (partial(bare, steps=steps, penalty=1.0), many),
    }
    programs = {
        name: jax.jit(f).lower(x, *given).compile()
        for name, (f, x) in (calls | only_compiled).items()
    }
    scan, run = (programs[name](few, *given)[1] for name in list(calls)[:2])
    np.testing.assert_allclose(scan[:50], run[:50], rtol=1e-3)  # later rounding errors grow

    def call(name, role):
        program, x = programs[name], (calls | only_compiled)[name][1]
        reserved = program.memory_analysis().temp_size_in_bytes
        return Call(lambda: jax.block_until_ready(program(x, *given)), role=role, reserved=reserved)

    roles = {"least action, K = 6": "ours", "plain by run, K = 6": "peer"}
    roles |= {"bare scan of optax, K = 6": "floor"}
    wanted = [name for name in programs if not (options.quick and "64" in name)]
    contenders = {name: call(name, roles.get(name, "other")) for name in wanted}
    title = f"Training with least action on digits, n = 500, {steps} updates"
    return race(title, contenders, options.rounds)


def measure(options):
    """Time the diagnostics of many draws against passes of the network, one after another."""
    draws = 20 if options.quick else 1000
    (X, _), _ = digits(500, 0)
    X, keys = X.astype(float), jax.random.split(jax.random.key(1), draws)
    params = jax.vmap(lambda key: DIGITS.init(key, X.shape[1]))(keys)
    sites = params["velocity"] | params["head"]
    groups = {
        "posterior": {name: np.asarray(v)[None] for name, v in sites.items()},
        "constant_data": {"X": X},
    }
    dt = io.to_datatree(groups, {})
    passes = jax.jit(lambda params: jax.lax.map(lambda p: DIGITS.apply(p, X), params))
    contenders = {
        "measure, without distances": Call(
            lambda: transport.measure(dt, DIGITS, draws=0), role="ours"
        ),
        "passes of the network": Call(lambda: jax.block_until_ready(passes(params)), role="floor"),
    }
    title = f"Diagnostics of transport, {draws} draws, n = 500"
    return race(title, contenders, options.rounds)


def figures(options):
    """Yield names and records of the two figures of time."""
    yield "training", training(options)
    if not options.quick:
        yield "measure", measure(options)


def main():
    parser = argparse.ArgumentParser(description="Train by three rules, and print the transport.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    options = parser.parse_args()
    options.fraction = 0.02 if options.quick else 1.0
    numpyro.enable_x64()  # weights and data are then rounded to 32 bits
    print(facts("jax", "optax"))
    tables(options)


if __name__ == "__main__":
    main()
