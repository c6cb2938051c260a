# SPDX-License-Identifier: Apache-2.0
"""Deterministic equivalents of ridge regression: reference numbers, limits, experiments."""

from decimal import Decimal, localcontext

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import theory

k = np.arange(1, 401.0)
omega = k**-1.2
weights = (-1) ** k * k**-0.5
NOISE = 0.09


learning_curve = jax.jit(theory.learning_curve)


def spectral(values, power, noise, **given):
    """Moments of 400 features, those beyond the given ones silent: few programs are compiled."""
    pad = np.zeros(400 - len(values))
    return theory.spectral_moments(np.r_[values, pad], np.r_[power, pad], noise, **given)


@pytest.fixture(scope="module", autouse=True)
def problems():
    """Compile when the tests run: every worker collects all files."""
    global POWER, MATCHED, WRONG
    POWER = spectral(omega, omega * weights**2, NOISE)
    MATCHED = spectral(2 / j, 0.7 * 2 / j, 0.2)
    WRONG = spectral(2 / j, 2 / j**3, 0.2)


j = np.arange(1, 301.0)
SIZES = np.array([60.0, 150, 300, 600])
NEAR = np.array([3.5, 3.9999, 4.0, 4.0001, 9])
ARRAYS = (
    "tau", "m", "df1", "df2", "test", "train", "weight_norm2", "data_fit", "pred_var",
    "calibration",
)  # fmt: skip


def equivalents(m, n, ridge, **given):
    """Call at points of any shape as at eight in a row, so that few programs are compiled."""
    n, ridge = np.broadcast_arrays(np.asarray(n, float), np.asarray(ridge, float))
    size = -(-n.size // 8) * 8
    points = np.resize(n, size).reshape(-1, 8), np.resize(ridge, size).reshape(-1, 8)
    parts = [theory.ridge_equivalent(m, *point, **given) for point in zip(*points, strict=True)]
    return jax.tree.map(
        lambda *x: np.resize(np.stack(x), n.shape) if x[0].ndim else np.asarray(x[0]), *parts
    )


def rotated(values, power, Ey2, seed=0):
    """The same moments in features that are correlated."""
    U = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))[0]
    return (U * values) @ U.T, U @ np.sqrt(values * power), Ey2


def test_effective_ridge_of_identical_eigenvalues():
    n, ridge = np.array([10.0, 99, 100, 101, 1000])[:, None], 10.0 ** np.arange(-20, 10)
    e = equivalents(spectral(np.ones(100), np.zeros(100), 1.0), n, ridge)
    a = n - 100 - ridge
    root = np.sqrt(a**2 + 4 * n * ridge)
    small = 2 * ridge / np.where(a > 0, a + root, 1.0)
    np.testing.assert_allclose(e.tau, np.where(a > 0, small, (root - a) / (2 * n)), rtol=1e-13)
    np.testing.assert_allclose(e.m, 1 / (n * e.tau), rtol=1e-13)
    assert e.converged.all() and e.residual.max() < 1e-11
    # free rows without cancellation: n - df2 = ridge/tau + tau sum omega/(omega + tau)^2
    free = ridge / e.tau + 100 * e.tau / (1 + e.tau) ** 2
    np.testing.assert_allclose(e.test, n / free, rtol=1e-12)


def test_effective_ridge_reference_numbers():
    n = np.array([100.0, 400, 400, 800, 50, 399])
    ridge = np.array([1e-3, 1e-3, 1e-12, 0.1, 0.0, 0.0])
    with pytest.warns(UserWarning, match="within 1 % of it") as seen:
        e = equivalents(POWER, n, ridge)
    assert seen[0].filename == __file__
    printed = [
        0.00888989719644, 6.61080282133e-05, 2.03399155556e-09, 2.24392275564e-04,
        0.0270654858295, 4.15186425e-06,
    ]  # fmt: skip
    np.testing.assert_allclose(e.tau, printed, rtol=2e-9)
    np.testing.assert_allclose(e.tau[:5], printed[:5], rtol=3e-12)


