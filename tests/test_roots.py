# SPDX-License-Identifier: Apache-2.0
"""First and second derivatives of every root, in both modes, jitted and vmapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import _fixedpoint, kernels, rg, theory

v = np.arange(1, 11.0) ** -2
Phi = np.random.default_rng(0).normal(size=(6, 4))
X = np.random.default_rng(1).normal(size=(3, 2))


def spectral(a, b):
    return theory.spectral_moments(v, v**a, b)


def deq(train):
    def both(a, b):
        kernel = kernels.DEQ("erf", a, b, 0.1, train=train)
        return kernel(X).sum() + kernel(X[:2], X + 0.3)[0, 1]

    return both


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


ROOTS = [
    slow("effective ridge", lambda a, b: rg.effective_ridge(b * v, 5 * a, 0.1 * b), (1.0, 0.7)),
    slow("power law, error", lambda a, b: rg.power_law(a, 1.3).error(30 * b, 0.1 * a), (0.8, 1.1)),
    slow("power law, stop", lambda a, b: rg.power_law(a, 1.3).stop(30 * b, 0.1 * b), (0.8, 1.1)),
    slow(
        "scale mixture",
        lambda a, b: (
            rg.scale_mixture_ridge(b * v, 5 * a, 0.1, 0, [0.4, 1.6]).value @ jnp.arange(2.0)
        ),
        (1.0, 0.7),
    ),
    slow(
        "dressed local ridge",
        lambda a, b: rg.dressed_local_ridge(Phi * b, v[:4], 5 * a, 0.1 * a).value @ jnp.arange(6.0),
        (1.0, 0.7),
    ),
    slow(
        "density", lambda a, b: theory.spectral_density(a * v, 20.0, [0.4 * b]).density[0], (1, 1)
    ),
    slow(
        "annealed curve",
        lambda a, b: theory.annealed_curve(a * v, (7, 6), "erf", 9.0, 0.1 * b, 0.2).test,
        (1.2, 0.9),
    ),
    slow(
        "optimal ridge", lambda a, b: theory.optimal_ridge(spectral(a, b), 20.0).ridge, (1.3, 0.1)
    ),
    slow(
        "optimal ridge, evidence",
        lambda a, b: theory.optimal_ridge(spectral(a, b), 20.0, "evidence").noise_variance,
        (1.3, 0.1),
    ),
    slow(
        "equivalent", lambda a, b: theory.ridge_equivalent(spectral(a, b), 9 * b, b).test, (1, 0.2)
    ),
    slow("deep equilibrium", deq("last"), (0.4, 0.8)),
    slow("deep equilibrium, tangents", deq("all"), (0.4, 0.8)),
]


@pytest.mark.parametrize("name, root, at", ROOTS)
def test_two_derivatives(name, root, at):
    """Against central differences of the root and of its gradient."""
    h, at = 1e-4, np.array(at, float)

    def f(t):
        return root(t[0], t[1])

    @jax.jit
    @jax.vmap
    def everything(t):
        slope = jax.grad(f)
        return f(t), slope(t), jax.jacfwd(slope)(t), jax.jacrev(slope)(t)

    points = at + h * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    value, slope, forward, reverse = map(np.asarray, everything(points))
    numeric = np.array([value[1] - value[2], value[3] - value[4]]) / (2 * h)
    np.testing.assert_allclose(slope[0], numeric, rtol=1e-6, atol=1e-9)
    numeric = np.array([slope[1] - slope[2], slope[3] - slope[4]]) / (2 * h)
    np.testing.assert_allclose(forward[0], numeric, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(reverse[0], forward[0], rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_the_best_ridge_follows_the_noise():
    """In a matched model of unit prior variance it is the noise variance."""
    v = jnp.arange(1, 31.0) ** -2

    def best(noise):
        return theory.optimal_ridge(theory.spectral_moments(v, v, noise), 20.0).ridge

    np.testing.assert_allclose(jax.grad(best)(0.1), 1.0, rtol=1e-9)


@pytest.mark.slow
def test_the_annealed_error_curves():
    """Against the second difference of the curve itself."""
    v = np.arange(1, 31.0) ** -2

    def error(ridge):
        return theory.annealed_curve(v, (20, 20), "erf", 50.0, ridge).test

    second = jax.hessian(error)(0.1)
    np.testing.assert_allclose(second, -0.126804, rtol=1e-5)
    three = np.asarray(error(np.array([0.1 - 3e-4, 0.1, 0.1 + 3e-4])))
    np.testing.assert_allclose(second, three @ [1, -2, 1] / 9e-8, rtol=1e-5)


def test_no_ridge_and_more_points_than_modes():
    """The root is zero, and rises like n ridge / (n - k)."""
    n, ask = 25.0, jax.jit(jax.grad(rg.effective_ridge, (0, 1, 2)))
    *others, first = ask(v, n, 0.0)
    np.testing.assert_allclose(first, n / (n - 10), rtol=1e-14)
    # with n modes it rises like the root of the ridge, whose slope has no bound
    *others_there, at_the_rank = ask(v, 10.0, 0.0)
    assert at_the_rank > 1e300
    assert not any(np.any(g) for g in others + others_there)


@pytest.mark.slow
def test_curvature_without_a_ridge():
    n = 25.0
    curvature = jax.jit(jax.grad(jax.grad(rg.effective_ridge, 2), 2))(v, n, 0.0)
    np.testing.assert_allclose(curvature, -2 * (1 / v).sum() / n**2 / (1 - 10 / n) ** 3, rtol=1e-12)


def test_an_equation_may_close_over_what_is_traced():
    def root(a, b):
        s = jnp.sqrt(jax.lax.stop_gradient(a)) * jnp.arange(1, 3.0)
        return _fixedpoint.implicit(lambda s, c: (s / c) ** 2 - a, s, jnp.arange(1, 3.0) + 0 * b)

    points = np.array([0.3, 2.0])
    found = jax.jit(jax.vmap(jax.grad(jax.grad(lambda a: root(a, 1.0)[1]))))(points)
    np.testing.assert_allclose(found, -0.5 * points**-1.5, rtol=1e-12)

    # unknowns that mix, third derivative: s_1 = a, s_2 = a s_1^2
    def mixed(a):
        s = jnp.stack([a, a**3])
        equation = lambda s, a: jnp.stack([s[0] - a, s[1] - a * s[0] ** 2])  # noqa: E731
        return _fixedpoint.implicit(equation, s, a, _fixedpoint.coupled)[1]

    third = jax.jit(jax.jacfwd(jax.jacrev(jax.grad(mixed))))(0.7)
    np.testing.assert_allclose(third, 6.0, rtol=1e-12)
