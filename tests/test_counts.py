# SPDX-License-Identifier: Apache-2.0
"""Counts that decide how long work takes: factorisations, large arrays, programs, and memory.

Seconds depend on the machine, counts do not. A changed count fails with the old and the new number;
if the change is meant, write the new number into the table that the message names.
"""

import collections
import functools
import importlib
import json
import pkgutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy
from sampling import two_steps

import bayesrg as brg
from bayesrg import dynamics, gp, kernels, rg

N = 17  # rows; no model has another size like it
FACTORS = "cholesky", "eigh", "triangular_solve"
COLUMNS = *FACTORS, "n x n", "n x n x d"


def check(what, found, kept, where):
    """Fail with both numbers, and say where the count is kept."""
    assert found == kept, f"{what}: {found} now, {kept} kept in {where} of tests/test_counts.py"


# -- factorisations and large arrays in one gradient of every model -----------------------------


def equations(jaxpr, times=1):
    """Yield all equations of a program with the number of times that they run.

    The body of a scan runs as often as it is long; a while loop counts as one turn.
    """
    for eqn in jaxpr.eqns:
        inside = times * eqn.params.get("length", 1) if eqn.primitive.name == "scan" else times
        bodies = [
            leaf.jaxpr if isinstance(leaf, ClosedJaxpr) else leaf
            for leaf in jax.tree.leaves(
                list(eqn.params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)
            )
            if isinstance(leaf, ClosedJaxpr | Jaxpr)
        ]
        if not bodies:
            yield eqn, times
        for body in bodies:
            yield from equations(body, inside)


def counted(jaxpr, n=N):
    """Count factorisations, and results that have n rows twice: with n^2 entries, or with more."""
    found = collections.Counter(dict.fromkeys(COLUMNS, 0))
    for eqn, times in equations(jaxpr):
        if eqn.primitive.name in FACTORS:
            found[eqn.primitive.name] += times
        for shape in (v.aval.shape for v in eqn.outvars):
            if shape.count(n) >= 2:
                found["n x n" if np.prod(shape) == n * n else "n x n x d"] += times
    return tuple(found[name] for name in COLUMNS)


def gradient_of(model, *args, **hyper):
    """Return the program of one gradient of the potential energy of a model; nothing compiles."""

    def points():
        trace = handlers.trace(handlers.seed(model, 0)).get_trace(*args, **hyper)
        return {
            name: biject_to(site["fn"].support).inv(site["value"])
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }

    def energy(z):
        return potential_energy(model, args, hyper, z)

    return jax.make_jaxpr(jax.grad(energy))(jax.eval_shape(points)).jaxpr


rng = np.random.default_rng(0)
X, y = rng.uniform(size=(N, 3)), rng.standard_normal(N)
LEVELS = np.sort(rng.standard_normal((N, 20)), axis=1)
WAVES = brg.spectrum.fourier(lambda j: (1.0 + j) ** -2, 5)
# model: (arguments, hyper-arguments) in one or more uses
USES = {
    "coulomb_gas": [((X, LEVELS), {})],
    "deep_linear": [((X, y), {})],
    "deep_linear_collapsed": [((X, y), {})],
    "deep_linear_conv": [((rng.standard_normal((N, 7)), y), {})],
    "gp_classification": [((X[:, :1], y > 0), {})],
    "gp_modes": [((X[:, :1], y), {})],
    "gp_regression": [
        ((X, y), {}),
        ((X, y), {"spectrum": kernels.RBF(np.ones(3))}),
        ((X[:, :1], y), {"spectrum": WAVES}),
    ],
    "noise_scaling": [((X[:, :2] + 0.1, y**2), {})],
    "rainbow": [((X, y), {})],
    "rainbow_collapsed": [((X, y), {})],
    "rainbow_surrogate": [((X, y), {})],
    "residual_action": [((X[:, :2], y > 0), {})],
    "spectrum_gp": [((X, y), {"moving": kernels.RBF, "landmarks": X})],
}
COUNTS = {  # one tuple per use, with the numbers of COLUMNS
    "coulomb_gas": [(0, 0, 0, 0, 0)],
    "deep_linear": [(0, 0, 0, 0, 0)],
    "deep_linear_collapsed": [(1, 0, 1, 56, 0)],
    "deep_linear_conv": [(1, 0, 1, 43, 0)],
    "gp_classification": [(1, 0, 2, 76, 0)],
    "gp_modes": [(1, 0, 1, 49, 0)],
    "gp_regression": [(1, 0, 1, 134, 0), (1, 0, 1, 76, 0), (1, 0, 1, 0, 0)],
    "noise_scaling": [(0, 0, 0, 0, 0)],
    "rainbow": [(0, 0, 0, 0, 0)],
    "rainbow_collapsed": [(1, 0, 1, 0, 0)],
    "rainbow_surrogate": [(0, 0, 0, 0, 0)],
    "residual_action": [(0, 0, 0, 0, 0)],
    "spectrum_gp": [(1, 1, 1, 351, 0)],
}


def test_every_model_is_counted():
    names = {m.name for m in pkgutil.iter_modules(brg.models.__path__)}
    assert set(USES) == set(COUNTS) == names


def model(name):
    return importlib.import_module(f"bayesrg.models.{name}").model


def check_gradient(name, function):
    found = [counted(gradient_of(function, *args, **hyper)) for args, hyper in USES[name]]
    check(f"{', '.join(COLUMNS)} of {name}", found, COUNTS[name], "COUNTS")


