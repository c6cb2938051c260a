# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fourier_problem
from scipy.optimize import brentq

from bayesrg import _checks, rg, theory
from bayesrg._fixedpoint import effective_ridge as solve
from bayesrg.rg.learnability import running
from bayesrg.rg.ridges import problem
from bayesrg.rg.ridges import solve as dressed_root
from bayesrg.spectrum import levels

p = fourier_problem()
power_law = np.arange(1, 1001.0) ** -2


def padded(values, size=1000):
    """Values, and zeros up to the size of the power law: one compiled program for both."""
    return np.pad(np.asarray(values, float), (0, size - len(values)))


@pytest.mark.parametrize(
    "n, ridge, s, learnt, cut, universal",
    [
        (10, 0.0, 0.2218926886, 10.0, 10, 0.0941668355),
        (10, 0.01, 0.2406390445, 9.58443984, 9, 0.1141668355),
        (50, 0.01, 0.0649767070, 42.30493475, 37, 0.0356655866),
        (50, 1.0, 1.2333742486, 9.46080433, 6, 1.1525456778),
        (200, 0.01, 0.0272801862, 126.68671747, 103, 0.0186622604),
    ],
)
def test_power_law_reference_numbers(n, ridge, s, learnt, cut, universal):
    np.testing.assert_allclose(rg.effective_ridge(power_law, n, ridge), s, rtol=0, atol=6e-11)
    found = np.asarray(rg.learnability(power_law, n, ridge)).sum()
    np.testing.assert_allclose(found, learnt, rtol=0, atol=6e-9)
    assert rg.cutoff(power_law, n, ridge) == cut
    found = rg.universal_ridge(power_law, ridge, cut)
    np.testing.assert_allclose(found, universal, rtol=0, atol=6e-11)


@pytest.mark.parametrize("n", [1, 10, 99.5, 999, 1000, 1001, 1e5])
@pytest.mark.parametrize("ridge", [0.0, 1e-20, 1e-6, 1.0, 1e9])
def test_root_against_bracketing(n, ridge):
    root = solve(levels(power_law), n, ridge)
    assert root.converged and root.residual < 1e-11
    if ridge == 0 and n >= 1000:
        assert root.value == 0
        return

    def balance(log_s):
        s = np.exp(log_s)
        return 1 - ridge / s - (power_law / (s + n * power_law)).sum()

    expected = np.exp(brentq(balance, np.log(1e-25), np.log(ridge + 2.0), xtol=1e-15))
    cancelled = 1e-15 / (1e-300 + ridge / expected) if n == 1000 else 0.0  # in this oracle
    np.testing.assert_allclose(root.value, expected, rtol=1e-12 + cancelled)


def test_tiny_and_huge_ridges_do_not_round_away():
    four = np.array([2.0, 1.0, 0.5, 0.1])
    whole = levels(padded(four))
    for ridge in (1e-30, 1e-36, 1e-120):
        for n in (10.0, 1e6):  # more points than modes
            root = solve(whole, n, ridge)
            np.testing.assert_allclose(root.value, ridge * n / (n - 4), rtol=1e-12)
            assert root.converged
    huge = rg.effective_ridge(padded(four * 1e40), 1e6, 1e8)
    np.testing.assert_allclose(huge, 1e8 / (1 - 4e-6), rtol=1e-12)
    root = solve(whole, 4.0, 1e-150)  # s^2 = ridge * 4 / sum 1 / (4 l), to first order
    expected = np.sqrt(1e-150 / (1 / (4 * four)).sum() * 4)
    np.testing.assert_allclose(root.value, expected, rtol=1e-10)
    assert root.converged


@pytest.mark.parametrize("n", [10, 99, 100, 101, 1000])
def test_equal_values_have_a_closed_form(n):
    """For 100 equal values the root is that of s^2 + s (n - 100 - ridge) = n ridge."""
    hundred = levels(padded(np.ones(100)))
    for ridge in 10.0 ** np.arange(-20, 10):
        b = n - 100 - ridge
        root = np.sqrt(b * b + 4 * n * ridge)
        s = 2 * n * ridge / (b + root) if b > 0 else (root - b) / 2
        np.testing.assert_allclose(rg.effective_ridge(hundred, n, ridge), s, rtol=1e-12)


