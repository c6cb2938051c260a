# SPDX-License-Identifier: Apache-2.0
"""What a deep linear network learns of two digits: kernels layer by layer, by every route.

Threes against eights, 200 images, two hidden layers of equal width. The order parameter is sampled
by NUTS; gain and alignment of each layer's kernel are those of its Rao-Blackwell means, with
intervals from draws of whole kernels, and beside them the exact solver, the saddle point, the
infinitely wide network, and prior draws of the same widths.
"""

import argparse

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from timing import facts

import bayesrg as brg
from bayesrg.deep_linear.features import (
    feature_draw,
    feature_means,
    prior_features,
)
from bayesrg.deep_linear.order import order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.models import deep_linear_collapsed


def yardsticks(K, y, ridge):
    r"""Make the functions from kernels (..., n, n) to their gain, growth and alignment.

    The gain is that along the targets' part in the range of K, as in `Exact.gain`. The growth is
    the same along what is learnt of them, :math:`a^T\Phi a/a^TKa` with
    :math:`a = (K + T)^{-1}y`. The alignment is the cosine between a kernel and the Gram matrix of
    the targets.
    """
    ridged = jnp.asarray(np.linalg.solve(K + ridge * np.eye(len(y)), y))
    learnt = float(ridged @ K @ ridged)
    values, U = np.linalg.eigh(K)
    U, values = U[:, values > 1e-10 * values[-1]], values[values > 1e-10 * values[-1]]
    lifted = jnp.asarray(U / values @ (U.T @ y))
    y, power = jnp.asarray(y), float(y @ lifted)

    def gain(Phi):
        return jnp.einsum("i,...ij,j->...", lifted, Phi, lifted) / power

    def growth(Phi):
        return jnp.einsum("i,...ij,j->...", ridged, Phi, ridged) / learnt

    def alignment(Phi):
        return jnp.einsum("i,...ij,j->...", y, Phi, y) / (
            (y @ y) * jnp.sqrt((Phi**2).sum((-2, -1)))
        )

    return gain, growth, alignment


def prior_draws(net, X, functions, draws):
    """Measure kernels of weights from the prior, one array (draws, L) a function."""

    def one(key):
        hidden = net.layers(net.init(key, X.shape[1]), X)[1:-1]
        Phi = jnp.stack([H @ H.T / H.shape[1] for H in hidden])
        return [function(Phi) for function in functions]

    return jax.lax.map(one, jax.random.split(jax.random.key(2), draws))


