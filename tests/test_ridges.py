# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference, fourier_problem
from scipy.optimize import brentq

from bayesrg import _checks, rg, theory
from bayesrg._fixedpoint import effective_ridge as solve
from bayesrg.spectrum import levels

p = fourier_problem()
power_law = np.arange(1, 1001.0) ** -2
effective = jax.jit(rg.effective_ridge)  # one program where a call outside of jit makes twenty
learnability = jax.jit(rg.learnability)


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
    np.testing.assert_allclose(
        rg.learnability(power_law, n, ridge).sum(), learnt, rtol=0, atol=6e-9
    )
    assert rg.cutoff(power_law, n, ridge) == cut
    np.testing.assert_allclose(ridge + power_law[cut:].sum(), universal, rtol=0, atol=6e-11)


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
    four, solved = np.array([2.0, 1.0, 0.5, 0.1]), jax.jit(rg.solve_ridge)
    for ridge in (1e-30, 1e-36, 1e-120):
        for n in (10.0, 1e6):  # more points than modes
            root = solved(four, n, ridge)
            np.testing.assert_allclose(root.value, ridge * n / (n - 4), rtol=1e-12)
            assert root.converged
    np.testing.assert_allclose(effective(four * 1e40, 1e6, 1e8), 1e8 / (1 - 4e-6), rtol=1e-12)
    root = solved(four, 4.0, 1e-150)  # s^2 = ridge * 4 / sum 1 / (4 l), to first order
    expected = np.sqrt(1e-150 / (1 / (4 * four)).sum() * 4)
    np.testing.assert_allclose(root.value, expected, rtol=1e-10)
    assert root.converged
    with jax.enable_x64(False):
        _checks._warned.add("a ridge")
        single = rg.effective_ridge(jnp.asarray(four, jnp.float32), 10.0, 1e-14)
    np.testing.assert_allclose(single, 1e-13 / 6, rtol=1e-5)


@pytest.mark.parametrize("n", [10, 99, 100, 101, 1000])
def test_equal_values_have_a_closed_form(n):
    """For 100 equal values the root is that of s^2 + s (n - 100 - ridge) = n ridge."""
    for ridge in 10.0 ** np.arange(-20, 10):
        b = n - 100 - ridge
        root = np.sqrt(b * b + 4 * n * ridge)
        s = 2 * n * ridge / (b + root) if b > 0 else (root - b) / 2
        np.testing.assert_allclose(effective(np.ones(100), n, ridge), s, rtol=1e-12)


def test_derivatives_in_closed_form():
    values, n, ridge = power_law[:50], 20.0, 0.01

    def learnt(r):
        return rg.learnability(values, n, r).sum()

    @jax.jit
    def ask(ridge):
        by_ridge = jax.grad(lambda r: rg.effective_ridge(values, n, r))
        return (
            jax.value_and_grad(rg.effective_ridge, (0, 1, 2))(values, n, ridge),
            jax.value_and_grad(by_ridge)(ridge), jax.value_and_grad(learnt)(ridge),
        )  # fmt: skip

    (s, gradient), (_, second), (_, learnt_slope) = jax.tree.map(np.asarray, ask(ridge))
    L = n * values / (n * values + s)
    gamma = (L**2).sum() / n
    E0 = 1 / (1 - gamma)
    np.testing.assert_allclose(gradient[0], E0 * (1 - L) ** 2, rtol=1e-12)
    np.testing.assert_allclose(gradient[1], -E0 * gamma * s / n, rtol=1e-12)
    np.testing.assert_allclose(gradient[2], E0, rtol=1e-12)
    difference = central_difference(lambda r: ask(r)[1][0], ridge, 1e-6)
    np.testing.assert_allclose(second, difference, rtol=1e-5)
    difference = central_difference(lambda r: ask(r)[2][0], ridge)
    np.testing.assert_allclose(learnt_slope, difference, rtol=1e-6)


def test_more_points_than_modes_and_no_ridge():
    values, none = np.array([1.0, 0.5, 0.25, 0.0]), np.zeros(4)
    assert rg.effective_ridge(values, 10, 0.0) == 0  # outside of jit
    np.testing.assert_array_equal(learnability(values, 10.0, 0.0), [1, 1, 1, 0])
    slope = jax.jit(jax.grad(lambda r: rg.effective_ridge(values, 10.0, r)))(0.0)
    np.testing.assert_allclose(slope, 10 / 7)
    np.testing.assert_allclose(effective(values, 10.0, 1e-12) / 1e-12, 10 / 7, rtol=1e-9)
    assert effective(values, 3.0, 0.0) == 0
    assert effective(values, 2.999, 0.0) > 0
    np.testing.assert_array_equal(learnability(none, 5.0, 0.0), 0.0)
    assert effective(none, 5.0, 0.2) == pytest.approx(0.2, rel=1e-14)


