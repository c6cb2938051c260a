# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import numpy as np
import pytest
from scipy import stats

from bayesrg import rg


@partial(jax.jit, static_argnums=1)
def cumulants_of(Phi, cutoff, weights):
    return rg.feature_cumulants(Phi, cutoff, weights=weights)


@partial(jax.jit, static_argnums=(3, 4))
def ridge_of(Phi, values, ridge, cutoff, rule, weights):
    return rg.conditional_ridge(Phi, values, ridge, cutoff, rule=rule, weights=weights)


def cumulants(Phi, cutoff, weights=None):
    return jax.device_get(cumulants_of(np.asarray(Phi), cutoff, weights))


def conditional_ridge(Phi, values, ridge, cutoff, rule="regression", weights=None):
    return np.asarray(ridge_of(Phi, values, ridge, cutoff, rule, weights))


def mixture(rows, modes, seed=0, squares=(0.8, 1.2)):
    """Gaussian features times a common factor per point; E[factor^4] = 1.04 by default."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(rng.choice(squares, (rows, 1)))
    return scale * rng.standard_normal((rows, modes))


def test_moments_against_scipy():
    rng = np.random.default_rng(0)
    Phi = np.stack([rng.standard_normal(500), rng.gamma(2.0, size=500), rng.uniform(size=500)], 1)
    Phi = (Phi - Phi.mean(0)) / Phi.std(0)
    ours = cumulants(Phi, 1)
    np.testing.assert_allclose(ours.mean, 0.0, rtol=0, atol=1e-14)
    np.testing.assert_allclose(ours.skewness, stats.skew(Phi), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.excess_kurtosis, stats.kurtosis(Phi), rtol=0, atol=1e-12)
    assert ours.heavy.tolist() == [False, True, True]
    third = [(Phi[:, j] ** 2 * Phi[:, 0]).mean() for j in (1, 2)]
    np.testing.assert_allclose(ours.third[:, 0], third, rtol=1e-12)
    fourth = [(Phi[:, j] ** 2 * Phi[:, 0] ** 2).mean() - 1 for j in (1, 2)]
    np.testing.assert_allclose(ours.fourth[:, 0, 0], fourth, rtol=1e-12)
    off = np.abs(Phi.T @ Phi / 500 - np.eye(3)).max()
    np.testing.assert_allclose(ours.orthonormality, off, rtol=1e-12)


def test_quantiles_against_numpy():
    Phi = np.random.default_rng(1).gamma(2.0, size=(399, 2))
    ours = cumulants(Phi, 0)
    probability = stats.norm.cdf(ours.quantile)
    white = (Phi - Phi.mean(0)) / Phi.std(0)
    expected = np.quantile(white, probability, axis=0, method="hazen")
    np.testing.assert_allclose(ours.quantiles, expected, rtol=0, atol=1e-10)
    normal = cumulants(np.random.default_rng(2).standard_normal((40_000, 1)), 0)
    np.testing.assert_allclose(normal.quantiles[10:-10, 0], normal.quantile[10:-10], atol=0.05)


def test_weights_are_repeated_rows():
    Phi = mixture(50, 4)
    count = np.random.default_rng(0).integers(1, 4, 50)
    repeated = cumulants(np.repeat(Phi, count, 0), 2)
    weighted = cumulants(Phi, 2, weights=count / count.sum())
    for name in ("mean", "skewness", "excess_kurtosis", "third", "fourth"):
        np.testing.assert_allclose(
            getattr(weighted, name), getattr(repeated, name), rtol=1e-10, atol=1e-12
        )


def test_scale_mixture_has_a_joint_fourth_cumulant():
    """It is delta_ij (E tau^4 - 1) = 0.04 delta_ij for every eliminated mode."""
    Phi = mixture(400_000, 4)
    fourth = cumulants(Phi, 2).fourth
    np.testing.assert_allclose(
        fourth, np.broadcast_to(0.04 * np.eye(2), (2, 2, 2)), rtol=0, atol=4 * 3 / np.sqrt(4e5)
    )


def test_regression_weights_are_repeated_rows():
    Phi, values = mixture(60, 5), np.arange(1, 6.0) ** -1
    count = np.random.default_rng(0).integers(1, 4, 60)
    repeated = conditional_ridge(np.repeat(Phi, count, 0), values, 0.1, 2)
    weighted = conditional_ridge(Phi, values, 0.1, 2, weights=count / count.sum())
    first = np.cumsum(count) - count
    np.testing.assert_allclose(weighted, repeated[first], rtol=1e-10)


def quadratic_coefficient(ridge, Phi, cutoff, total):
    """Coefficient of each low mode's square, for unit eliminated variance."""
    squares = Phi[:, :cutoff] ** 2 - 1
    design = np.concatenate([np.ones((len(Phi), 1)), squares], 1)
    return np.linalg.lstsq(design, np.asarray(ridge) / total)[0][1:]


