# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import eval_gegenbauer, gamma, ive, roots_gegenbauer

from bayesrg import gp
from bayesrg.kernels import NNGP, RBF, Linear, adapt
from bayesrg.spectrum import sphere
from bayesrg.spectrum.harmonics import harmonics, legendre, multiplicity

made = eqx.filter_jit(sphere)  # one program where a call outside of jit makes thirty


def by_degree(spectrum):
    values = np.zeros(len(spectrum))
    values[spectrum.degree] = spectrum.values
    return values


def points(n, dim, seed=0, radius=None):
    X = np.random.default_rng(seed).standard_normal((n, dim))
    return X * (np.sqrt(dim) if radius is None else radius) / np.linalg.norm(X, axis=1)[:, None]


def step_kernel(X, Z):
    return 1 - jnp.arccos(jnp.clip(X @ Z.T / 2, -1, 1)) / jnp.pi


def test_closed_forms_on_the_circle():
    k = np.arange(2, 11)
    arc = by_degree(sphere(0.5 * NNGP(1), 2, 10))
    np.testing.assert_allclose(arc[:2], [4 / np.pi**2, 0.25], rtol=1e-14)
    expected = np.where(k % 2, 0.0, 4 / (np.pi**2 * (k**2 - 1.0) ** 2))
    np.testing.assert_allclose(arc[2:], expected, rtol=0, atol=1e-15)
    step = sphere(adapt(step_kernel), 2, 10)
    expected = (1 - (-1.0) ** np.arange(1, 11)) / (np.pi * np.arange(1, 11)) ** 2
    np.testing.assert_allclose(by_degree(step), [0.5, *expected], rtol=0, atol=1e-15)
    assert step.zeros == 5 and (step.values[-5:] == 0).all()
    assert list(step.degree[:7]) == [0, 1, 3, 5, 7, 9, 2]


@pytest.mark.parametrize(
    "dim, q",
    [(2, 0.8), (5, 0.3), pytest.param(784, 0.01, marks=pytest.mark.slow), (3072, 0.5)],
)
def test_closed_form_of_a_gaussian(dim, q):
    k = np.arange(9)
    spectrum = made(RBF(2.0 * np.sqrt(q)), dim, 8, radius=2.0)
    if dim < 9:
        expected = gamma(dim / 2) * (2 * q) ** (dim / 2 - 1) * ive(k + dim / 2 - 1, 1 / q)
    else:  # the Bessel function underflows: its power series, first term divided out
        terms = np.ones((200, 9))
        for j in range(1, 200):
            terms[j] = terms[j - 1] * 0.25 / q**2 / (j * (k + dim / 2 - 1 + j))
        first = np.cumprod([1.0, *(0.5 / q / (dim / 2 + k[:-1]))])
        expected = np.exp(-1 / q) * first * terms.sum(0)
    expected[expected < 1e-15] = 0.0
    np.testing.assert_allclose(by_degree(spectrum), expected, rtol=2e-15, atol=1e-15)


