# SPDX-License-Identifier: Apache-2.0
"""Learning curves read off one sample: reference numbers, leave-one-out, faults that are told."""

import re

import numpy as np
import pytest

from bayesrg import theory

R, RIDGE = 120, 0.02


def mixture(seed, rows, modes):
    """Return features whose length differs from row to row, and a target with equal signs."""
    rng = np.random.default_rng(seed)
    length = np.sqrt(np.where(rng.random(rows) < 0.5, 0.4, 1.6))
    g = rng.normal(size=(rows, modes)) * length[:, None]
    k = np.arange(1.0, modes + 1)
    return g * k**-0.75, g @ (1 / k)


F, Y = mixture(3, R, 200)
K = F @ F.T


def test_reference_numbers_of_one_ridge():
    found = theory.sample_curve(K, Y, [30, 60, 120], RIDGE, local=False)
    np.testing.assert_allclose(
        found.test, [0.06594700157813, 0.02637146371549, 0.007584869703932], rtol=1e-10
    )
    np.testing.assert_allclose(found.effective_ridge[:2], [0.4414579548011, 0.2429074246449])
    np.testing.assert_allclose(found.largest_n, 158.88078, rtol=1e-7)
    np.testing.assert_allclose(found.test[2], theory.gcv(F, Y, RIDGE), rtol=1e-12)


def test_reference_numbers_of_a_ridge_for_each_row():
    found = theory.sample_curve(K, Y, [30, 60, 120], RIDGE, block=R)
    expected = [0.07492831451097, 0.03119054006011, 0.01154985763421]
    np.testing.assert_allclose(found.test, expected, rtol=1e-7)
    np.testing.assert_allclose(found.effective_ridge[:2], [0.3230305455, 0.2022596501], rtol=1e-7)


def test_ridges_and_errors_solve_their_equations():
    """By the plain iteration, from an inverse of NumPy."""
    n = 45.0
    found = theory.sample_curve(K, Y, n, RIDGE, block=R)
    D = np.full(R, 1.0)
    for _ in range(3000):
        G = np.linalg.inv(K + np.diag(D))
        new = RIDGE + (1 - n / R) / np.diag(G)
        done, D = np.abs(new / D - 1).max() < 1e-12, new
        if done:
            break
    own = np.diag(G)
    np.testing.assert_allclose(found.local_ridge, n / (R * own), rtol=1e-6)
    B = (G / own[:, None]) ** 2
    np.fill_diagonal(B, 0.0)
    errors = np.linalg.solve(np.eye(R) - (R / n - 1) * B, (G @ Y / own) ** 2)
    np.testing.assert_allclose(found.test, errors.mean(), rtol=1e-6)
    np.testing.assert_allclose(found.test_error, errors.std(ddof=1) / np.sqrt(R), rtol=1e-6)
    np.testing.assert_allclose(
        found.train, ((RIDGE / found.local_ridge) ** 2 * errors).mean(), rtol=1e-6
    )


def test_as_many_points_as_rows_is_leave_one_out():
    found = theory.sample_curve(K, Y, R, RIDGE)
    residuals = []
    for i in range(R):
        rest = np.arange(R) != i
        weights = np.linalg.solve(K[np.ix_(rest, rest)] + RIDGE * np.eye(R - 1), Y[rest])
        residuals.append(Y[i] - K[i, rest] @ weights)
    np.testing.assert_allclose(found.test, np.mean(np.square(residuals)), rtol=1e-10)


def test_cases_do_not_depend_on_each_other():
    """Ridges of one case start the search for the next, which must not be seen."""
    n, ridge = np.array([[20.0], [45.0], [120.0]]), np.array([0.02, 0.2])
    both = theory.sample_curve(K, np.stack([Y, 2 * Y], 1), n, ridge)
    assert both.test.shape == (3, 2, 2) and both.local_ridge.shape == (3, 2, R)
    np.testing.assert_allclose(both.test[..., 1], 4 * both.test[..., 0], rtol=1e-12)
    for i, j in np.ndindex(3, 2):
        one = theory.sample_curve(K, Y, n[i, 0], ridge[j])
        np.testing.assert_allclose(both.test[i, j, 0], one.test, rtol=2e-6)
        np.testing.assert_allclose(both.effective_ridge[i, j], one.effective_ridge, rtol=2e-6)