def test_dressed_ridge_and_its_limits():
    expected = {0: 0.158180868017, 5: 0.118466236268, 13: 0.087687601809, 24: 0.069103757589,
                40: 0.057162605131, 61: 0.05}  # fmt: skip
    for cutoff, s in expected.items():
        found = rg.dressed_ridge(p.values, 24, 0.05, cutoff)
        np.testing.assert_allclose(found, s, rtol=0, atol=6e-13)
    jitted = jax.jit(lambda r: rg.dressed_ridge(p.values, 24, r, 61))(0.05)
    np.testing.assert_allclose(jitted, found, rtol=1e-14)
    assert rg.dressed_ridge(p.values, 24, 0.05, 0) == rg.effective_ridge(p.values, 24, 0.05)
    s0 = rg.effective_ridge(power_law, 50, 0.01)
    seen = 0.01 + (power_law[:20] * s0 / (s0 + 50 * power_law[:20])).sum()
    np.testing.assert_allclose(rg.dressed_ridge(power_law, 50, seen, 20), s0, rtol=1e-13)


def test_levels_equal_their_modes_written_out():
    levels, count = np.array([1.0, 0.3, 0.1, 0.02]), np.array([1, 3, 5, 7])
    modes, cuts = np.repeat(levels, count), np.array([0, 1, 3, 4, 16])

    @jax.jit
    def ask(values, degeneracy):
        given = {"degeneracy": degeneracy}
        learnt = rg.learnability(values, 6, 0.05, **given)
        dressed = rg.dressed_ridge(values, 6, 0.05, cuts, **given)
        return rg.effective_ridge(values, 6, 0.05, **given), learnt, dressed

    (s, learnt, dressed), oracle = ask(levels, count), ask(modes, None)
    for ours, expected in zip((s, np.repeat(learnt, count), dressed), oracle, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-13)
    ns = np.array([1, 4, 10, 40, 400])
    for scan in ({}, {"threshold": 0.88, "scan": "uv"}):
        whole = rg.cutoff(levels, ns, 0.05, degeneracy=count, **scan)
        assert set(whole) <= {0, 1, 4, 9, 16}
        np.testing.assert_array_equal(whole, rg.cutoff(modes, ns, 0.05, **scan))
    close, five = [0.3208, 0.2998, 0.0, 0.0], [5, 5, 1, 1]
    assert rg.cutoff(close, 3.62, 0.0017, threshold=0.88, scan="uv", degeneracy=five) == 10
    zero = np.array([1.0, 0.5, 0.0, 0.0])
    slope = jax.jit(jax.grad(lambda v: rg.learnability(v, 6.0, 0.05)[2]))(zero)
    s = effective(np.array([1.0, 0.5]), 6.0, 0.05)
    np.testing.assert_allclose(np.asarray(slope)[2], 6 / s, rtol=1e-12)


def test_running_learnability_by_hand():
    n, ridge, tail = 24, 0.05, 0.01
    above = np.array([p.values[k + 1 :].sum() for k in range(61)])
    expected = n * p.values / (n * p.values + ridge + tail + above)
    running = rg.running_learnability(p.values, n, ridge, tail=tail)
    np.testing.assert_allclose(running, expected, rtol=1e-12)
    assert rg.cutoff(p.values, n, ridge, tail=tail) == int(np.argmin(expected >= 0.5))


def test_scans_differ_only_where_learnability_is_not_monotone():
    assert rg.cutoff(power_law, 50, 0.01) == rg.cutoff(power_law, 50, 0.01, scan="uv") == 37
    # With no ridge the last mode of a truncated spectrum has nothing left above it: L = 1.
    assert rg.cutoff(power_law, 50, 0.0, scan="uv") == 1000
    assert rg.cutoff(power_law, 50, 0.0) < 60
    assert rg.cutoff(power_law, 50, 1e6) == 0  # nothing can be learnt
    assert rg.cutoff(power_law[:4], 1e9, 0.01) == 4  # everything can
    assert rg.cutoff([1.0], 1, 1.0) == 1  # exactly at the threshold is kept


def test_local_ridge_averages_to_the_universal_one(spectrum, digits):
    @jax.jit
    def ask():
        seen = spectrum.features(spectrum.X_ref), spectrum.features(digits.X)
        return spectrum.values, *seen, spectrum.kernel(digits.X)

    values, reference, F, K = map(np.asarray, ask())
    inside = reference[:, 10:] ** 2 @ values[10:]
    np.testing.assert_allclose(inside.mean(), values[10:].sum(), rtol=1e-9)
    ours = rg.local_ridge(spectrum, digits.X, 0.05, 10)
    by_hand = 0.05 + np.diag(K - F[:, :10] * values[:10] @ F[:, :10].T)
    np.testing.assert_allclose(ours, by_hand, rtol=1e-10)


