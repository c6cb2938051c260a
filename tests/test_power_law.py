# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import zeta

from bayesrg import rg

ALPHAS = (0.5, 1.0, 2.0)
NS = np.array([1000.0, 2000.0, 4000.0, 8000.0])
# A million modes: the first 10,000 by themselves, then neighbours within 0.2 % as one level.
EDGES = np.unique(np.r_[np.arange(10**4), np.geomspace(10**4, 10**6, 2300).round()].astype(int))
SIZES = np.diff(EDGES)
LEVELS = {"degeneracy": SIZES}


@pytest.fixture(scope="module", params=range(3))
def case(request):
    """A decay, its closed forms, levels of its first million values, and the tables' column."""
    law = rg.power_law(ALPHAS[request.param])
    values = np.arange(1, 10**6 + 1.0) ** (-1 - ALPHAS[request.param])
    return request.param, law, np.add.reduceat(values, EDGES[:-1]) / SIZES


def test_constants(case):
    i, law, _ = case
    constants = [2.4183991523, np.pi / 2, 1.2091995762]
    thresholds = [0.638735, 0.711600, 0.789956]
    np.testing.assert_allclose(law.constant, constants[i], rtol=0, atol=6e-11)
    np.testing.assert_allclose(law.matching_threshold, thresholds[i], rtol=0, atol=6e-7)


def test_tail_sums(case):
    _, law, values = case
    alpha, cutoffs = float(law.alpha), np.array([0, 1, 37, 1000, 10**6])
    exact = np.asarray(law.tail(cutoffs))
    np.testing.assert_allclose(exact, zeta(1 + alpha, cutoffs + 1), rtol=1e-13)
    sums = [(values * SIZES)[cutoff:].sum() for cutoff in cutoffs[:-1]]
    np.testing.assert_allclose(sums + exact[-1], exact[:-1], rtol=1e-12)
    np.testing.assert_allclose(exact[3], 1000.5**-alpha / alpha, rtol=1e-6)
    np.testing.assert_allclose(law.values(100), values[:100], rtol=1e-14)


def test_generalisation_error(case):
    """Slopes and ratios to both limits, measured on the fixed point with a million modes."""
    i, law, values = case
    slopes = {1.0: [-0.3546, -0.5044, -0.6591], 0.0: [-0.5233, -1.0023, -1.9994]}
    ratios = {1.0: [1.069, 1.014, 0.966], 0.0: [0.974, 0.998, 0.9985]}
    tail = law.tail(10**6)
    for ridge in (1.0, 0.0):
        error = np.asarray(rg.effective_ridge(values, NS, ridge, **LEVELS)) - ridge
        slope = np.polyfit(np.log(NS), np.log(error), 1)[0]
        np.testing.assert_allclose(slope, slopes[ridge][i], rtol=0, atol=6e-5)
        limit = law.ridge_error(1000, 1.0) if ridge else law.ridgeless_error(1000)
        np.testing.assert_allclose(error[0] / float(limit), ratios[ridge][i], rtol=0, atol=6e-4)
        # the continuum equation lies on the sum over all modes, up to their discreteness
        whole = np.asarray(rg.effective_ridge(values, NS, ridge, tail=tail, **LEVELS)) - ridge
        # Euler and Maclaurin: the sum is less than the integral by half its first term, s / n
        continuum, power = np.asarray(law.error(NS, ridge)), float(law.alpha / (1 + law.alpha))
        s = continuum + ridge
        less = s / (2 * NS) / (1 - power * continuum / s)
        deviation = np.abs((continuum - less) / whole - 1)
        # and the modes beyond a million, which ``whole`` takes for noise, are learnt a little
        beyond = NS / s * zeta(2 + 2 * float(law.alpha), 10**6 + 1) / whole
        np.testing.assert_array_less(deviation, 2 * (less / whole) ** 2 + 2 * beyond + 1e-6)


def test_error_solves_its_equation(case):
    _, law, _ = case
    alpha, C = float(law.alpha), float(law.constant)
    n, ridges = np.array([1.0, 50.0, 1e6])[:, None], np.array([0.0, 1e-6, 0.1, 100.0])
    found = np.asarray(law.error(n, ridges))
    for i, j in np.ndindex(found.shape):

        def excess(e, n=n[i, 0], ridge=ridges[j]):
            return e - C * (n / (ridge + e)) ** (-alpha / (1 + alpha))

        expected = brentq(excess, 1e-30, 1e6, xtol=1e-30, rtol=1e-14)
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-10)
    # without a ridge e = c e^p, p = alpha / (1 + alpha), and de/dr is p / (1 - p) there
    slope = jax.jit(jax.grad(lambda r: law.error(100.0, r)))
    np.testing.assert_allclose(slope(0.0), alpha, rtol=1e-10)


