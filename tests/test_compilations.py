# SPDX-License-Identifier: Apache-2.0
"""Public functions compile a few programs at their first call, and none for other numbers."""

import jax
import numpy as np
import pytest
from numpyro.distributions import Bernoulli

from bayesrg import diagnostics, dynamics, gp, io, kernels, rg, spectrum

N, M = 17, 7  # shapes that no other test has, so that nothing is compiled already


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def kernel(seed):
    return kernels.Matern32(1.0 + 0.1 * seed)


def nystrom(seed):
    return spectrum.nystrom(kernel(seed), numbers(seed, N, 3), rank=6)


def sphere(seed):
    return spectrum.sphere(kernel(seed), 3, 7)


def modified(seed):
    return spectrum.modify(nystrom(seed), spectrum.maps.power(1.5 + 0.1 * seed))(numbers(9, M, 3))


def functionals(seed):
    low = spectrum.functionals(nystrom(seed), 4)
    return low.features(kernel(seed + 1), numbers(9, M, 3))


def laplace(verb):
    def call(seed):
        prior = gp.marginal(kernel(seed), numbers(seed, N, 3), 1e-2)
        law = gp.LaplaceMarginal(prior, lambda f: Bernoulli(logits=f))
        return getattr(law, verb)((numbers(seed, N) > 0).astype(int))

    return call


def maximum(seed):
    def scaled(theta):
        return kernels.Matern32(theta["length"], theta["variance"])

    start = {"length": 1.0 + 0.1 * seed, "variance": 1.0, "ridge": 0.1}
    X, y = numbers(seed, N, 3), numbers(seed + 1, N)
    return tuple(gp.maximise_evidence(scaled, start, X, y, restarts=0))[::2]


def condition(seed):
    posterior = gp.condition(kernel(seed), numbers(seed, N, 3), numbers(seed, N), 0.1)
    return posterior.predict(numbers(9, M, 3)), posterior.log_evidence, posterior.loo()


def linear(seed):
    root = numbers(seed, N, N)
    moves = dynamics.linear_dynamics(root @ root.T, step_size=1e-3)
    return moves.residual(numbers(seed, N), np.arange(5.0))


def law(verb):
    def call(seed):
        return getattr(rg.power_law(0.5 + 0.1 * seed), verb)(numbers(seed, N) ** 2 + 1.0, 0.1)

    return call


def measured(seed):
    roots = numbers(seed, 2, M, 2, N, N)
    groups = {"posterior": {"feature_kernel": roots @ roots.swapaxes(-1, -2)}}
    dt = io.to_datatree(groups, {"feature_kernel": ("layer", "point", "point_bis")})
    known = {"prior_mean": np.stack([np.eye(N)] * 2), "Y": numbers(seed, N), "prior": None}
    found = diagnostics.feature.measure(dt, ridge=0.1 + seed, modes=3, **known)
    return found["feature_kernels"]["posterior"].to_numpy()


def flow_of_draws(seed):
    draws = {"amplitude": numbers(seed, 2, M) ** 2, "noise": np.ones((2, M))}
    dt = io.to_datatree({"posterior": draws}, {})
    values = (1.0 + np.arange(N)) ** -2.0
    return diagnostics.posterior_flow(dt, values, n=20 + seed)["flow"]["stop"].to_numpy()


@pytest.mark.parametrize(
    "most, function",
    [
        (5, nystrom), (4, sphere), (16, modified), (10, functionals),
        (12, laplace("mode")), (18, laplace("log_prob")), (12, laplace("posterior")),
        (29, maximum), (19, condition), (4, linear), (2, law("error")), (2, law("stop")),
        (6, measured), (8, flow_of_draws),
    ],
)  # fmt: skip
def test_first_calls_compile_a_few_programs_and_others_none(compilations, most, function):
    with compilations() as count:
        first = function(0)
    assert count() <= most
    with compilations() as count:
        second = function(1)
    assert count() == 0
    pairs = zip(*map(jax.tree.leaves, (first, second)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)  # the numbers are not in the program
