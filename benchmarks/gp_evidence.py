# SPDX-License-Identifier: Apache-2.0
"""Gaussian processes inside NUTS, against other packages: dense, fixed modes, and cut models.

A figure is the time of one gradient, a leapfrog step, inside NUTS. All contenders of a figure have
the same log density and gradient.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from peers import python_of
from race import Worker, race, serve
from timing import Fresh, Sampled, density, per_call

try:
    import tinygp

    from bayesrg import gp, kernels, rg, spectrum
except ModuleNotFoundError:  # this is the worker, in the environment of GPJax
    import gpjax as gpx


def positive(*names):
    return [numpyro.sample(name, dist.LogNormal(-0.5, 0.5)) for name in names]


def dense_data(n):
    rng = np.random.default_rng(0)
    x = rng.uniform(-3.0, 3.0, (n, 1))
    return jnp.asarray(x), jnp.asarray(np.sin(2 * x[:, 0]) + 0.3 * rng.standard_normal(n))


def bayesrg_dense(X, y):
    lengthscale, variance, noise = positive("lengthscale", "variance", "noise")
    numpyro.sample("y", gp.marginal(kernels.RBF(lengthscale, variance), X, noise**2), obs=y)


def tinygp_dense(X, y):
    lengthscale, variance, noise = positive("lengthscale", "variance", "noise")
    kernel = variance * tinygp.kernels.ExpSquared(lengthscale)
    process = tinygp.GaussianProcess(kernel, X, diag=noise**2)
    numpyro.factor("y", process.log_probability(y))


def numpyro_dense(X, y):
    lengthscale, variance, noise = positive("lengthscale", "variance", "noise")
    r2 = ((X[:, None] - X[None]) ** 2).sum(-1) / lengthscale**2
    K = variance * jnp.exp(-0.5 * r2) + noise**2 * jnp.eye(len(y))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(y)), covariance_matrix=K), obs=y)


def gpjax_dense(X, y):
    lengthscale, variance, noise = positive("lengthscale", "variance", "noise")
    kernel = gpx.kernels.RBF(lengthscale=lengthscale, variance=variance)
    prior = gpx.gps.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero(), jitter=0.0)
    model = prior * gpx.likelihoods.Gaussian(obs_stddev=noise)
    numpyro.factor("y", gpx.objectives.conjugate_mll(model, gpx.Dataset(X, y[:, None])))


def dense(options):
    """Time a dense kernel whose three hyper-parameters are sampled, on one input."""
    n, draws = (40, 10) if options.quick else (400, 100)
    data, notes, workers = dense_data(n), [], []
    models = {
        "bayesrg": (bayesrg_dense, "ours"),
        "NumPyro MultivariateNormal": (numpyro_dense, "peer"),
        "tinygp": (tinygp_dense, "peer"),
    }
    python, reason = python_of("gpjax") if options.peers else (None, "")
    if python:
        workers = [Worker(python, __file__, f"--n={n}", f"--draws={draws}")]
    elif reason:
        notes = [f"gpjax is left out: {reason}"]
    if options.quick:
        del models["tinygp"]
    contenders = {name: Sampled(model, data, draws, role) for name, (model, role) in models.items()}
    title = f"A gradient in NUTS, dense RBF on one input, n = {n}"
    return race(title, contenders, options.rounds, workers=workers, notes=notes)


def modes_data(n, k):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(size=(n, 1)))
    modes = spectrum.fourier(lambda j: (1.0 + j) ** -2, k)
    F = modes.features(x)
    y = F @ (jnp.sqrt(modes.values) * rng.standard_normal(k)) + 0.3 * rng.standard_normal(n)
    data = {"prior": modes, "x": x, "F": F, "values": modes.values, "y": y}
    data["shape"] = jnp.asarray(rng.uniform(0.5, 2.0, n))  # of noise that varies by point
    return data | {"gram": F.T @ F, "eigen": gp.eigenpairs(F, modes.values)}


def amplitude_and_noise(law):
    def model(data):
        amplitude, noise = positive("amplitude", "noise")
        numpyro.sample("y", law(data, amplitude, noise**2), obs=data["y"])

    return model


def mercer(*names):
    def law(data, scale, ridge):
        given = {name: data[name] for name in names}
        return gp.MercerNormal(data["F"], data["values"], ridge, scale=scale, **given)

    return amplitude_and_noise(law)


@amplitude_and_noise
def marginal(data, scale, ridge):
    return gp.marginal(data["prior"], data["x"], ridge, scale=scale)


@amplitude_and_noise
def by_point(data, scale, ridge):
    return gp.marginal(data["prior"], data["x"], ridge * data["shape"], scale=scale)


@amplitude_and_noise
def numpyro_low_rank(data, scale, ridge):
    A, zero = data["F"] * jnp.sqrt(scale * data["values"]), jnp.zeros_like(data["y"])
    return dist.LowRankMultivariateNormal(zero, A, zero + ridge)


@amplitude_and_noise
def numpyro_full(data, scale, ridge):
    K = scale * (data["F"] * data["values"]) @ data["F"].T + ridge * jnp.eye(len(data["y"]))
    return dist.MultivariateNormal(jnp.zeros_like(data["y"]), covariance_matrix=K)


def fixed(options):
    """Time a fixed spectrum at two sizes; amplitude and noise are sampled."""
    sizes, k, draws = (2000, 8000), 64, 400
    small, large = ((modes_data(n, k),) for n in sizes)
    contenders = {
        "bayesrg, eigen": Sampled(mercer("eigen"), small, draws, "ours"),
        "NumPyro LowRankMultivariateNormal": Sampled(numpyro_low_rank, small, draws // 10),
        "bayesrg, marginal(spectrum, X)": Sampled(marginal, small, draws, "other"),
    }
    alike = {"role": "other", "answers": False}
    contenders[f"bayesrg, eigen, n = {sizes[1]}"] = Sampled(mercer("eigen"), large, draws, **alike)
    contenders["no likelihood: the sampler alone"] = Sampled(
        lambda _: positive("amplitude", "noise"), small, draws, "floor", answers=False
    )
    title = f"A gradient in NUTS, fixed eigenbasis of {k} modes, n = {sizes[0]}"
    return race(title, contenders, options.rounds)


def by_hand(cutoff, point):
    """The cut model as one writes it with NumPyro's own distribution."""

    def model(data):
        amplitude, noise = positive("amplitude", "noise")
        modes = numpyro.sample("y_modes", dist.Normal().expand([cutoff]).to_event(1))
        A = data["F"] * jnp.sqrt(amplitude * data["values"])
        mean = A[:, :cutoff] @ modes
        ridge = noise**2 * (data["shape"] if point else jnp.ones_like(mean))
        law = dist.LowRankMultivariateNormal(mean, A[:, cutoff:], ridge)
        numpyro.sample("y", law, obs=data["y"])

    return model


