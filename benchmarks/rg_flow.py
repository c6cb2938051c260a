# SPDX-License-Identifier: Apache-2.0
"""Ridges on a grid and the flow over all cutoffs, against SciPy and against what it replaces.

The grid has 100 numbers of points by 20 ridges, with 2,000 modes. It is timed alone and with all
that `theory.ridge_equivalent` computes from the roots; SciPy's Brent method solves the same
equations one by one. The flow has universal, dressed, arithmetic and harmonic ridges at all 2,001
cutoffs of 2,000 points. It is compared with one eigendecomposition of that size, and with harmonic
ridges by rank-one updates, extrapolated from some of them.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from scipy.optimize import brentq
from timing import facts, report

from bayesrg import rg, theory


def measured(function, repeats):
    """Return the seconds of each call after the first, and the result."""
    result, spent = jax.block_until_ready(function()), []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(function())
        spent.append(time.perf_counter() - start)
    return {"alone": spent}, result


def one_by_one(values, ns, ridges, some):
    """Solve ``some`` of the equations with SciPy; return seconds for all, and the roots."""
    start, roots = time.perf_counter(), []
    for n in ns[:some]:
        for ridge in ridges:

            def excess(s, n=n, ridge=ridge):
                return 1.0 - ridge / s - (values / (s + n * values)).sum()

            roots.append(brentq(excess, ridge, ridge + values.sum(), xtol=1e-18, rtol=1e-14))
    return (time.perf_counter() - start) * len(ns) / some, np.reshape(roots, (some, -1))


def shell_steps(features, values, ridge, some):
    """Eliminate ``some`` modes one by one; return seconds for all, and the harmonic ridges."""
    points, k = features.shape
    precision = np.eye(points) / ridge
    start, harmonic = time.perf_counter(), []
    for mode in range(k - 1, k - 1 - some, -1):
        u = precision @ features[:, mode]
        gain = values[mode] / (1.0 + values[mode] * features[:, mode] @ u)
        precision -= gain * np.outer(u, u)
        harmonic.append(points / np.trace(precision))
    return (time.perf_counter() - start) * k / some, np.array(harmonic)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    numpyro.enable_x64()
    print(facts("jax", "jaxlib", "scipy", "numpy"))
    values = np.arange(1, 2001.0) ** -2
    ns, ridges = np.geomspace(1.0, 5000.0, 100), np.geomspace(1e-4, 1.0, 20)
    solve = jax.jit(rg.effective_ridge)
    ours, roots = measured(lambda: solve(values, ns[:, None], ridges), repeats)
    seconds, expected = one_by_one(values, ns, ridges, 10)
    np.testing.assert_allclose(roots[:10], expected, rtol=1e-10)
    moments = theory.spectral_moments(values, values, 0.1)
    whole, _ = measured(lambda: theory.ridge_equivalent(moments, ns[:, None], ridges).test, repeats)
    contest = {
        "bayesrg": ours,
        "with errors, evidence, calibration": whole,
        "SciPy brentq": {"alone": [seconds]},
    }
    report("2,000 effective ridges of 2,000 modes", contest)

    n, ridge = 2000, 0.02
    features = np.random.default_rng(0).standard_normal((n, n))
    values = np.arange(1, n + 1.0) ** -1.5
    K = jnp.asarray(features * values @ features.T)
    eigh = jax.jit(jnp.linalg.eigh)
    peer, _ = measured(lambda: eigh(K)[0], repeats)
    on_paper, _ = measured(lambda: rg.flow(values, n, ridge).dressed, repeats)
    ours, harmonic = measured(
        lambda: rg.flow(values, n, ridge, features=features).harmonic, repeats
    )
    seconds, expected = shell_steps(features, values, ridge, 40)
    np.testing.assert_allclose(harmonic[:-1][::-1][:40], expected, rtol=1e-9)
    contest = {
        "flow with exact ridges": ours,
        "flow on paper (universal, dressed)": on_paper,
        "one eigendecomposition": peer,
        "rank-one steps (of 40, extrapolated)": {"alone": [seconds]},
    }
    report("flow over 2,001 cutoffs, n = 2,000", contest)


if __name__ == "__main__":
    main()
