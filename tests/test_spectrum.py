# SPDX-License-Identifier: Apache-2.0
import importlib
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fourier_modes, fourier_problem

from bayesrg import gp, rg
from bayesrg.kernels import NNGP, RBF, Matern12, adapt
from bayesrg.spectrum import fourier, maps, modify_kernel, nystrom

problem = fourier_problem()
X_REF, X_24 = ((np.arange(40) + 0.5) / 40)[:, None], problem.x[:, None]  # the shapes of most tests

# compiled as one program per shape
features = eqx.filter_jit(lambda spectrum, X: spectrum.features(X))
residual = eqx.filter_jit(lambda spectrum, X: spectrum.residual(X))
residual_cov = eqx.filter_jit(lambda spectrum, X, Z=None: spectrum.residual_cov(X, Z))


@pytest.mark.parametrize(
    "cutoff, smallest, mean, tail",
    [
        (3, 0.03468, 0.2365, 0.2387),
        pytest.param(10, 0.02570, 0.0722, 0.0666, marks=pytest.mark.slow),
        (40, 0.001284, 0.02722, 0.0),
    ],
)
def test_nystrom_reference_numbers(cutoff, smallest, mean, tail):
    spectrum = nystrom(Matern12(0.3), X_REF, rank=cutoff)
    rest = np.asarray(residual_cov(spectrum, X_24))
    np.testing.assert_allclose(np.linalg.eigvalsh(rest)[0], smallest, rtol=5e-4)
    np.testing.assert_allclose(np.diag(rest).mean(), mean, rtol=3e-3)
    np.testing.assert_allclose(residual(spectrum, X_24), np.diag(rest), rtol=0, atol=1e-14)
    np.testing.assert_allclose(1.0 - np.sum(spectrum.values), tail, rtol=0, atol=6e-5)
    # the last case is zero but for round-off
    assert (np.asarray(residual(spectrum, X_REF)) >= 0).all()


def test_nystrom_splits_the_kernel_exactly_and_stays_positive(digits, spectrum):
    both = np.concatenate([np.asarray(digits.X)[:20], np.asarray(digits.X_test)[:20]])
    X, Z = both[:20], both[20:]
    F, G = np.asarray(features(spectrum, X)), np.asarray(features(spectrum, Z))
    values, rest = np.asarray(spectrum.values), np.asarray(residual_cov(spectrum, X, Z))
    expected = spectrum.kernel(X, Z)
    np.testing.assert_allclose(F * values @ G.T + rest, expected, rtol=0, atol=1e-13)
    together = np.asarray(residual_cov(spectrum, both))
    assert np.linalg.eigvalsh(together)[0] > 0
    np.testing.assert_allclose(together[:20, 20:], rest, rtol=0, atol=1e-13)
    assert (np.diff(values) <= 0).all() and len(spectrum) == 40


@pytest.mark.slow
def test_nystrom_functions_are_orthonormal_under_the_reference(spectrum):
    Phi = np.asarray(features(spectrum, spectrum.X_ref))
    np.testing.assert_allclose(Phi.T @ Phi / len(spectrum.X_ref), np.eye(40), rtol=0, atol=1e-9)
    y = Phi @ np.arange(40.0)
    np.testing.assert_allclose(spectrum.power(y), np.arange(40.0) ** 2, rtol=0, atol=1e-7)


def test_round_off_pairs_are_dropped_and_counted():
    spectrum = nystrom(RBF(0.3), X_REF)
    kept = len(spectrum)
    gram = np.exp(-0.5 * ((X_REF - X_REF[:, 0]) / 0.3) ** 2)
    exact = np.linalg.eigvalsh(gram)[::-1] / 40
    assert 12 <= kept <= 16 and spectrum.dropped == 40 - kept
    assert exact[kept - 1] > 40 * 2.2e-16 * exact[0] > exact[kept] - 1e-16
    with pytest.warns(UserWarning, match=f"rank 30 was asked for but only {kept} of 40") as seen:
        assert len(nystrom(RBF(0.3), X_REF, rank=30)) == kept
    assert seen[0].filename == __file__
    doubled = nystrom(RBF(0.2), np.concatenate([X_REF[::2], X_REF[::2]]))
    gram = np.exp(-0.5 * ((X_REF[::2] - X_REF[::2, 0]) / 0.2) ** 2)
    half = np.linalg.eigvalsh(gram)[::-1] / 20
    np.testing.assert_allclose(np.asarray(doubled.values)[:10], half[:10], rtol=1e-9)
    assert len(doubled) <= 20


