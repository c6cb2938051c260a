# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference
from test_modify import GRID, LANDMARKS, NTK, circular

from bayesrg import gp
from bayesrg._linalg import matrix_function
from bayesrg.spectrum import maps, modify, modify_kernel, nystrom


class Exponent(maps.Pointwise):
    """``lam ** alpha``, absolute."""

    alpha: jax.Array

    def at(self, values, largest):
        return values**self.alpha


def equispaced(n):
    t = np.arange(n) * 2 * np.pi / n
    return t, np.cos(2 * t) - 0.3 * np.sin(5 * t)


@pytest.mark.parametrize(
    "n, length", [pytest.param(12, 8.3148, marks=pytest.mark.slow), (20, 9.1580)]
)
def test_derivatives_hold_on_a_degenerate_design(n, length):
    """Through eigenvectors they are nan, or finite and wrong by 5 %."""
    t, y = equispaced(n)

    def nll(theta):
        kernel = modify_kernel(circular(theta[0]), t, Exponent(theta[1]))
        return -gp.marginal(kernel, t, theta[2]).log_prob(y)

    value, gradient = jax.jit(jax.value_and_grad(nll))(jnp.array([0.8, 1.3, 0.05]))
    np.testing.assert_allclose(gradient[0], length, rtol=0, atol=1e-4)
    if n == 20:
        np.testing.assert_allclose(value, 15.52184252, rtol=0, atol=1e-8)
        np.testing.assert_allclose(gradient, [9.1580, 13.6714, -52.6200], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_derivatives_pass_through_the_largest_eigenvalue():
    t, y = equispaced(20)
    top = np.exp(-(1 - np.cos(t)) / 0.8).mean()  # that of the constant mode

    @jax.value_and_grad
    def nll(theta):
        kernel = modify_kernel(circular(theta[0]), t, maps.power(theta[1]))
        return -gp.marginal(kernel, t, 0.05).log_prob(y)

    @jax.grad
    def held(length):  # the largest eigenvalue a constant
        g = maps.combine(maps.scale(top**-0.3), Exponent(jnp.asarray(1.3)))
        return -gp.marginal(modify_kernel(circular(length), t, g), t, 0.05).log_prob(y)

    theta = np.array([0.8, 1.3])
    (value, gradient), of_held = jax.device_get(jax.jit(lambda v: (nll(v), held(v[0])))(theta))
    np.testing.assert_allclose(value, 14.53338650, rtol=0, atol=1e-8)
    np.testing.assert_allclose(gradient, [7.036075, 6.474561], rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradient[0] - of_held, 0.641131, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_derivatives_of_a_cutoff_in_both_modes():
    """Against the Fourier sum of the kernel, which has no eigenvector to differentiate."""
    t = equispaced(24)[0]
    y = np.sin(3 * t) + 0.5 * np.cos(t)

    def fourier_sum(theta):
        lam = jnp.exp(-(1 - jnp.cos(t)) / theta[0]) @ jnp.cos(jnp.outer(jnp.arange(24), t)) / 24
        s = 24 * lam**5 / (lam**4 + theta[1] ** 4) + 0.01
        return 0.5 * (12 / s[3] + 3 / s[1] + jnp.log(2 * jnp.pi * s).sum())

    def nll(theta):
        kernel = modify_kernel(circular(theta[0]), t, maps.polynomial_cutoff(theta[1], 4.0))
        return -gp.marginal(kernel, t, 0.01).log_prob(y)

    @jax.jit
    def both_modes(theta):
        backward = jax.value_and_grad(nll)(theta)
        return *backward, jax.jacfwd(nll)(theta), jax.grad(fourier_sum)(theta)

    theta = np.array([0.5, 0.05])
    value, gradient, forward, expected = both_modes(theta)
    np.testing.assert_allclose(value, 60.5233033901, rtol=0, atol=1e-10)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, [894.7344, 4740.5376], rtol=0, atol=1e-4)
    np.testing.assert_allclose(forward, gradient, rtol=1e-9)
    for twice in (nll, jax.jit(nll)):
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            jax.eval_shape(jax.hessian(twice), theta)


def test_a_moving_kernel_at_rest_is_the_fixed_one():
    X = np.concatenate([GRID[:9], LANDMARKS[:5]])
    g = maps.combine(maps.scale(0.7), maps.power(1.3), maps.soft_cutoff(0.02, 0.3))
    sample = nystrom(NTK, LANDMARKS)

    @jax.jit
    def both(tail):
        """Among X and between X and the grid."""
        pair = modify_kernel(NTK, LANDMARKS, g, tail), modify(sample, g, tail)
        return [(kernel(X), kernel(X, GRID)) for kernel in pair]

    for tail in (1.0, 0.4, 0.0):
        moving, fixed = both(tail)
        np.testing.assert_allclose(moving[0], fixed[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(moving[1], fixed[1], rtol=0, atol=1e-12)


@pytest.mark.slow
def test_derivatives_with_duplicates_dropped_modes_and_many_at_once():
    """Off the landmarks, with repeated inputs, under vmap, against differences."""
    t = np.array([0.1, 0.5, 0.5, 1.7, 2.0, 2.0, 2.0, 4.4, 5.0, 5.1])
    new = np.linspace(0.0, 6.0, 4)
    weights = np.random.default_rng(0).standard_normal((4, 4))

    @jax.jit
    @jax.vmap
    @jax.value_and_grad
    def loss(theta):
        g = maps.combine(maps.power(theta[1]), maps.soft_cutoff(theta[2], 0.4))
        return (weights * modify_kernel(circular(theta[0]), t, g, 0.7)(new)).sum()

    theta = np.array([0.6, 1.2, 0.03])
    thetas = np.stack([theta, 1.1 * theta])
    gradients = loss(thetas)[1]
    assert len(nystrom(circular(0.6), t)) == 7
    for i in range(2):
        expected = central_difference(lambda v, i=i: loss(np.stack([v, v]))[0][i], thetas[i])
        np.testing.assert_allclose(gradients[i], expected, rtol=1e-6, atol=1e-8)


@jax.jit
def cube(A, dA):
    def value(A):
        V, W = matrix_function(A, lambda v, largest: v**3)
        return V @ W @ V.T

    return jax.jvp(value, (A,), (dA,))


@pytest.mark.parametrize(
    "values",
    [[3.0, 1.0, 0.2], [2.0, 0.5, 0.5], [2.0, 0.5, 0.0], [1.0, 0, 0],
     [2.0, 0.505, 0.5], [2.0, 0.5 + 8e-7, 0.5], [2.0, 0.5 + 5e-11, 0.5]],
)  # fmt: skip
def test_matrix_function_and_its_derivative(values):
    """Against a power of the matrix, whose derivative is a sum of products."""
    rng = np.random.default_rng(3)
    V = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    A, dA = V * np.asarray(values) @ V.T, rng.standard_normal((3, 3))
    dA = dA + dA.T

    value, slope = cube(A, dA)
    np.testing.assert_allclose(value, A @ A @ A, rtol=0, atol=1e-12)
    # of two dropped modes the rule gives 0, and so does the cube
    np.testing.assert_allclose(slope, A @ A @ dA + A @ dA @ A + dA @ A @ A, rtol=0, atol=1e-12)


def test_round_off_is_no_eigenvalue():
    """Of an inverse it would be the largest part."""
    A = jnp.diag(jnp.array([1.0, 0.5, 1e-15, 1e-16, 0.0, 0.0, -1e-16, 0.0]))  # n eps is 1.8e-15
    V, W = matrix_function(A, lambda v, largest: 1 / v)
    np.testing.assert_array_equal(V @ W @ V.T, np.diag([1.0, 2.0, 0, 0, 0, 0, 0, 0]))


def test_values_that_the_sample_drops_are_not_mapped():
    """A power of round-off below zero is nan."""
    kernel, t = circular(0.6), np.array([0.1, 0.1, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0])
    assert np.linalg.eigvalsh(kernel(t))[0] < 0
    sample = nystrom(kernel, t)

    @jax.jit
    def both(x):
        moving = modify_kernel(kernel, t, Exponent(jnp.asarray(0.5)))
        return moving(x), modify(sample, jnp.sqrt)(x)

    found, expected = both(t + 0.3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