def test_derivatives_in_closed_form():
    """Of the root, and of learnabilities in the ridge and in a value of zero."""
    values, n, ridge = np.append(power_law[:9], 0.0), 20.0, 0.01
    gradient_of = jax.jit(jax.value_and_grad(rg.effective_ridge, (0, 1, 2)))
    s, gradient = jax.device_get(gradient_of(values, n, ridge))
    L = n * values / (n * values + s)
    gamma = (L**2).sum() / n
    E0 = 1 / (1 - gamma)
    np.testing.assert_allclose(gradient[0], E0 * (1 - L) ** 2, rtol=1e-12)
    np.testing.assert_allclose(gradient[1], -E0 * gamma * s / n, rtol=1e-12)
    np.testing.assert_allclose(gradient[2], E0, rtol=1e-12)

    last = np.eye(10)[9]
    learnt = jax.jit(jax.jacfwd(lambda t: rg.learnability(values + t[1] * last, n, ridge + t[0])))
    by_ridge, by_zero = np.asarray(learnt(np.zeros(2))).T
    np.testing.assert_allclose(by_ridge, -L * (1 - L) / s * E0, rtol=1e-11)
    # the value of zero also moves the root, as the ridge does
    np.testing.assert_allclose(by_zero, by_ridge + last * n / s, rtol=1e-11)


def test_more_points_than_modes_and_no_ridge():
    values, none = padded([1.0, 0.5, 0.25]), padded([])
    assert rg.effective_ridge(values, 10, 0.0) == 0
    np.testing.assert_array_equal(rg.learnability(values, 10.0, 0.0), values > 0)
    np.testing.assert_allclose(rg.effective_ridge(values, 10.0, 1e-12) / 1e-12, 10 / 7, rtol=1e-9)
    assert rg.effective_ridge(values, 3.0, 0.0) == 0
    assert rg.effective_ridge(values, 2.999, 0.0) > 0
    np.testing.assert_array_equal(rg.learnability(none, 5.0, 0.0), 0.0)
    assert rg.effective_ridge(none, 5.0, 0.2) == pytest.approx(0.2, rel=1e-14)


def test_dressed_ridge_and_its_limits():
    expected = {0: 0.158180868017, 5: 0.118466236268, 13: 0.087687601809, 24: 0.069103757589,
                40: 0.057162605131, 61: 0.05}  # fmt: skip
    values = padded(p.values)
    for cutoff, s in expected.items():
        found = rg.dressed_ridge(values, 24, 0.05, cutoff)
        np.testing.assert_allclose(found, s, rtol=0, atol=6e-13)
    assert rg.dressed_ridge(values, 24, 0.05, 0) == rg.effective_ridge(values, 24, 0.05)


def test_levels_equal_their_modes_written_out():
    four, count = np.array([1.0, 0.3, 0.1, 0.02]), np.array([1, 3, 5, 7])
    # levels without variance fill up the shape of the modes
    whole, modes = padded(four, 16), np.repeat(four, count)
    sizes, ones = np.r_[count, np.ones(12)], np.ones(16)
    ns, cuts = np.array([1.0, 4, 10, 40, 400]), np.array([0, 1, 3, 4, 16])

    def ask(values, degeneracy):
        given = {"degeneracy": degeneracy}
        learnt = rg.learnability(values, ns, 0.05, **given)
        return learnt, rg.dressed_ridge(values, ns, 0.05, cuts, **given)

    (learnt, dressed), (of_modes, expected) = ask(whole, sizes), ask(modes, ones)
    learnt = np.repeat(np.asarray(learnt)[:, :4], count, 1)
    np.testing.assert_allclose(learnt, of_modes, rtol=1e-13)
    np.testing.assert_allclose(dressed, expected, rtol=1e-13)
    for scan in ({}, {"threshold": 0.88, "scan": "uv"}):
        kept = rg.cutoff(whole, ns, 0.05, degeneracy=sizes, **scan)
        assert set(kept) <= {0, 1, 4, 9, 16}
        np.testing.assert_array_equal(kept, rg.cutoff(modes, ns, 0.05, degeneracy=ones, **scan))
    close, sizes = padded([0.3208, 0.2998], 16), np.r_[5, 5, np.ones(14)]
    given = {"threshold": 0.88, "scan": "uv", "degeneracy": sizes}
    np.testing.assert_array_equal(rg.cutoff(close, np.full(5, 3.62), 0.0017, **given), 10)