def test_blocks_are_averaged():
    """With n = 20 of 120 rows there are three blocks, every third row each."""
    for local in (True, False):
        found = theory.sample_curve(K, Y, 20, RIDGE, local=local, block=40)
        parts = [
            theory.sample_curve(K[i::3, i::3], Y[i::3], 20, RIDGE, local=local, block=40)
            for i in range(3)
        ]
        np.testing.assert_allclose(found.test, np.mean([p.test for p in parts]), rtol=2e-6)
        ridges = [1 / p.effective_ridge for p in parts]
        np.testing.assert_allclose(1 / found.effective_ridge, np.mean(ridges), rtol=2e-6)
    by_default = theory.sample_curve(K, Y, 20, RIDGE)
    np.testing.assert_allclose(by_default.test, theory.sample_curve(K, Y, 20, RIDGE, block=40).test)


def test_more_points_than_rows():
    found = theory.sample_curve(K, Y, [120, 121, 150], RIDGE, local=False)
    assert (np.diff(found.test) < 0).all() and found.test[2] > 0
    with pytest.warns(UserWarning, match="n=121 cannot be trusted: errors are negative"):
        local = theory.sample_curve(K, Y, [120, 121], RIDGE)
    np.testing.assert_allclose(local.test[1], local.test[0], rtol=0.02)
    assert local.test[1] < local.test[0]
    with pytest.raises(ValueError, match="n=159 is beyond n_max=158.9"):
        theory.sample_curve(K, Y, 159, RIDGE)
    with pytest.raises(ValueError, match="n=130 is beyond n_max with a ridge for each row"):
        theory.sample_curve(K, Y, 130, RIDGE)
    low_rank = theory.sample_curve(F[:, :30] @ F[:, :30].T, Y, 1000, RIDGE, local=False)
    assert low_rank.largest_n == np.inf and low_rank.test > 0


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(n=0.5), "n must be at least 1, got 0.5"),
        (dict(y=Y[:-1]), r"y has shape \(119,\)"),
        (dict(K=-K), "K has the eigenvalue -.*positive semi-definite"),
        (dict(ridge=-0.1), "ridge must be non-negative, got -0.1"),
        (dict(K=F[:, :30] @ F[:, :30].T, ridge=0.0), "ridge is 0 and K is singular"),
        (dict(block=10), "block is 10 and n is 30; a block needs at least n rows"),
        (dict(block=1), "block is 1 and n is 30"),
        (dict(block="all"), "block must be one of"),
        (dict(n=[30, 40], ridge=[0.1, 0.2, 0.3]), r"n \(2,\), ridge \(3,\)"),
    ],
)
def test_arguments_that_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        theory.sample_curve(**(dict(K=K, y=Y, n=30, ridge=RIDGE) | wrong))


def test_faults_of_the_sample_are_told():
    rng = np.random.default_rng(0)
    with pytest.warns(UserWarning, match="nowhere below the variance of the labels") as seen:
        theory.sample_curve(K, rng.permutation(Y), [30, 60, 120], RIDGE)
    assert seen[0].filename == __file__
    twice = np.concatenate([np.arange(R), np.arange(6)])
    with pytest.warns(UserWarning, match="9.5% of the rows have an equal one"):
        theory.sample_curve(K[np.ix_(twice, twice)], Y[twice], 30, RIDGE)


def test_rows_far_from_all_others_are_told():
    """A few long rows in a large block: errors of the reading become negative."""
    far = np.random.default_rng(1).standard_t(1.5, size=(R, 200)) * np.arange(1.0, 201) ** -0.75
    with pytest.warns(UserWarning, match=re.escape("n=2 cannot be trusted")):
        theory.sample_curve(far @ far.T, far.sum(1), 2, RIDGE, block=R)


@pytest.mark.slow
def test_a_mixture_of_scales_against_monte_carlo():
    """Means of 12 samples of 400 rows; the curve of the true spectrum is lower at n = 400."""
    sizes, known = np.array([50, 200, 400]), {}
    population, target = mixture(100, 6000, 600)
    rng = np.random.default_rng(5)
    for n in sizes:
        errors = []
        for _ in range(40 if n < 400 else 12):
            rows, tests = np.split(rng.choice(6000, n + 1500, replace=False), [n])
            G = population[rows] @ population[rows].T + RIDGE * np.eye(n)
            weights = population[rows].T @ np.linalg.solve(G, target[rows])
            errors.append(np.mean((population[tests] @ weights - target[tests]) ** 2))
        known[n] = np.mean(errors), np.std(errors) / np.sqrt(len(errors))
    readings = []
    for seed in range(12):
        features, y = mixture(seed, 400, 600)
        readings.append(theory.sample_curve(features @ features.T, y, sizes, RIDGE).test)
    mean, error = np.mean(readings, 0), np.std(readings, 0) / np.sqrt(12)
    for n, m, e in zip(sizes, mean, error, strict=True):
        assert abs(m - known[n][0]) < 3 * np.hypot(e, known[n][1]), (n, m, e, known[n])
