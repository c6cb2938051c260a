# SPDX-License-Identifier: Apache-2.0
"""Learning curves of network kernels on images: theory for Gaussian features against experiment.

Half of the images are the reference sample, from which theory takes eigenvalues and target power.
Data sets are drawn from the other half, the pool ("held out"), or from the reference sample
itself with and without replacement ("population"). docs/explanation/images.md has the results.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from image_report import figure, tables
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import brentq

import bayesrg as brg

DEPTHS, SIZES = (1, 3), (50, 100, 200, 500, 1000, 2000)
SEEDS, DRAWS, EVIDENCE_SIZE, MODES = 3, 20, 500, 1000
BINS = ((1, 20), (21, 100), (101, 400), (401, 1000))
CAVEAT = "CIFAR-10 luma from JPEG copies: highest spatial frequencies altered"
RULES = ("running", "bare", "self_consistent", "dof", "effective_rank", "fisher", "match")


def regress(K, y, ridge, rows):
    """Return errors of one data set (training, all rows, rows not drawn) and the ridge it sees."""
    n = len(rows)
    factor = cho_factor(K[np.ix_(rows, rows)] + ridge * np.eye(n), lower=True, overwrite_a=True)
    weight = cho_solve(factor, y[rows])
    inverse, _ = lapack.dpotri(factor[0], lower=1)
    seen = n / np.diagonal(inverse).sum()
    return errors(K[:, rows] @ weight, y, rows) | {"seen_ridge": seen}


def regress_modes(B, y, noise, rows):
    """Return errors of the regression with the low modes, columns ``B`` of unit prior variance."""
    low = B[rows]
    precision = low.T @ low + noise * np.eye(B.shape[1])
    weight = np.linalg.solve(precision, low.T @ y[rows])
    return errors(B @ weight, y, rows)


def errors(fitted, y, rows):
    square = (fitted - y) ** 2
    rest = np.ones(len(y), bool)
    rest[rows] = False
    return {"train": square[rows].mean(), "all": square.mean(), "test": square[rest].mean()}


def draw(size, n, seed, replace=False):
    return np.random.default_rng([seed, n]).choice(size, n, replace=replace)


def collect(run, size, n, draws, replace=False):
    """Run data sets of n points, and return every entry as a list over seeds."""
    rows = [run(rows=draw(size, n, seed, replace)) for seed in range(draws)]
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def summary(values, theory):
    """Return mean and spread of the first seeds and of all draws, and the deviation from theory."""
    few, values = np.asarray(values[:SEEDS]), np.asarray(values)
    return {
        "three": few.mean(),
        "three_sd": few.std(ddof=1),
        "three_deviation": 100 * (few.mean() / theory - 1),
        "mean": values.mean(),
        "se": values.std(ddof=1) / np.sqrt(values.size),
        "deviation": 100 * (values.mean() / theory - 1),
        "deviation_se": 100 * values.std(ddof=1) / np.sqrt(values.size) / theory,
    }


def corrected_curve(eigenvalues, projections, n, ridge):
    r"""Return theory for n points from a sample of R, without the error of a finite sample.

    Effective ridge and bias depend on :math:`\kappa = s/n` alone, so they are computed from the
    sample at the ridge :math:`\delta` where it has that :math:`\kappa`. With
    :math:`S_j = \sum (\ell+\delta)^{-j}` over eigenvalues of the Gram matrix,
    :math:`\kappa = 1/S_1`, :math:`\sum L = R - \delta S_1`, :math:`\sum L^2 = R - S_1^2/S_2` and
    the bias is :math:`\sum c^2(\ell+\delta)^{-2}/S_2`, where c is the target in the
    eigenvectors. This is generalised cross-validation for another number of points (arXiv
    2203.06176).

    Returns
    -------
    test error, effective ridge
    """
    size = len(eigenvalues)

    def excess(log_delta):
        inverse = 1.0 / (eigenvalues + np.exp(log_delta))
        return size + (ridge - np.exp(log_delta)) * inverse.sum() - n

    inverse = 1.0 / (eigenvalues + np.exp(brentq(excess, -60.0, 60.0, xtol=1e-12)))
    first, second = inverse.sum(), (inverse**2).sum()
    bias = (projections**2 * inverse**2).sum() / second
    gamma = (size - first**2 / second) / n
    return bias / (1.0 - gamma), n / first


def gaussian_control(values, coefficients, sizes, ridge, draws, known):
    """Return results for independent Gaussian features with this spectrum and power.

    The first dictionary has means and standard errors of an experiment, and their deviations from
    the errors ``known``; the second those of plain and corrected theory from a Gaussian reference
    sample. Deviations are per cent.
    """
    population = brg.theory.gaussian_population(values, coefficients)
    curve = brg.theory.learning_curve_mc(
        population, np.asarray(sizes), ridge, key=0, draws=draws, batch=1
    )
    sample = population.inputs(jax.random.key(1), len(values))
    found, vectors = np.linalg.eigh(np.asarray(population.gram(sample)))
    found, vectors = np.clip(found[::-1], 0.0, None), vectors[:, ::-1]
    projections = vectors.T @ np.asarray(population.target(sample))
    n = jnp.asarray(sizes, float)
    plain = brg.theory.learning_curve(found / len(found), projections**2 / len(found), n, ridge)
    corrected = [corrected_curve(found, projections, size, ridge)[0] for size in sizes]
    mean, error, known = curve.generalisation, curve.generalisation_error, np.asarray(known)
    experiment = {"mean": mean, "se": error, "deviation": 100 * (mean / known - 1)}
    experiment["deviation_se"] = 100 * error / known
    theory = {"plain": plain.test, "corrected": np.asarray(corrected)}
    return experiment, {name: 100 * (test / known - 1) for name, test in theory.items()}


def kurtosis(features):
    found = brg.rg.feature_cumulants(features[:, :MODES], 0)
    excess = np.asarray(found.excess_kurtosis)
    bins = {}
    for low, high in BINS:
        part = excess[low - 1 : high]
        bins[f"{low}-{high}"] = {
            "median": float(np.median(part)),
            "largest": float(part.max()),
            "heavy": float(np.asarray(found.heavy)[low - 1 : high].mean()),
        }
    return {"bins": bins, "modes": excess.round(4).tolist()}


def coarse_curve(B, y, n, noise):
    """Return theory for the regression with low modes, columns ``B`` of unit prior variance.

    Modes of the reference sample are not quite orthonormal on the pool, so the eigenfunctions of
    the low kernel are computed again. The part of the target that they miss, which is noise, is in
    the null space.
    """
    size, cut = B.shape
    vectors, singular, _ = np.linalg.svd(B, full_matrices=False)
    inside = vectors.T @ y
    missed = np.sqrt((y @ y - inside @ inside) / (size - cut))
    eigenvalues = np.concatenate([singular**2, np.zeros(size - cut)])
    projections = np.concatenate([inside, np.full(size - cut, missed)])
    return corrected_curve(eigenvalues, projections, n, noise)[0]


def study(data, split, depth, sizes, draws):
    """Return all numbers of one kernel."""
    X_ref, target = data.X[:split], np.asarray(data.y[:split])
    X, y = data.X[split:], np.asarray(data.y[split:])
    kernel = brg.kernels.NNGP(depth)
    gram = jax.jit(lambda *inputs: kernel(*inputs))
    variance = float(kernel.diag(X).mean())
    ridge = 0.01 * variance
    log = partial(print, f"depth {depth}:", flush=True)
    n = jnp.asarray(sizes, float)

    # theory: eigenvalues and target power of the reference sample, all modes
    spectrum = brg.spectrum.nystrom(kernel, X_ref)
    values = np.asarray(spectrum.values)
    eigenvectors = np.asarray(spectrum.projection) * np.sqrt(split) * values
    coefficients = eigenvectors.T @ target / np.sqrt(split)
    plain = brg.theory.learning_curve(values, coefficients**2, n, ridge)
    half = brg.spectrum.nystrom(kernel, X_ref[: split // 2])
    from_half = brg.theory.learning_curve(half.values, half.power(target[: split // 2]), n, ridge)

    def corrected(ridge):
        given = values * split, coefficients * np.sqrt(split)
        return np.transpose([corrected_curve(*given, size, ridge) for size in sizes])

    expected, effective = corrected(ridge)
    log(f"{len(values)} modes, {spectrum.dropped} dropped")
    log("theory: plain", plain.test, "half", from_half.test, "corrected", expected)
    control, of_sample = gaussian_control(values, coefficients, sizes, ridge, draws, plain.test)
    log("Gaussian features", *(np.round(v, 4) for v in [control["mean"], *of_sample.values()]))

    # experiment in the population that the reference sample is
    K_ref = np.asarray(gram(X_ref))
    drawn = {
        (replace, size): collect(
            partial(regress, K_ref, target, ridge), split, size, draws, replace
        )
        for replace in (True, False)
        for size in sizes
    }
    del K_ref

    # modes at the pool, ordered by the variance that each explains there, and the rest
    features = np.asarray(gram(X, X_ref) @ spectrum.projection)
    seen = values * (features**2).mean(0)
    order = np.argsort(-seen)
    seen, tail = seen[order], max(variance - seen.sum(), 0.0)
    levels = brg.spectrum.levels(seen, tail=tail)
    features = features[:, order] * np.sqrt(values[order] / seen)
    cutoffs = brg.rg.cutoff(levels, n, ridge)
    noise = np.asarray(brg.rg.universal_ridge(levels, ridge, cutoffs))
    B = features[:, : max(cutoffs)] * np.sqrt(seen[: max(cutoffs)])
    log(f"variance outside the modes {tail:.4f}; cutoffs", cutoffs)
    K = np.asarray(gram(X))
    larger = corrected(10 * ridge)[0]

    rows = []
    for i, size in enumerate(sizes):
        held_out = collect(partial(regress, K, y, ridge), len(y), size, draws)
        at_larger = collect(partial(regress, K, y, 10 * ridge), len(y), size, draws)
        cut = int(cutoffs[i])
        low = collect(partial(regress_modes, B[:, :cut], y, noise[i]), len(y), size, draws)
        coarse = coarse_curve(B[:, :cut], y, size, noise[i])
        seen_ridge = np.asarray(held_out["seen_ridge"])
        cross_validation = np.asarray(held_out["train"]) * (seen_ridge / ridge) ** 2
        local = ridge + variance - (B[:, :cut] ** 2).sum(1)
        in_population = float(plain.test[i])
        row = {
            "n": size,
            "theory": expected[i],
            "plain": in_population,
            "plain_half": float(from_half.test[i]),
            "held_out": summary(held_out["test"], expected[i]),
            "held_out_against_plain": summary(held_out["test"], in_population),
            "train": summary(held_out["train"], (ridge / effective[i]) ** 2 * expected[i]),
            "effective_ridge": effective[i],
            "effective_ridge_plain": plain.effective_ridge[i],
            "seen_ridge": summary(seen_ridge, effective[i]),
            "cross_validation": summary(cross_validation, np.mean(held_out["test"])),
            "repeats": summary(drawn[True, size]["all"], in_population),
            "distinct_all": summary(drawn[False, size]["all"], in_population),
            "distinct_rest": summary(drawn[False, size]["test"], in_population),
            "gaussian": {key: v[i] for key, v in control.items()},
            "gaussian_sample": {key: v[i] for key, v in of_sample.items()},
            "larger_ridge": {"theory": larger[i], **summary(at_larger["test"], larger[i])},
            "cutoffs": {rule: brg.rg.cutoff(levels, float(size), ridge, rule) for rule in RULES},
            "cutoff_plain": brg.rg.cutoff(values, float(size), ridge),
            "coarse_ridge": noise[i],
            "coarse_theory": coarse,
            "coarse": summary(low["test"], coarse),
            "local_ridge": {
                "mean": local.mean(),
                "relative_sd": local.std() / local.mean(),
                "quantiles_05_50_95": np.quantile(local, [0.05, 0.5, 0.95]).tolist(),
            },
        }
        rows.append(row)
        compared = {k: v for k, v in row.items() if isinstance(v, dict) and "deviation" in v}
        log(f"n = {size}", {k: f"{v['deviation']:.2f}" for k, v in compared.items()})

    # the ridge that depends on the input, to all orders
    some = slice(0, 2500)
    inside = features[some, :MODES]
    outside = ridge + variance - inside**2 @ seen[:MODES]
    local = brg.rg.dressed_local_ridge(inside, seen[:MODES], EVIDENCE_SIZE, outside)
    spread = np.asarray(local.value)
    log("dressed local ridge", bool(local.converged))

    # evidence of one data set under each rule; what the first modes leave out is exact
    chosen = draw(len(y), EVIDENCE_SIZE, 0)
    Phi, kept = jnp.asarray(features[chosen, :MODES]), jnp.asarray(seen[:MODES])
    residual = jnp.asarray(K[np.ix_(chosen, chosen)]) - (Phi * kept) @ Phi.T
    levels = brg.spectrum.levels(kept, tail=variance - float(kept.sum()))
    given = {"features": Phi, "residual": residual, "y": jnp.asarray(y[chosen])}
    flow = brg.rg.flow(levels, EVIDENCE_SIZE, ridge, **given)
    ridges = ("cutoff", "universal", "dressed", "arithmetic", "harmonic")
    ridges = {name: np.asarray(getattr(flow, name)).tolist() for name in ridges}
    log_evidence = np.asarray(flow.evidence).tolist()
    marks = (20, 100, 400, 1000, 2000)
    return {
        "depth": depth,
        "ridge": ridge,
        "variance": variance,
        "modes": len(values),
        "rows": rows,
        "first_values": (values[:6] / variance).tolist(),
        "tail": tail / variance,
        "slope_21_400": np.polyfit(np.log(np.arange(21, 401)), np.log(seen[20:400]), 1)[0],
        "variance_above": {k: 1 - seen[:k].sum() / variance for k in marks},
        "variance_above_plain": {k: values[k:].sum() / variance for k in marks},
        "power_above": {k: (coefficients[k:] ** 2).sum() for k in marks},
        "dressed_local": {
            "n": EVIDENCE_SIZE,
            "mean": spread.mean(),
            "harmonic": 1 / (1 / spread).mean(),
            "relative_sd": spread.std() / spread.mean(),
            "converged": bool(local.converged),
            "uniform": brg.rg.effective_ridge(levels, EVIDENCE_SIZE, ridge),
        },
        "kurtosis_pool": kurtosis(jnp.asarray(features)),
        "kurtosis_reference": kurtosis(jnp.asarray(eigenvectors)),
        "evidence": ridges
        | {"rules": list(flow.rules), "stop": flow.stop, "log_evidence": log_evidence},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("mnist", "cifar10"))
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for JSON and figure")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--redraw", action="store_true", help="figure and tables of a JSON there")
    options = parser.parse_args()
    path = options.out / f"image_flow_{options.name}.json"
    if not options.redraw:
        numpyro.enable_x64()
        parts = brg.data.load(options.name, n=1)
        size = sum(map(len, (parts.X, parts.X_test, parts.X_ref)))
        data = brg.data.load(options.name, n=size - 2, task="even_odd", key=0)
        split = len(data.X) // 2
        result = {
            "name": options.name,
            "task": "even_odd",
            "reference": split,
            "pool": len(data.X) - split,
            "draws": options.draws,
            "seeds": SEEDS,
            "title": "MNIST, even against odd"
            if options.name == "mnist"
            else "CIFAR-10, even against odd class numbers\n" + CAVEAT,
            "cases": [
                study(data, split, depth, tuple(options.sizes), options.draws)
                for depth in options.depths
            ],
        }
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, default=float) + "\n")
    result = json.loads(path.read_text())
    print(result["title"], tables(result), sep="\n")
    figure(result, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
