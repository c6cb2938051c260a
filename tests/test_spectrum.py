# SPDX-License-Identifier: Apache-2.0
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fourier_modes, fourier_problem

from bayesrg import gp, rg
from bayesrg.kernels import NNGP, RBF, Linear, Matern12
from bayesrg.spectrum import decompose, fourier, maps, modify_kernel, nystrom

problem = fourier_problem()


@pytest.mark.parametrize(
    "cutoff, smallest, mean, tail",
    [(3, 0.03468, 0.2365, 0.2387), (10, 0.02570, 0.0722, 0.0666), (40, 0.001284, 0.02722, 0.0)],
)
def test_nystrom_reference_numbers(cutoff, smallest, mean, tail):
    X_ref, X = ((jnp.arange(40) + 0.5) / 40)[:, None], problem.x[:, None]
    spectrum = nystrom(Matern12(0.3), X_ref, rank=cutoff)
    rest = spectrum.residual_cov(X)
    np.testing.assert_allclose(np.linalg.eigvalsh(rest)[0], smallest, rtol=5e-4)
    np.testing.assert_allclose(jnp.diagonal(rest).mean(), mean, rtol=3e-3)
    np.testing.assert_allclose(spectrum.residual(X), jnp.diagonal(rest), rtol=0, atol=1e-14)
    np.testing.assert_allclose(1.0 - spectrum.values.sum(), tail, rtol=0, atol=6e-5)
    assert (spectrum.residual(X_ref) >= 0).all()  # the last case is zero but for round-off


def test_nystrom_splits_the_kernel_exactly_and_stays_positive(digits, spectrum):
    X, Z = digits.X[:20], digits.X_test[:15]
    kernel = spectrum.kernel
    modes = spectrum.features(X) * spectrum.values @ spectrum.features(Z).T
    np.testing.assert_allclose(
        modes + spectrum.residual_cov(X, Z), kernel(X, Z), rtol=0, atol=1e-13
    )
    together = spectrum.residual_cov(jnp.concatenate([X, Z]))
    assert np.linalg.eigvalsh(together)[0] > 0
    np.testing.assert_allclose(together[:20, 20:], spectrum.residual_cov(X, Z), rtol=0, atol=1e-13)
    assert (jnp.diff(spectrum.values) <= 0).all() and len(spectrum) == 40


def test_nystrom_functions_are_orthonormal_under_the_reference(spectrum):
    Phi = spectrum.features(spectrum.X_ref)
    np.testing.assert_allclose(Phi.T @ Phi / len(spectrum.X_ref), np.eye(40), rtol=0, atol=1e-9)
    y = Phi @ jnp.arange(40.0)
    np.testing.assert_allclose(spectrum.power(y), np.arange(40.0) ** 2, rtol=0, atol=1e-7)


def test_round_off_pairs_are_dropped_and_counted():
    X_ref = jnp.linspace(0, 1, 200)[:, None]
    spectrum = nystrom(RBF(0.3), X_ref)
    assert len(spectrum) == 15 and spectrum.dropped == 185
    with pytest.warns(UserWarning, match="rank 30 was asked for but only 15 of 200"):
        assert len(nystrom(RBF(0.3), X_ref, rank=30)) == 15
    low_rank = nystrom(Linear(), np.random.default_rng(0).standard_normal((30, 4)))
    assert len(low_rank) == 4
    doubled = nystrom(RBF(0.3), jnp.concatenate([X_ref, X_ref]))
    np.testing.assert_allclose(doubled.values[:10], spectrum.values[:10], rtol=1e-9)


def test_the_round_off_may_be_set():
    X_ref = jnp.linspace(0, 1, 200)[:, None]
    whole, few = nystrom(RBF(0.3), X_ref), nystrom(RBF(0.3), X_ref, rtol=1e-6)
    kept = int((whole.values > 1e-6 * whole.values[0]).sum())
    assert len(few) == kept < len(whole) and few.dropped == 200 - kept
    np.testing.assert_array_equal(few.values, whole.values[:kept])
    with pytest.raises(ValueError, match="rtol must be at least 0 and below 1, got -1"):
        nystrom(RBF(0.3), X_ref, rtol=-1.0)