def test_effective_ridge_at_a_gap_in_the_spectrum():
    """As many rows as large eigenvalues, against bisection in 60 digits."""
    values = np.r_[1 / np.arange(1, 51.0), np.full(50, 1e-17)]
    e = equivalents(spectral(values, 0 * values, 1.0), 50.0, 1e-20)
    with localcontext(prec=60):
        exact = [Decimal(float(v)) for v in values]
        low, high = Decimal("1e-14"), Decimal("1e-6")
        for _ in range(100):
            tau = (low * high).sqrt()
            count = sum(v / (v + tau) for v in exact) + Decimal(1e-20) / tau
            low, high = (tau, high) if count > 50 else (low, tau)
        np.testing.assert_allclose(e.tau, float(low), rtol=1e-14)


def test_learning_curve_reference_numbers():
    n, ridge = np.array([100.0, 200, 400, 400, 800, 1600]), [0.1, 1e-3, 1e-3, 1, 1e-3, 0.1]
    e = equivalents(POWER, n, ridge, label_noise=NOISE)
    test = [0.155673, 0.220264, 1.222367, 0.115118, 0.179460, 0.116525]
    np.testing.assert_allclose(e.test, test, rtol=0, atol=6e-7)
    train = [1.405e-3, 1.104e-6, 1.748e-3, 4.408e-2, 4.500e-2, 6.759e-2]
    np.testing.assert_allclose(e.train, train, rtol=4e-4)
    norm2 = [11.463, 45.506, 668.66, 9.673, 60.555, 21.792]
    np.testing.assert_allclose(e.weight_norm2, norm2, rtol=6e-5)
    np.testing.assert_allclose(e.excess, e.test - NOISE, rtol=1e-14)
    bare = equivalents(POWER, [100.0, 200], 0.0)
    np.testing.assert_allclose(bare.test, [0.167931, 0.221353], rtol=0, atol=6e-7)
    assert (bare.train == 0).all()


def test_more_rows_than_features_without_a_ridge():
    m = spectral(omega[:100], (omega * weights**2)[:100], NOISE)
    e = equivalents(m, [130.0, 200, 400], 0.0)
    np.testing.assert_allclose(e.test, [0.39, 0.18, 0.12], rtol=1e-12)
    np.testing.assert_allclose(e.train, [0.09 * 3 / 13, 0.045, 0.0675], rtol=1e-12)
    norm2 = (weights[:100] ** 2).sum() + e.test / e.n * (1 / omega[:100]).sum()
    np.testing.assert_allclose(e.weight_norm2, norm2, rtol=1e-12)
    assert (e.tau == 0).all() and np.isnan(e.log_evidence).all()
    fixed = equivalents(m, [130.0, 200, 400], 0.0, noise_variance=0.3)
    np.testing.assert_allclose(fixed.pred_var, 0.3 / (1 - 100 / e.n), rtol=1e-12)


@pytest.mark.slow
def test_matched_model_is_calibrated():
    e = equivalents(MATCHED, SIZES, 0.2 / 0.7, noise_variance=0.2)
    np.testing.assert_allclose(e.tau[0], 0.09477602, rtol=0, atol=6e-9)
    test = [3.980593, 2.169853, 0.885722, 0.376657]
    np.testing.assert_allclose(e.test, test, rtol=0, atol=6e-7)
    np.testing.assert_allclose(e.pred_var, e.test, rtol=1e-12)
    np.testing.assert_allclose(e.calibration, 1.0, rtol=1e-12)
    np.testing.assert_allclose(e.data_fit, 0.7 * SIZES, rtol=1e-12)
    np.testing.assert_allclose(e.log_evidence[:2], [-135.80067, -311.53592], rtol=0, atol=6e-6)
    log_det = -2 * e.log_evidence - SIZES * (1 + np.log(0.7) + np.log(2 * np.pi))
    np.testing.assert_allclose(log_det, [122.729, 250.892, 351.675, 264.179], rtol=0, atol=6e-4)
    # with prior variance 1 the posterior variance is n tau, and d log det / d ridge is 1 / tau
    plain = equivalents(WRONG, SIZES, 0.2 / 0.7)
    np.testing.assert_allclose(plain.pred_var, SIZES * e.tau, rtol=1e-12)

    def log_det(ridge):
        e = theory.ridge_equivalent(WRONG, 150.0, ridge)
        return -2 * e.log_evidence - e.data_fit

    np.testing.assert_allclose(jax.jit(jax.grad(log_det))(0.2 / 0.7), 1 / e.tau[1], rtol=1e-10)


