# SPDX-License-Identifier: Apache-2.0
"""Gases of levels: normalisers, densities, draws, statistics, the width in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from bayesrg import _checks
from bayesrg import ensembles as en
from bayesrg.ensembles.gamma import log_gamma

SETS = np.array([[0.1, 0.5, 1.2], [0.6, 1.0, 1.7]])
STATISTICS = en.gas_statistics(SETS)
COULOMB = [(1.0, 1.0, 7.0898154), (0.7, 2.5, 3.7022536)]  # scale, beta, normaliser at n = 2


@pytest.fixture(scope="module")
def spectra():
    """40 spectra of 20 levels, of width 0.3 around 0.5."""
    x = en.CoulombGas(20, 0.3, 0.5).sample(jax.random.key(0), (2, 20))
    return np.asarray(x).reshape(40, 20)


def test_the_log_gamma_function_and_its_derivatives():
    """From nearly zero to 1e12, both sides of the place where the series takes over."""
    z = np.concatenate([np.geomspace(1e-8, 1e12, 400), np.linspace(7.9, 8.1, 21)])

    @jax.jit
    @jax.vmap
    def derivatives(z):
        slope = jax.grad(log_gamma)
        return log_gamma(z), slope(z), jax.grad(slope)(z)

    closed = special.gammaln(z), special.psi(z), special.polygamma(1, z)
    for found, theory in zip(derivatives(z), closed, strict=True):
        np.testing.assert_allclose(found, theory, rtol=1e-14, atol=1e-14)
    narrow = log_gamma(z.astype(np.float32))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, closed[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale, beta, value", COULOMB)
def test_normaliser_of_the_coulomb_gas(scale, beta, value):
    log = jax.jit(en.CoulombGas(2, scale, 5.0, beta).log_normaliser)()
    np.testing.assert_allclose(np.exp(log), value, rtol=1e-8)
    plane = integrate.dblquad(
        lambda y, x: abs(x - y) ** beta * np.exp(-(x**2 + y**2) / (2 * scale**2)), -9, 9, -9, 9
    )
    np.testing.assert_allclose(plane[0], value, rtol=1e-5)


def test_normaliser_of_the_laguerre_gas():
    """Weight x^(1/2) exp(-x / 1.6) at n = 2 and beta 1: four degrees of freedom."""
    log = jax.jit(en.LaguerreGas(2, 4.0, np.sqrt(0.8)).log_normaliser)()
    np.testing.assert_allclose(np.exp(log), 6.5536, rtol=1e-10)
    plane = integrate.dblquad(
        lambda y, x: (y - x) * np.sqrt(x * y) * np.exp(-(x + y) / 1.6), 0, 40, lambda x: x, 60
    )
    np.testing.assert_allclose(2 * plane[0], 6.5536, rtol=1e-5)


def test_densities_of_three_levels_integrate_to_one():
    """Rules of Gauss are exact: beta 2, and weight x at beta 1 in the lowest level and the gaps."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    u = 0.8 * np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1)
    w = np.einsum("i,j,k->ijk", weights, weights, weights)
    squares = ((u[..., 1] - u[..., 0]) * (u[..., 2] - u[..., 0]) * (u[..., 2] - u[..., 1])) ** 2
    log = jax.jit(en.CoulombGas(3, 0.8, 0.3, 2.0).log_normaliser)()
    np.testing.assert_allclose(np.exp(log), 0.8**3 * (w * squares).sum(), rtol=1e-11)

    nodes, weights = np.polynomial.laguerre.laggauss(12)
    t = 2 * 0.6**2
    x, v, y = np.meshgrid(nodes * t / 3, nodes * t / 2, nodes * t, indexing="ij")
    levels = np.stack([x, x + v, x + v + y], -1)
    inside = np.exp(en.LaguerreGas(3, 6.0, 0.6).log_prob(levels) + levels.sum(-1) / t)
    total = np.einsum("i,j,k,ijk", weights, weights, weights, inside) * t**3 / 6
    np.testing.assert_allclose(total, 1.0, rtol=1e-11)