def cut(options, point):
    """Time a cut model: half of the modes are sampled, the others marginalised."""
    n, k, draws = (100, 8, 10) if options.quick else (5000, 64, 60)
    models = {"marginal(spectrum, X)": by_point if point else marginal}
    if not point and not options.quick:
        models = {"gram": mercer("gram"), "Woodbury": mercer()} | models
    models = {
        f"bayesrg, {name}": (rg.coarsen(model, y=rg.Coarse(k // 2)), "ours")
        for name, model in models.items()
    }
    models["NumPyro LowRankMultivariateNormal"] = by_hand(k // 2, point), "peer"
    data = (modes_data(n, k),)
    contenders = {name: Sampled(model, data, draws, role) for name, (model, role) in models.items()}
    noise = "noise by point" if point else "constant noise"
    title = (
        f"A gradient in NUTS, {k // 2} explicit and {k // 2} marginalised modes, n = {n}, {noise}"
    )
    return race(title, contenders, options.rounds)


def against_exact(options):
    """Compare effective draws with the exact model, where that makes 50 draws in two minutes.

    The exact model has the n x n covariance of all modes and the noise. Its draws are those of the
    two parameters that both models share.
    """
    sizes = [500, 1000, 1500, 2000, 3000, 4000, 5000]
    k, draws, seconds = 64, 50, 120.0
    chosen, watch = sizes[0], ("amplitude", "noise")
    for n in sizes[1:]:
        data = (modes_data(n, k),)
        function, z = density(numpyro_full, data)
        alone = per_call(function, z, data)
        if 2 * draws * 3 * alone > seconds:  # as many to adapt, and three gradients per draw
            break
        chosen = n
    data = (modes_data(chosen, k),)
    coarse = rg.coarsen(marginal, y=rg.Coarse(k // 2))
    contenders = {
        "bayesrg, cut": Sampled(coarse, data, 20 * draws, "ours", watch, answers=False),
        "exact, NumPyro MultivariateNormal": Sampled(numpyro_full, data, draws, "peer", watch),
    }
    title = f"Effective draws, {k // 2} explicit modes against the exact model, n = {chosen}"
    text = (
        f"The exact model makes {draws} draws, after as many to adapt, in {seconds:.0f} s at most."
    )
    return race(title, contenders, min(3, options.rounds), notes=[text])


def imports(options):
    """Time imports in fresh processes."""
    codes = "bayesrg", "bayesrg; bayesrg.gp", "bayesrg; bayesrg.fit", "jax", "numpyro", "tinygp"
    contenders = {
        f"import {code}": Fresh(sys.executable, f"import {code}", "ours" if i == 0 else "other")
        for i, code in enumerate(codes)
    }
    python, _ = python_of("gpjax") if options.peers else (None, "")
    if python:
        contenders["import gpjax (own environment)"] = Fresh(python, "import gpjax", "other")
    return race("Imports in fresh processes", contenders, options.rounds)


def figures(options):
    """Yield names and records of all figures of this file; with --quick of two of them."""
    yield "dense", dense(options)
    yield "cut", cut(options, point=False)
    if options.quick:
        return
    yield "fixed", fixed(options)
    yield "cut, noise by point", cut(options, point=True)
    yield "against exact", against_exact(options)
    yield "imports", imports(options)


def main():
    parser = argparse.ArgumentParser(description="Time GPJax, in its own environment.")
    parser.add_argument("--n", type=int, default=400)
    parser.add_argument("--draws", type=int, default=100)
    options = parser.parse_args()
    numpyro.enable_x64()
    data, name = dense_data(options.n), f"GPJax (jax {jax.__version__})"
    serve({name: Sampled(gpjax_dense, data, options.draws)})


if __name__ == "__main__":
    main()
