# SPDX-License-Identifier: Apache-2.0
"""What a deep linear network learns of two digits: kernels of its layers, computed in several ways.

Threes against eights, 200 images, two hidden layers of equal width. NUTS samples the order
parameter. Gain, growth and alignment of each layer's kernel are those of its mean given the order
parameter; intervals are those of draws of whole kernels. For comparison: the exact solver, the
saddle point, the infinitely wide network, and prior draws of the same widths.
"""

import argparse

import arviz as az
import numpy as np
import numpyro
import xarray as xr
from timing import facts

import bayesrg as brg
from bayesrg.models import deep_linear_collapsed

BLOCK = 250  # draws per chain whose kernels are in memory at once
AXES = ("chain", "draw", "layer")


def yardsticks(K, y, ridge):
    r"""Return functions from kernels (..., n, n) to their gain, growth and alignment.

    The gain is :math:`a^T\Phi a/a^TKa` with :math:`a = K^+y`, as in `Exact.gain`. The growth is the
    same with :math:`a = (K + T)^{-1}y`, the direction that is learnt. The alignment is the cosine
    between a kernel and :math:`yy^T`.
    """

    def along(a):
        return lambda Phi: Phi @ a @ a / (a @ K @ a)

    def alignment(Phi):
        return Phi @ y @ y / ((y @ y) * np.linalg.norm(Phi, axis=(-2, -1)))

    lifted = np.linalg.pinv(K, rcond=1e-10, hermitian=True) @ y
    learnt = np.linalg.solve(K + ridge * np.eye(len(y)), y)
    return {"gain": along(lifted), "growth": along(learnt), "alignment": alignment}


def kernels(dt, net, kernel, group="feature_learning", prior=None):
    """Yield the kernels (chain, draw, layer, n, n) in blocks of posterior draws."""
    posterior = dt["posterior"].to_dataset()
    for start in range(0, posterior.sizes["draw"], BLOCK):
        part = dt.copy()
        part["posterior"] = xr.DataTree(posterior.isel(draw=slice(start, start + BLOCK)))
        how = {"kernel": kernel, "key": start, "keep_kernels": True, "prior": prior, "modes": 1}
        found = brg.diagnostics.feature.measure_deep_linear(part, net, max_bytes=2**32, **how)
        yield found[group]["feature_kernel"].to_numpy()


def table(blocks, functions):
    """Return a Dataset of all functions over chain, draw and layer, and the mean kernels."""
    rows, means = {name: [] for name in functions}, []
    for Phi in blocks:
        means.append(Phi.mean((0, 1)))
        for name, function in functions.items():
            rows[name].append(function(Phi))
    columns = {name: (AXES, np.concatenate(parts, 1)) for name, parts in rows.items()}
    return xr.Dataset(columns), np.mean(means, 0)


def run(data, width, ridge, draws, chains):
    """Print the table of one width."""
    hyper = {"widths": (width, width), "ridge": ridge}
    net = brg.networks.DeepLinear(**hyper)
    eigen = deep_linear_collapsed.prepare(data, **hyper)
    run = {"key": 0, "draws": draws, "chains": chains, "prior": 200, "progress": False}
    dt = brg.fit(deep_linear_collapsed.model, (data.X, data.y), **run, **hyper, **eigen)
    X, y = np.asarray(data.X), np.asarray(data.y)
    K = X @ X.T / X.shape[1]
    functions = yardsticks(K, y, ridge)
    means, mean_kernel = table(kernels(dt, net, "rao_blackwell"), functions)
    drawn, _ = table(kernels(dt, net, "draw"), functions)
    before = next(kernels(dt, net, "draw", "feature_learning_prior", "prior"))
    prior, _ = table([before], functions)

    log_q = np.log(dt["posterior"]["Q"][..., 0, 0])
    found = means.drop_vars("alignment").assign(log_q=log_q)
    error, ess = az.mcse(found), az.ess(found)
    worst = max(float(v.max()) for v in az.rhat(found).data_vars.values())
    exact = brg.deep_linear.exact(net, X, y)
    saddle = brg.deep_linear.saddle(net, X, y)
    bad = int(dt["sample_stats"]["diverging"].sum())
    print(f"\nwidth {width}, ridge {ridge}: {draws * chains} draws, {bad} divergent")
    least = min(float(v.min()) for v in ess.data_vars.values())
    print(f"  R-hat at most {worst:.4f}; smallest ESS {least:.0f}")
    print(
        f"  log q: NUTS {float(log_q.mean()):.4f} +- {float(error['log_q']):.4f}, sd "
        f"{float(log_q.std()):.4f} +- {float(az.mcse(log_q, method='sd')):.4f}; exact "
        f"{exact.mean_log_q:.4f}, sd {exact.sd_log_q:.4f}; saddle {np.log(saddle.q):.4f}, one of "
        f"{len(saddle.stationary)} stationary points"
    )
    print(
        f"  log evidence: exact {exact.log_evidence:.3f}, Laplace {saddle.log_evidence:.3f}, "
        f"infinite width {wide_evidence(data, ridge):.3f}"
    )
    low, high = np.exp(-np.quantile(log_q, [0.97, 0.03])) * ridge
    on_grid = float(exact.weights @ exact.effective_ridge)
    print(
        f"  effective ridge: {low:.4f} to {high:.4f} (94 %), mean of the exact grid {on_grid:.4f}"
    )
    for i, layer in enumerate(("layer 1", "layer 2")):
        known = {
            "exact": exact.feature_kernel(i + 1),
            "saddle": saddle.feature_kernel(i + 1),
            "GP": K,
        }
        for name, function in functions.items():
            if name == "alignment":  # not linear in the kernel: that of the mean kernel
                sampled = f"{function(mean_kernel[i]):.5f}"
            else:
                sampled = f"{float(means[name][..., i].mean()):.4f} +- {float(error[name][i]):.4f}"
            others = "; ".join(f"{k} {function(Phi):.5f}" for k, Phi in known.items())
            parts = (interval(values[name][..., i]) for values in (drawn, prior))
            print(
                f"  {layer} {name}: NUTS {sampled}; {others}; " + "; prior ".join(parts), flush=True
            )


def interval(values):
    """Return the interval that holds the middle 94 per cent of draws, and their mean, as text."""
    low, high = np.quantile(np.asarray(values), [0.03, 0.97])
    return f"draws [{low:.4f}, {high:.4f}] mean {float(values.mean()):.4f}"


def wide_evidence(data, ridge):
    """Return the log evidence of the infinitely wide network: Bayesian linear regression."""
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
        value = wide_evidence(data, ridge)
        print(f"  log evidence of the infinitely wide network, ridge {ridge}: {value:.2f}")
    for width in options.widths:
        run(data, width, options.ridge, 100 if options.quick else 1000, 2 if options.quick else 4)


if __name__ == "__main__":
    main()