@pytest.mark.slow
def test_draws_are_those_of_dense_matrices():
    """<sum x^2> = nu; mean levels of W^T W for W (7, 4); beta = 2 against Hermitian matrices."""
    key, rng = jax.random.key(1), np.random.default_rng(1)
    x = np.asarray(en.CoulombGas(20, 1.0).sample(key, (1000,)))
    assert (np.diff(x) > 0).all()
    squares = (x**2).sum(-1)
    assert abs(squares.mean() - 210) < 4 * squares.std() / np.sqrt(1000)
    np.testing.assert_allclose(squares.var(), 2 * 210, rtol=0.2)  # chi-squared

    W = rng.normal(size=(10_000, 7, 4))
    dense = np.linalg.eigvalsh(W.swapaxes(1, 2) @ W)
    x = np.asarray(en.LaguerreGas(4, 7.0, 1.0).sample(key, (10_000,)))
    error = np.sqrt((dense.var(0) + x.var(0)) / 10_000)
    assert (abs(x.mean(0) - [1.316, 3.793, 7.852, 14.964]) < 4 * error).all()
    assert (abs(dense.mean(0) - x.mean(0)) < 4 * error).all()

    real, imaginary = rng.normal(size=(2, 5000, 3, 3))
    H = real + 1j * imaginary
    dense = np.linalg.eigvalsh((H + H.conj().swapaxes(1, 2)) / 2)  # diagonal variance 1
    x = np.asarray(en.CoulombGas(3, 1.0, beta=2.0).sample(key, (5000,)))
    error = np.sqrt((dense.var(0) + x.var(0)) / 5000)
    assert (abs(dense.mean(0) - x.mean(0)) < 4 * error).all()


@pytest.mark.slow
def test_a_pair_has_the_wigner_surmise():
    x = np.asarray(en.CoulombGas(2, 1.0).sample(jax.random.key(2), (40_000,)))
    S = x[:, 1] - x[:, 0]
    for found, theory in ((S, np.sqrt(np.pi)), (S**2, 4.0), ((x**2).mean(1), 1.5)):
        assert abs(found.mean() - theory) < 3 * found.std() / np.sqrt(40_000)
    surmise = en.WignerSurmise(np.sqrt(np.pi))
    assert stats.kstest(S[:20_000], lambda s: np.asarray(surmise.cdf(s))).pvalue > 0.01
    np.testing.assert_allclose(surmise.variance, 4 - np.pi, rtol=1e-12)
    one = np.where(np.random.default_rng(2).random(20_000) < 0.5, *x[:20_000].T)
    assert stats.kstest(one, lambda v: np.asarray(en.two_level_density.cdf(v))).pvalue > 0.01


@pytest.mark.parametrize(
    "q, closed", [(0.0, stats.expon()), (1.0, stats.rayleigh(0, np.sqrt(2 / np.pi)))]
)
def test_brody_lies_between_poisson_and_the_surmise(q, closed):
    s = np.linspace(0.1, 3.0, 7)
    np.testing.assert_allclose(en.Brody(q).log_prob(s), closed.logpdf(s), rtol=1e-12)
    np.testing.assert_allclose(en.Brody(np.array([0.0, 0.5, 1.5])).mean, 1.0, rtol=1e-12)


