# SPDX-License-Identifier: Apache-2.0
"""Derivatives of linear dynamics where eigenvalues meet, and at the edges of the closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bayesrg import dynamics
from bayesrg.spectrum import maps

T = 2 * np.pi * np.arange(12) / 12
C = np.cos(np.subtract.outer(T, T))
R0 = np.cos(2 * T) - 0.3 * np.sin(5 * T)
ETA, WEIGHTS = 0.1, np.arange(12.0)


def tangent(length):
    return jnp.exp((C - 1) / length)


def differences(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


@pytest.mark.slow
def test_derivatives_in_the_kernel_hold_on_a_circle():
    """Every level is degenerate there: derivatives of eigenvectors are finite, and wrong."""
    S = dynamics.preconditioner(tangent(0.8), maps.lift(3))

    @jax.jit
    @jax.value_and_grad
    def closed(length):
        solved = dynamics.linear_dynamics(tangent(length), S, step_size=ETA)
        return WEIGHTS @ solved.residual(R0, 7)

    dense = np.asarray(S.dense())

    def iterated(length):
        step = np.eye(12) - ETA * np.exp((C - 1) / length) @ dense
        return WEIGHTS @ np.linalg.matrix_power(step, 7) @ R0

    value, slope = closed(0.8)
    np.testing.assert_allclose(value, iterated(0.8), rtol=1e-12)
    np.testing.assert_allclose(slope, differences(iterated, 0.8), rtol=1e-7)


def test_derivatives_in_every_other_argument():
    """In an S of two degenerate levels, at several times, in the limit, and of A."""
    K, C = tangent(0.8), np.exp(-np.add.outer(T, 0.5 * T)) + np.exp(-np.add.outer(0.5 * T, T))
    times = np.array([0, 1, 4, np.inf])

    def size(theta):
        mix, decay, ridge, step_size = theta
        S = jnp.diag(jnp.repeat(jnp.array([1.0, 2.0]), 6)) + mix * C
        solved = dynamics.linear_dynamics(
            K, S, step_size=step_size, ridge=ridge, weight_decay=decay
        )
        change = (solved.change(R0, times) @ WEIGHTS) @ jnp.arange(1.0, 5.0)
        return change + solved.smoother(3, K[:2]).sum()

    theta, both = np.array([0.0, 0.3, 0.2, ETA]), jax.jit(jax.value_and_grad(size))
    steps = 1e-4 * np.diag([1.0, 1.0, 1.0, ETA])
    expected = [(both(theta + h)[0] - both(theta - h)[0]) / (2 * h.sum()) for h in steps]
    np.testing.assert_allclose(both(theta)[1], expected, rtol=1e-6)
    with pytest.raises(NotImplementedError, match="first derivatives only .*in K and S"):
        jax.jit(jax.hessian(size))(theta)
    with pytest.raises(NotImplementedError, match="first derivatives only .*in K and S"):
        jax.jit(jax.hessian(lambda v: dynamics.linear_dynamics(tangent(v)).remaining(1.0)))(0.8)


def test_derivatives_at_a_step_that_ends_a_mode():
    """eta g = 1, the first choice of plain descent."""
    K, times = np.diag([2.0, 1.0]), np.array([0, 1, 2, np.inf])

    def left(step_size):
        return dynamics.linear_dynamics(K, step_size=step_size).residual(jnp.ones(2), times)

    found, backward = jax.jit(lambda s: (jax.jacfwd(left)(s), jax.jacrev(left)(s)))(0.5)
    np.testing.assert_allclose(found, [[0, 0], [-2, -1], [0, -1], [0, 0]], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(backward, found)


def test_a_preconditioner_is_differentiated_in_its_map_alone():
    K = tangent(0.8)

    def size(exponent, scale=1.0, hold=lambda K: K):
        S = dynamics.preconditioner(hold(scale * K), maps.power(exponent))
        return WEIGHTS @ dynamics.linear_dynamics(K, S, step_size=ETA).residual(R0, 5)

    both = jax.jit(jax.value_and_grad(size))
    expected = differences(lambda exponent: float(both(exponent)[0]), 0.7)
    np.testing.assert_allclose(both(0.7)[1], expected, rtol=1e-7)
    with pytest.raises(NotImplementedError, match="no derivative in K.*lax.stop_gradient"):
        jax.grad(size, 1)(0.7, 1.0)
    held = jax.jit(jax.grad(lambda scale: size(0.7, scale, lax.stop_gradient)))
    assert float(held(1.0)) == 0


@pytest.mark.parametrize(
    "g",
    [
        maps.lift(2),
        pytest.param(maps.power(0.5), marks=pytest.mark.slow),
        pytest.param(lambda v: jnp.ones_like(v), marks=pytest.mark.slow),
    ],
)
def test_traced_and_known_kernels_have_the_same_preconditioner(g):
    """Modes of round-off are left alone, whether or not they can be counted."""
    K = np.outer(np.sin(T), np.sin(T)) + 0.5 * np.outer(np.cos(T), np.cos(T))
    known = dynamics.preconditioner(K, g)
    assert known.gains.shape == (2,)

    def dense(K):
        return dynamics.preconditioner(K, g).dense()

    both = jax.jit(lambda K, Ks: (dense(K), jax.vmap(dense)(Ks)))
    traced, batch = both(K, np.stack([K, 2 * K]))
    np.testing.assert_allclose(traced, known.dense(), rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.asarray(batch)[0], known.dense(), rtol=0, atol=1e-13)