@pytest.mark.parametrize("name", USES)
def test_factorisations_and_large_arrays_of_a_gradient(name):
    check_gradient(name, model(name))


def test_one_factorisation_more_is_found():
    def planted(X, y=None, **hyper):
        model("deep_linear_collapsed")(X, y, **hyper)
        scale = numpyro.sample("scale", numpyro.distributions.HalfNormal(1.0))
        L = jnp.linalg.cholesky(scale * jnp.eye(N))
        numpyro.factor("more", jnp.log(jnp.diag(L)).sum())

    with pytest.raises(AssertionError, match=r"\(2, 0, .* now, \[\(1, 0, .* kept in COUNTS"):
        check_gradient("deep_linear_collapsed", planted)


def test_the_body_of_a_scan_counts_as_often_as_it_runs():
    def function(A):
        return jax.lax.scan(lambda A, _: (jnp.linalg.cholesky(A), None), A, length=3)[0]

    assert counted(jax.make_jaxpr(function)(np.eye(N)).jaxpr)[0] == 3


# -- memory of compiled programs ------------------------------------------------------------------


def reserved(function, *args):
    """Return what a compiled program takes beside arguments and results, in bytes."""
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def evidence(theta, X, y):
    kernel = kernels.RBF(theta[:8], theta[8])
    return gp.marginal(kernel, X, theta[9]).log_prob(y)


def tangent(X):
    return kernels.NTK(3, block_bytes=2**20)(X)


def all_ridges(values, features):
    return rg.flow(values, len(values), 0.1, features=features).harmonic


NETWORK = brg.networks.Residual(32, 64, outputs=1)


def shapes(*sizes):
    return [jax.ShapeDtypeStruct(size, float) for size in sizes]


# program: (function, shapes of its arguments, most bytes)
MEMORY = {
    "tangent kernel, twice its budget": (tangent, shapes((700, 8)), 2 * 2**20),
    "evidence with its gradient, 6 matrices": (
        jax.value_and_grad(evidence), shapes((10,), (600, 8), (600,)), 6 * 8 * 600**2),
    "all ridges of a flow, 6 matrices": (
        all_ridges, shapes((300,), (300, 300)), 6 * 8 * 300**2),
}  # fmt: skip
BY_DEFAULT = "tangent kernel, twice its budget"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == BY_DEFAULT else pytest.mark.slow) for n in MEMORY]
)
def test_memory_of_programs(name):
    function, given, most = MEMORY[name]
    found = reserved(function, *given)
    message = f"{name}: {found} bytes now, at most {most} kept in MEMORY of tests/test_counts.py"
    assert found <= most, message


# -- programs that calls compile ------------------------------------------------------------------


def line(X, y=None, *, width=1.0):
    slope = numpyro.sample("slope", numpyro.distributions.Normal(0.0, width))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", numpyro.distributions.Normal(slope * X[:, 0], 1.0), obs=y)


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@functools.cache
def fit(seed):
    data, steps = (numbers(seed, N, 1), numbers(seed + 1, N)), {"draws": 6, "warmup": 5}
    return brg.fit(line, data, key=seed, sampler=two_steps, chains=2, progress=False, **steps)


def predict(seed):
    return brg.predict(fit(seed), line, numbers(seed, 5, 1), key=seed)


def sbc(seed):
    quantities = {"slope": slope_of}
    steps = {"simulations": 4, "draws": 5, "warmup": 3, "thin": 1, "sampler": two_steps}
    return brg.inference.sbc(line, numbers(seed, N, 1), quantities, key=seed, **steps)


def slope_of(sites, y, key):
    return sites["slope"]


def run(seed):
    target = np.eye(3) * (2.0 + seed)
    found = dynamics.teacher_student(target, noise=0.1, learning_rate=0.05 + 0.01 * seed, batch=7)
    return dynamics.run(found.algorithm, found.start, 6, seed, 3, chains=5)


CALLS = {f.__name__: f for f in (fit, predict, sbc, run)}
SECOND = {"fit": 3, "predict": 0, "sbc": 1, "run": 0}  # each builds a sampler, which is a program
# programs of both calls, in a fresh process, in this order
PROGRAMS = {"fit": [52, 3], "predict": [6, 0], "sbc": [2, 1], "run": [2, 0]}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "sbc" else ()) for n in CALLS]
)
def test_programs_of_a_second_call(compilations, name):
    if name == "predict":  # what it starts from is not counted
        fit(0), fit(1)
    check_second(compilations, name, CALLS[name], SECOND[name])


def check_second(compilations, name, call, kept):
    call(0)
    with compilations() as count:
        call(1)
    check(f"programs of a second call of {name}", count(), kept, "SECOND")


def test_a_lambda_that_compiles_again_is_found(compilations):
    def call(seed):
        return jax.jit(lambda x: x + seed)(np.ones(N))

    with pytest.raises(AssertionError, match="second call of planted: 1 now, 0 kept"):
        check_second(compilations, "planted", call, 0)


@pytest.mark.slow
def test_programs_of_first_calls_in_a_fresh_process():
    """Other tests of a process compile small programs that these calls then find."""
    code = """
        import json, sys
        import conftest, programs, test_counts
        found = {}
        for name, call in test_counts.CALLS.items():
            counts = [programs.programs.total()]
            for seed in (0, 1):
                call(seed)
                counts.append(programs.programs.total())
            found[name] = [b - a for a, b in zip(counts, counts[1:])]
        print(json.dumps(found))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd="tests")
    found = json.loads(done.stdout.splitlines()[-1])
    check("programs of first and second calls", found, PROGRAMS, "PROGRAMS")