def test_outside_the_support_densities_are_zero_and_derivatives_finite():
    """With and without validation, under jit and grad; the parameters too."""
    wrong = jnp.array([[1.0, 1.0, 2.0], [2.0, 1.0, 3.0], [-1.0, 1.0, 2.0], [jnp.nan, 1.0, 2.0]])

    @jax.jit
    @jax.vmap
    def both(x):
        def coulomb(x, scale, beta):
            return en.CoulombGas(3, scale, beta=beta, validate_args=False).log_prob(x)

        def laguerre(x, scale, beta):
            return en.LaguerreGas(3, 4.0, scale, beta, validate_args=True).log_prob(x)

        return [jax.value_and_grad(f, (0, 1, 2))(x, 1.0, 0.5) for f in (coulomb, laguerre)]

    (coulomb, slopes), (laguerre, more) = both(wrong)
    assert np.isneginf(laguerre).all() and np.isneginf(coulomb[np.array([0, 1, 3])]).all()
    assert np.isfinite(coulomb[2])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slopes, more)))
    with pytest.warns(UserWarning, match="flip them"):
        assert np.isneginf(en.CoulombGas(3, 1.0, validate_args=False).log_prob(np.array([3, 2, 1])))
    no_ties = en.CoulombGas(3, 1.0, beta=0.0, validate_args=False)
    assert np.isneginf(no_ties.log_prob(np.array([1.0, 1.0, 2.0])))
    np.testing.assert_allclose(
        no_ties.log_prob(np.array([0.5, 1.0, 2.0])),
        np.log(6) + stats.norm.logpdf([0.5, 1, 2]).sum(),
    )


def test_statistics_give_the_density_of_every_spectrum(spectra):
    for law in (en.CoulombGas(20, 0.35, 0.4, 1.3), en.LaguerreGas(20, 22.5, 0.3, 0.7)):
        x = spectra if isinstance(law, en.CoulombGas) else spectra - spectra.min() + 0.1
        given = en.IndependentSpectra(law, en.gas_statistics(x))
        each = law.log_prob(x)
        np.testing.assert_allclose(given.log_prob(x), each.sum(), rtol=1e-11)
        np.testing.assert_allclose(given.loo(x), each, rtol=1e-11)
        plain = en.IndependentSpectra(law, spectra=40)
        np.testing.assert_allclose(plain.log_prob(x), each.sum(), rtol=1e-11)
        with pytest.raises(ValueError, match="statistics belong to other levels"):
            given.log_prob(x + 0.01)
    many = en.IndependentSpectra(en.CoulombGas(20, 0.3, 0.5), spectra=20)
    np.testing.assert_array_equal(many.sample(jax.random.key(0), (2,)).reshape(40, 20), spectra)