def test_matching_threshold_leaves_the_effective_ridge(case):
    i, law, values = case
    expected = {1.0: [1.004, 1.018, 1.007], 0.0: [1.001, 1.001, 0.999]}
    at_half = {1.0: [0.815, 0.630, 0.473], 0.0: [0.746, 0.405, 0.071]}
    for ridge in (1.0, 0.0):
        excess = float(rg.effective_ridge(values, 1000, ridge, **LEVELS)) - ridge
        for threshold, table in ((float(law.matching_threshold), expected), (0.5, at_half)):
            kept = rg.cutoff(values, 1000, ridge, threshold=threshold, **LEVELS)
            ratio = (float(rg.universal_ridge(values, ridge, kept, **LEVELS)) - ridge) / excess
            np.testing.assert_allclose(ratio, table[ridge][i], rtol=0, atol=6e-4)


def test_fixed_point_of_the_rescaled_ridge():
    law = rg.power_law(1.0)
    r = law.rescaled_ridge(np.array([10, 100, 1000]), 0.0)
    np.testing.assert_allclose(r, [0.951663, 0.995017, 0.999500], rtol=0, atol=6e-7)
    assert law.fixed_point == 1.0
    # dr/db = 1 - a r with b = -ln cutoff, by differences of the continuum
    for alpha, ridge in ((0.5, 0.0), (1.0, 0.3), (2.0, 1e-4)):
        law, cut = rg.power_law(alpha, 1.7), 2000.0
        up, down = law.rescaled_ridge(np.array([cut - 1, cut + 1]), ridge)
        slope = (up - down) / np.log((cut + 1) / (cut - 1))
        r = law.rescaled_ridge(cut, ridge)
        np.testing.assert_allclose(slope, 1 - alpha * r, rtol=0, atol=2e-3 * r)


def test_stop_lies_on_the_running_rule(case):
    _, law, values = case
    ridges, thresholds = (1.0, 1e-3, 1.0, 1e-3), (0.3, 0.3, 0.5, 0.5)
    stops, tail = law.stop(2000, np.array(ridges), np.array(thresholds)), law.tail(10**6)
    kept = [
        int(rg.cutoff(values, 2000, ridge, threshold=threshold, tail=tail, **LEVELS))
        for ridge, threshold in zip(ridges, thresholds, strict=True)
    ]
    np.testing.assert_allclose(stops, kept, atol=1.5, rtol=0.002)
    np.testing.assert_allclose(law.stop(2000, 0.0), law.alpha * 2000, rtol=1e-12)


@pytest.mark.parametrize("alpha", [0.05, 1.0, 5.0, 20.0])
def test_stop_solves_its_equation(alpha):
    law = rg.power_law(alpha, 3.0)
    for n, ridge, threshold in ((1e3, 1.0, 0.01), (1e6, 10.0, 0.5), (50.0, 1e-9, 0.9)):
        reach = n * (1 - threshold) / threshold

        def excess(x, ridge=ridge, reach=reach):
            return x / alpha + ridge / 3.0 * x ** (1 + alpha) - reach

        upper = alpha * reach + 1.0
        upper = min(upper, (reach * 3.0 / ridge) ** (1 / (1 + alpha)) + 1.0)
        expected = brentq(excess, 1e-300, upper, rtol=1e-14)
        np.testing.assert_allclose(law.stop(n, ridge, threshold), expected, rtol=1e-10)


def test_crossover():
    law = rg.power_law(0.5, 2.0)
    n = law.crossover(1e-3)
    np.testing.assert_allclose(n, (2.0 / 1e-3) ** 2)
    # there both limits are of the same size
    assert 0.3 < law.ridge_error(n, 1e-3) / law.ridgeless_error(n) < 3.0


@pytest.mark.parametrize("arguments, name", [((0.0,), "alpha"), ((1.0, -1.0), "first")])
def test_bad_input_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        rg.power_law(*arguments)
