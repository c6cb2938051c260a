# SPDX-License-Identifier: Apache-2.0
"""What must run on the host says so under a JAX transformation; what need not is traced."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import gp, kernels, networks, rg, spectrum, theory

deep = theory.deep_linear
rng = np.random.default_rng(0)
X, y, values = rng.normal(size=(5, 2)), rng.normal(size=5), np.arange(1, 6.0) ** -2
K = X @ X.T + np.eye(5)


def net(ridge=0.1, outputs=1):
    return networks.DeepLinear(widths=(6,), ridge=ridge, outputs=outputs)


@cache
def solved():
    return deep.exact(net(), X, y)


ON_THE_HOST = {
    "exact": (lambda v: deep.exact(net(), X, v).log_evidence, y),
    "exact, inputs": (lambda v: deep.exact(net(), v, y).log_evidence, X),
    "exact, ridge": (lambda v: deep.exact(net(v), X, y).log_evidence, 0.1),
    "exact, kernel": (lambda v: deep.exact(net(), X, y, kernel=v).log_evidence, K),
    "exact, in a kernel": (
        lambda v: deep.exact(net(), X, y, kernel=kernels.RBF(v)).log_evidence, 1.0
    ),
    "exact, at new inputs": (lambda v: solved().predict(v)[0], X),
    "exact, new targets": (lambda v: solved().log_density(X, v), y),
    "exact, moment": (lambda v: solved().moment(v), 1.0),
    "saddle": (lambda v: deep.saddle(net(), X, v).q, y),
    "saddle, several outputs": (lambda v: deep.saddle(net(outputs=2), X, v).Q, X),
    "evidence": (lambda v: deep.evidence(net(), X, v).value, y),
    "evidence, several outputs": (lambda v: deep.evidence(net(outputs=2), X, v).value, X),
    "perturbative_kernel": (lambda v: deep.perturbative_kernel(net(), X, v, 1), y),
    "prior_density": (lambda v: deep.prior_density([3.0], v), 0.5),
    "wide_and_deep": (lambda v: deep.wide_and_deep(v, 1.0), 0.5),
    "leading_log_evidence": (lambda v: deep.leading_log_evidence(1.0, 1.0, v), 5.0),
    "infinite_depth": (lambda v: deep.infinite_depth(5, 5, v)[0], 1.0),
    "maximise_evidence": (
        lambda v: gp.maximise_evidence(kernels.RBF, 1.0, X, v, ridge=0.1).theta, y
    ),
    "maximise_evidence, mean": (
        lambda v: gp.maximise_evidence(kernels.RBF, 1.0, X, y, ridge=0.1, mean=v).theta, 1.0
    ),
    "critical_point": (lambda v: kernels.critical_point("tanh", v), 0.1),
    "nystrom": (lambda v: spectrum.nystrom(kernels.RBF(v), X, 3).values, 1.0),
    "learning_curve_mc": (
        lambda v: theory.learning_curve_mc(
            theory.gaussian_population(values, values), v, 0.1, draws=2, key=0
        ).test,
        np.array([3]),
    ),
    "conditional_ridge": (
        lambda v: rg.conditional_ridge(K, values, 0.1, 2, modes=v), np.array([0])
    ),
    "flow, cutoffs": (lambda v: rg.flow(values, 5, 0.1, cutoffs=v).dressed, np.array([0, 2])),
    "flow, degeneracy": (lambda v: rg.flow(values, 5, 0.1, degeneracy=v).dressed, np.ones(5)),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_the_host_is_asked_for(name):
    function, value = ON_THE_HOST[name]
    with pytest.raises(ValueError, match="runs on the host and cannot be traced"):
        jax.jit(function)(value)


def test_derivatives_and_constants_are_refused_alike():
    with pytest.raises(ValueError, match="runs on the host and cannot be traced"):
        jax.grad(lambda v: deep.exact(net(v), X, y).log_evidence)(0.1)
    for constant in (
        lambda: kernels.critical_point("tanh"),
        lambda: deep.exact(net(), X, y).log_evidence,
        lambda: gp.maximise_evidence(kernels.RBF, 1.0, X, y, ridge=0.1).theta,
    ):
        with pytest.raises(ValueError, match="runs on the host and cannot be traced"):
            jax.jit(lambda v, constant=constant: v * constant())(0.1)


@pytest.mark.slow
def test_the_flow_is_traced_with_its_cutoffs_given():
    features = rng.normal(size=(4, 5))

    def flow(values, ridge):
        return rg.flow(values, 4, ridge, features=features, y=y[:4], cutoffs=[0, 2, 5])

    inside, outside = jax.jit(flow)(values, 0.1), flow(values, 0.1)
    assert type(outside.stop) is int and int(inside.stop) == outside.stop
    for name in ("universal", "dressed", "arithmetic", "harmonic", "evidence", "rescaled"):
        np.testing.assert_allclose(getattr(inside, name), getattr(outside, name), rtol=1e-12)


def test_arrays_that_a_traced_function_captured_are_checked_like_arguments():
    """Their numbers are known under jit, where an operation of JAX on them would be traced."""
    Phi, n, Omega = jnp.asarray(X), jnp.asarray(5), jnp.asarray(K)
    residual, threshold = jnp.asarray(y) ** 2, jnp.asarray(0.5)

    def all_of(scale):
        fn = gp.MercerNormal(Phi, scale * values[:2], 0.1, residual=residual)
        density = jax.jit(lambda fn: fn.log_prob(jnp.asarray(y)))(fn)
        kept = rg.learnability(scale * jnp.asarray(values), n, 0.1)
        moments = theory.population_moments(Omega, jnp.asarray(y), scale * 100.0)
        stop = rg.power_law(1.0).stop(scale * 10, 0.1, threshold)
        return density, kept, theory.ridge_equivalent(moments, n, 0.1).test, stop

    inside, outside = jax.jit(all_of)(1.0), all_of(jnp.asarray(1.0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), inside, outside)