def test_running_learnability_by_hand():
    n, ridge, tail = 24.0, 0.05, 0.01
    above = np.append(np.cumsum(p.values[:0:-1])[::-1], 0.0)
    expected = padded(n * p.values / (n * p.values + ridge + tail + above))
    found = running(*problem(padded(p.values), n, ridge, tail=tail))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert rg.cutoff(padded(p.values), n, ridge, tail=tail) == int(np.argmin(expected >= 0.5))


def test_scans_differ_only_where_learnability_is_not_monotone():
    assert rg.cutoff(power_law, 50, 0.01) == rg.cutoff(power_law, 50, 0.01, scan="uv") == 37
    # With no ridge the last mode of a truncated spectrum has nothing left above it: L = 1.
    assert rg.cutoff(power_law, 50, 0.0, scan="uv") == 1000
    assert rg.cutoff(power_law, 50, 0.0) < 60
    assert rg.cutoff(power_law, 50, 1e6) == 0  # nothing can be learnt
    assert rg.cutoff(padded(power_law[:4]), 1e9, 0.01) == 4  # everything can
    assert rg.cutoff(padded([1.0]), 1, 1.0) == 1  # exactly at the threshold is kept


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: rg.effective_ridge([1.0, -0.5], 3, 0.1), r"non-negative; index \[1\] is -0.5"),
        (lambda: rg.effective_ridge([0.5, 1.0], 3, 0.1), "sorted in falling order"),
        (lambda: rg.effective_ridge([1.0], 0, 0.1), "n must be positive"),
        (lambda: rg.effective_ridge([1.0], 3, -0.1), "ridge must be non-negative"),
        (lambda: rg.effective_ridge([np.nan], 3, 0.1), "values contains non-finite"),
        (lambda: rg.effective_ridge(1.0, 3, 0.1), "got a scalar"),
        (lambda: rg.effective_ridge([1.0], 3, 0.1, degeneracy=[1, 2]), "one per level"),
        (lambda: rg.dressed_ridge([1.0, 0.5], 3, 0.1, 3), "cutoff must be an integer between"),
        (lambda: rg.cutoff([1.0], 3, 0.1, "runing"), "rule must be one of 'bare', 'running'"),
        (lambda: rg.cutoff([1.0], 3, 0.1, threshold=1.0), "strictly between 0 and 1, got 1"),
        (lambda: rg.cutoff([1.0], 3, 0.1, scan="up"), "scan must be one of 'ir', 'uv'"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_round_off_below_zero_is_clipped_with_a_warning():
    values = padded([1.0, 0.5])
    with pytest.warns(UserWarning, match="1 eigenvalues are negative by rounding") as seen:
        s = rg.effective_ridge(np.append(values[:-1], -1e-14), 3, 0.1)
    assert seen[0].filename == __file__
    np.testing.assert_allclose(s, rg.effective_ridge(values, 3, 0.1))


def test_32_bits_give_six_digits():
    exact = rg.effective_ridge(padded(power_law[:50]), 50.0, 0.01)
    with jax.enable_x64(False):
        _checks._warned.clear()
        with pytest.warns(RuntimeWarning, match="a ridge runs in 32-bit floats"):
            single = rg.effective_ridge(jnp.asarray(power_law[:50], jnp.float32), 50, 0.01)
        four = padded([2.0, 1.0, 0.5, 0.1], 50).astype(np.float32)
        tiny = rg.effective_ridge(four, 10, 1e-14)
        with pytest.warns(UserWarning, match="1 eigenvalues are below what 32-bit floats resolve"):
            levels(jnp.asarray([1.0, 1e-3, 1e-8], jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=2e-6)
    np.testing.assert_allclose(tiny, 1e-13 / 6, rtol=1e-5)


@pytest.mark.parametrize(
    "threshold, kept, error, digits",
    [
        (0.5, 37, 9.13e-2, 5e-5), (0.2, 103, 5.90e-3, 5e-6), (0.1, 174, 1.27e-3, 5e-6),
        (0.05, 274, 3.23e-4, 5e-7), (0.02, 469, 5.94e-5, 5e-8), (0.01, 688, 1.42e-5, 5e-8),
    ],
)  # fmt: skip
def test_two_stages_with_the_universal_ridge(threshold, kept, error, digits):
    """Too large a ridge, to second order in the learnability of what is eliminated."""
    assert rg.cutoff(power_law, 50, 0.01, threshold=threshold) == kept
    s = np.asarray(rg.effective_ridge(power_law, 50, 0.01))
    two = np.asarray(rg.two_stage_ridge(power_law, 50, 0.01, kept))
    np.testing.assert_allclose(two / s - 1, error, rtol=0, atol=digits)


def test_composition_law():
    """What flows is the function from bare to dressed ridge, not the number."""
    at = (power_law, 50, 0.01, 20)
    dressed, universal = rg.two_stage_ridge(*at, "dressed"), rg.two_stage_ridge(*at)
    np.testing.assert_allclose([dressed, universal], [0.0584904, 0.0861873], rtol=0, atol=6e-8)
    # the bare ridge, raised by what the low modes leave
    whole = np.asarray(rg.effective_ridge(power_law, 50, 0.01))
    left = np.append(0.0, np.cumsum(power_law * whole / (whole + 50 * power_law)))
    for cut in (0, 1, 20, 400, 1000):
        composed = rg.dressed_ridge(power_law, 50, 0.01 + left[cut], cut)
        np.testing.assert_allclose(composed, whole, rtol=1e-13)


def test_cutoffs_batch_with_points_and_ridges():
    ns, bare, cuts = np.array([10.0, 50.0]), np.array([[0.01], [0.1]]), np.array([[[0]], [[20]]])
    root = jax.device_get(dressed_root(power_law, ns, bare, cuts, None, None))
    assert root.converged.all() and (root.residual < 1e-12).all()
    assert root.value.shape == (2, 2, 2)
    for i, j, k in np.ndindex(2, 2, 2):
        one = rg.dressed_ridge(power_law, ns[k], bare[j, 0], int(cuts[i, 0, 0]))
        np.testing.assert_allclose(root.value[i, j, k], one, rtol=1e-13)
    universal = np.asarray(rg.universal_ridge(power_law, 0.01, np.array([0, 37])))
    np.testing.assert_allclose(universal[1], 0.0356655866, rtol=0, atol=6e-11)
    assert jax.eval_shape(rg.learnability, power_law, ns, bare).shape == (2, 2, 1000)
    with pytest.raises(ValueError, match="cutoff must be an integer between 0 and 1000, got 1001"):
        rg.universal_ridge(power_law, 0.01, np.array([0, 1001]))
    with pytest.raises(ValueError, match="cutoff must hold integers"):
        rg.universal_ridge(power_law, 0.01, np.array([0.0, 1.0]))


@pytest.mark.slow
def test_dressed_ridge_is_the_harmonic_mean_of_random_matrices():
    """Noise matrices of Gaussian features: harmonic and arithmetic mean, log determinant."""
    n, ridge, values = 200, 0.02, np.arange(1, 2001.0) ** -1.5
    rng, draws = np.random.default_rng(0), 6
    cuts = np.array([0, 20, 60, 150])
    s = rg.dressed_ridge(values, n, ridge, cuts)
    np.testing.assert_allclose(s, [0.227147, 0.196333, 0.156708, 0.112408], rtol=0, atol=6e-7)
    universal = rg.universal_ridge(values, ridge, cuts)
    np.testing.assert_allclose(universal, [2.5877, 0.4170, 0.2324, 0.1383], rtol=0, atol=6e-5)
    seen = np.zeros((draws, 4, 3))
    for draw in range(draws):
        B = rng.standard_normal((n, 2000)) * np.sqrt(values)
        for i, cut in enumerate(cuts):
            noise = np.linalg.eigvalsh(ridge * np.eye(n) + B[:, cut:] @ B[:, cut:].T)
            seen[draw, i] = 1 / (1 / noise).mean(), noise.mean(), np.log(noise).sum()
    expected = []
    for cut in cuts:  # a silent target leaves the log determinant of the evidence
        high = np.r_[values[cut:], np.zeros(cut)]  # all of one length
        evidence = np.asarray(theory.learning_curve(high, 0.0 * high, n, ridge).log_evidence)
        expected.append(-2 * evidence - n * np.log(2 * np.pi))
    np.testing.assert_allclose(expected, [-189.67, -264.03, -334.46, -417.09], rtol=0, atol=6e-3)
    mean, error = seen.mean(0), seen.std(0, ddof=1) / np.sqrt(draws)
    theories = np.stack([s, universal, expected], 1)
    np.testing.assert_array_less(np.abs(mean / theories - 1), 3e-3 + 3 * error / abs(theories))
