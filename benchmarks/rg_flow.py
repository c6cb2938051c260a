# SPDX-License-Identifier: Apache-2.0
"""Ridges on a grid and the flow over all cutoffs, against SciPy and against what it replaces.

The grid has 100 numbers of points by 20 ridges, with 2,000 modes. It is timed alone and with all
that `theory.ridge_equivalent` computes from the roots; SciPy's Brent method solves the same
equations one by one. The flow has universal, dressed, arithmetic and harmonic ridges at all 2,001
cutoffs of 2,000 points. It is compared with one eigendecomposition of that size, and with harmonic
ridges by rank-one updates, extrapolated from some of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from race import Call, race
from scipy.optimize import brentq

from bayesrg import rg, theory


class Part(Call):
    """A contender that does a part of the work; its seconds are multiplied by ``times``."""

    def __init__(self, function, times, **more):
        super().__init__(function, least=0.0, **more)
        self.times = times

    def round(self):
        return {name: self.times * value for name, value in super().round().items()}


def call(function, role, answer=None, reserved=None):
    return Call(
        lambda: jax.block_until_ready(function()), role=role, answer=answer, reserved=reserved
    )


def one_by_one(values, ns, ridges, some):
    """Solve ``some`` of the equations with SciPy; return the roots."""
    roots = []
    for n in ns[:some]:
        for ridge in ridges:

            def excess(s, n=n, ridge=ridge):
                return 1.0 - ridge / s - (values / (s + n * values)).sum()

            roots.append(brentq(excess, ridge, ridge + values.sum(), xtol=1e-18, rtol=1e-14))
    return roots


def shell_steps(features, values, ridge, some):
    """Eliminate ``some`` modes one by one; return the harmonic ridges."""
    points, k = features.shape
    precision = np.eye(points) / ridge
    harmonic = []
    for mode in range(k - 1, k - 1 - some, -1):
        u = precision @ features[:, mode]
        gain = values[mode] / (1.0 + values[mode] * features[:, mode] @ u)
        precision -= gain * np.outer(u, u)
        harmonic.append(points / np.trace(precision))
    return harmonic


def ridges(options):
    """Time the roots of 2,000 equations, and all that follows from them."""
    k, points, some = (50, 10, 10) if options.quick else (2000, 100, 10)
    values = np.arange(1, k + 1.0) ** -2
    ns, ridge = np.geomspace(1.0, 5000.0, points), np.geomspace(1e-4, 1.0, 20)
    solve = jax.jit(rg.effective_ridge)
    moments = theory.spectral_moments(values, values, 0.1)
    contenders = {
        "bayesrg, roots": call(
            lambda: solve(values, ns[:, None], ridge), "ours", lambda roots: roots[:some]
        ),
        "SciPy brentq, one by one": Part(
            lambda: one_by_one(values, ns, ridge, some), points / some, answer=lambda r: r
        ),
        "bayesrg, with errors, evidence, calibration": call(
            lambda: theory.ridge_equivalent(moments, ns[:, None], ridge).test, "other"
        ),
    }
    title = f"{20 * points} effective ridges of {k} modes"
    return race(title, contenders, options.rounds, rough=1e-9)


def flow(options):
    """Time all ridges at all cutoffs, and compare with one eigendecomposition."""
    n, some = (60, 20) if options.quick else (2000, 40)
    ridge = 0.02
    features = np.random.default_rng(0).standard_normal((n, n))
    values = np.arange(1, n + 1.0) ** -1.5
    K = jnp.asarray(features * values @ features.T)
    eigh = jax.jit(jnp.linalg.eigh)
    contenders = {
        "bayesrg, with exact ridges": call(
            lambda: rg.flow(values, n, ridge, features=features).harmonic,
            "ours",
            lambda harmonic: harmonic[:-1][::-1][:some],
        ),
        "rank-one steps": Part(
            lambda: shell_steps(features, values, ridge, some), n / some, answer=lambda r: r
        ),
        "bayesrg, universal and dressed alone": call(
            lambda: rg.flow(values, n, ridge).dressed, "other"
        ),
        "one eigendecomposition": call(lambda: eigh(K)[0], "floor"),
    }
    text = f"Rank-one steps: {some} are timed, the others are extrapolated."
    title = f"Flow over all cutoffs, n = {n}"
    return race(title, contenders, options.rounds, tolerance=1e-9, rough=1e-8, notes=[text])


def figures(options):
    """Yield names and records of both figures."""
    yield "ridges", ridges(options)
    yield "flow", flow(options)