@pytest.mark.parametrize(
    "kernel, dim, expected, digit",
    [
        pytest.param(
            NNGP(1), 3, [3 / 4, 1 / 3, 3 / 64, 0, 0.00130208, 0], 6e-9, marks=pytest.mark.slow
        ),
        pytest.param(
            NNGP(3, bias_var=0.1), 2,
            [1.70480153, 0.25465683, 0.06957557, 0.01411118, 0.00508543, 0.00181693], 6e-9,
            marks=pytest.mark.slow,
        ),
        (
            NNGP(2, bias_var=0.1), 10,
            [1.28700495, 0.0655766507, 0.00477583393, 0.000236017689, 3.66657e-5], 6e-9,
        ),
        pytest.param(
            NNGP(2, "erf", 1.5, 0.1), 10,
            [0.199668719, 0.0475548957, 3.91809e-4, 2.53788e-4, 1.11046e-5], 6e-10,
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_reference_numbers(kernel, dim, expected, digit):
    spectrum = made(kernel, dim, len(expected) - 1)
    np.testing.assert_allclose(by_degree(spectrum), expected, rtol=0, atol=digit)
    sizes = [multiplicity(dim, k) for k in range(len(expected))]
    np.testing.assert_array_equal(spectrum.degeneracy, np.array(sizes)[spectrum.degree])
    assert (np.diff(spectrum.values) <= 0).all()


def test_multiplicities_and_traces():
    assert [multiplicity(2, k) for k in range(4)] == [1, 2, 2, 2]
    assert [multiplicity(3, k) for k in range(4)] == [1, 3, 5, 7]
    assert 1.35e10 < multiplicity(10, 60) < 1.45e10
    for k in range(4):  # polynomials of degree k on the sphere, by counting monomials
        from math import comb

        whole = comb(k + 4, 4) - (comb(k + 2, 4) if k > 1 else 0)
        assert multiplicity(5, k) == whole


@pytest.mark.slow
def test_traces():
    smooth = made(RBF(2.0), 5, 20)
    # a level below 1e-15 is zero, whatever its degeneracy
    values, sizes = np.asarray(smooth.values), np.asarray(smooth.degeneracy)
    np.testing.assert_allclose(values @ sizes, 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(smooth.residual(points(4, 5)), 0.0, rtol=0, atol=1e-12)
    rough = made(NNGP(3, bias_var=0.1), 3, 40)
    values, sizes = np.asarray(rough.values), np.asarray(rough.degeneracy)
    left = float(NNGP(3, bias_var=0.1).diag(points(4, 3))[0]) - values @ sizes
    np.testing.assert_allclose(rough.residual(points(4, 3)), left, rtol=0, atol=1e-13)
    assert 0 < left < 1e-2
    assert rough.count(values[2]) == sizes[:2].sum()


def test_levels_make_up_the_kernel():
    kernel, X, Z, i = RBF(1.5), points(6, 4), points(5, 4, seed=1), 3
    spectrum, full = (made(kernel, 4, 5, explicit=explicit) for explicit in (False, True))

    @jax.jit
    def ask(spectrum, full):
        levels = jnp.stack([spectrum.level(X, Z, i) for i in range(6)])
        rests = spectrum.residual_cov(X, Z), full.residual_cov(X, Z)
        own = spectrum.residual_cov(X), spectrum.residual_cov(X, X), spectrum.residual(X)
        return levels, full.level(X, Z, 7), rests, own, kernel(X, Z)

    answers = jax.tree.map(np.asarray, ask(spectrum, full))
    levels, level, (rest, same), (own, own_again, diagonal), K = answers
    values, degree = np.asarray(spectrum.values), np.asarray(spectrum.degree)
    total = np.tensordot(values, levels, 1)
    np.testing.assert_allclose(total + rest, K, rtol=0, atol=1e-13)
    t = X @ Z.T / 4
    k, size = int(degree[i]), float(spectrum.degeneracy[i])
    ratio = eval_gegenbauer(k, 1.0, t) / eval_gegenbauer(k, 1.0, 1.0)
    np.testing.assert_allclose(levels[i], size * ratio, rtol=0, atol=1e-12)
    np.testing.assert_allclose(own, own_again, rtol=0, atol=1e-12)
    assert np.linalg.eigvalsh(own)[0] > 0
    np.testing.assert_allclose(np.diag(own), diagonal, rtol=0, atol=1e-12)
    np.testing.assert_allclose(same, rest, rtol=0, atol=1e-13)
    # modes 0, 1 to 4, and 5 to 13 are the first levels
    np.testing.assert_allclose(level, levels[2], rtol=0, atol=1e-12)


def cubature(dim, exact):
    """Points and weights on the sphere, exact for polynomials up to degree ``exact``."""
    size = exact // 2 + 1
    phi = 2 * np.pi * np.arange(exact + 1) / (exact + 1)
    U, w = np.stack([np.cos(phi), np.sin(phi)], 1), np.full(exact + 1, 1 / (exact + 1))
    for j in range(3, dim + 1):
        t, v = roots_gegenbauer(size, (j - 2) / 2)
        s = np.sqrt(1 - t**2)
        U = np.concatenate([s[:, None, None] * U, np.broadcast_to(t[:, None, None],
                            (size, len(U), 1))], -1).reshape(-1, j)  # fmt: skip
        w = (v[:, None] / v.sum() * w).ravel()
    return U, w


@pytest.mark.parametrize("dim, degree", [(2, 60), (3, 12), (4, 6), (6, 3)])
def test_harmonics_are_orthonormal(dim, degree):
    U, w = cubature(dim, 2 * degree)
    Y = np.asarray(harmonics(degree, jnp.asarray(U)))
    assert Y.shape[1] == sum(multiplicity(dim, k) for k in range(degree + 1))
    np.testing.assert_allclose(Y.T * w @ Y, np.eye(Y.shape[1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim, degree", [(2, 900), (3, 43), (5, 10), (60, 2), (1000, 1)])
def test_harmonics_obey_the_addition_theorem(dim, degree):
    U, V = points(4, dim, radius=1.0), points(3, dim, 1, radius=1.0)
    U[0] = np.eye(dim)[-1]  # a pole
    both = np.asarray(harmonics(degree, jnp.asarray(np.r_[U, V])))
    Y, Z = both[:4], both[4:]
    sizes = [multiplicity(dim, k) for k in range(degree + 1)]
    starts = np.cumsum([0, *sizes])
    P = legendre(dim, degree, (U @ V.T).ravel()).reshape(-1, 4, 3)
    for k in (0, 1, degree // 2, degree):
        level = slice(starts[k], starts[k + 1])
        total = Y[:, level] @ Z[:, level].T
        np.testing.assert_allclose(total / sizes[k], P[k], rtol=0, atol=1e-11)
        np.testing.assert_allclose((Y[:, level] ** 2).sum(1), sizes[k], rtol=1e-10)


def test_explicit_modes_are_a_spectrum():
    kernel, X = NNGP(1, bias_var=0.1), points(30, 3)
    spectrum = made(kernel, 3, 3, explicit=True)
    assert len(spectrum) == 16 and (np.asarray(spectrum.degeneracy) == 1).all()

    @jax.jit
    def ask(spectrum):
        return gp.marginal(spectrum, X, 0.1).covariance_matrix, kernel(X)

    C, K = ask(spectrum)
    np.testing.assert_allclose(C, K + 0.1 * np.eye(30), rtol=0, atol=1e-13)
    levels = made(kernel, 3, 3)
    sizes = np.asarray(levels.degeneracy, int)
    np.testing.assert_array_equal(spectrum.values, np.repeat(levels.values, sizes))
    np.testing.assert_array_equal(spectrum.degree, np.repeat(levels.degree, sizes))


def test_parameters_may_move():
    X = points(5, 3)

    @jax.jit
    def low(bias):
        spectrum = sphere(NNGP(1, bias_var=bias), 3, 2, explicit=True)
        return spectrum.features(X) * spectrum.values @ spectrum.features(X).T

    expected = (np.asarray(low(0.3 + 1e-6)) - np.asarray(low(0.3 - 1e-6))) / 2e-6
    slope = jax.jit(jax.jacfwd(low))(0.3)
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sphere(RBF(1.0), 1, 3), "dim must be an integer of at least 2, got 1"),
        (lambda: sphere(RBF(1.0), 3, -1), "degree must be an integer of at least 0, got -1"),
        (lambda: sphere(RBF(1.0), 3, 2, radius=0.0), "radius must be positive, got 0.0"),
        (lambda: sphere(RBF(1.0), 10, 5, explicit=True), "would make 2717 modes"),
        (lambda: sphere(RBF(jnp.ones(3) * jnp.arange(1, 4)), 3, 2), "a function of x.z alone"),
        (lambda: sphere(adapt(lambda X, Z: -X @ Z.T), 3, 2), "eigenvalues must be non-negative"),
        (lambda: sphere(RBF(1.0), 3, 2).features(points(2, 3)), r"use .level\(X, Z, i\)"),
        (
            lambda: sphere(RBF(1.0), 3, 2).level(points(2, 3), None, 3),
            "from -3 to 2, got 3",
        ),
        (lambda: sphere(Linear(), 3, 2).residual(np.ones((2, 4))), "X has 4 columns"),
        (
            lambda: sphere(Linear(), 4, 2).residual_cov(np.ones((2, 4)), 2 * np.ones((2, 4))),
            "Z has rows of length 4 to 4; this spectrum is for inputs of length 2",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
