# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference

from bayesrg._covariance import Covariance, Dense, Eigen, LowRank
from bayesrg._linalg import cholesky, quad_logdet, safe_sqrt
from bayesrg._prior import PriorAt

SLOW = pytest.mark.slow


def matrices(seed=0, n=5, m=2):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    return A @ A.T + n * np.eye(n), rng.standard_normal((m, n))


def test_quad_logdet_value_and_derivatives():
    C, b = matrices()
    inverse = np.linalg.inv(C)

    def loss(theta):
        moved = C + theta[0] * np.eye(5) + theta[1] * np.ones((5, 5))
        quad, log_det = quad_logdet(moved, theta[2] * b)
        return (quad * np.array([1.0, 2.0])).sum() + 0.3 * log_det, (quad, log_det)

    @jax.jit
    def all_orders(theta):
        gradient, values = jax.grad(loss, has_aux=True)(theta)
        forward = jax.jacfwd(lambda t: loss(t)[0])(theta)
        hessian = jax.hessian(lambda t: loss(t)[0])(theta)
        return values, loss(theta)[0], gradient, forward, hessian

    quad, log_det = all_orders(np.array([0.0, 0.0, 1.0]))[0]
    np.testing.assert_allclose(quad, [r @ inverse @ r for r in b], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(C)[1], rtol=1e-13)
    theta = np.array([0.4, 0.2, 1.3])
    _, _, gradient, forward, hessian = all_orders(theta)
    difference = central_difference(lambda t: all_orders(t)[1], theta)
    np.testing.assert_allclose(gradient, difference, rtol=1e-7)
    np.testing.assert_allclose(forward, gradient, rtol=1e-12)
    difference = [
        central_difference(lambda t, i=i: np.asarray(all_orders(t)[2])[i], theta) for i in range(3)
    ]
    np.testing.assert_allclose(hessian, difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [130, *(pytest.param(n, marks=SLOW) for n in (1, 64, 65, 200))])
def test_blocked_inverse_is_the_inverse(n):
    C, b = matrices(3, n, 3)
    gradient = jax.jit(jax.grad(lambda C: sum(part.sum() for part in quad_logdet(C, b))))(C)
    inverse = np.linalg.inv(C)
    a = b @ inverse
    np.testing.assert_allclose(gradient, inverse - a.T @ a, rtol=1e-9, atol=1e-12)


def test_quad_logdet_of_an_indefinite_matrix_is_nan():
    assert np.isnan(quad_logdet(-np.eye(5), np.ones((2, 5)))[1])


def algebras():
    """The same covariance in every form."""
    rng = np.random.default_rng(1)
    A, D = rng.standard_normal((6, 3)), rng.uniform(0.5, 2, 6)
    w, ridge = np.array([1.0, 0.5, 2.0]), np.array([0.7])
    full = A * w**2 @ A.T + 0.7 * np.eye(6)
    U, s, _ = np.linalg.svd(A * w)
    complete = np.concatenate([s**2, np.zeros(3)])
    source = Covariance(PriorAt(A, w**2), np.ones(()), ridge)
    return {
        "dense": (Dense, (full,), full),
        "woodbury": (LowRank, (A, w, ridge), full),
        "gram": (LowRank, (A, w, ridge, A.T @ A), full),
        "diagonal": (LowRank, (A, w, D), A * w**2 @ A.T + np.diag(D)),
        "thin eigen": (Eigen, (U[:, :3], s**2, ridge, source), full),
        "eigen": (Eigen, (U, complete, ridge, source), full),
    }


@pytest.mark.parametrize("form", algebras())
def test_every_algebra_is_its_matrix(form):
    kind, fields, C = algebras()[form]
    B, s = np.random.default_rng(2).standard_normal((6, 4)), np.linspace(0.0, 2.0, 6)

    @jax.jit
    def answers(fields, B, s):
        algebra = kind(*fields)
        root = jax.vmap(algebra.colour, out_axes=1)(jnp.eye(algebra.white_size()))
        one_to_one = jax.vmap(algebra.root, out_axes=1)(jnp.eye(6))
        return (
            algebra.solve(B), algebra.inverse_diag(), *algebra.quad_logdet(B.T),
            root @ root.T, one_to_one @ one_to_one.T, algebra.multiply(B),
            algebra.curved(s).solve(B),
        )  # fmt: skip

    inverse = np.linalg.inv(C)
    quad = np.diag(B.T @ inverse @ B)
    curved = np.linalg.inv(np.eye(6) + s[:, None] * C * s)
    expected = (
        inverse @ B, np.diag(inverse), quad, np.linalg.slogdet(C)[1], C, C, C @ B, curved @ B
    )  # fmt: skip
    for found, right in zip(answers(fields, B, s), expected, strict=True):
        atol = 1e-12 if np.ndim(right) == 2 else 0
        np.testing.assert_allclose(found, right, rtol=1e-11, atol=atol)


def test_cholesky_adds_no_jitter_unless_needed_and_reports_it():
    C, _ = matrices()
    compiled = jax.jit(cholesky)
    L, jitter = map(np.asarray, compiled(C))
    assert jitter == 0
    np.testing.assert_allclose(L @ L.T, C, rtol=1e-12)
    singular = np.ones((5, 5)) - 1e-15 * np.eye(5)
    L, jitter = map(np.asarray, compiled(singular))
    assert 0 < jitter < 1e-9
    np.testing.assert_allclose(L @ L.T, singular + jitter * np.eye(5), atol=1e-14)
    assert not np.isfinite(cholesky(-jnp.eye(5))[0]).all()
    slope = jax.jit(jax.grad(lambda t: jnp.log(jnp.diagonal(cholesky(t * C)[0])).sum()))(2.0)
    np.testing.assert_allclose(slope, 5 / 4, rtol=1e-12)


def test_safe_sqrt():
    np.testing.assert_allclose(safe_sqrt(np.array([-1.0, 0.0, 4.0])), [0, 0, 2])
    assert jax.grad(safe_sqrt)(0.0) == 0
