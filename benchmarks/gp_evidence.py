# SPDX-License-Identifier: Apache-2.0
"""Evidence of a Gaussian process and its gradient, alone and inside NUTS, against other packages.

Ratios are the time of a contender over that of the first line. All contenders of a table must agree
on log density and gradient before they are timed.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from timing import check, environment, facts, import_times, measure, report, serve

try:
    import tinygp

    from bayesrg import gp, kernels, rg, spectrum
except ModuleNotFoundError:  # this is the worker, in the environment of GPJax
    import gpjax as gpx

GPJAX = Path(__file__).resolve().parent / ".venv-gpjax", "gpjax>=1.0"


def positive(*names):
    return [numpyro.sample(name, dist.LogNormal(-0.5, 0.5)) for name in names]


def dense_data(n):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 5))
    y = np.sin(X @ rng.standard_normal(5)) + 0.3 * rng.standard_normal(n)
    return jnp.asarray(X), jnp.asarray(y)


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
    """Time a dense kernel whose hyper-parameters are all sampled."""
    jax_version = f"jax {jax.__version__}"
    models = {f"NumPyro MultivariateNormal ({jax_version})": numpyro_dense}
    data = dense_data(options.n)
    if options.worker:
        return serve({f"GPJax ({jax_version})": gpjax_dense} | models, data, options.draws)
    models = {"bayesrg": bayesrg_dense, "tinygp": tinygp_dense} | models
    worker = None if options.skip_gpjax else gpjax_worker(options)
    timing = {"draws": options.draws, "repeats": options.repeats}
    return report(f"dense RBF, n = {options.n}", measure(models, data, worker=worker, **timing))


def gpjax_worker(options):
    """Return the command that times GPJax and NumPyro, as a control, with an older JAX."""
    try:
        python = environment(*GPJAX)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"\nGPJax could not be installed, its lines are missing: {error}")
        return None
    sizes = [f"--n={options.n}", f"--draws={options.draws}"]
    return [python, __file__, "--only=dense", "--worker", *sizes]


def modes_data(n, k):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.uniform(size=(n, 1)))
    modes = spectrum.fourier(lambda j: (1.0 + j) ** -2, k)
    F = modes.features(x)
    y = F @ (jnp.sqrt(modes.values) * rng.standard_normal(k)) + 0.3 * rng.standard_normal(n)
    data = {"prior": modes, "x": x, "F": F, "values": modes.values, "y": y}
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
def numpyro_low_rank(data, scale, ridge):
    A, zero = data["F"] * jnp.sqrt(scale * data["values"]), jnp.zeros_like(data["y"])
    return dist.LowRankMultivariateNormal(zero, A, zero + ridge)


@amplitude_and_noise
def numpyro_full(data, scale, ridge):
    K = scale * (data["F"] * data["values"]) @ data["F"].T + ridge * jnp.eye(len(data["y"]))
    return dist.MultivariateNormal(jnp.zeros_like(data["y"]), covariance_matrix=K)


def fixed(options):
    """Time a fixed spectrum; amplitude and noise are sampled."""
    models = {
        "bayesrg, eigen": mercer("eigen"),
        "bayesrg, gram": mercer("gram"),
        "bayesrg, Woodbury": mercer(),
        "bayesrg, marginal(spectrum, X)": marginal,
        "NumPyro LowRankMultivariateNormal": numpyro_low_rank,
    }
    floor = {"no likelihood: the sampler's own share": lambda _: positive("amplitude", "noise")}
    data = (modes_data(options.n_fixed, options.k),)
    timing = {"draws": 5 * options.draws, "repeats": options.repeats}
    results = measure(models, data, **timing)
    if options.full:
        results |= measure({"NumPyro MultivariateNormal": numpyro_full}, data, draws=5, repeats=1)
    check(results)
    results |= measure(floor, data, **timing)
    report(f"fixed spectrum, n = {options.n_fixed}, k = {options.k}", results)


def coarse(options):
    """Time a cut model: half of the modes are sampled, the others marginalised."""
    cutoff = options.k // 2

    def by_hand(data):
        amplitude, noise = positive("amplitude", "noise")
        modes = numpyro.sample("y_modes", dist.Normal().expand([cutoff]).to_event(1))
        A = data["F"] * jnp.sqrt(amplitude * data["values"])
        mean = A[:, :cutoff] @ modes
        law = dist.LowRankMultivariateNormal(mean, A[:, cutoff:], jnp.full_like(mean, noise**2))
        numpyro.sample("y", law, obs=data["y"])

    models = {"gram": mercer("gram"), "Woodbury": mercer(), "marginal(spectrum, X)": marginal}
    cut = rg.Coarse(cutoff)
    models = {f"bayesrg, {name}": rg.coarsen(model, y=cut) for name, model in models.items()}
    models["NumPyro LowRankMultivariateNormal"] = by_hand
    data = (modes_data(options.n_coarse, options.k),)
    results = measure(models, data, draws=options.draws, repeats=options.repeats)
    report(f"n = {options.n_coarse}, {cutoff} modes explicit of {options.k}", results)


def imports(options):
    """Time imports in fresh processes."""
    codes = "bayesrg; bayesrg.gp", "bayesrg", "bayesrg; bayesrg.fit", "jax", "numpyro", "tinygp"
    lines = {f"import {code}": (sys.executable, f"import {code}") for code in codes}
    if GPJAX[0].exists() and not options.skip_gpjax:
        lines["import gpjax (own environment)"] = (environment(*GPJAX), "import gpjax")
    seconds = import_times(lines, options.repeats)
    report("import", {name: {"import": times} for name, times in seconds.items()})


SECTIONS = {section.__name__: section for section in (dense, fixed, coarse, imports)}
SIZES = {"n": 400, "n-fixed": 2000, "n-coarse": 5000, "k": 64, "draws": 30, "repeats": 5}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    for name, size in SIZES.items():
        size = max(2, size // 10) if "--quick" in sys.argv else size
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--skip-gpjax", action="store_true")
    parser.add_argument("--full", action="store_true", help="add the n x n peer to fixed: slow")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    numpyro.enable_x64()
    if not options.worker:
        print(facts("jax", "jaxlib", "numpyro", "tinygp"))
    for name in options.only:
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