def test_a_rank_inside_a_degenerate_level_is_told():
    t = 2 * np.pi * np.arange(12) / 12
    circle = np.stack([np.cos(t), np.sin(t)], 1)  # levels of one, two, two, ... modes
    with pytest.warns(UserWarning, match="rank 4 cuts .* modes 3 to 4 .* take rank 3 or 5"):
        spectrum = nystrom(RBF(1.0), circle, rank=4)
    assert len(spectrum) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rank in (0, 1, 3, 5, 12):
            nystrom(RBF(1.0), circle, rank=rank)
        decompose(np.diag([1.0, 0.995, 0.5]), 1)


def test_a_gram_matrix_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(importlib.import_module("bayesrg.spectrum.nystrom"), "_memory", lambda: 8e9)
    with pytest.raises(ValueError, match=r"40000 rows takes 40000\^2 numbers, 11.9 GiB.*landmarks"):
        nystrom(RBF(1.0), jnp.zeros((40000, 1)))


def test_a_matrix_alone_has_a_spectrum():
    A = np.random.default_rng(0).standard_normal((6, 6))
    K = A @ A.T
    spectrum = decompose(K + 1e-10 * np.triu(A))
    values, vectors = np.linalg.eigh(K)
    np.testing.assert_allclose(6 * spectrum.values, values[::-1], rtol=1e-8)
    entries = spectrum.kernel(jnp.arange(6), jnp.arange(6))
    np.testing.assert_array_equal(entries, entries.T)
    F = spectrum.features(jnp.array([4, 1]))
    np.testing.assert_allclose(
        np.abs(F), np.sqrt(6) * np.abs(vectors[[4, 1], ::-1]), rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(F * spectrum.values @ F.T, K[[4, 1]][:, [4, 1]], rtol=1e-8)
    few = decompose(K, 2)
    rest = few.residual_cov(jnp.arange(6))
    np.testing.assert_allclose(np.linalg.eigvalsh(rest)[2:], values[:4], rtol=1e-9)
    np.testing.assert_allclose(few.residual(jnp.arange(6)), jnp.diagonal(rest), atol=1e-12)


def test_a_single_reference_point_and_rank_zero():
    one = nystrom(RBF(1.0, 2.0), jnp.zeros((1, 1)))
    np.testing.assert_allclose(one.values, [2.0])
    np.testing.assert_allclose(one.features(jnp.zeros((1, 1))), [[1.0]])
    none = nystrom(RBF(1.0), jnp.linspace(0, 1, 5)[:, None], rank=0)
    X = jnp.linspace(0, 1, 3)[:, None]
    np.testing.assert_allclose(none.residual_cov(X), RBF(1.0)(X), rtol=0, atol=1e-15)


def test_training_sample_as_reference_is_the_trap():
    """In the training inputs' own modes the low block sees the bare ridge."""
    X = problem.x[:, None]
    spectrum = nystrom(Matern12(0.3), X)
    F, values = spectrum.features(X), spectrum.values
    high = F[:, 5:] * values[5:] @ F[:, 5:].T
    precision = F[:, :5].T @ np.linalg.solve(0.05 * np.eye(24) + high, F[:, 5:])
    assert np.abs(precision).max() < 1e-11
    with pytest.warns(UserWarning, match="24 of the 24 rows of X_ref are training inputs"):
        spectrum.warn_if_shared(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spectrum.warn_if_shared(X[:11])  # a small sample of the reference is no trap
        spectrum.warn_if_shared(X + 0.1)


def test_fourier_modes():
    spectrum = fourier(lambda j: (1 + j) ** -2.0, 61)
    np.testing.assert_allclose(spectrum.features(problem.x), problem.Phi, rtol=0, atol=1e-13)
    np.testing.assert_allclose(spectrum.values, problem.values, rtol=1e-15)
    grid = jnp.arange(500) / 500
    Phi = spectrum.features(grid)
    np.testing.assert_allclose(Phi.T @ Phi / 500, np.eye(61), rtol=0, atol=1e-13)
    np.testing.assert_array_equal(spectrum.residual(problem.x), np.zeros(24))
    np.testing.assert_array_equal(spectrum.residual_cov(problem.x, grid).shape, (24, 500))
    np.testing.assert_allclose(
        spectrum.power(fourier_modes(np.asarray(grid), 61)[:, 7], grid)[6:9],
        [0, 1, 0],
        rtol=0,
        atol=1e-13,
    )
    moved = jax.grad(lambda a: fourier(lambda j: (1 + j) ** -a, 5).values.sum())(2.0)
    np.testing.assert_allclose(moved, -sum(np.log(j) * j**-2.0 for j in range(1, 6)))


def test_fourier_modes_of_another_period():
    x, unit = np.array([0.3, 3.1, 6.9, 9.4]), fourier(lambda j: (1 + j) ** -2.0, 9)
    weeks = fourier(lambda j: (1 + j) ** -2.0, 9, period=7)
    np.testing.assert_allclose(weeks.features(x), unit.features(x / 7), rtol=0, atol=1e-14)
    far = unit.features(np.array([2.0**40 + 0.25]))  # a quarter of a turn, for each of four waves
    np.testing.assert_allclose(far[0, 1:] / 2**0.5, [0, 1, -1, 0, 0, -1, 1, 0], rtol=0, atol=1e-14)
    slope = jax.jacfwd(lambda p: fourier(lambda j: 1 / (1 + j), 9, period=p).features(x))(7.0)
    two = [fourier(lambda j: 1 / (1 + j), 9, period=7 + h).features(x) for h in (1e-5, -1e-5)]
    np.testing.assert_allclose(slope, (two[0] - two[1]) / 2e-5, rtol=0, atol=1e-8)
    assert unit.features(x.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match="period must be positive, got 0"):
        fourier(lambda j: 1 / (1 + j), 3, period=0)


@pytest.mark.parametrize("meet", ["marginal", "local"])
@pytest.mark.parametrize(
    "x, period, rows",
    [
        (np.arange(5), 1, "rows 0 and 1 of X, 0 and 1, are one point to modes of period 1"),
        (np.array([0.2, 0.5, 3.2]), 1, "rows 0 and 2 of X, 0.2 and 3.2"),
        (np.array([0.9, 2.3, 365.9 + 2.3]), 365.9, "rows 1 and 2 of X, 2.3 and 368.2"),
        (np.linspace(0, 1, 5), 1, "rows 0 and 4 of X, 0 and 1"),
        (np.array([0.3, 0.3, 0.7]), 1, None),  # equal rows are data, no mistake
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
        (lambda: fourier(lambda j: 1.0, 3).features(jnp.ones((4, 2))), "take one"),
        (lambda: nystrom(NNGP(1), jnp.full((3, 2), jnp.inf)), "X_ref contains non-finite"),
        (lambda: decompose(np.ones((3, 2))), r"K has shape \(3, 2\); give a square matrix"),
        (lambda: decompose(np.eye(2) + np.triu(np.ones((2, 2)), 1)), "K is not symmetric.*by 1 "),
        (lambda: decompose(np.eye(2) + [[0, 1e-7], [0, 0]]), "differ by 1e-07 of the largest"),
        (lambda: decompose(-np.eye(2)), "positive semi-definite"),
        (lambda: decompose(np.eye(2)).features(jnp.array([2])), "its rows, 0 to 1"),
        (lambda: nystrom(NNGP(1), jnp.ones((3, 2)), rank=4), "rank must be an integer from 0 to 3"),
        (
            lambda: jax.jit(lambda s: nystrom(RBF(s), jnp.ones((3, 2))).values)(1.0),
            "spectrum.nystrom counts its rank: it runs on the host",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nystrom_needs_64_bits():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
        nystrom(RBF(1.0), jnp.ones((3, 1)))


def test_inputs_of_32_bits_are_widened():
    X = jnp.asarray(np.random.default_rng(0).standard_normal((12, 3)), jnp.float32)
    y, wide = jnp.sin(X[:, 0]), np.asarray(X, float)
    single, double = nystrom(NNGP(2), X), nystrom(NNGP(2), wide)
    np.testing.assert_array_equal(single.values, double.values)
    np.testing.assert_array_equal(single.features(X[:3]), double.features(wide[:3]))
    assert decompose(jnp.asarray(NNGP(2)(wide), jnp.float32)).values.dtype == float
    for of in (lambda X: gp.condition(RBF(1.0), X, y, 0.1).mean(X[:2]),
               lambda X: modify_kernel(NNGP(2), X, maps.power(1.2))(X)):  # fmt: skip
        np.testing.assert_array_equal(of(X), of(wide))