def test_the_round_off_may_be_set():
    whole, few = nystrom(RBF(0.3), X_REF), nystrom(RBF(0.3), X_REF, rtol=1e-6)
    values = np.asarray(whole.values)
    kept = int((values > 1e-6 * values[0]).sum())
    assert len(few) == kept < len(whole) and few.dropped == 40 - kept
    np.testing.assert_array_equal(few.values, values[:kept])
    with pytest.raises(ValueError, match="rtol must be a number of at least 0 and at most 1, got"):
        nystrom(RBF(0.3), X_REF, rtol=-1.0)


def test_a_rank_inside_a_degenerate_level_is_told():
    t = 2 * np.pi * np.arange(40) / 40
    circle = np.stack([np.cos(t), np.sin(t)], 1)  # levels of one, two, two, ... modes, and one
    with pytest.warns(UserWarning, match="rank 4 cuts .* modes 3 to 4 .* take rank 3 or 5"):
        spectrum = nystrom(Matern12(1.0), circle, rank=4)
    assert len(spectrum) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rank in (0, 3, 40):
            nystrom(Matern12(1.0), circle, rank=rank)
        nystrom(entries(np.diag([1.0, 0.995, 0.5, 0.4, 0.3, 0.2])), np.arange(6), 1)


def test_a_gram_matrix_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(importlib.import_module("bayesrg.spectrum.nystrom"), "_memory", lambda: 8e9)
    with pytest.raises(ValueError, match=r"40000 rows takes 40000\^2 numbers, 11.9 GiB.*landmarks"):
        nystrom(RBF(1.0), np.zeros((40000, 1)))


def entries(K):
    """Kernel of row numbers: the entries of a matrix."""
    return adapt(lambda X, Z: jnp.asarray(K)[X[:, 0].astype(int)][:, Z[:, 0].astype(int)])


def test_a_matrix_alone_has_a_spectrum():
    A = np.random.default_rng(0).standard_normal((6, 6))
    K = A @ A.T
    spectrum = nystrom(entries(K), np.arange(6))
    values, vectors = np.linalg.eigh(K)
    found = np.asarray(spectrum.values)
    np.testing.assert_allclose(6 * found, values[::-1], rtol=1e-8)
    rows = [4, 1, 0, 5, 2, 2]
    F = np.asarray(features(spectrum, np.array(rows)))
    expected = np.abs(np.sqrt(6) * vectors[rows, ::-1])
    np.testing.assert_allclose(np.abs(F), expected, rtol=0, atol=1e-7)
    few = nystrom(spectrum.kernel, np.arange(6), 2)
    rest = np.asarray(residual_cov(few, np.arange(6)))
    np.testing.assert_allclose(np.linalg.eigvalsh(rest)[2:], values[:4], rtol=1e-9)
    np.testing.assert_allclose(residual(few, np.arange(6)), np.diag(rest), atol=1e-12)


def test_a_single_reference_point_and_rank_zero():
    one = nystrom(RBF(1.0, 2.0), np.zeros((1, 1)))
    np.testing.assert_allclose(one.values, [2.0])
    np.testing.assert_allclose(features(one, np.zeros((1, 1))), [[1.0]])
    none = nystrom(Matern12(0.3), X_REF, rank=0)
    expected = Matern12(0.3)(X_24)
    np.testing.assert_allclose(residual_cov(none, X_24), expected, rtol=0, atol=1e-15)


def test_training_sample_as_reference_is_the_trap():
    """In the training inputs' own modes the low block sees the bare ridge."""
    spectrum = nystrom(Matern12(0.1), X_REF)
    F, values = np.asarray(features(spectrum, X_REF)), np.asarray(spectrum.values)
    high = F[:, 5:] * values[5:] @ F[:, 5:].T
    precision = F[:, :5].T @ np.linalg.solve(0.05 * np.eye(40) + high, F[:, 5:])
    assert np.abs(precision).max() < 1e-11
    with pytest.warns(UserWarning, match="40 of the 40 rows of X_ref are training inputs"):
        spectrum.warn_if_shared(X_REF)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectrum.warn_if_shared(X_REF[:19])  # a small sample of the reference is no trap
        spectrum.warn_if_shared(X_REF + 0.11)


