# SPDX-License-Identifier: Apache-2.0
"""Effective samples per second of a deep linear posterior: order parameter against all weights.

Two hidden layers of equal width, 50 points, two outputs. Both models have the same posterior; the
benchmark asserts that their means of log det Q and of f at test points agree. The time per draw is
that of compiled sampling after warm-up, and with the collapsed model includes a draw of f. NUTS has
its default settings; chains run one after the other.
"""

import argparse
import os
import time

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro.infer import NUTS
from timing import facts

import bayesrg as brg
from bayesrg.deep_linear import order_of_weights, order_parameter
from bayesrg.models import deep_linear, deep_linear_collapsed

POINTS, INPUTS, OUTPUTS, RIDGE = 50, 20, 2, 0.1


def problem():
    """Return noisy linear functions of twenty inputs, and five test inputs."""
    rng = np.random.default_rng(0)
    X, X_new = rng.standard_normal((POINTS, INPUTS)), rng.standard_normal((5, INPUTS))
    B = rng.standard_normal((INPUTS, OUTPUTS)) * np.sqrt(2.0 / INPUTS)
    Y = X @ B + np.sqrt(RIDGE) * rng.standard_normal((POINTS, OUTPUTS))
    return brg.data.Data(*map(jnp.asarray, (X, Y, X_new)))


def raw(data, hyper):
    """Return the model of all weights, its hyper-arguments, and a function of its draws."""
    net = deep_linear.network(**hyper)

    def read(key, draw):
        W = net.weights([draw[f"z{i}"] for i in range(1, net.depth + 2)], INPUTS)
        return jnp.linalg.slogdet(order_of_weights(net, W))[1], net.apply(W, data.X_test)

    return deep_linear.model, hyper, read


def collapsed(data, hyper):
    """Return the same for the model of the order parameter; f is drawn given Q."""
    net = deep_linear.network(**hyper)
    eigen = deep_linear_collapsed.prepare(data, **hyper)
    prior, X = net.input_kernel(INPUTS), jnp.concatenate([data.X, data.X_test])

    def read(key, draw):
        Q, chain = order_parameter(net.widths, OUTPUTS, draw)
        law = brg.gp.matrix_marginal(prior, X, net.ridge, Q, factor=chain[0], **eigen)
        mean, variance, _ = law.krige(data.y)
        f = mean + jnp.sqrt(variance) * jax.random.normal(key, mean.shape)
        return jnp.linalg.slogdet(Q)[1], f

    return deep_linear_collapsed.model, hyper | eigen, read


def sample(route, data, hyper, warmup, draws, chains):
    """Return draws after warm-up, their seconds, leapfrog steps, and divergent steps."""
    model, hyper, read = route(data, hyper)
    static = {k: v for k, v in hyper.items() if k != "eigen"}
    arrays = {k: v for k, v in hyper.items() if k == "eigen"}
    kernel = NUTS(lambda X, y, arrays: model(X, y, **static, **arrays))
    args = data.X, data.y, arrays

    def block(length):
        @jax.jit
        def advance(state, args):
            def step(state, _):
                state = kernel.sample(state, args, {})
                draw = kernel.postprocess_fn(args, {})(state.z)
                key = jax.random.fold_in(state.rng_key, 1)
                return state, (*read(key, draw), state.num_steps, state.diverging)

            return jax.lax.scan(step, state, length=length)

        return advance

    warm, main = block(warmup), block(draws)
    found, spent = [], 0.0
    for chain in range(chains):
        state = kernel.init(jax.random.key(chain), warmup, None, args, {})
        main = main.lower(state, args).compile() if chain == 0 else main
        state = jax.block_until_ready(warm(state, args)[0])
        start = time.perf_counter()
        _, values = jax.block_until_ready(main(state, args))
        spent += time.perf_counter() - start
        found.append(jax.device_get(values))
    log_det, f, steps, diverging = (np.stack(v) for v in zip(*found, strict=True))
    posterior = xr.Dataset(
        {
            "log det Q": (("chain", "draw"), log_det),
            "f": (("chain", "draw", "point_new", "output"), f),
        }
    )
    return posterior, spent, int(steps.sum()), int(diverging.sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--raw-draws", type=int, default=400, help="0 leaves raw weights out")
    parser.add_argument("--chains", type=int, default=2)
    options = parser.parse_args()
    numpyro.enable_x64()
    print(facts("jax", "numpyro", "numpy"), f"{os.environ.get('OPENBLAS_NUM_THREADS')} BLAS thread")
    data, widths = problem(), [8] if options.quick else options.widths
    routes = {"collapsed": (collapsed, options.draws), "raw": (raw, options.raw_draws)}
    routes = {name: pair for name, pair in routes.items() if pair[1]}
    print(
        f"\n{'':<16}{'latents':>9}{'ms/draw':>11}{'leapfrogs':>11}{'divergent':>11}"
        f"{'ESS/s log det Q':>17}{'ESS/s f':>10}{'R-hat':>8}"
    )
    for width in widths:
        hyper = {"widths": (width, width), "ridge": RIDGE, "outputs": OUTPUTS}
        latents = {
            "collapsed": 2 * OUTPUTS * (OUTPUTS + 1) // 2,
            "raw": width * (INPUTS + width + OUTPUTS),
        }
        rate, means, errors = {}, {}, {}
        for name, (route, draws) in routes.items():
            draws, warmup = (100, 100) if options.quick else (draws, 300)
            posterior, spent, steps, bad = sample(route, data, hyper, warmup, draws, options.chains)
            ess, error, total = az.ess(posterior), az.mcse(posterior), draws * options.chains
            rate[name] = [float(ess[v].min()) / spent for v in ("log det Q", "f")]
            means[name], errors[name] = posterior.mean(("chain", "draw")), error
            worst = max(float(v.max()) for v in az.rhat(posterior).data_vars.values())
            print(
                f"{name + ' ' + str(width):<16}{latents[name]:9}{1e3 * spent / total:11.3f}"
                f"{steps / total:11.1f}{bad:11}{rate[name][0]:17.2f}{rate[name][1]:10.2f}"
                f"{worst:8.3f}",
                flush=True,
            )
        if "raw" not in routes:
            continue
        ratio = [a / b for a, b in zip(rate["collapsed"], rate["raw"], strict=True)]
        gap = means["collapsed"] - means["raw"]
        gap = abs(gap / np.hypot(errors["collapsed"], errors["raw"]))
        z = {v: float(gap[v].max()) for v in ("log det Q", "f")}
        print(
            f"  ratio {width:<8}{'':42}{ratio[0]:17.1f}{ratio[1]:10.1f}   largest difference "
            f"{z['log det Q']:.1f} and {z['f']:.1f} standard errors",
            flush=True,
        )
        assert max(z.values()) < 5 or options.quick, z


if __name__ == "__main__":
    main()
