# SPDX-License-Identifier: Apache-2.0
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference
from scipy.special import eval_legendre

from bayesrg import kernels
from bayesrg.kernels import NNGP, RBF, adapt
from bayesrg.spectrum import fourier, functionals, maps, modify, modify_kernel, nystrom, sphere
from bayesrg.spectrum.modify import groups


@jax.jit
def _ntk(X, Z):
    """Tangent kernel of two hidden relu layers, weight variance 2 and bias variance 0.1."""
    d = X.shape[1]
    same = (X[:, None] == Z[None]).all(-1)
    K, a = 2.0 * X @ Z.T / d + 0.1, 2.1
    T = K
    for _ in range(2):
        t = jnp.where(same, 0.0, jnp.arccos(jnp.clip(K / a, -1, 1)))
        K = (jnp.sqrt(jnp.clip(a**2 - K**2, 0)) + (jnp.pi - t) * K) / jnp.pi + 0.1
        K, a = jnp.where(same, a + 0.1, K), a + 0.1
        T = K + (jnp.pi - t) / jnp.pi * T
    return T


class Tangent(eqx.Module):
    """The tangent kernel as a module: adapted, it stays one program where it is called."""

    def __call__(self, X, Z):
        return _ntk(X, Z)


NTK = adapt(Tangent())  # on inputs of squared length d


def circle(t):
    return np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1)


GRID = circle(2 * np.pi * np.arange(40) / 40 + 0.01)
LANDMARKS = circle(np.random.default_rng(0).uniform(0, 2 * np.pi, 60))


compiled = eqx.filter_jit(lambda kernel, *inputs: kernel(*inputs))


def at(kernel, *inputs):
    return np.asarray(compiled(kernel, *inputs))


class Circular(eqx.Module):
    """``exp(-(1 - cos(t - t')) / length)`` of angles."""

    length: jax.Array

    @eqx.filter_jit
    def __call__(self, X, Z):
        return jnp.exp(-(1 - jnp.cos(X - Z.T)) / self.length)


def circular(length):
    return adapt(Circular(jnp.asarray(length)))


@pytest.mark.slow
def test_the_base_of_these_tests_is_the_tangent_kernel():
    X = np.concatenate([GRID, LANDMARKS, GRID[:2]])
    np.testing.assert_allclose(at(kernels.NTK(2, bias_var=0.1), X), at(NTK, X), rtol=1e-7)


# ---- the kernel ------------------------------------------------------------------------------


def test_the_identity_is_the_kernel_and_without_tail_nystrom():
    X = np.concatenate([GRID, LANDMARKS])
    spectrum = nystrom(NTK, LANDMARKS, rank=7)
    for g in (maps.identity(), maps.scale(1.0), lambda values: values):
        kernel = modify(spectrum, g)
        np.testing.assert_allclose(at(kernel, X), at(NTK, X), rtol=0, atol=2e-13)
    bare = modify(nystrom(NTK, LANDMARKS), maps.identity(), tail=0.0)
    K, full = at(bare, X), at(NTK, X)
    np.testing.assert_allclose(K[40:, 40:], full[40:, 40:], rtol=0, atol=1e-12)
    assert (np.diagonal(full - K)[:40] > 1e-3).all()


def test_eigenvalues_on_the_landmarks_are_those_of_the_map():
    spectrum = nystrom(NTK, LANDMARKS, rank=7)
    full = np.linalg.eigvalsh(at(NTK, LANDMARKS))[::-1]
    kernel = modify(spectrum, maps.power(1.4), tail=0.3)
    expected = np.append(60 * maps.power(1.4)(spectrum.values), 0.3 * full[7:])
    got = np.linalg.eigvalsh(at(kernel, LANDMARKS))[::-1]
    np.testing.assert_allclose(got, np.sort(expected)[::-1], rtol=1e-10, atol=1e-12)