def test_fourier_modes():
    spectrum = fourier(lambda j: (1 + j) ** -2.0, 61)
    grid = np.arange(500) / 500
    Phi = np.asarray(features(spectrum, np.concatenate([grid, problem.x])))
    np.testing.assert_allclose(Phi[500:], problem.Phi, rtol=0, atol=1e-13)
    np.testing.assert_allclose(spectrum.values, problem.values, rtol=1e-15)
    Phi = Phi[:500]
    np.testing.assert_allclose(Phi.T @ Phi / 500, np.eye(61), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(residual(spectrum, problem.x), np.zeros(24))
    np.testing.assert_array_equal(residual_cov(spectrum, problem.x, grid).shape, (24, 500))
    power = np.asarray(spectrum.power(fourier_modes(grid, 61)[:, 7], grid))
    np.testing.assert_allclose(power[6:9], [0, 1, 0], rtol=0, atol=1e-13)
    moved = jax.jit(jax.grad(lambda a: fourier(lambda j: (1 + j) ** -a, 5).values.sum()))(2.0)
    np.testing.assert_allclose(moved, -sum(np.log(j) * j**-2.0 for j in range(1, 6)))


def test_fourier_modes_of_another_period():
    x, unit = np.array([0.3, 3.1, 6.9, 9.4]), fourier(lambda j: (1 + j) ** -2.0, 9)
    weeks = fourier(lambda j: (1 + j) ** -2.0, 9, period=7)
    np.testing.assert_allclose(features(weeks, x), features(unit, x / 7), rtol=0, atol=1e-14)
    # a quarter of a turn, for each of four waves
    far = np.asarray(features(unit, np.r_[2.0**40 + 0.25, x[1:]]))[0, 1:] / 2**0.5
    np.testing.assert_allclose(far, [0, 1, -1, 0, 0, -1, 1, 0], rtol=0, atol=1e-14)

    def moved(period):
        return fourier(lambda j: (1 + j) ** -2.0, 9, period=period).features(x)

    slope = jax.jit(jax.jacfwd(moved))(7.0)
    up, down = (np.asarray(moved(7 + h)) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=0, atol=1e-8)
    assert features(unit, x.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="period must be positive, got 0"):
        fourier(lambda j: 1 / (1 + j), 3, period=0)


@pytest.mark.parametrize("meet", ["marginal", "local"])
@pytest.mark.parametrize(
    "x, period, rows",
    [
        (np.arange(5), 1, "rows 0 and 1 of X, 0 and 1, are one point to modes of period 1"),
        (np.array([0.2, 0.5, 3.2, 0.61, 0.73]), 1, "rows 0 and 2 of X, 0.2 and 3.2"),
        (np.array([0.9, 2.3, 365.9 + 2.3, 5.1, 7.7]), 365.9, "rows 1 and 2 of X, 2.3 and 368.2"),
        (np.linspace(0, 1, 5), 1, "rows 0 and 4 of X, 0 and 1"),
        (np.array([0.3, 0.3, 0.7, 0.1, 0.55]), 1, None),  # equal rows are data, no mistake
        (np.arange(5), 5.5, None),
    ],
)
def test_inputs_that_the_period_merges_are_told(x, period, rows, meet):
    spectrum = fourier(lambda j: 1 / (1 + j), 3, period=period)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if meet == "marginal":
            gp.marginal(spectrum, x, 0.1)
        else:
            rg.local_ridge(spectrum, x, 0.1, 1)
    told = [str(warning.message) for warning in caught if "one point" in str(warning.message)]
    assert len(told) == (rows is not None) and (rows is None or rows in told[0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fourier(lambda j: j, 4), "sorted in falling order"),
        (lambda: fourier(lambda j: 1 - j, 4), r"non-negative; index \[2\] is -1.0"),
        (lambda: fourier(lambda j: 1.0, 0), "modes must be a positive integer, got 0"),
        (lambda: fourier(lambda j: 1.0, 3).features(np.ones((4, 2))), "take one"),
        (lambda: nystrom(NNGP(1), np.full((3, 2), np.inf)), "X_ref contains non-finite"),
        (lambda: nystrom(entries(-np.eye(6)), np.arange(6)), "positive semi-definite"),
        (lambda: nystrom(Matern12(0.3), X_REF, rank=41), "rank must be an integer from 0 to 40"),
        (
            lambda: jax.jit(lambda s: nystrom(RBF(s), np.ones((3, 2))).values)(1.0),
            "spectrum.nystrom counts its rank: it runs on the host",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nystrom_needs_64_bits():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
        nystrom(RBF(1.0), np.ones((3, 1)))


@pytest.mark.slow
def test_inputs_of_32_bits_are_widened():
    X = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    y, wide = np.sin(X[:, 0]), X.astype(float)
    single, double = nystrom(Matern12(1.0), X), nystrom(Matern12(1.0), wide)
    np.testing.assert_array_equal(single.values, double.values)
    np.testing.assert_array_equal(features(single, X), features(double, wide))
    for of in (lambda X: gp.condition(Matern12(1.0), X, y, 0.1).mean(X),
               lambda X: modify_kernel(Matern12(1.0), X, maps.power(1.2))(X)):  # fmt: skip
        np.testing.assert_array_equal(of(X), of(wide))