def test_conditional_ridge_of_a_scale_mixture():
    """First order gives .02, least squares .04/2.20 = .01818; experiment .0180 +- .0003."""
    Phi, values = mixture(100_000, 43), np.ones(43)
    linear = conditional_ridge(Phi, values, 0.3, 3)
    first = conditional_ridge(Phi, values, 0.3, 3, rule="cumulants")
    error = 5 * np.sqrt(2 / 100_000 / 40)  # of a coefficient, from the spread of phi_k^2
    ours = quadratic_coefficient(linear, Phi, 3, 40.0)
    np.testing.assert_allclose(ours, 0.04 / 2.20, rtol=0, atol=error + 2e-4)
    assert abs(ours.mean() - 0.0180) < 4 * np.hypot(0.0003, error / 4)
    ours = quadratic_coefficient(first, Phi, 3, 40.0)
    np.testing.assert_allclose(ours, 0.02, rtol=0, atol=error + 4e-4)
    np.testing.assert_allclose(linear.mean(), 0.3 + (Phi[:, 3:] ** 2).sum(1).mean(), rtol=1e-10)


def test_gaussian_features_give_the_universal_ridge():
    Phi = np.random.default_rng(4).standard_normal((100_000, 30))
    values = np.arange(1, 31.0) ** -2
    expected = rg.universal_ridge(values, 0.05, 3)
    for rule in ("regression", "cumulants"):
        ridge = conditional_ridge(Phi, values, 0.05, 3, rule=rule)
        np.testing.assert_allclose(ridge.mean(), expected, rtol=0.01)
        assert ridge.std() < 0.02 * expected


def test_regression_is_the_projection_of_the_local_ridge(spectrum, digits):
    """What low modes know of the ridge has its mean and less of its variance."""
    X = spectrum.X_ref
    Phi = spectrum.features(X)
    Phi, values = np.asarray(Phi), np.asarray(spectrum.values)
    local = 0.05 + Phi[:, 5:] ** 2 @ values[5:]
    known = conditional_ridge(Phi, values, 0.05, 5)
    np.testing.assert_allclose(known.mean(), local.mean(), rtol=1e-10)
    residual = local - known
    np.testing.assert_allclose((residual * known).mean(), 0.0, rtol=0, atol=1e-10)
    assert 0 < known.std() < local.std()
    with pytest.raises(ValueError, match=r"modes \[0\] have mean \[-?(0\.99|1)"):
        rg.conditional_ridge(Phi, values, 0.05, 5, rule="cumulants")
    chosen = {"rule": "cumulants", "modes": [1, 2]}
    found = jax.jit(lambda Phi: rg.conditional_ridge(Phi, values, 0.05, 5, **chosen))(Phi)
    assert np.isfinite(found).all()


def test_edges():
    constant = np.concatenate([np.ones((30, 1)), mixture(30, 2)], 1)
    ours = cumulants(constant, 0)
    assert ours.excess_kurtosis[0] == 0 and not ours.heavy[0]
    assert ours.third.shape == (3, 0) and ours.fourth.shape == (3, 0, 0)
    whole = cumulants(constant, 3)
    assert whole.fourth.shape == (0, 3, 3)
    one = cumulants(np.ones((1, 2)), 1)
    assert np.isfinite(one.skewness).all()
    flat = conditional_ridge(constant, np.ones(3), 0.1, 0)
    np.testing.assert_allclose(flat, 0.1 + (constant**2).sum(1).mean(), rtol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda Phi: rg.feature_cumulants(Phi, 5), "cutoff must be an integer between 0 and 4"),
        (lambda Phi: rg.feature_cumulants(Phi[:, 0], 0), "Phi must be an array of 2"),
        (lambda Phi: rg.conditional_ridge(Phi, np.ones(3), 0.1, 2), "give one value per mode"),
        (lambda Phi: rg.conditional_ridge(Phi, np.ones(4), 0.1, 2, rule="x"), "rule must be one"),
        (lambda Phi: rg.conditional_ridge(Phi, np.ones(4), 0.1, 2, modes=[2]), "below the cutoff"),
        (lambda Phi: rg.conditional_ridge(Phi, np.ones(4), 0.1, 2, modes=[1, 1]), "different ind"),
        (lambda Phi: rg.conditional_ridge(Phi[:6], np.ones(4), 0.1, 3), "10 regressors for 6 rows"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(mixture(20, 4))


def test_digits_are_heavy_tailed_beyond_the_first_modes(spectrum, digits):
    Phi = np.asarray(spectrum.features(digits.X_test[:300]))
    ours = cumulants(Phi, 3)
    expected = np.abs(stats.kurtosis(Phi)) > 1
    np.testing.assert_array_equal(ours.heavy, expected)