def test_width_in_closed_form(spectra):
    """nu = 210: by hand for each kind of centre; two levels use their spacing alone."""
    centres = {0.5: 0.5, "shared": spectra.mean(), "each": spectra.mean(-1, keepdims=True)}
    for (loc, centre), fitted in zip(centres.items(), (0, 1, 40), strict=True):
        found = en.scale_posterior(spectra, loc, shape=2.0, rate=3.0)
        assert found.concentration == 2 + (210 * 40 - fitted) / 2
        np.testing.assert_allclose(found.rate, 3 + ((spectra - centre) ** 2).sum() / 2)
    pairs = spectra[:, 9:11]
    found, S = en.scale_posterior(pairs), np.diff(pairs)
    theta = stats.invgamma(40, scale=(S**2).sum() / 2)  # of 2 sigma^2, section on two levels
    np.testing.assert_allclose(2 * found.mean, theta.mean())
    np.testing.assert_allclose(4 * found.variance, theta.var())
    with pytest.raises(ValueError, match="no degree of freedom"):
        en.scale_posterior(np.ones((3, 1)) * [[1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    "law, parameters, support",
    [
        (en.semicircle, (2.0, 0.5), (-1.5, 2.5)),
        (en.two_level_density, (0.5, 0.3), (-6.0, 6.0)),
        *(
            pytest.param(en.marchenko_pastur, shape, (0.0, 10.0), marks=pytest.mark.slow)
            for shape in ((7, 4, 0.5), (4, 9, 0.5))
        ),
        (en.marchenko_pastur, (5, 5, 0.5), (0.0, 10.0)),
    ],
)
def test_a_density_its_integral_and_its_inverse(law, parameters, support):
    q = np.linspace(0.0, 1.0, 11)[1:-1]
    x = np.asarray(law.ppf(q, *parameters))
    np.testing.assert_allclose(law.cdf(x, *parameters), q, atol=1e-13)
    slope = jax.vmap(jax.grad(lambda v: law.cdf(v, *parameters)))(x)
    np.testing.assert_allclose(slope, law.pdf(x, *parameters), rtol=1e-9)
    inverse = jax.vmap(jax.grad(lambda v: law.ppf(v, *parameters)))(q)
    np.testing.assert_allclose(inverse * slope, 1.0, rtol=1e-9)
    ends = np.asarray(law.cdf(np.array([support[0] - 0.1, support[1] + 0.1]), *parameters))
    np.testing.assert_allclose(ends, [0.0, 1.0], atol=1e-12)


def test_moments_of_the_densities():
    x = np.linspace(-8, 8, 20_001)
    pair = np.asarray(en.two_level_density.pdf(x))
    np.testing.assert_allclose(integrate.simpson(pair * x**2, x=x), 1.5, rtol=1e-10)
    np.testing.assert_allclose(en.two_level_density.pdf(0.0), 0.282095, atol=5e-7)
    circle = np.asarray(en.semicircle.pdf(x, 4.0))
    np.testing.assert_allclose(integrate.trapezoid(circle * x**2, x), 4.0, rtol=1e-4)
    low, high = en.marchenko_pastur.edges(96, 128, 0.5)
    np.testing.assert_allclose(
        [low, high], 0.25 * (np.sqrt(128) + np.array([-1, 1]) * np.sqrt(96)) ** 2
    )


@pytest.mark.slow
def test_unfolded_spacings_of_large_matrices():
    """300 symmetric matrices (200, 200): the central 100 levels; ratios of smaller ones."""
    for n, r, error, edge in ((10, 0.5283, 0.003, 0.842), (50, 0.5307, 0.002, 0.948)):
        x = np.asarray(en.CoulombGas(n, 1.0).sample(jax.random.key(n), (2000,)))
        np.testing.assert_allclose(np.mean(en.spacing_ratios(x)), r, atol=2 * error)
        np.testing.assert_allclose(x[:, -1].mean() / np.sqrt(2 * n), edge, atol=0.003)
    x = np.asarray(en.CoulombGas(200, 1.0).sample(jax.random.key(4), (300,)))
    np.testing.assert_allclose(x[:, -1].mean() / np.sqrt(400), 0.9817, atol=0.002)
    middle = slice(50, 150)
    for options in (dict(loc=0.0, scale=1.0), {}):
        found = en.unfold(x, "semicircle", **options)
        s = np.diff(np.asarray(found.levels)[:, middle])
        np.testing.assert_allclose([s.mean(), s.var()], [1.0016, 0.2873], atol=0.006)
        neighbours = np.corrcoef(s[:, :-1].ravel(), s[:, 1:].ravel())[0, 1]
        np.testing.assert_allclose(neighbours, -0.273, atol=0.02)
        s = s.ravel() / s.mean()
        distance = stats.kstest(s, lambda v: 1 - np.exp(-np.pi * v**2 / 4)).statistic
        assert abs(distance - 0.0082) < 3 * 0.0013
        np.testing.assert_allclose(stats.kstest(s, "expon").statistic, 0.210, atol=0.01)
    r = np.asarray(en.spacing_ratios(x)).mean()
    np.testing.assert_allclose(r, 0.5302, atol=0.003)
    polynomial = np.asarray(en.unfold(x, "polynomial", degree=9).levels)
    s = np.diff(polynomial[:, middle])
    np.testing.assert_allclose([s.mean(), s.var()], [1.0, 0.287], atol=0.02)


def test_ratios_of_spacings():
    gen = np.random.default_rng(5)
    G = gen.normal(size=(20_000, 3, 3))
    r = np.asarray(en.spacing_ratios(np.linalg.eigvalsh(G + G.swapaxes(1, 2))))
    np.testing.assert_allclose(r.mean(), 4 - 2 * np.sqrt(3), atol=3 * r.std() / np.sqrt(20_000))
    r = np.asarray(en.spacing_ratios(np.sort(gen.random((3000, 100)))))
    np.testing.assert_allclose(r.mean(), 0.3858, atol=0.003)
    np.testing.assert_allclose(en.spacing_ratios(np.array([4, 2, 1])), [0.5])


@pytest.mark.slow
def test_methods_of_unfolding(spectra):
    ensemble = en.unfold(spectra)
    gaps = np.diff(spectra)
    np.testing.assert_allclose(ensemble.mean, gaps.mean(0))
    np.testing.assert_allclose(ensemble.spacings, gaps / gaps.mean(0))
    plain = en.unfold(spectra[:, ::-1], "none")
    np.testing.assert_allclose(plain.levels, spectra)
    np.testing.assert_allclose(np.mean(plain.spacings), 1.0)
    x = 0.09 * np.asarray(en.LaguerreGas(20, 30.0, 1.0).sample(jax.random.key(0), (40,)))
    for options in (dict(method="mp", scale=0.3), dict(method="mp-fit")):
        found = np.asarray(en.unfold(x, shape=(30, 20), **options).levels)
        np.testing.assert_allclose(found.mean(0), np.arange(20) + 0.5, atol=0.35)
    with pytest.warns(UserWarning, match="degree of at most 4"):
        en.unfold(spectra, "polynomial", degree=7)


def test_null_is_the_law_of_white_matrices():
    """Mean and largest level; distance of 96 x 128 from Marchenko and Pastur is .025 on average."""
    null = np.asarray(en.marchenko_pastur_null(96, 128, 300, 0)) / 128
    assert null.shape == (300, 96) and (np.diff(null) > 0).all()
    np.testing.assert_allclose(null.mean(), 1.0, rtol=2e-3)
    W = np.random.default_rng(0).normal(size=(300, 96, 128)) / np.sqrt(128)
    dense = np.linalg.eigvalsh(W @ W.swapaxes(1, 2))
    error = np.sqrt((null.var(0) + dense.var(0)) / 300)
    assert (abs(null.mean(0) - dense.mean(0)) < 4.5 * error).all()


@pytest.mark.parametrize(
    "m, n, distance",
    [
        (96, 128, 0.0251),
        (128, 64, 0.0341),
        pytest.param(300, 300, 0.0095, marks=pytest.mark.slow),
    ],
)
def test_levels_of_white_matrices_are_rigid(m, n, distance):
    """Mean distance from Marchenko and Pastur of 100 draws; independent ones: .139, .170, .079."""
    null, q = np.asarray(en.marchenko_pastur_null(m, n, 100, 0)), min(m, n)
    law = np.asarray(en.marchenko_pastur.cdf(null, m, n))
    steps = np.arange(q + 1) / q
    found = np.maximum(law - steps[:-1], steps[1:] - law).max(-1)
    assert abs(found.mean() - distance) < 4 * found.std() / np.sqrt(100) < 0.1 * distance


def test_levels_come_in_many_forms():
    """Lists, integers and tables count as arrays; 32-bit floats stay, and batches broadcast."""
    off = {"validate_args": False}
    x = [0, 1, 3]
    given = en.CoulombGas(3, 1.0).log_prob(np.array(x, float))
    for same in (x, np.array(x), np.array(x, object)):
        np.testing.assert_array_equal(en.CoulombGas(3, 1).log_prob(same), given)
    narrow = en.CoulombGas(3, *np.ones(3, np.float32), **off).log_prob(np.array(x, np.float32))
    assert narrow.dtype == np.float32
    law = en.CoulombGas(3, np.ones((2, 1)), 0.2, np.array([0.0, 1, 2]), **off)
    drawn = jax.eval_shape(lambda: law.sample(0))
    assert law.log_prob(x).shape == drawn.shape[:-1] == (2, 3)
    one = en.CoulombGas(1, 0.5, 0.2, **off).log_prob([0.3])
    np.testing.assert_allclose(one, stats.norm(0.2, 0.5).logpdf(0.3))
    one = en.LaguerreGas(1, 3.5, 0.5, **off).log_prob([0.3])
    np.testing.assert_allclose(one, stats.chi2(3.5, scale=0.25).logpdf(0.3))
    each = jax.vmap(lambda s: en.IndependentSpectra(en.CoulombGas(3, s), STATISTICS).log_prob(SETS))
    np.testing.assert_allclose(each(np.ones(2)), en.CoulombGas(3, 1.0).log_prob(SETS).sum())


def test_in_32_bits_a_gas_warns(monkeypatch):
    monkeypatch.setattr(_checks, "_warned", set())
    with jax.enable_x64(False), pytest.warns(RuntimeWarning, match="a gas of levels runs in 32"):
        en.CoulombGas(3, 1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: en.CoulombGas(3, -1.0), "CoulombGas scale must be positive"),
        (lambda: en.CoulombGas(3, 1.0, beta=-0.5), "beta must be >= 0"),
        (
            lambda: en.LaguerreGas(3, 1.5, 1.0),
            "needs beta > 0 and dof > n-1, got beta=1.0, dof=1.5",
        ),
        (lambda: en.LaguerreGas(3, 4.0, 1.0, 0.0), "needs beta > 0 and dof > n-1"),
        (lambda: en.CoulombGas(3, 1.0).log_prob(np.ones(4)), "law of 3 levels"),
        (lambda: en.gas_statistics(np.array([[3.0, 2.0, 1.0]])), "flip them"),
        (lambda: en.gas_statistics(np.array([[1.0, 3.0, 2.0]])), "not sorted"),
        (lambda: en.gas_statistics(np.array([1.0, 2.0, 2.0])), "equal levels at indices 1,2"),
        (lambda: en.spacing_ratios(np.array([1.0, 2.0])), "at least 3 levels, got 2"),
        (lambda: en.unfold(np.ones((4, 1))), "at least 2 entries along the level axis"),
        (lambda: en.unfold(np.arange(5.0), "mp"), "needs shape"),
        (lambda: en.unfold(np.arange(5.0), "mp-fit", shape=(2, 9)), "with 5 on the smaller side"),
        (lambda: en.unfold(np.arange(5.0), loc=1.0), "method 'ensemble' has no loc"),
        (lambda: en.unfold(np.array([1.0, 3.0, 2.0, 3.0])), "not sorted, see index"),
        (lambda: en.gas_statistics(np.ones((0, 3))), "levels is empty"),
        (lambda: en.scale_posterior(np.ones((2, 2, 3))), "1 or 2 dimension"),
        (lambda: en.CoulombGas(3, 1.0).log_prob([1.0, np.inf, 2.0]), "non-finite"),
        (
            lambda: en.IndependentSpectra(en.CoulombGas(3, 1.0), STATISTICS).log_prob(
                SETS + [[0, 0.1, 0], [0, -0.1, 0]]
            ),
            "other levels: their scatter",
        ),
        (
            lambda: en.IndependentSpectra(
                en.CoulombGas(3, 1.0), en.gas_statistics(np.stack([SETS, SETS]))
            ),
            r"statistics are of \(2,\) sets",
        ),
        (lambda: en.IndependentSpectra(en.CoulombGas(3, 1.0)), "either statistics"),
        (lambda: en.IndependentSpectra(en.CoulombGas(3, np.ones(2)), spectra=2), "batch shape"),
        (lambda: en.semicircle.ppf(1.5, 1.0), "q must lie from 0 to 1"),
        (lambda: en.CoulombGas(3, 1.0 + 1j), "is complex"),
        (lambda: en.Brody(-1.0), "q must be above -1"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    statistics = en.gas_statistics(np.arange(4))
    with pytest.raises(ValueError, match="give the law n=4"):
        en.IndependentSpectra(en.CoulombGas(3, 1.0), statistics)
