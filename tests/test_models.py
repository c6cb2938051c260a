# SPDX-License-Identifier: Apache-2.0
"""Every file of models/ keeps the contract; where a closed form exists, sampling meets it."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import arviz as az
import jax
import numpy as np
import pytest
from numpyro import handlers

import bayesrg as brg

NAMES = sorted(m.name for m in pkgutil.iter_modules(brg.models.__path__))
ELSEWHERE = {  # what samples a model and compares it with its closed form, within four errors
    "coulomb_gas": "tests/test_weight_models.py",
    "deep_linear": "examples/plot_three_routes.py",
    "gp_modes": "examples/plot_exact_coarse_graining.py",
    "gp_regression": "examples/plot_gp_regression.py",
    "spectrum_gp": "examples/plot_inferred_spectrum.py",
}
EXACT = [n for n in NAMES if hasattr(importlib.import_module(f"bayesrg.models.{n}"), "exact")]


def load(name):
    return importlib.import_module(f"bayesrg.models.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    module = load(name)
    parameters = list(inspect.signature(module.model).parameters.values())
    assert [q.name for q in parameters[:2]] == ["X", "y"] and parameters[1].default is None
    for q in parameters[2:]:
        assert q.kind is q.KEYWORD_ONLY and q.default is not inspect.Parameter.empty, q.name
    data = module.demo(jax.random.key(0))
    assert isinstance(data, brg.Data) and data.X_test is not None
    hyper, trace = {}, {}
    if name == "spectrum_gp":  # makes its default prior on the host, where nothing is traced
        hyper = {"moving": brg.kernels.RBF, "landmarks": data.X}
    model = handlers.trace(handlers.seed(module.model, 0))
    jax.eval_shape(lambda: trace.update(model.get_trace(data.X, data.y, **hyper)))
    assert [s["name"] for s in trace.values() if s["type"] == "sample" and s["is_observed"]]
    lines = [line for line in inspect.getsource(module).splitlines() if line.strip()]
    assert module.__doc__ and len(lines) <= 80


def test_a_model_that_is_sampled_elsewhere_is():
    for name, file in ELSEWHERE.items():
        text = (Path(__file__).parents[1] / file).read_text()
        assert name in EXACT and "fit(" in text and re.search(r"\bexact\(", text), (name, file)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EXACT if n not in ELSEWHERE])
def test_posterior_means_meet_the_closed_form(name):
    module = load(name)
    data = module.demo(jax.random.key(0))
    hyper = module.prepare(data) if hasattr(module, "prepare") else {}
    dt = brg.fit(
        module.model, data, key=1, draws=2000, warmup=500, chains=2, progress=False, **hyper
    )
    exact = module.exact(data, **hyper)
    posterior, checked = dt["posterior"].to_dataset(), 0
    for variable, mean in exact.items():
        if variable not in posterior:
            continue
        draws = posterior[[variable]]
        error = az.mcse(draws)[variable]
        z = (draws[variable].mean(("chain", "draw")) - np.asarray(mean)) / error
        assert float(np.abs(z).max()) < 4, (variable, z.values)
        assert float(az.rhat(draws)[variable].max()) < 1.02
        checked += 1
    assert checked >= 2


@pytest.mark.slow
def test_quadrature_does_not_depend_on_the_grid(digits, spectrum):
    module, data = load("gp_regression"), digits
    hyper = {"spectrum": spectrum, "eigen": spectrum.at(data.X).eigenpairs()}
    grid = {
        "amplitude": np.geomspace(0.05, 10.0, 80), "noise": np.geomspace(1e-3, 3.0, 120)
    }  # fmt: skip
    other = brg.inference.grid_posterior(module.model, data, grid, **hyper)
    exact = module.exact(data, **hyper)
    np.testing.assert_allclose(other.log_evidence, exact["log_evidence"], atol=2e-3)
    np.testing.assert_allclose(other.mean["noise"], exact["noise"], rtol=1e-2)


def test_coarse_and_full_evidence_are_one():
    full, modes = load("gp_regression"), load("gp_modes")
    data = modes.demo(jax.random.key(0))
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)
    a = modes.exact(data, cutoff=7)
    b = full.exact(data, spectrum=spectrum)
    np.testing.assert_allclose(a["log_evidence"], b["log_evidence"], rtol=1e-12)
    np.testing.assert_allclose(a["noise"], b["noise"], rtol=1e-10)
