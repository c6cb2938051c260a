# SPDX-License-Identifier: Apache-2.0
"""Functions of `rg` and `theory` are one compiled program, or few, and none for other numbers.

A chain of eager operations compiles one program per operation for each new shape, which costs
seconds at the first call.
"""

import jax
import numpy as np
import pytest

from bayesrg import rg, theory

K, P = 13, 67  # modes and rows; no other file has them


class Numbers:
    """Numbers of one draw, all of the same shapes."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.values = np.sort(rng.uniform(0.1, 1.0, K))[::-1]
        self.power = rng.uniform(0.1, 1.0, K)
        self.n, self.ridge = rng.uniform(20, 30), rng.uniform(0.1, 0.2)
        self.ns = rng.uniform(5, 50, 9)
        self.Phi, self.y = rng.normal(size=(P, K)), rng.normal(size=P)
        self.Phi = (self.Phi - self.Phi.mean(0)) / self.Phi.std(0)
        self.squares = np.full(9, 1.0) + 0.1 * (self.ns - self.ns.mean()) / np.ptp(self.ns)
        self.W = [rng.normal(size=(p, K)) / np.sqrt(K) for p in (K, K)]
        self.Omega = self.Phi.T @ self.Phi / P
        self.psi = self.Omega @ self.power
        self.moments = theory.spectral_moments(self.values, self.power, 0.1)
        self.layers = theory.linearise(self.W, "erf", self.Omega)
        self.noise = rng.normal(size=(2, P, K))
        self.kernel = theory.equivalent_kernel(self.values, self.n, self.ridge)


def curve(name, **given):
    def call(d):
        return getattr(theory, name)(d.values, d.power, d.ns, d.ridge, label_noise=d.ridge, **given)

    return call


CALLS = {
    **{
        f"cutoff {rule}": lambda d, rule=rule: rg.cutoff(d.values, d.n, d.ridge, rule)
        for rule in ("running", "match")
    },
    "effective_ridge": lambda d: rg.effective_ridge(d.values, d.n, d.ridge),
    "dressed_ridge": lambda d: rg.dressed_ridge(d.values, d.n, d.ridge, 3),
    "universal_ridge": lambda d: rg.universal_ridge(d.values, d.ridge, 3),
    "two_stage_ridge": lambda d: rg.two_stage_ridge(d.values, d.n, d.ridge, 3),
    "learnability": lambda d: rg.learnability(d.values, d.n, d.ridge),
    "flow": lambda d: rg.flow(d.values, d.n, d.ridge),
    "feature_cumulants": lambda d: rg.feature_cumulants(d.Phi, 2),
    "conditional_ridge": lambda d: rg.conditional_ridge(d.Phi, d.values, d.ridge, 2),
    "dressed_local_ridge": lambda d: rg.dressed_local_ridge(d.Phi, d.values, d.n, d.ridge, 3),
    "scale_mixture_ridge": lambda d: rg.scale_mixture_ridge(d.values, d.n, d.ridge, 3, d.squares),
    "reweighted_modes": lambda d: rg.reweighted_modes(d.Phi, d.values, d.n, d.ridge, d.y),
    "data_weights": lambda d: rg.data_weights(d.ns),
    "learning_curve": curve("learning_curve"),
    "coarse_learning_curve": curve("coarse_learning_curve", cutoff=3),
    "moments": lambda d: theory.moments(d.Phi[:, :5], d.y),
    "population_moments": lambda d: theory.population_moments(d.Omega, d.psi, d.power @ d.psi + 1),
    "spectral_moments": lambda d: theory.spectral_moments(d.values, d.power, d.ridge),
    "ridge_equivalent": lambda d: theory.ridge_equivalent(d.moments, d.ns, d.ridge),
    "optimal_ridge": lambda d: theory.optimal_ridge(d.moments, d.n),
    "annealed_curve": lambda d: theory.annealed_curve(d.values, (K, 9), "erf", d.ns, d.ridge),
    "correction": lambda d: d.kernel.correction(d.Phi, d.power),
    "linearise": lambda d: theory.linearise(d.W, "erf", d.Omega, d.psi),
    "surrogate_features": lambda d: theory.surrogate_features(d.W, d.layers, d.Phi, d.noise),
    "spectral_density": lambda d: theory.spectral_density(d.values, d.n, d.ns),
    "gcv": lambda d: theory.gcv(d.Phi, d.y, d.ridge),
}


# a cutoff, a path of cutoffs, a curve, equivalents of moments, layers, and decomposed columns
KINDS = "cutoff running", "flow", "learning_curve", "ridge_equivalent", "linearise", "gcv"


@pytest.fixture(scope="module")
def draws():
    return Numbers(0), Numbers(1)


@pytest.mark.filterwarnings("ignore:moments. F has")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in CALLS]
)
def test_a_call_compiles_few_programs_and_other_numbers_none(name, draws, compilations):
    call, (first, second) = CALLS[name], draws
    with compilations() as count:
        jax.block_until_ready(call(first))
    assert count() <= 6
    with compilations() as count:
        jax.block_until_ready(call(second))
    assert count() == 0