def test_modes_left_alone_are_in_the_rank_or_out_of_it():
    table = maps.table([1.0, 0.2, 0.1])
    spectra = nystrom(NTK, LANDMARKS), nystrom(NTK, LANDMARKS, rank=7)
    inside, outside = (at(modify(s, table), GRID, LANDMARKS) for s in spectra)
    np.testing.assert_allclose(inside, outside, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "g, smallest, slack", [(maps.identity(), 1.3e-3, 5e-5), (maps.scale(0.0), 0.0, 2e-13),
                           (maps.scale(10.0), 1.3e-3, 5e-5)]
)  # fmt: skip
def test_any_map_is_positive_semi_definite_off_the_landmarks(g, smallest, slack):
    kernel = modify(nystrom(NTK, LANDMARKS, rank=7), g)
    values = np.linalg.eigvalsh(at(kernel, np.concatenate([GRID, LANDMARKS])))
    np.testing.assert_allclose(values[0], smallest, rtol=0, atol=slack)


def test_every_map_with_any_tail_is_positive_semi_definite_off_the_landmarks():
    X = np.concatenate([GRID, LANDMARKS])
    spectrum = nystrom(NTK, LANDMARKS, rank=7)
    for g in (
        maps.power(0.3), maps.power(3.0), maps.flatten(3), maps.lift(3), maps.hard_cutoff(1.0),
        maps.soft_cutoff(0.1, 0.2), maps.ridge(0.3), maps.table([0.0, 90.0, 0.0, 0.0, 5.0]),
    ):  # fmt: skip
        bare, half, whole = (at(modify(spectrum, g, tail), X) for tail in (0.0, 0.3, 1.0))
        for K in (bare, half, whole):
            assert np.linalg.eigvalsh(K)[0] > -1e-10 * np.trace(K) / len(X), g
        np.testing.assert_allclose(half, 0.7 * bare + 0.3 * whole, rtol=1e-12, atol=1e-12)


def test_the_bare_form_is_linear_and_maps_follow_one_another():
    spectrum = nystrom(NTK, LANDMARKS)
    once = at(modify(spectrum, maps.power(1.5), tail=0.0), GRID)
    thrice = at(modify(spectrum, lambda v: 3 * maps.power(1.5)(v), 0.0), GRID)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-12)
    both = modify(modify(spectrum, maps.power(1.5), 0.5), maps.scale(3), 0.5)
    np.testing.assert_allclose(both.values, 3 * maps.power(1.5)(spectrum.values), rtol=1e-15)
    assert both.tail == 0.25
    first = modify(spectrum, maps.hard_cutoff(0.3), 0.0)
    second = modify(first, maps.hard_cutoff(0.9), 0.0)
    np.testing.assert_array_equal(second.values, maps.hard_cutoff(0.9)(spectrum.values))


def test_every_spectrum_can_be_modified():
    x = np.linspace(0.01, 0.9, 9)[:, None]
    waves = fourier(lambda j: (1 + j) ** -2.0, 21)
    Phi = np.asarray(jax.jit(lambda x: waves.features(x))(x))
    expected = Phi * np.sqrt(waves.values) @ Phi.T
    np.testing.assert_allclose(at(modify(waves, jnp.sqrt), x), expected, rtol=0, atol=1e-14)
    X = np.random.default_rng(1).standard_normal((8, 3))
    X *= np.sqrt(3) / np.linalg.norm(X, axis=1)[:, None]
    base, g, cosine = NNGP(1, bias_var=0.1), maps.polynomial_cutoff(0.1, 2), X @ X.T / 3
    levels = sphere(base, 3, 3)
    expected = 0.5 * at(base, X)
    degree, values, new = map(np.asarray, (levels.degree, levels.values, g(levels.values)))
    for k, change in zip(degree, new - 0.5 * values, strict=True):  # the addition theorem
        expected += (2 * k + 1) * change * eval_legendre(int(k), cosine)
    np.testing.assert_allclose(at(modify(levels, g, 0.5), X), expected, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_landmarks_have_no_order_and_no_direction():
    g = maps.polynomial_cutoff(0.3, 2)
    angle = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    kernel = modify(nystrom(NTK, LANDMARKS), g)
    K = at(kernel, GRID)
    np.testing.assert_allclose(at(kernel, GRID, GRID), K, rtol=0, atol=1e-13)
    order = np.random.default_rng(2).permutation(60)
    again = at(modify(nystrom(NTK, LANDMARKS[order]), g), GRID)
    np.testing.assert_allclose(again, K, rtol=0, atol=1e-12)
    turned = at(modify(nystrom(NTK, LANDMARKS @ angle), g), GRID @ angle)
    np.testing.assert_allclose(turned, K, rtol=0, atol=1e-11)


@cache
def population():
    """Eigenvalues of the kernel on the circle by degree, to 400."""
    spectrum = sphere(NTK, 2, 400)
    return np.asarray(spectrum.values)[np.argsort(spectrum.degree)]


@cache
def sampled(seed, n):
    return nystrom(NTK, circle(np.random.default_rng(seed).uniform(0, 2 * np.pi, n)))


CONSISTENCY = {
    "identity": (lambda v: v, "0.00431 0.00238 0.00114 0.00059", -0.97),
    "square": (lambda v: v**2, "0.0744 0.0668 0.0490 0.0298", -0.44),
    "polynomial": (maps.polynomial_cutoff(0.05, 4.0), "0.00748 0.00674 0.00521 0.00327", -0.39),
    "hard": (lambda v: v * (v >= 0.03), "0.01035 0.00829 0.00680 0.00342", -0.51),
    "root": (jnp.sqrt, "0.233 0.173 0.116 0.070", -0.58),
}


def relative_error(g, n):
    """Relative root mean square on the grid against the Fourier series, mean of three seeds."""
    k, t = np.arange(401), 2 * np.pi * np.arange(40) / 40 + 0.01
    new = np.asarray(g(jnp.asarray(population()))) * np.where(k > 0, 2, 1)
    row = np.cos(np.outer(t - t[0], k)) @ new
    truth = row[np.abs(np.arange(40)[:, None] - np.arange(40))]
    errors = [at(modify(sampled(s, n), g, tail=0.0), GRID) - truth for s in range(3)]
    return np.mean([np.linalg.norm(e) for e in errors]) / np.linalg.norm(truth)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONSISTENCY)