def optimal(moments, *args, **given):
    return jax.tree.map(np.asarray, theory.optimal_ridge(moments, SIZES, *args, **given))


def test_best_ridges():
    for criterion, noise in (("test", None), ("evidence", 0.2), ("evidence", None)):
        best = optimal(MATCHED, criterion, noise_variance=noise)
        np.testing.assert_allclose(best.ridge, 0.2 / 0.7, rtol=1e-9)
        if criterion == "evidence":
            np.testing.assert_allclose(best.noise_variance, 0.2, rtol=1e-9)
        assert not best.at_bound.any() and best.grid_value.shape == (4, best.grid.size)
    best = optimal(WRONG)
    np.testing.assert_allclose(best.ridge, [3.9330, 11.108, 19.485, 31.821], rtol=3e-5)
    np.testing.assert_allclose(
        best.value, [0.281506, 0.242185, 0.226072, 0.216228], rtol=0, atol=6e-7
    )
    np.testing.assert_array_less(best.value, best.grid_value.min(-1) + 1e-15)
    # the stationarity condition in tau, from plain sums
    e = equivalents(WRONG, SIZES, best.ridge)
    w = (2 / j) ** 2 / (2 / j + np.asarray(e.tau)[:, None]) ** 3
    left = SIZES * e.tau * (w / j**2).sum(-1) / w.sum(-1)
    np.testing.assert_allclose(left, e.test, rtol=1e-8)
    fixed = optimal(WRONG, "evidence", noise_variance=0.2)
    np.testing.assert_allclose(fixed.ridge, [3.9010, 5.676, 7.528, 10.052], rtol=7e-5)
    profiled = optimal(WRONG, "evidence")
    np.testing.assert_allclose(profiled.ridge[1:], [2.79878, 5.50569, 8.75145], rtol=2e-6)
    assert profiled.at_bound.tolist() == [True, False, False, False]
    assert profiled.ridge[0] == profiled.grid[0]
    # nothing to learn: the larger the ridge the better
    none = optimal(spectral(2 / j, np.zeros(300), 0.2), bounds=(1e-3, 10.0))
    assert none.at_bound.all()
    np.testing.assert_allclose(none.ridge, 10.0, rtol=1e-14)


def test_derivatives():
    n, ridge = 200.0, 0.1

    def both(n, ridge, values):
        m = eqx.tree_at(lambda m: m.values, POWER, values)
        e = theory.ridge_equivalent(m, n, ridge)
        return e.tau, e.test

    values = POWER.values
    e = equivalents(POWER, n, ridge)
    slopes = jax.jit(jax.jacrev(both, (0, 1, 2)))(n, ridge, values)
    (by_n, by_ridge, by_values), (_, error_by_ridge, _) = jax.tree.map(np.asarray, slopes)
    tau = float(e.tau)
    D = ridge / tau + tau * (omega / (omega + tau) ** 2).sum()
    np.testing.assert_allclose(by_ridge, 1 / D, rtol=1e-9)
    np.testing.assert_allclose(by_n, -tau / D, rtol=1e-9)
    np.testing.assert_allclose(by_values, tau**2 / ((omega + tau) ** 2 * D), rtol=1e-9)
    printed = [0.00913992474, -2.96981867e-5, 2.59831e-6]
    np.testing.assert_allclose([by_ridge, by_n, by_values[3]], printed, rtol=2e-6)
    np.testing.assert_allclose([by_ridge, by_n], printed[:2], rtol=1e-9)
    # the error's, by the chain rule in tau
    R, w2 = 1 / (omega + tau), weights**2
    above, below = tau**2 * (omega * w2 * R**2).sum() + NOISE, D / n
    slope = 2 * tau * (omega**2 * w2 * R**3).sum() - above / below * 2 / n * (omega**2 * R**3).sum()
    np.testing.assert_allclose(e.test, above / below, rtol=1e-12)
    np.testing.assert_allclose(error_by_ridge, slope / below / D, rtol=1e-9)


