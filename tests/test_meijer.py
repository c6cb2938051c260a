# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.special import gammaln, kve
from scipy.stats import gamma

from bayesrg.deep_linear import meijer, prior_density
from bayesrg.deep_linear.meijer import log_meijer_g

# Multiprecision references.
REFERENCE = [
    ((2.5, 4.0), 3.7, 0.881348803290811),
    ((1.5, 2.0, 3.5), 11.0, -0.20522607102304),
    ((5.0, 10.0, 10.0, 10.0), 800.0, 38.7458047258863),
    ((0.5, 0.5), 1e-3, -1.70275277579291),
    ((20.0, 3.0), 1e4, -95.0916535253771),
]


@pytest.mark.parametrize(("b", "z", "expected"), REFERENCE)
def test_multiprecision_values(b, z, expected):
    assert_allclose(log_meijer_g(np.log(z), b), expected, rtol=1e-12)


@pytest.mark.parametrize("b", [0.5, 3.0, 50.0, 2000.0, 5e5])
def test_one_parameter_is_a_gamma_density(b):
    log_z = np.array([-700.0, -100.0, -27.0, -5.0, 0.0, 5.0, 15.0])
    assert_allclose(log_meijer_g(log_z, [b]), b * log_z - np.exp(log_z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("b", [(0.5, 0.5), (0.5, 0.51), (3.0, 20.0), (50.0, 0.5), (300.0, 310.0)])
def test_two_parameters_are_a_bessel_function(b):
    log_z = np.array([-30.0, -12.0, -5.0, 0.0, 5.0, 20.0])
    root = 2.0 * np.exp(0.5 * log_z)
    with np.errstate(over="ignore"):
        expected = np.log(2) + sum(b) / 2 * log_z + np.log(kve(b[0] - b[1], root)) - root
    known = np.isfinite(expected)
    assert known.sum() >= 2
    assert_allclose(log_meijer_g(log_z[known], b), expected[known], rtol=1e-12, atol=1e-12)


def test_a_power_of_z_shifts_the_parameters():
    """Exact for any parameters, and the nodes of the two sides differ in nothing but their pole."""
    log_z = np.linspace(-200.0, 40.0, 25)
    for b in [(0.5, 0.5, 0.5, 7.0), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), (10.0,) * 3000, (-0.5, 2.0)]:
        shifted = log_meijer_g(log_z, np.add(b, 1.5))
        assert_allclose(shifted, log_meijer_g(log_z, b) + 1.5 * log_z, rtol=1e-12, atol=1e-10)


def test_halving_the_step_changes_nothing(monkeypatch):
    log_z = np.linspace(-300.0, 40.0, 30)
    b = [0.5, 0.5, 1.0, 4.0, 30.0]
    coarse = log_meijer_g(log_z, b)
    monkeypatch.setattr(meijer, "_STEP", 0.5 * meijer._STEP)
    assert_allclose(log_meijer_g(log_z, b), coarse, rtol=1e-13)


def test_three_parameters_by_a_convolution():
    """Multiplying by one more Gamma variable is an integral over its logarithm."""
    b, x = (1.5, 2.0, 3.5), 0.7

    def integrand(v):
        return np.exp(log_meijer_g(x - v, b[:2]) + b[2] * v - np.exp(v))

    expected = quad(integrand, -30, 6, epsabs=0, epsrel=1e-11, limit=200)[0]
    assert_allclose(log_meijer_g(x, b), np.log(expected), rtol=1e-10)


def test_prior_density_of_the_order_parameter():
    """It is the Gamma density for one layer, and has the moments of a product for three."""
    x = np.linspace(-3, 2, 7)
    expected = gamma(3.5, scale=1 / 3.5).pdf(np.exp(x)) * np.exp(x)
    assert_allclose(prior_density([7], x), expected, rtol=1e-12)
    x = np.linspace(-60, 10, 4001)
    density = prior_density([3, 4, 9], x) * (x[1] - x[0])
    b = np.array([1.5, 2.0, 4.5])
    for k in (0.0, 1.0, 2.0, -0.5):
        expected = np.exp((gammaln(b + k) - gammaln(b) - k * np.log(b)).sum())
        assert_allclose(density @ np.exp(k * x), expected, rtol=1e-10)


def test_prior_density_against_draws():
    rng = np.random.default_rng(0)
    draws = np.log(np.prod([rng.chisquare(n, 200_000) / n for n in (3, 5)], axis=0))
    x = np.linspace(-40, 6, 4001)
    density = prior_density([3, 5], x) * (x[1] - x[0])
    for function in (np.sin, np.cos, np.tanh):
        values = function(draws)
        error = values.std() / np.sqrt(values.size)
        assert abs(values.mean() - density @ function(x)) < 4 * error


def test_a_width_of_one_far_out():
    """Where round-off of the exponents swamps the sum the density is zero, and nothing is nan."""
    for widths in ([1.0], [200.0, 1.0], [30.0, 30.0, 1.0]):
        assert_allclose(prior_density(widths, [60.0, 80.0]), 0.0, rtol=0, atol=1e-100)
    z = np.array([1e3, 1e11, 1e20, 1e30])
    assert_allclose(log_meijer_g(np.log(z), [0.5]), 0.5 * np.log(z) - z, rtol=1e-12)


def test_bad_arguments():
    with pytest.raises(ValueError, match="widths is empty"):
        prior_density([], 0.0)
    with pytest.raises(ValueError, match="log_q contains non-finite"):
        prior_density([1], np.nan)
    with pytest.raises(ValueError, match="widths must be positive"):
        prior_density([3, 0], 0.0)