def run(data, width, ridge, draws, chains):
    """Print the table of one width."""
    hyper = {"widths": (width, width), "ridge": ridge}
    net = brg.networks.DeepLinear(**hyper)
    eigen = deep_linear_collapsed.prepare(data, **hyper)
    dt = brg.inference.fit(
        deep_linear_collapsed.model, (data.X, data.y), key=0, draws=draws, chains=chains,
        progress=False, **hyper, **eigen,
    )  # fmt: skip
    rotated = prepare(net, data.X, data.y).as_jax()
    K = prior_features(rotated)
    gain, growth, alignment = yardsticks(np.asarray(K[0]), np.asarray(data.y), ridge)

    @jax.jit
    def measure(latents, keys):
        def one(args):
            _, chain = order_parameter(net.widths, 1, args[0])
            means = feature_means(rotated, chain)
            Phi = feature_draw(args[1], rotated, chain).kernels
            found = gain(means), growth(means), gain(Phi), growth(Phi), alignment(Phi)
            return means, found

        def step(total, args):
            means, found = one(args)
            return total + means, found

        total, found = jax.lax.scan(step, jnp.zeros_like(K), (latents, keys))
        return total / keys.shape[0], found

    posterior = dt["posterior"].dataset
    flat = {
        name: jnp.asarray(posterior[name].to_numpy().reshape(draws * chains, -1))
        for name in ("c1", "c2")
    }
    keys = jax.random.split(jax.random.key(1), draws * chains)
    mean_kernel, found = measure(flat, keys)
    names = ("gain", "growth", "gain draw", "growth draw", "alignment draw")
    found = xr.Dataset(
        {
            n: (("chain", "draw", "layer"), np.asarray(v).reshape(chains, draws, -1))
            for n, v in zip(names, found, strict=True)
        }
    )
    found["log q"] = (("chain", "draw"), np.log(posterior["Q"].to_numpy()[..., 0, 0]))
    error, rhat = az.mcse(found), az.rhat(found)
    error_sd = float(az.mcse(found[["log q"]], method="sd")["log q"])
    exact = brg.deep_linear.exact(net, data.X, data.y)
    saddle = brg.deep_linear.saddle(net, data.X, data.y)
    prior = prior_draws(net, data.X, (gain, growth, alignment), 200)
    bad = int(dt["sample_stats"]["diverging"].sum())
    worst = max(float(v.max()) for v in rhat.data_vars.values())
    print(f"\nwidth {width}, ridge {ridge}: {draws * chains} draws, {bad} divergent")
    print(f"  R-hat at most {worst:.4f}; smallest ESS {smallest(az.ess(found)):.0f}")
    log_q = found["log q"]
    print(
        f"  log q: NUTS {float(log_q.mean()):.4f} +- {float(error['log q']):.4f}, sd "
        f"{float(log_q.std()):.4f} +- {error_sd:.4f}; exact "
        f"{exact.mean_log_q:.4f}, sd {exact.sd_log_q:.4f}; saddle {np.log(saddle.q):.4f}, one of "
        f"{len(saddle.stationary)} stationary points"
    )
    print(
        f"  log evidence: exact {exact.log_evidence:.3f}, Laplace {saddle.log_evidence:.3f}, "
        f"infinite width {wide_evidence(data, ridge):.3f}"
    )
    ridges = np.exp(-np.quantile(log_q, [0.97, 0.03])) * ridge
    print(f"  effective ridge: {ridges[0]:.4f} to {ridges[1]:.4f} (94 %), mean of the exact grid "
          f"{float(exact.weights @ exact.effective_ridge):.4f}")  # fmt: skip
    for i in range(2):
        layer = {"layer": i}
        print(
            f"  layer {i + 1} gain: NUTS {float(found['gain'][layer].mean(...)):.4f} +- "
            f"{float(error['gain'][layer]):.4f}, draws {interval(found['gain draw'][layer])}; "
            f"exact {exact.gain(i + 1):.4f}; saddle {saddle.gain(i + 1):.4f}; "
            f"GP 1; prior draws {interval(prior[0][:, i])}"
        )
        known = exact.feature_kernel(i + 1), saddle.feature_kernel(i + 1)
        print(
            f"  layer {i + 1} growth: NUTS {float(found['growth'][layer].mean(...)):.4f} +- "
            f"{float(error['growth'][layer]):.4f}, draws {interval(found['growth draw'][layer])}; "
            f"exact {float(growth(jnp.asarray(known[0]))):.4f}; saddle "
            f"{float(growth(jnp.asarray(known[1]))):.4f}; GP 1; prior draws "
            f"{interval(prior[1][:, i])}"
        )
        at = [float(alignment(jnp.asarray(Phi))) for Phi in (mean_kernel[i], *known, K[i])]
        print(
            f"  layer {i + 1} alignment: mean kernel NUTS {at[0]:.5f}, exact {at[1]:.5f}, saddle "
            f"{at[2]:.5f}, GP {at[3]:.5f}; draws {interval(found['alignment draw'][layer])} "
            f"mean {float(found['alignment draw'][layer].mean(...)):.4f} +- "
            f"{float(error['alignment draw'][layer]):.4f}; "
            f"prior draws {interval(prior[2][:, i])} mean {prior[2][:, i].mean():.4f}",
            flush=True,
        )


def smallest(ess):
    return min(float(v.min()) for v in ess.data_vars.values())


def interval(values):
    """Middle 94 per cent."""
    low, high = np.quantile(np.asarray(values), [0.03, 0.97])
    return f"[{low:.4f}, {high:.4f}]"


def wide_evidence(data, ridge):
    """Log evidence of the infinitely wide network: that of Bayesian linear regression."""
    net = brg.networks.DeepLinear((), ridge=ridge)
    return brg.deep_linear.exact(net, data.X, data.y).log_evidence


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only try whether it runs")
    parser.add_argument("--widths", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--ridge", type=float, default=0.1)
    options = parser.parse_args()
    numpyro.enable_x64()
    print(facts("jax", "numpyro", "numpy"))
    data = brg.data.load("digits", n=200, task=(3, 8))
    rank = np.linalg.matrix_rank(np.asarray(data.X))
    print(f"{data.X.shape[0]} images of {data.X.shape[1]} pixels, rank {rank}")
    for ridge in (0.05, 0.1, 0.15, 0.2, 0.3):
        print(f"  log evidence of the infinitely wide network, ridge {ridge}: "
              f"{wide_evidence(data, ridge):.2f}")  # fmt: skip
    for width in options.widths:
        run(data, width, options.ridge, 100 if options.quick else 1000, 2 if options.quick else 4)


if __name__ == "__main__":
    main()