def test_the_kernel_converges_at_the_rate_of_a_mean(name):
    g, printed, slope = CONSISTENCY[name]
    sizes = (100, 200, 400, 800)
    errors = [relative_error(g, n) for n in sizes]
    for error, expected in zip(errors, printed.split(), strict=True):
        np.testing.assert_allclose(error, float(expected), rtol=0, atol=10.0 ** (2 - len(expected)))
    fit = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    np.testing.assert_allclose(fit, slope, rtol=0, atol=0.01)


# ---- spectra of samples ----------------------------------------------------------------------


def on_the_sphere(n):
    rng = np.random.default_rng(0)
    for size in (500, 2000):
        X = rng.standard_normal((size, 5))
        if size == n:
            return X * np.sqrt(5) / np.linalg.norm(X, axis=1)[:, None]


@pytest.mark.parametrize(
    "n, first, third",
    [
        (500, (0.45926, 0.38809, 0.53887), (0.01200, 0.00795, 0.01684)),
        pytest.param(
            2000, (0.45698, 0.43682, 0.47919), (0.01107, 0.00873, 0.01402), marks=pytest.mark.slow
        ),
    ],
)
def test_a_sample_splits_levels_that_groups_put_together(n, first, third):
    values = np.asarray(nystrom(NTK, on_the_sphere(n)).values)
    for level, expected in ((values[1:6], first), (values[20:50], third)):
        got = level.mean(), level.min(), level.max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=6e-6)
    sizes = np.bincount(groups(values, n))
    assert list(sizes[:3]) == [1, 5, 14]


def test_the_population_of_those_samples():
    levels = sphere(NTK, 5, 3)
    order = np.argsort(levels.degree)
    values, degeneracy = np.asarray(levels.values), np.asarray(levels.degeneracy)
    printed = [2.07286, 0.45606, 0.08344, 0.01076]
    np.testing.assert_allclose(values[order], printed, rtol=0, atol=6e-6)
    np.testing.assert_array_equal(degeneracy[order], [1, 5, 14, 30])


@pytest.mark.parametrize("rows", [[0], pytest.param([0, 0, 1], marks=pytest.mark.slow)])
def test_landmarks_one_or_two_or_twice(rows):
    X = GRID[rows]
    kernel = modify(nystrom(NTK, X), maps.scale(2.0))
    np.testing.assert_allclose(at(kernel, X), 2 * at(NTK, X), rtol=0, atol=1e-13)
    moving = jax.jit(lambda X: modify_kernel(NTK, X, maps.power(1.5))(X))(X)
    assert np.isfinite(moving).all()
    one = modify_kernel(NTK, GRID[:1], maps.power(1.5))  # with its checks on the host
    assert np.isfinite(one.weights).all()


