# SPDX-License-Identifier: Apache-2.0
"""Learning curves by experiment against theory, on Gaussian features and on digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import within

import bayesrg as brg
from bayesrg import rg, theory

k = np.arange(1, 601.0)
values = k**-2
target = np.random.default_rng(1).choice([-1.0, 1.0], 600) / k
ONE, KEY = brg.kernels.RBF(1.0), 3
learning_curve = jax.jit(theory.learning_curve)


@pytest.fixture(scope="module", autouse=True)
def population():
    """Compile when the tests run: every worker collects all files."""
    global gaussian
    gaussian = theory.gaussian_population(values, target)


def agrees(mc, curve, names, share=0.03):
    """Theory against Monte Carlo: 3 % and three standard errors."""
    for name in names:
        mean, error, expected = (
            getattr(mc, name),
            getattr(mc, f"{name}_error"),
            getattr(curve, name),
        )
        np.testing.assert_array_less(
            np.abs(mean - expected), share * np.abs(expected) + 3 * error, err_msg=name
        )


@pytest.fixture(scope="module")
def experiments():
    """Two times sixty Gaussian data sets of one size."""
    mc = theory.learning_curve_mc(gaussian, [50, 50], 0.05, 0.05, key=KEY, draws=60)
    return jax.tree.map(np.asarray, mc)


@pytest.mark.slow
def test_gaussian_features_lie_on_the_theory(experiments):
    mc, sizes = experiments, np.array([50.0, 50.0])
    curve = jax.tree.map(np.asarray, learning_curve(values, values, sizes, 0.05, 0.05))
    agrees(mc, curve, ("generalisation", "test", "train", "log_evidence"))
    assert mc.draws == 60 and mc.coefficients.shape == (2, 600)
    assert mc.test[0] != mc.test[1]  # each size has a random stream of its own
    # mean coefficients are learnability times the target's
    error = np.sqrt(mc.coefficient_variance / 60)
    assert within(mc.coefficients[:, :5], curve.learnability[:, :5] * target[:5], error[:, :5])
    # their variance, whose own error is sqrt(2 / draws), is right to 20 % at these sizes
    ratio = mc.coefficient_variance[:, :20].sum(1) / curve.coefficient_variance[:, :20].sum(1)
    np.testing.assert_array_less(np.abs(ratio - 1), 0.2 + 3 * np.sqrt(2 / 60 / 20))


def test_one_experiment_by_hand(experiments):
    """Sixty Gaussian data sets in plain NumPy."""
    mc, results = experiments, []

    @jax.jit
    def drawn(key):
        def one(key):
            for_inputs, for_noise = jax.random.split(key)
            return jax.random.normal(for_inputs, (50, 600)), jax.random.normal(for_noise, (50,))

        return jax.vmap(one)(jax.random.split(jax.random.fold_in(key, 0), 60))

    for Phi, noise in zip(*map(np.asarray, drawn(jax.random.key(KEY))), strict=True):
        y = Phi @ target + np.sqrt(0.05) * noise
        R = Phi * values @ Phi.T + 0.05 * np.eye(50)
        fitted = values * (Phi.T @ np.linalg.solve(R, y))
        evidence = -0.5 * (
            y @ np.linalg.solve(R, y) + np.linalg.slogdet(R)[1] + 50 * np.log(2 * np.pi)
        )
        train = ((y - Phi @ fitted) ** 2).mean()
        results.append([((fitted - target) ** 2).sum(), train, evidence])
    mean, error = np.mean(results, 0), np.std(results, 0, ddof=1) / np.sqrt(60)
    ours = [mc.generalisation[0], mc.train[0], mc.log_evidence[0]]
    np.testing.assert_allclose(ours, mean, rtol=1e-10)
    np.testing.assert_allclose(mc.generalisation_error[0], error[0], rtol=1e-10)
    np.testing.assert_allclose(mc.test, mc.generalisation + 0.05, rtol=1e-14)


def test_finite_population_by_hand():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 3)), rng.normal(size=80)
    K = np.exp(-0.5 * ((X[:, None] - X) ** 2).sum(-1))
    population = theory.finite_population(ONE, X, y)
    np.testing.assert_allclose(population.K, K, rtol=0, atol=1e-13)
    mc = theory.learning_curve_mc(population, 80, 0.3, key=1, draws=2)  # always the same rows
    fitted = K @ np.linalg.solve(K + 0.3 * np.eye(80), y)
    np.testing.assert_allclose(mc.generalisation, ((fitted - y) ** 2).mean(), rtol=1e-10)
    np.testing.assert_allclose(mc.train, mc.generalisation, rtol=1e-9)
    assert mc.generalisation_error[0] < 1e-12 and mc.coefficients is None
    spectrum = brg.spectrum.nystrom(ONE, X)
    whole = theory.finite_population(spectrum, X, y)
    np.testing.assert_allclose(whole.K, K, rtol=0, atol=1e-11)
    cut = theory.finite_population(spectrum, X, y, cutoff=7)
    assert np.linalg.matrix_rank(cut.K) == 7


@pytest.mark.slow
def test_gaussian_reference_table():
    ns = np.array([20, 50, 100, 200])
    mc = theory.learning_curve_mc(gaussian, ns, 0.05, 0.05, key=1, draws=200)
    printed = np.array([0.1478, 0.0779, 0.0468, 0.0291])
    spread = np.hypot(mc.generalisation_error, [0.0027, 0.0012, 0.0005, 0.0003])
    assert within(mc.generalisation, printed, spread)
    assert within(mc.train, [0.01243, 0.01951, 0.02597, 0.03135], np.sqrt(2) * mc.train_error)
    evidence = [-0.903, -0.642, -0.479, -0.335]
    assert within(mc.log_evidence / ns, evidence, np.sqrt(2) * mc.log_evidence_error / ns)
    curve = theory.learning_curve(values, values, ns, 0.05, 0.05)
    names = ("generalisation", "train", "log_evidence")
    agrees(jax.tree.map(lambda x: x[1:], mc), jax.tree.map(lambda x: x[1:], curve), names)
    poisson = theory.learning_curve_mc(gaussian, 50, 0.05, 0.05, key=4, draws=200, poisson=True)
    spread = np.hypot(poisson.generalisation_error, 0.0009)
    assert within(poisson.generalisation, 0.0766, spread)
    # an evidence in which missing rows counted would be far off
    curve = theory.learning_curve(values, values, [50.0], 0.05, 0.05)
    agrees(poisson, curve, ("generalisation", "log_evidence"))


@pytest.mark.slow
def test_misspecified_and_coarse_experiments():
    power = np.where(k <= 30, k**-0.5, 0.0)
    rough = theory.gaussian_population(values, power)
    mc = theory.learning_curve_mc(rough, 80, 0.2, 0.5, key=5, draws=200)
    assert within(mc.generalisation, 0.5082, np.hypot(mc.generalisation_error, 0.0053))
    agrees(mc, theory.learning_curve(values, power**2, [80.0], 0.2, 0.5), ("generalisation",))
    tailed = np.where(k > 300, 0.1, target)
    population = theory.gaussian_population(values, tailed)
    mc = theory.learning_curve_mc(population, 60, 0.05, 0.05, key=6, draws=200)
    assert within(mc.generalisation, 4.238, np.hypot(mc.generalisation_error, 0.025))
    for kept, printed in ((36, 0.0532), (81, 0.0480), (188, 0.0474)):
        population = theory.gaussian_population(values, target, cutoff=kept)
        ridge = rg.universal_ridge(values, 0.05, kept)
        mc = theory.learning_curve_mc(population, 100, ridge, 0.05, key=kept, draws=100)
        assert within(mc.generalisation, printed, np.sqrt(2) * mc.generalisation_error)
        curve = theory.coarse_learning_curve(values, values, [100.0], 0.05, kept, 0.05)
        agrees(mc, curve, ("generalisation", "log_evidence"))


@pytest.mark.slow
def test_twenty_modes_of_two_bases():
    """Cutting at 20 where 36 can be learnt costs more than the choice of basis or ridge."""
    rng, n, ridge, kept = np.random.default_rng(21), 100, 0.05, 20
    tail, errors, fifth, fits = values[kept:].sum(), [], [], []
    for _ in range(150):
        Phi = rng.standard_normal((n, 600))
        y = Phi @ target + np.sqrt(0.05) * rng.standard_normal(n)
        B = Phi * np.sqrt(values)
        level, U = np.linalg.eigh(B @ B.T)
        fifth.append(level[-5])
        U, level, row = U[:, -kept:], level[-kept:], []
        for noise in (ridge, ridge + tail):
            fitted = values * (Phi.T @ (U @ ((U.T @ y) / (level + noise))))
            row.append(((fitted - target) ** 2).sum())
        low = B[:, :kept]
        for noise in (ridge, ridge + tail):
            w = low.T @ np.linalg.solve(low @ low.T + noise * np.eye(n), y)
            fitted = np.concatenate([np.sqrt(values[:kept]) * w, np.zeros(600 - kept)])
            row.append(((fitted - target) ** 2).sum())
        fits.append(values * (Phi.T @ np.linalg.solve(B @ B.T + ridge * np.eye(n), y)))
        errors.append([*row, ((fits[-1] - target) ** 2).sum()])
    mean, error = np.mean(errors, 0), np.std(errors, 0, ddof=1) / np.sqrt(150)
    assert within(mean, [0.0696, 0.0698, 0.0687, 0.0679, 0.0465], np.hypot(error, 1.22 * error))
    for rule, printed, seen in (("truncate", 0.0682, 2), ("universal", 0.0675, 3)):
        coarse = theory.coarse_learning_curve(values, values, n, ridge, kept, 0.05, rule=rule)
        np.testing.assert_allclose(coarse.generalisation, printed, rtol=0, atol=6e-5)
        assert abs(mean[seen] - printed) < 0.03 * printed + 3 * error[seen]
    spread = np.var(fits, 0, ddof=1)[[0, 4, 19]]
    formula = theory.learning_curve(values, values, n, ridge, 0.05).coefficient_variance
    np.testing.assert_allclose(
        formula[jnp.array([0, 4, 19])], [9.7e-4, 9.2e-4, 5.0e-4], rtol=0, atol=6e-6
    )
    noise_of_variance = np.hypot(np.sqrt(2 / 150), np.sqrt(2 / 300)) * spread
    assert within(spread, [8.8e-4, 7.8e-4, 5.5e-4], noise_of_variance)
    fifth_error = np.std(fifth, ddof=1) / np.sqrt(150)
    assert within(np.mean(fifth), n / 25 + 3 / (4 * 25), fifth_error)


@pytest.fixture(scope="module")
def images():
    """All digits, rows scaled to squared length 64, and low against high."""
    from sklearn.datasets import load_digits

    file = load_digits()
    X = file.data - file.data.mean(0)
    X *= 8 / np.linalg.norm(X, axis=1, keepdims=True)
    y = np.where(file.target < 5, 1.0, -1.0)
    return brg.spectrum.nystrom(0.5 * brg.kernels.NNGP(1), X), X, y


@pytest.mark.slow
def test_digits_population(images):
    """Spectrum, normality, theory and cutoffs of digits, to all printed digits."""
    spectrum, X, y = images
    assert X.shape == (1797, 64)
    printed = [0.33075521, 0.07696933, 0.07332557, 0.05695888, 0.04135427, 0.03260619]
    values = np.asarray(spectrum.values)
    np.testing.assert_allclose(values[:6], printed, rtol=0, atol=6e-9)
    np.testing.assert_allclose(values.sum(), 1.0, rtol=1e-12)
    index = np.arange(21, 401)
    slope = np.polyfit(np.log(index), np.log(values[20:400]), 1)[0]
    np.testing.assert_allclose(slope, -1.673, rtol=0, atol=6e-4)
    Phi = np.asarray(spectrum.features(X))[:, :1000]

    @jax.jit
    def moments(Phi):
        found = rg.feature_cumulants(Phi, 5)
        return found.mean, found.excess_kurtosis, found.orthonormality

    mean, kurtosis, orthonormality = map(np.asarray, moments(Phi))
    assert abs(abs(mean[0]) - 0.9999) < 1e-4 and orthonormality < 1e-8
    medians = [np.median(kurtosis[a:b]) for a, b in ((0, 20), (20, 100), (100, 400), (400, 1000))]
    np.testing.assert_allclose(medians, [-0.12, 0.18, 0.54, 0.43], rtol=0, atol=6e-3)
    ns, power = np.array([50, 100, 200, 400]), spectrum.power(y)
    curve = learning_curve(spectrum.values, power, ns, 0.01)
    np.testing.assert_allclose(curve.test, [0.409, 0.270, 0.173, 0.104], rtol=0, atol=6e-4)
    kept = np.asarray(jax.jit(rg.cutoff)(values, ns, 0.01))
    assert kept.tolist() == [32, 68, 144, 294]
    coarse = jax.jit(theory.coarse_learning_curve)(values, power, ns, 0.01, kept)
    np.testing.assert_allclose(coarse.test, [0.462, 0.305, 0.193, 0.125], rtol=0, atol=6e-4)


@pytest.mark.slow
def test_digits_experiments(images):
    """Theory is low by 2 to 10 per cent: features are not Gaussian, the population is finite."""
    spectrum, X, y = images
    ns = np.array([50, 100, 200, 400])
    population = theory.finite_population(spectrum.kernel, X, y)
    mc = theory.learning_curve_mc(population, ns, 0.01, key=0, draws=40)
    spread = np.hypot(mc.test_error, [0.010, 0.004, 0.003, 0.001])
    assert within(mc.test, [0.437, 0.276, 0.179, 0.115], spread)
    curve = theory.learning_curve(spectrum.values, spectrum.power(y), ns, 0.01)
    np.testing.assert_array_less(np.abs(mc.test / curve.test - 1), 0.12)
    twice = theory.finite_population(spectrum.kernel, X, y, replace=True)
    mc = theory.learning_curve_mc(twice, 400, 0.01, key=1, draws=40)
    assert within(mc.test, 0.123, np.sqrt(2) * mc.test_error)
    for n, printed in zip(ns, (0.492, 0.314, 0.199, 0.130), strict=True):
        kept = rg.cutoff(spectrum.values, float(n), 0.01)
        cut = theory.finite_population(spectrum, X, y, cutoff=kept)
        ridge = rg.universal_ridge(spectrum.values, 0.01, kept)
        mc = theory.learning_curve_mc(cut, n, ridge, key=2, draws=40)
        assert within(mc.test, printed, np.sqrt(2) * mc.test_error)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.gaussian_population([1.0], [1.0, 2.0]), "coefficients has shape"),
        (lambda: theory.gaussian_population([1.0], [1.0], cutoff=2), "cutoff must be an integer"),
        (
            lambda: theory.finite_population(ONE, np.ones(3), np.ones(3), cutoff=1),
            "no modes to cut; give a spectrum",
        ),
        (lambda: theory.learning_curve_mc(gaussian, 2.5, 0.1, key=0), "n must be positive int"),
        (lambda: theory.learning_curve_mc(gaussian, 5, 0.0, key=0), "ridge must be positive"),
        (lambda: theory.learning_curve_mc(gaussian, 5, 0.1, key=0, draws=1), "draws must be an"),
        (
            lambda: theory.learning_curve_mc(
                theory.finite_population(ONE, np.arange(3.0), np.ones(3)), 4, 0.1,
                key=0,
            ),
            "population has 3; use fewer, or replace=True",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
