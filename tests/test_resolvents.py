# SPDX-License-Identifier: Apache-2.0
"""Resolvents as matrices against draws of them."""

import jax
import numpy as np
from test_equivalents import rotated

from bayesrg import theory

resolvent, two_resolvents = jax.jit(theory.resolvent), jax.jit(theory.two_resolvents)


def test_resolvents_against_draws():
    p, n, ridge = 100, 150, 0.5
    values = 2 / np.arange(1, p + 1.0)
    Omega, psi, Ey2 = rotated(values, 0 * values, 1.0)
    m = theory.population_moments(Omega, psi, Ey2)
    rng = np.random.default_rng(4)
    A, u = np.diag(rng.uniform(0.5, 2, p)), rng.normal(size=p)
    root = np.linalg.cholesky(Omega)
    one, two, sandwich = [], [], []
    for _ in range(150):
        X = rng.normal(size=(n, p)) @ root.T
        G = np.linalg.inv(X.T @ X + ridge * np.eye(p)) * ridge
        one.append(np.trace(A @ G))
        two.append(np.trace(G @ A @ G))
        sandwich.append(u @ G @ A @ G @ u)
    M = np.asarray(two_resolvents(m, n, ridge, A))
    for draws, expected in (
        (one, np.trace(A @ resolvent(m, n, ridge))), (two, np.trace(M)),
        (sandwich, u @ M @ u),
    ):  # fmt: skip
        error = np.std(draws) / np.sqrt(150)
        assert abs(np.mean(draws) - expected) < 3 * error + 0.03 * expected
    np.testing.assert_allclose(two_resolvents(m, n, ridge, np.diag(A)), M, rtol=1e-12)
    # A = 1 is the derivative of one resolvent: G^2 = -dG/dridge
    slope = jax.jit(jax.jacfwd(lambda r: theory.resolvent(m, n, r) / r))(ridge)
    np.testing.assert_allclose(
        two_resolvents(m, n, ridge, np.ones(p)), -slope * ridge**2, rtol=1e-9, atol=1e-12
    )
    # no ridge: what the data do not reach, and its limit
    zero, small = (np.trace(two_resolvents(m, 20, r, A)) for r in (0.0, 1e-10))
    np.testing.assert_allclose(zero, small, rtol=1e-8)
    np.testing.assert_allclose(two_resolvents(m, p, 0.0, A), 0.0, rtol=0, atol=1e-14)
