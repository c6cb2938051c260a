# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference

from bayesrg._covariance import Dense, Eigen, LowRank
from bayesrg._linalg import cholesky, quad_logdet, safe_sqrt


def matrices(seed=0, n=5, m=2):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    return A @ A.T + n * np.eye(n), rng.standard_normal((m, n))


def test_quad_logdet_value_and_derivatives():
    C, b = matrices()
    quad, log_det = quad_logdet(C, b)
    inverse = np.linalg.inv(C)
    np.testing.assert_allclose(quad, [r @ inverse @ r for r in b], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(C)[1], rtol=1e-13)

    def loss(theta):
        moved = C + theta[0] * np.eye(5) + theta[1] * np.ones((5, 5))
        quad, log_det = quad_logdet(moved, theta[2] * b)
        return (quad * jnp.array([1.0, 2.0])).sum() + 0.3 * log_det

    theta = np.array([0.4, 0.2, 1.3])
    gradient = jax.grad(loss)(theta)
    np.testing.assert_allclose(gradient, central_difference(loss, theta), rtol=1e-7)
    np.testing.assert_allclose(jax.jacfwd(loss)(theta), gradient, rtol=1e-12)
    hessian = jax.hessian(loss)(theta)
    entries = [lambda t, i=i: jax.grad(loss)(t)[i] for i in range(3)]
    difference = np.stack([central_difference(entry, theta) for entry in entries])
    np.testing.assert_allclose(hessian, difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_blocked_inverse_is_the_inverse(n):
    C, b = matrices(3, n, 3)
    gradient = jax.grad(lambda C: quad_logdet(C, b)[0].sum() + quad_logdet(C, b)[1])(C)
    inverse = np.linalg.inv(C)
    a = b @ inverse
    np.testing.assert_allclose(gradient, inverse - a.T @ a, rtol=1e-9, atol=1e-12)


def test_quad_logdet_of_an_indefinite_matrix_is_nan():
    assert np.isnan(quad_logdet(-jnp.eye(2), jnp.ones((1, 2)))[1])


def algebras():
    """The same covariance in every form."""
    rng = np.random.default_rng(1)
    A, D = rng.standard_normal((6, 3)), rng.uniform(0.5, 2, 6)
    A, w = jnp.asarray(A), jnp.array([1.0, 0.5, 2.0])
    full = np.asarray(A * w**2 @ A.T + 0.7 * np.eye(6))
    U, s, _ = np.linalg.svd(A * w)
    complete = np.concatenate([s**2, np.zeros(3)])
    ridge = jnp.array([0.7])
    return {
        "dense": (Dense(jnp.asarray(full)), full),
        "woodbury": (LowRank(A, w, ridge), full),
        "gram": (LowRank(A, w, ridge, A.T @ A), full),
        "diagonal": (LowRank(A, w, jnp.asarray(D)), A * w**2 @ A.T + np.diag(D)),
        "thin eigen": (Eigen(jnp.asarray(U[:, :3]), jnp.asarray(s**2), ridge), full),
        "eigen": (Eigen(jnp.asarray(U), jnp.asarray(complete), ridge), full),
    }


@pytest.mark.parametrize("form", algebras())
def test_every_algebra_is_its_matrix(form):
    algebra, C = algebras()[form]
    inverse = np.linalg.inv(C)
    B = np.random.default_rng(2).standard_normal((6, 4))
    np.testing.assert_allclose(algebra.solve(B), inverse @ B, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(algebra.quad(B), np.diag(B.T @ inverse @ B), rtol=1e-11)
    np.testing.assert_allclose(algebra.inverse_diag(), np.diag(inverse), rtol=1e-11)
    quad, log_det = algebra.quad_logdet(jnp.asarray(B.T))
    np.testing.assert_allclose(quad, np.diag(B.T @ inverse @ B), rtol=1e-11)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(C)[1], rtol=1e-11)
    root = np.stack([algebra.colour(z) for z in jnp.eye(algebra.white_size())], 1)
    np.testing.assert_allclose(root @ root.T, C, rtol=1e-11, atol=1e-12)
    one_to_one = np.stack([algebra.root(z) for z in jnp.eye(6)], 1)
    np.testing.assert_allclose(one_to_one @ one_to_one.T, C, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(algebra.multiply(B), C @ B, rtol=1e-11, atol=1e-12)
    s = np.linspace(0.0, 2.0, 6)
    curved = np.linalg.inv(np.eye(6) + s[:, None] * C * s)
    np.testing.assert_allclose(algebra.curved(s).solve(B), curved @ B, rtol=1e-11, atol=1e-12)


def test_cholesky_adds_no_jitter_unless_needed_and_reports_it():
    C, _ = matrices()
    L, jitter = cholesky(jnp.asarray(C))
    assert jitter == 0
    np.testing.assert_allclose(L @ L.T, C, rtol=1e-12)
    singular = jnp.ones((4, 4)) - 1e-15 * jnp.eye(4)
    L, jitter = jax.jit(cholesky)(singular)
    assert 0 < jitter < 1e-9
    np.testing.assert_allclose(L @ L.T, singular + jitter * jnp.eye(4), atol=1e-14)
    assert not np.isfinite(cholesky(-jnp.eye(3))[0]).all()
    slope = jax.grad(lambda t: jnp.log(jnp.diagonal(cholesky(t * C)[0])).sum())(2.0)
    np.testing.assert_allclose(slope, 5 / 4, rtol=1e-12)


def test_safe_sqrt():
    np.testing.assert_allclose(safe_sqrt(jnp.array([-1.0, 0.0, 4.0])), [0, 0, 2])
    assert jax.grad(safe_sqrt)(0.0) == 0