def test_batches():
    ridges, ns = np.array([[0.01], [0.1]]), np.array([10.0, 50.0, 200.0])
    s = np.asarray(effective(power_law, ns, ridges))
    assert s.shape == (2, 3)
    np.testing.assert_allclose(s[0, 1], rg.effective_ridge(power_law, 50, 0.01), rtol=1e-14)
    assert jax.eval_shape(rg.learnability, power_law, ns, 0.01).shape == (3, 1000)


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
    with pytest.warns(UserWarning, match="1 eigenvalues are negative by rounding"):
        s = rg.effective_ridge([1.0, 0.5, -1e-14], 3, 0.1)
    np.testing.assert_allclose(s, rg.effective_ridge([1.0, 0.5, 0.0], 3, 0.1))


def test_32_bits_give_six_digits():
    exact = effective(power_law[:50], 50.0, 0.01)
    with jax.enable_x64(False):
        _checks._warned.clear()
        single_values = jnp.asarray(power_law[:50], jnp.float32)
        with pytest.warns(RuntimeWarning, match="a ridge runs in 32-bit floats"):
            single = rg.effective_ridge(single_values, 50, 0.01)
        steep = jnp.asarray([1.0, 1e-3, 1e-8], jnp.float32)
        with pytest.warns(UserWarning, match="1 eigenvalues are below what 32-bit floats resolve"):
            rg.effective_ridge(steep, 50, 0.01)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, exact, rtol=2e-6)


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
    s = rg.effective_ridge(power_law, 50, 0.01)
    two = rg.two_stage_ridge(power_law, 50, 0.01, kept)
    np.testing.assert_allclose(two / s - 1, error, rtol=0, atol=digits)


def test_composition_law():
    """What flows is the function from bare to dressed ridge, not the number."""
    at = (power_law, 50, 0.01, 20)
    dressed, universal = rg.two_stage_ridge(*at, "dressed"), rg.two_stage_ridge(*at)
    np.testing.assert_allclose([dressed, universal], [0.0584904, 0.0861873], rtol=0, atol=6e-8)
    cuts = np.array([0, 1, 20, 400, 1000])
    whole = rg.effective_ridge(power_law, 50, 0.01)
    exact = rg.two_stage_ridge(power_law, 50, 0.01, cuts, "exact")
    np.testing.assert_allclose(exact, whole, rtol=1e-14)
    # by hand: bare ridge raised by what the low modes leave, then the flow
    low = power_law[:20]
    bare = 0.01 + (low * whole / (whole + 50 * low)).sum()
    np.testing.assert_allclose(rg.dressed_ridge(power_law, 50, bare, 20), whole, rtol=1e-14)


def test_cutoffs_batch_with_points_and_ridges():
    ns, ridges, cuts = np.array([10.0, 50.0]), np.array([[0.01], [0.1]]), np.array([[[0]], [[20]]])
    s = np.asarray(jax.jit(lambda n: rg.dressed_ridge(power_law, n, ridges, cuts))(ns))
    assert s.shape == (2, 2, 2)
    for i, j, k in np.ndindex(2, 2, 2):
        one = rg.dressed_ridge(power_law, ns[k], ridges[j, 0], int(cuts[i, 0, 0]))
        np.testing.assert_allclose(s[i, j, k], one, rtol=1e-13)
    universal = np.asarray(rg.universal_ridge(power_law, 0.01, np.array([0, 37])))
    np.testing.assert_allclose(universal[1], 0.0356655866, rtol=0, atol=6e-11)
    root = jax.tree.map(np.asarray, jax.jit(rg.solve_ridge)(power_law, ns, ridges))
    assert root.converged.all() and (root.residual < 1e-12).all()
    with pytest.raises(ValueError, match="cutoff must be an integer between 0 and 1000, got 1001"):
        rg.universal_ridge(power_law, 0.01, np.array([0, 1001]))
    with pytest.raises(ValueError, match="cutoff must hold integers"):
        rg.universal_ridge(power_law, 0.01, np.array([0.0, 1.0]))


def test_dressed_ridge_is_the_harmonic_mean_of_random_matrices():
    """Noise matrices of Gaussian features: harmonic and arithmetic mean, log determinant."""
    n, ridge, values = 200, 0.02, np.arange(1, 2001.0) ** -1.5
    rng, draws = np.random.default_rng(0), 6
    cuts = np.array([0, 20, 60, 150])
    s = jax.jit(lambda r: rg.dressed_ridge(values, n, r, cuts))(ridge)
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
    evidence = jax.jit(lambda v: theory.learning_curve(v, 0.0 * v, n, ridge).log_evidence)
    for cut in cuts:  # a silent target leaves the log determinant of the evidence
        high = np.r_[values[cut:], np.zeros(cut)]  # all of one length
        expected.append(-2 * evidence(high) - n * np.log(2 * np.pi))
    np.testing.assert_allclose(expected, [-189.67, -264.03, -334.46, -417.09], rtol=0, atol=6e-3)
    mean, error = seen.mean(0), seen.std(0, ddof=1) / np.sqrt(draws)
    theories = np.stack([s, universal, expected], 1)
    np.testing.assert_array_less(np.abs(mean / theories - 1), 3e-3 + 3 * error / abs(theories))