def test_cuts_inside_a_level_and_lifted_rounding_warn():
    spectrum = nystrom(NTK, LANDMARKS)
    pair = np.asarray(spectrum.values)[1:3]
    with pytest.warns(UserWarning, match="which 60 points cannot tell apart.* after mode 1 or 3"):
        modify(spectrum, maps.hard_cutoff(pair.mean()))
    with pytest.warns(UserWarning, match="cannot tell apart"):
        modify(spectrum, maps.lift(2))
    without_first = modify(spectrum, maps.table([0.0]))
    with pytest.warns(UserWarning, match="after mode 0 or 2"):  # of what is left, falling
        modify(without_first, maps.hard_cutoff(pair.mean()))
    modify(spectrum, maps.lift(3))
    modify(spectrum, maps.soft_cutoff(pair.mean(), 0.3))
    smooth = nystrom(RBF(0.3), np.linspace(0, 1, 60))
    modify(smooth, maps.identity())
    with pytest.warns(UserWarning, match="mode 14 has l_i/l_1=.* lifting it amplifies rounding by"):
        modify(smooth, lambda v: jnp.full_like(v, v[0]))


@pytest.mark.slow
def test_maps_may_be_traced():
    spectrum = nystrom(NTK, LANDMARKS)

    @jax.jit
    @jax.value_and_grad
    def total(theta):
        return modify(spectrum, maps.soft_cutoff(theta, 0.3), tail=theta)(GRID[:3]).sum()

    for theta in (0.1, 0.2):
        slope = central_difference(lambda t: total(t)[0], theta)
        np.testing.assert_allclose(total(theta)[1], slope, rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda s: modify(s, lambda v: v - 0.5),
            r"negative eigenvalue at lam=0\.\d+: k_g would not be positive semi-definite",
        ),
        (lambda s: modify(s, lambda v: v * jnp.inf), "produced inf at lam="),
        (lambda s: modify(s, lambda v: v[:3]), r"g returned shape \(3,\)"),
        (lambda s: modify(s, maps.identity(), tail=1.5), "tail must be at most 1, got 1.5"),
        (lambda s: modify(s, maps.identity(), tail=-1.0), "tail must be non-negative, got -1.0"),
        (lambda s: modify(NTK, maps.identity()), "spectrum must be a Spectrum .*got a Adapted"),
        (lambda s: modify(functionals(s, 3).at(NTK), maps.identity()), "are not eigenfunctions"),
        (lambda s: modify(s, maps.lift(80)), r"lift\(80\) needs 80 modes and the spectrum has 60"),
        (lambda s: modify_kernel(NTK, LANDMARKS, maps.flatten(2)), "g goes by rank"),
        (
            lambda s: modify_kernel(NTK, LANDMARKS, lambda v: v.max() * (v / v.max()) ** 1.3),
            "g maps an eigenvalue by what the others are",
        ),
        (lambda s: modify_kernel(NTK, LANDMARKS, lambda v: v - 0.5), "negative eigenvalue at lam"),
        (
            lambda s: modify_kernel(adapt(lambda X, Z: -X @ Z.T), LANDMARKS, maps.identity()),
            "non-negative; index .* check that the kernel is positive semi-definite",
        ),
        (
            lambda s: modify_kernel(adapt(lambda X, Z: jnp.nan * X @ Z.T), LANDMARKS, jnp.sqrt),
            "values contains non-finite values",
        ),
        (
            lambda s: modify(fourier(lambda j: 0.5**j, 3), maps.identity()).eigen,
            "need spectrum.nystrom, got a FourierSpectrum",
        ),
        (
            lambda s: modify(nystrom(NTK, LANDMARKS, rank=59), maps.identity()).eigen,
            "the spectrum has 59 of 60 modes",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(nystrom(NTK, LANDMARKS))


def test_modified_kernels_need_64_bits():
    waves = fourier(lambda j: (1 + j) ** -2.0, 3)
    with jax.enable_x64(False):
        with pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
            modify(waves, maps.identity())
        with pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
            modify_kernel(RBF(1.0), jnp.ones((2, 1)), maps.identity())