def test_no_rows_no_features_no_end_to_the_ridge():
    at = {"n": np.array([0.0, 100, 0]), "ridge": np.array([0.1, np.inf, 0.0])}
    for fixed in (None, 0.3):
        e = equivalents(POWER, **at, noise_variance=fixed)
        assert np.isinf(e.tau).all() and (e.df1 == 0).all() and (e.weight_norm2 == 0).all()
        np.testing.assert_allclose(e.test, POWER.Ey2, rtol=1e-12)
        np.testing.assert_allclose(e.train[1], POWER.Ey2, rtol=1e-12)
        assert e.log_evidence[0] == 0 == e.log_evidence[2]
    noise_only = -0.5 * 100 * (POWER.Ey2 / 0.3 + np.log(2 * np.pi * 0.3))
    np.testing.assert_allclose(e.log_evidence[1], noise_only, rtol=1e-12)
    # ends are limits
    near = equivalents(POWER, [1e-9, 100.0, 1e-9], [0.1, 1e12, 1e-12])
    np.testing.assert_allclose(near.test, POWER.Ey2, rtol=1e-6)
    np.testing.assert_allclose(near.train, e.train, rtol=1e-6, atol=1e-6)

    nothing = theory.population_moments(np.zeros((6, 6)), np.zeros(6), np.asarray(2.0))
    e = equivalents(nothing, [5.0, 5.0, 0.0], [0.3, 0.0, 0.0])
    np.testing.assert_allclose(e.tau[:2], [0.06, 0.0], rtol=1e-14)
    np.testing.assert_allclose([e.test, e.train], 2.0, rtol=1e-14)
    assert not any(np.isnan(getattr(e, name)).any() for name in ARRAYS)


@pytest.mark.slow
def test_one_feature():
    m = jax.jit(theory.population_moments)(np.array([[2.0]]), np.array([1.0]), 3.0)
    ridge = np.array([0.1, 1.0, 10.0])
    e = equivalents(m, 4.0, ridge)
    b = 4 * 2.0 - 2.0 - ridge  # n tau^2 + (n w - w - ridge) tau - ridge w = 0
    tau = (-b + np.sqrt(b**2 + 4 * 4 * ridge * 2)) / 8
    np.testing.assert_allclose(e.tau, tau, rtol=1e-12)
    share = 2 / (2 + tau)
    np.testing.assert_allclose(
        e.test, (0.5 * (1 - share) ** 2 + 2.5) / (1 - share**2 / 4), rtol=1e-12
    )


