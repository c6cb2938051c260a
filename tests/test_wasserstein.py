# SPDX-License-Identifier: Apache-2.0
"""The distance W2 of two sets of points, against all permutations, sorting and linear programs."""

import itertools
import re
import sys

import jax
import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron, vstack

from bayesrg.dynamics import wasserstein


def pair(seed, n, d):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 0.5 + 1.5 * rng.standard_normal((n, d))


def squares(x, z):
    return ((x[:, None] - z) ** 2).sum(-1)


@pytest.mark.slow
def test_50_pairs_against_all_permutations():
    for seed in range(50):
        n, d = 1 + seed % 7, 1 + seed % 3
        x, z = pair(seed, n, d)
        costs = [
            np.mean([C[i, j] for i, j in enumerate(p)])
            for C in [squares(x, z)]
            for p in itertools.permutations(range(n))
        ]
        found = wasserstein(x, z)
        np.testing.assert_allclose(found.w2**2, min(costs), rtol=1e-12)
        np.testing.assert_allclose(found.displacement, ((x - z) ** 2).sum(1).mean(), rtol=1e-12)
        np.testing.assert_allclose(found.efficiency, min(costs) / found.displacement, rtol=1e-12)
        assert found.points == n and found.key is found.regularisation is found.converged is None


def test_sorting_in_one_dimension():
    x, z = pair(0, 300, 1)
    expected = ((np.sort(x[:, 0]) - np.sort(z[:, 0])) ** 2).mean()
    for given in ((x, z), (x[:, 0], z[:, 0])):
        np.testing.assert_allclose(wasserstein(*given).w2 ** 2, expected, rtol=1e-12)


def test_a_linear_program():
    n = 15
    x, z = pair(1, n, 2)
    ones = np.ones((1, n))
    sums = vstack([kron(eye_array(n), ones), kron(ones, eye_array(n))])
    best = linprog(squares(x, z).ravel(), A_eq=sums, b_eq=np.full(2 * n, 1 / n))
    np.testing.assert_allclose(wasserstein(x, z).w2 ** 2, best.fun, rtol=1e-9)


def test_limits():
    x, z = pair(2, 6, 2)
    still = wasserstein(x, x)
    assert still.w2 == still.displacement == 0 and np.isnan(still.efficiency)
    swapped = wasserstein(x, x[::-1])
    assert swapped.w2 == swapped.efficiency == 0 < swapped.displacement
    one = wasserstein(x[:1], z[:1])
    assert one.efficiency == 1 and one.points == 1
    np.testing.assert_allclose(one.w2, np.linalg.norm(x[0] - z[0]), rtol=1e-14)
    same = wasserstein(np.ones((4, 2)), np.ones((4, 2)))  # duplicated points
    assert same.w2 == 0 and np.isnan(same.efficiency)
    doubled = wasserstein(np.repeat(x, 2, 0), np.repeat(z, 2, 0))
    np.testing.assert_allclose(doubled[:3], wasserstein(x, z)[:3], rtol=1e-12)

    # units do not matter, nor a far origin
    for unit in (1e-200, 1e100):
        found = wasserstein(unit * x, unit * z)
        np.testing.assert_allclose(found.w2, unit * wasserstein(x, z).w2, rtol=1e-12)
        np.testing.assert_allclose(found.efficiency, wasserstein(x, z).efficiency, rtol=1e-12)
    np.testing.assert_allclose(wasserstein(x + 1e6, z + 1e6).w2, wasserstein(x, z).w2, rtol=1e-8)
    assert (
        wasserstein(np.float32(x), np.float32(z)).w2
        == wasserstein(*np.float64(np.float32([x, z]))).w2
    )


def test_some_of_the_points():
    x, z = pair(3, 2500, 2)
    found = wasserstein(x, z, max_points=200, key=4)
    assert found.points == 200 and found.key == 4
    assert found == wasserstein(x, z, max_points=200, key=4)
    assert found.w2 != wasserstein(x, z, max_points=200, key=5).w2
    assert found.efficiency <= 1
    x, z = x[:50], z[:50]
    assert wasserstein(x, z, max_points=50, key=4) == wasserstein(x, z)

    # the same rows at both ends: a translation stays one
    moved = wasserstein(x, x + [3.0, 4.0], max_points=20, key=jax.random.key(0))
    np.testing.assert_allclose(moved[:3], (5.0, 25.0, 1.0), rtol=1e-12)


