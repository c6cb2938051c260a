# SPDX-License-Identifier: Apache-2.0
"""Cumulants of mode functions, on 300 rows of four modes throughout: one compiled program."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from bayesrg import rg

ROWS, VALUES = 300, 1 / np.arange(1, 5.0)
rng = np.random.default_rng(0)
DRAWN = np.stack(
    [rng.standard_normal(ROWS), rng.gamma(2.0, size=ROWS), rng.uniform(size=ROWS),
     rng.standard_normal(ROWS)], 1,
)  # fmt: skip
DRAWN = (DRAWN - DRAWN.mean(0)) / DRAWN.std(0)
COUNT = rng.multinomial(ROWS, np.full(ROWS, 1 / ROWS))  # of each row; some are zero


def mixture(*squares):
    """Four Gaussian features times a common factor: all moments up to the fifth of each, exactly.

    Nodes and probabilities of a product rule; rows of probability zero fill up the shape.
    """
    x, w = np.polynomial.hermite_e.hermegauss(3)
    nodes = np.array(list(itertools.product(x, repeat=4)))
    mass = np.array(list(itertools.product(w / w.sum(), repeat=4))).prod(1)
    Phi, weights = np.ones((ROWS, 4)), np.zeros(ROWS)
    rows = len(squares) * len(nodes)
    Phi[:rows] = np.concatenate([np.sqrt(square) * nodes for square in squares])
    weights[:rows] = np.tile(mass, len(squares)) / len(squares)
    return Phi, weights


def cumulants(Phi, weights=None):
    return jax.device_get(rg.feature_cumulants(Phi, 3, weights=weights))


def conditional_ridge(Phi, weights=None, values=VALUES):
    return np.asarray(rg.conditional_ridge(Phi, values, 0.3, 3, weights=weights))


def test_moments_against_scipy():
    ours = cumulants(DRAWN)
    np.testing.assert_allclose(ours.mean, 0.0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(ours.skewness, stats.skew(DRAWN), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.excess_kurtosis, stats.kurtosis(DRAWN), rtol=0, atol=1e-12)
    assert ours.heavy.tolist() == [False, True, True, False]
    low = DRAWN[:, :3]
    third = (DRAWN[:, 3:] ** 2 * low).mean(0)
    np.testing.assert_allclose(ours.third[0], third, rtol=1e-12)
    fourth = (DRAWN[:, 3:] ** 2 * low).T @ low / ROWS - np.eye(3)
    np.testing.assert_allclose(ours.fourth[0], fourth, rtol=1e-12)
    off = np.abs(DRAWN.T @ DRAWN / ROWS - np.eye(4)).max()
    np.testing.assert_allclose(ours.orthonormality, off, rtol=1e-12)


def test_quantiles_against_numpy():
    ours = cumulants(DRAWN)
    probability = (np.arange(199) + 0.5) / 199
    np.testing.assert_allclose(ours.quantile, stats.norm.ppf(probability), rtol=1e-12, atol=1e-15)
    expected = np.quantile(DRAWN, probability, axis=0, method="hazen")
    np.testing.assert_allclose(ours.quantiles, expected, rtol=0, atol=1e-10)


def test_weights_are_repeated_rows():
    repeated, weighted = cumulants(np.repeat(DRAWN, COUNT, 0)), cumulants(DRAWN, COUNT / ROWS)
    for name in ("mean", "skewness", "excess_kurtosis", "third", "fourth"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-10, atol=1e-12
        )
    repeated = conditional_ridge(np.repeat(DRAWN, COUNT, 0))
    weighted = conditional_ridge(DRAWN, COUNT / ROWS)
    np.testing.assert_allclose(np.repeat(weighted, COUNT), repeated, rtol=1e-10)


def test_scale_mixture():
    """The joint fourth cumulant is delta_ij (E tau^4 - 1) = 0.04 delta_ij.

    Half of it is the coefficient of a squared mode to first order; least squares gives .04/2.20 =
    .01818, and an experiment .0180 +- .0003.
    """
    Phi, weights = mixture(0.8, 1.2)
    fourth = cumulants(Phi, weights).fourth
    np.testing.assert_allclose(fourth[0], 0.04 * np.eye(3), rtol=0, atol=1e-13)
    ridge = conditional_ridge(Phi, weights, np.ones(4))
    design = np.concatenate([np.ones((ROWS, 1)), Phi[:, :3] ** 2 - 1], 1)
    coefficients, residual = np.linalg.lstsq(design, ridge)[:2]
    np.testing.assert_allclose(residual, 0.0, atol=1e-20)
    np.testing.assert_allclose(coefficients, [1.3, *[0.04 / 2.20] * 3], rtol=1e-12)
    assert abs(coefficients[1] - 0.0180) < 0.0003


def test_gaussian_features_give_the_universal_ridge():
    expected = np.full(ROWS, rg.universal_ridge(VALUES, 0.3, 3))
    np.testing.assert_allclose(conditional_ridge(*mixture(1.0)), expected, rtol=1e-12)


def test_digits(spectrum, digits):
    """Heavy tails, and a conditional ridge that has the local one's mean and less variance."""
    X = digits.X_test[:ROWS]
    Phi, values = np.asarray(spectrum.features(X))[:, [0, 1, 2, 30]], np.asarray(spectrum.values)
    ours = cumulants(Phi)
    np.testing.assert_array_equal(ours.heavy, np.abs(stats.kurtosis(Phi)) > 1)
    local = 0.3 + values[3] * Phi[:, 3] ** 2
    known = conditional_ridge(Phi, values=values[:4])
    np.testing.assert_allclose(known.mean(), local.mean(), rtol=1e-10)
    np.testing.assert_allclose(((local - known) * known).mean(), 0.0, rtol=0, atol=1e-10)
    assert 0 < known.std() < local.std()


def test_edges():
    constant = np.concatenate([np.ones((ROWS, 1)), DRAWN[:, 1:]], 1)
    ours = cumulants(constant)
    assert ours.excess_kurtosis[0] == 0 and not ours.heavy[0] and np.isfinite(ours.skewness).all()
    none, whole = (
        jax.eval_shape(lambda Phi, cut=cut: rg.feature_cumulants(Phi, cut), DRAWN) for cut in (0, 4)
    )
    assert none.third.shape == (4, 0) and none.fourth.shape == (4, 0, 0)
    assert whole.fourth.shape == (0, 4, 4)
    flat = rg.conditional_ridge(constant, np.ones(4), 0.1, 0)
    np.testing.assert_allclose(flat, 0.1 + (constant**2).sum(1).mean(), rtol=1e-12)
    fewer = jax.eval_shape(lambda Phi: rg.conditional_ridge(Phi, VALUES, 0.1, 3, modes=[1]), DRAWN)
    assert fewer.shape == (ROWS,)


@pytest.mark.slow
def test_one_row():
    assert np.isfinite(rg.feature_cumulants(np.ones((1, 2)), 1).skewness).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda Phi: rg.feature_cumulants(Phi, 5), "cutoff must be an integer between 0 and 4"),
        (lambda Phi: rg.feature_cumulants(Phi[:, 0], 0), "Phi must be an array of 2"),
        (lambda Phi: rg.conditional_ridge(Phi, np.ones(3), 0.1, 2), "give one value per mode"),
        (lambda Phi: rg.conditional_ridge(Phi, VALUES, 0.1, 2, modes=[2]), "from 0 to 1, got"),
        (lambda Phi: rg.conditional_ridge(Phi[:6], VALUES, 0.1, 3), "10 regressors for 6 rows"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(DRAWN)
