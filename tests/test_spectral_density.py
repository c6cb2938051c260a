# SPDX-License-Identifier: Apache-2.0
"""Density of sample eigenvalues: closed form, reference numbers, the fixed point, draws."""

import numpy as np
import pytest

from bayesrg import theory

P, POINTS = 20, 600  # one number of values and one of points: the law knows only ratios
HALVES = np.repeat([1.0, 4.0], P // 2)
POWERS = np.arange(1, P + 1.0) ** -1.2


def density(values, n, x):
    """Density at x and the atom; x is repeated up to ``POINTS``, so that all calls are alike."""
    found = theory.spectral_density(values, n, np.resize(x, POINTS))
    return np.asarray(found.density)[: len(x)], float(found.atom)


def cosine(low, high, size):
    """Points and weights on an interval that crowd at its ends, where densities have roots."""
    angle = (np.arange(size) + 0.5) * np.pi / size
    x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
    return x, (high - low) / 2 * np.sin(angle) * np.pi / size


@pytest.mark.parametrize("n", [80, pytest.param(10, marks=pytest.mark.slow)])
def test_identical_values_give_marchenko_pastur(n):
    q = P / n
    low, high = (1 - np.sqrt(q)) ** 2, (1 + np.sqrt(q)) ** 2
    x, _ = cosine(low, high, 300)
    found, atom = density(np.ones(P), n, x)
    law = np.sqrt((high - x) * (x - low)) / (2 * np.pi * q * x)
    np.testing.assert_allclose(found, law, rtol=1e-4)
    np.testing.assert_allclose(atom, max(0, 1 - n / P), rtol=1e-14)
    outside, _ = density(np.ones(P), n, [low / 3, 3 * high])
    np.testing.assert_array_less(outside, 1e-6)


def test_two_values_reference_numbers_and_draws():
    found, _ = density(HALVES, 2 * P, [0.5, 1, 2, 4, 6])
    printed = [0.4784, 0.2856, 0.1146, 0.0825, 0.0553]
    np.testing.assert_allclose(found, printed, rtol=0, atol=6e-5)
    rng, scales = np.random.default_rng(0), np.repeat([1.0, 2.0], 100)
    drawn = [
        np.linalg.eigvalsh(np.cov((rng.normal(size=(400, 200)) * scales).T, bias=True))
        for _ in range(10)
    ]
    drawn = np.sort(np.concatenate(drawn))
    x, weights = cosine(0.01, 12.0, POINTS)
    cumulative = np.cumsum(density(HALVES, 2 * P, x)[0] * weights)
    np.testing.assert_allclose(cumulative[-1], 1, rtol=0, atol=5e-3)
    steps = np.searchsorted(drawn, x) / drawn.size
    assert np.abs(cumulative - steps).max() < 0.015


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-4])
def test_mass_and_fixed_point_at_any_scale(scale):
    """The resolvent that the density gives is that of the effective ridge."""
    values, n = scale * POWERS, 2 * P
    logs = np.linspace(np.log(1e-5 * scale), np.log(4 * scale), POINTS)
    x = np.exp(logs)
    weights = x * (logs[1] - logs[0])
    found, _ = density(values, n, x)
    np.testing.assert_allclose((found * weights).sum(), 1, rtol=0, atol=5e-3)
    ridge = 0.1 * scale
    m = theory.spectral_moments(values, 0 * values, 1.0)
    tau = float(theory.ridge_equivalent(m, n, ridge).tau)
    trace = (tau / ridge * n / (values + tau)).mean()
    np.testing.assert_allclose((found * weights / (x + ridge / n)).sum(), trace, rtol=0.01)


def test_values_that_vanish_are_in_the_atom():
    values = np.r_[np.ones(12), np.zeros(8)]
    low, high = (1 - np.sqrt(0.5)) ** 2, (1 + np.sqrt(0.5)) ** 2
    x, weights = cosine(low, high, 400)
    found, atom = density(values, 24, x)
    np.testing.assert_allclose(atom, 0.4, rtol=1e-14)
    np.testing.assert_allclose((found * weights).sum(), 0.6, rtol=0, atol=3e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.spectral_density([1.0], 3, [0.0, 1.0]), "grid must be positive"),
        (lambda: theory.spectral_density([0.0], 3, [1.0]), "no positive entry"),
        (lambda: theory.spectral_density([1.0], 0, [1.0]), "n must be positive"),
        (lambda: theory.spectral_density([1.0, -1.0], 3, [1.0]), "must be non-negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nothing_lies_below_the_support():
    """The companion's own atom at zero, for more rows than features, leaves no tail."""
    below, _ = density(np.ones(P), 15 * P, [1e-7, 1e-5, 1e-3, 0.3])
    np.testing.assert_allclose(below, 0.0, rtol=0, atol=1e-6)
    x = np.exp(np.linspace(np.log(1e-8), np.log(3), POINTS))
    found, atom = density(POWERS, 100 * P, x)  # 1.025 with the tail
    np.testing.assert_allclose(np.trapezoid(found, x) + atom, 1.0, rtol=0, atol=5e-3)