@pytest.mark.filterwarnings("ignore:ridge_equivalent. without a ridge")
def test_as_many_rows_as_features_without_a_ridge():
    values, power = np.array([3.0, 2, 1, 1]), np.array([1.0, 0.5, 0, 1])
    with pytest.warns(UserWarning, match="n = rank = 4"):
        noisy = equivalents(spectral(values, power, 0.1), 4.0, 0.0)
    assert np.isinf(noisy.test) and np.isinf(noisy.weight_norm2) and noisy.train == 0
    assert noisy.log_evidence == -np.inf and np.isinf(noisy.data_fit)
    held = spectral(values, power, 1e-13)
    with pytest.warns(UserWarning, match="n = rank = 4"):
        e = equivalents(held, 4.0, 0.0)
    assert e.test == 0 and e.train == 0
    w2 = 1 / 3 + 0.5 / 2 + 1
    np.testing.assert_allclose([e.weight_norm2, e.data_fit], w2, rtol=1e-12)
    log_det = np.log(6) + 4 * np.log(4) - 4
    np.testing.assert_allclose(
        e.log_evidence, -0.5 * (w2 + log_det + 4 * np.log(2 * np.pi)), rtol=1e-12
    )
    assert equivalents(held, 9.0, 0.0).test == 0
    for m in (spectral(values, power, 0.1), held):
        for ridge in (0.0, 1e-14, 1e-300):
            near = equivalents(m, NEAR, ridge)
            assert not any(np.isnan(getattr(near, name)).any() for name in ARRAYS)
            near = equivalents(m, NEAR, ridge, noise_variance=0.3)
            names = (*ARRAYS, "log_evidence")
            assert not any(np.isnan(getattr(near, name)).any() for name in names)


def test_a_vanishing_ridge_is_its_limit():
    n = np.array([100.0, 150, 700, 3000, 800])
    none, small = (equivalents(POWER, n, r) for r in (0.0, 1e-11))
    for name in ("test", "weight_norm2", "pred_var", "df2"):
        np.testing.assert_allclose(
            getattr(none, name), getattr(small, name), rtol=1e-6, atol=1e-9, err_msg=name
        )
    np.testing.assert_allclose(none.train, small.train, rtol=1e-6, atol=1e-15)
    np.testing.assert_allclose(none.log_evidence[:2], small.log_evidence[:2], rtol=1e-6)


def test_values_at_round_off_do_not_count_without_a_ridge():
    values, power = np.array([1.0, 0.5, 0.25, 1e-17]), np.ones(4)
    m = spectral(values, power, 0.1)
    e = equivalents(m, 9.0, [0.0, 0.3])
    three = spectral(values[:3], power[:3], 1.1)
    np.testing.assert_allclose(e.test, equivalents(three, 9.0, [0.0, 0.3]).test)
    assert e.rank == 3
    every = spectral(values, power, 0.1, rank_tol=0.0)
    every = equivalents(every, 9.0, [0.0, 0.3])
    assert every.rank == 4
    np.testing.assert_allclose(every.test[0], 0.1 * 9 / 5, rtol=1e-12)


def test_the_curve_of_a_gaussian_process_is_a_special_case():
    n, ridge = np.array([20.0, 100, 450]), np.array([0.05, 1e-9, 0.0])
    curve = learning_curve(omega, omega * weights**2, n, ridge, NOISE)
    e = equivalents(POWER, n, ridge, label_noise=NOISE)
    same = {
        "test": "test", "train": "train", "excess": "generalisation", "df1": "learnability",
        "log_evidence": "log_evidence", "tau": "effective_ridge", "pred_var": "variance",
    }  # fmt: skip
    for ours, theirs in same.items():
        other = np.asarray(getattr(curve, theirs))
        other = {"df1": lambda x: x.sum(-1), "tau": lambda x: x / n, "pred_var": lambda x: x +
                 ridge}.get(ours, lambda x: x)(other)  # fmt: skip
        np.testing.assert_allclose(getattr(e, ours), other, rtol=1e-12, err_msg=ours)


def test_no_digits_are_lost_where_rows_and_features_balance():
    """The inverse amplification is a sum of positive terms; its difference would cancel here."""
    fifty, ridge = np.r_[np.ones(50), np.zeros(350)], np.array([1e-14, 1e-20, 1e-17])
    curve = learning_curve(fifty, fifty, np.full(3, 50.0), ridge, 0.1)
    tau = np.sqrt(ridge / 50)  # to first order
    np.testing.assert_allclose(curve.overfitting, 1 / (2 * tau), rtol=1e-6)