X, Z = pair(0, 4, 2)
NAN = np.where(X > 0.5, np.nan, X)
BAD = {
    "nan": (dict(x=NAN), "x contains non-finite values"),
    "nan at the end": (dict(z=NAN), "z contains non-finite values"),
    "fewer points": (dict(z=Z[:3]), "x has shape (4, 2) and z (3, 2); give the same points (n, d)"),
    "other features": (dict(z=Z[:, :1]), "x has shape (4, 2) and z (4, 1)"),
    "none": (dict(x=X[:0], z=Z[:0]), "x has no rows"),
    "no features": (dict(x=X[:, :0], z=Z[:, :0]), "x has shape (4, 0)"),
    "huge": (dict(x=1e200 * X), "x and z have distances whose squares overflow"),
    "method": (dict(method="assignement"), "method must be one of 'assignment', 'sinkhorn'"),
    "max_points 0": (dict(max_points=0), "max_points must be a positive integer, got 0"),
    "no key": (dict(max_points=3), "max_points=3 of 4 points are drawn at random; give a key"),
    "regularisation": (dict(regularisation=0.1), "regularisation is of method 'sinkhorn'"),
    "regularisation 0": (
        dict(regularisation=0.0, method="sinkhorn"), "regularisation must be a number above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be(case):
    given, message = BAD[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        wasserstein(**{"x": X, "z": Z} | given)


def test_too_many_points_and_a_missing_package(monkeypatch):
    x = np.zeros((2001, 1))
    with pytest.raises(ValueError, match="optimal assignment needs n<=2000, got 2001; pass max_po"):
        wasserstein(x, x)
    with pytest.raises(ValueError, match="optimal assignment needs n<=2000, got 2001; pass max_po"):
        wasserstein(np.zeros((3000, 1)), np.zeros((3000, 1)), max_points=2001, key=0)
    assert wasserstein(x[:2000], x[:2000] + 1).w2 == 1
    with pytest.raises(ValueError, match="'sinkhorn' needs n<=10000, got 10001; pass max_points"):
        wasserstein(np.zeros((10_001, 1)), np.zeros((10_001, 1)), method="sinkhorn")
    with pytest.raises(ValueError, match="wasserstein runs on the host and cannot be traced"):
        jax.jit(lambda x: wasserstein(x, x).w2)(x)
    monkeypatch.setitem(sys.modules, "ott", None)
    for name in [name for name in sys.modules if name.startswith("ott.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"needs the package ott-jax; install bayesrg\[ot\]"):
        wasserstein(X, Z, method="sinkhorn")


@pytest.mark.slow
def test_sinkhorn_tends_to_the_assignment_from_below():
    pytest.importorskip("ott")
    for seed, n, d in ((0, 60, 1), (1, 60, 2), (2, 60, 10)):
        x, z = pair(seed, n, d)
        exact, mean = wasserstein(x, z), squares(x, z).mean()
        errors = []
        for relative in (1.0, 0.1, 1e-2, 1e-3):
            found = wasserstein(x, z, method="sinkhorn", regularisation=relative * mean)
            assert found.converged and found.regularisation == relative * mean
            assert found.points == n and found.displacement == exact.displacement
            errors.append(1 - found.w2**2 / exact.w2**2)
        assert min(errors) > -1e-12 and (np.diff(errors) <= 1e-12).all()
        assert errors[0] > 0.01 and errors[-1] < 1e-3
        given = wasserstein(x, z, method="sinkhorn")
        np.testing.assert_allclose(given.regularisation, 0.01 * mean, rtol=1e-12)

    # few points, and points that coincide
    x, z = pair(3, 7, 2)
    found = wasserstein(x, z, method="sinkhorn", regularisation=1e-4)
    np.testing.assert_allclose(found.w2, wasserstein(x, z).w2, rtol=1e-12)
    same = wasserstein(np.ones((4, 2)), np.ones((4, 2)), method="sinkhorn")
    assert same.w2 == 0 and same.converged and np.isnan(same.efficiency)
    with pytest.raises(ValueError, match="regularisation is out of the range of floats"):
        wasserstein(1e-160 * x, 1e-160 * z, method="sinkhorn", regularisation=1e300)