def test_moments_of_arrays():
    values, power = omega[:6], (omega * weights**2)[:6]
    Omega, psi, Ey2 = rotated(values, power, power.sum() + NOISE)
    m = theory.population_moments(Omega, psi, Ey2)
    np.testing.assert_allclose(m.values, values, rtol=1e-12)
    np.testing.assert_allclose(m.Omega, Omega, rtol=0, atol=1e-14)
    np.testing.assert_allclose(m.psi, psi, rtol=0, atol=1e-14)
    np.testing.assert_allclose(m.unexplained, NOISE, rtol=1e-12)
    assert m.rank == 6 and m.N is None
    e = equivalents(m, [3.0, 6.5, 20.0], [0.1, 0.01, 0.0])
    known = spectral(values, power, NOISE)
    known = equivalents(known, [3.0, 6.5, 20.0], [0.1, 0.01, 0.0])
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(e, name), getattr(known, name), rtol=1e-10, err_msg=name)

    rng = np.random.default_rng(1)
    F, y = rng.normal(size=(200, 6)) + 1.0, rng.normal(size=200) + 3.0
    m = theory.moments(F, y)
    np.testing.assert_allclose(m.Omega, F.T @ F / 200, rtol=1e-12)
    np.testing.assert_allclose(m.psi, F.T @ y / 200, rtol=1e-10)
    np.testing.assert_allclose(m.Ey2, (y**2).mean(), rtol=1e-14)
    np.testing.assert_allclose(m.mean, F.mean(0), rtol=1e-14)
    assert m.N == 200
    least = np.linalg.lstsq(F, y)[1][0] / 200
    np.testing.assert_allclose(m.unexplained, least, rtol=1e-10)
    m = theory.moments(F, y, centre=True)
    np.testing.assert_allclose(m.Omega, np.cov(F.T, bias=True), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(m.Ey2, y.var(), rtol=1e-12)
    with pytest.warns(UserWarning, match="N/p = 0.667.*10 rows per feature; .* Omega is singular"):
        few = theory.moments(F[:4], y[:4])
    assert few.rank == 4
    np.testing.assert_allclose(few.unexplained, 0, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_under_jit_and_vmap():
    @jax.jit
    def traced(Omega, psi, n):
        m = theory.population_moments(Omega, psi, 3.0)
        return jax.vmap(lambda r: theory.ridge_equivalent(m, n, r).test)(jnp.array([0.0, 0.5]))

    Omega, psi, _ = rotated(omega[:6], omega[:6], 3.0)
    m = theory.population_moments(Omega, psi, 3.0)
    ours = equivalents(m, 7.0, [0.0, 0.5]).test
    np.testing.assert_allclose(traced(Omega, psi, 7.0), ours, rtol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.ridge_equivalent(POWER, -1.0, 0.1), "n must be non-negative"),
        (lambda: equivalents(POWER, np.inf, 0.1), "n contains non-finite"),
        (lambda: equivalents(POWER, 3.0, -0.1), "ridge must be non-negative, got -0.1"),
        (lambda: equivalents(POWER, 3.0, np.nan), "ridge must be non-negative, got na"),
        (lambda: theory.optimal_ridge(POWER, 3.0, "gcv"), "criterion must be one of"),
        (lambda: theory.optimal_ridge(POWER, 3.0, bounds=(1.0, 0.5)), "0 < low < high"),
        (lambda: theory.optimal_ridge(POWER, 3.0, noise_variance=0.1), "noise_variance = 0.1"),
        (lambda: theory.gcv(np.ones((3, 2)), np.ones(4), 0.1), r"y has shape \(4,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_calibration_at_the_rank_without_a_ridge_is_a_limit():
    """At fixed noise both errors diverge as the ridge falls; their ratio does not."""
    moments = spectral(2.0 / np.arange(1, 21.0), np.ones(20) / 20, 0.3)
    with pytest.warns(UserWarning, match="diverges"):
        at = equivalents(moments, 20.0, 0.0, noise_variance=0.2).calibration
    near = equivalents(moments, 20.0, 1e-14, noise_variance=0.2).calibration
    np.testing.assert_allclose(at, near, rtol=1e-5)
