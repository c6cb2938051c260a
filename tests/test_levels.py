# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import kernels, rg, spectrum, theory
from bayesrg.spectrum import Levels, Spectrum, levels

VALUES, COUNTS, TAIL = np.array([1.0, 0.3, 0.05]), np.array([1.0, 3.0, 5.0]), 0.02
MODES = np.repeat(VALUES, COUNTS.astype(int))
N, RIDGE, POWER = 6, 0.05, np.array([0.5, 0.2, 0.1])
X = np.linspace(0.0, 1.0, 8)[:, None]
NEW = X + 0.05


class Toy(Spectrum):
    """Values that are given, and a residual that grows with the input."""

    values: jax.Array
    degeneracy: jax.Array
    outside: float

    @property
    def tail(self):
        return self.outside

    def features(self, X):
        return jnp.cos(jnp.asarray(X) * jnp.arange(len(self)))

    def residual(self, X):
        return 2 * self.outside * jnp.asarray(X)[:, 0]

    def residual_cov(self, X, Z=None):
        return jnp.diag(self.residual(X))


@pytest.fixture(scope="module")
def sample():
    return spectrum.nystrom(kernels.RBF(0.3), X, rank=3)


def toy(counts, tail):
    return Toy(jnp.asarray(VALUES), jnp.asarray(counts), tail)


def same(a, b):
    """Compare all numbers of two results."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(a) == len(b) > 0
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-15)


WITH_KEYWORDS = {
    "effective_ridge": lambda x, **k: rg.effective_ridge(x, N, RIDGE, **k),
    "dressed_ridge": lambda x, **k: rg.dressed_ridge(x, N, RIDGE, 2, **k),
    "universal_ridge": lambda x, **k: rg.universal_ridge(x, RIDGE, 2, **k),
    "learnability": lambda x, **k: rg.learnability(x, N, RIDGE, **k),
    "flow": lambda x, **k: rg.flow(x, N, RIDGE, **k),
    "learning_curve": lambda x, **k: theory.learning_curve(x, POWER, N, RIDGE, 0.1, **k),
    "two_stage_ridge": lambda x, **k: rg.two_stage_ridge(x, N, RIDGE, 4, **k),
    "coarse_learning_curve": lambda x, **k: theory.coarse_learning_curve(
        x, POWER, N, RIDGE, 4, 0.1, **k
    ),
    "cutoff, running": lambda x, **k: rg.cutoff(x, N, RIDGE, **k),
    "cutoff, match": lambda x, **k: rg.cutoff(x, N, RIDGE, "match", **k),
}


def slow_but(kinds, names):
    return [pytest.param(n, marks=() if n in kinds else pytest.mark.slow) for n in names]


KINDS = "effective_ridge", "flow", "learning_curve", "two_stage_ridge", "cutoff, match"


@pytest.mark.parametrize("name", slow_but(KINDS, WITH_KEYWORDS))
def test_each_form_of_the_first_argument_gives_the_same_numbers(name):
    call = WITH_KEYWORDS[name]
    bare = call(VALUES, degeneracy=COUNTS, tail=TAIL)
    same(bare, call(levels(VALUES, degeneracy=COUNTS, tail=TAIL)))
    same(bare, call(toy(COUNTS, TAIL)))
    same(bare, call(toy(COUNTS, 0.7), tail=TAIL))


# functions of values that have no keywords: here with and without a tail
ALONE = {
    "equivalent_kernel": lambda x: theory.equivalent_kernel(x, N, RIDGE),
    "scale_mixture_ridge": lambda x: rg.scale_mixture_ridge(x, N, RIDGE, 1, [0.5, 1.5]),
    "spectral_density": lambda x: theory.spectral_density(x, N, VALUES),
    "annealed_curve": lambda x: theory.annealed_curve(x, (3,), "tanh", 5, 0.1),
    "spectral_moments": lambda x: theory.spectral_moments(x, POWER),
    "gaussian_population": lambda x: theory.gaussian_population(x, POWER),
}
NO_TAIL = ("spectral_density", "annealed_curve", "spectral_moments", "gaussian_population")


@pytest.mark.parametrize(
    "name", slow_but(("equivalent_kernel", "spectral_density", "spectral_moments"), ALONE)
)
def test_functions_without_keywords_take_each_form(name):
    call, bare = ALONE[name], ALONE[name](VALUES)
    same(bare, call(levels(VALUES)))
    same(bare, call(toy(np.ones(3), 0.0 if name not in NO_TAIL else TAIL)))
    if name in NO_TAIL:
        with pytest.raises(ValueError, match="values are Levels with a tail"):
            call(levels(VALUES, tail=TAIL))
    if name in ("spectral_moments", "gaussian_population"):
        with pytest.raises(ValueError, match="one value per mode; leave degeneracy out"):
            call(levels(VALUES, degeneracy=COUNTS))


def test_levels_stand_for_their_modes():
    """Against the modes written out, and a tail against many modes that hold its variance."""
    whole = levels(VALUES, degeneracy=COUNTS)
    for name in ("scale_mixture_ridge", "spectral_density", "annealed_curve"):
        same(ALONE[name](whole), ALONE[name](MODES))
    many = levels([*VALUES, TAIL / 1e9], degeneracy=[*COUNTS, 1e9])
    mixture = ALONE["scale_mixture_ridge"](levels(VALUES, degeneracy=COUNTS, tail=TAIL)).value
    np.testing.assert_allclose(mixture, ALONE["scale_mixture_ridge"](many).value, rtol=1e-8)
    outside = theory.equivalent_kernel(levels(VALUES, tail=TAIL), N, RIDGE)
    same(outside, theory.equivalent_kernel(VALUES, N, RIDGE + TAIL))


def test_a_scale_multiplies_values_and_tail():
    """Ridges scale with the amplitude; a batch of scales makes a batch of levels."""
    whole = levels(VALUES, degeneracy=COUNTS, tail=TAIL)
    expected = levels(0.8 * VALUES, degeneracy=COUNTS, tail=0.8 * TAIL)
    for scale in (0.8, np.float64(0.8), np.asarray(0.8), jnp.asarray(0.8)):
        same(scale * whole, expected)
        same(whole * scale, expected)
        same(levels(scale * toy(COUNTS, TAIL)), expected)
    s = np.asarray(rg.effective_ridge(whole, N, RIDGE))
    np.testing.assert_allclose(rg.effective_ridge(0.8 * whole, N, 0.8 * RIDGE), 0.8 * s)
    batch = np.array([[1.0], [0.8]]) * whole
    assert batch.values.shape == (2, 1, 3) and batch.tail.shape == (2, 1) and len(batch) == 3
    kept = rg.cutoff(batch, np.array([1.0, 6.0, 99.0]), RIDGE)
    assert kept.shape == (2, 3)
    assert kept[1, 1] == rg.cutoff(0.8 * whole, 6.0, RIDGE)
    with pytest.raises(ValueError, match="the scale of levels must be non-negative"):
        -1.0 * whole


def test_a_scaled_spectrum_is_that_of_the_scaled_kernel(sample):
    scaled = 0.8 * sample
    other = spectrum.nystrom(0.8 * sample.kernel, X, rank=3)
    np.testing.assert_allclose(scaled.values, other.values, rtol=1e-10)
    np.testing.assert_allclose(scaled.residual(NEW), other.residual(NEW), atol=1e-12)
    np.testing.assert_allclose(scaled.residual_cov(NEW), other.residual_cov(NEW), atol=1e-12)
    here, there, v, w = jax.device_get(
        (scaled.features(NEW), other.features(NEW), scaled.values, other.values)
    )
    np.testing.assert_allclose((here * v) @ here.T, (there * w) @ there.T, atol=1e-12)
    assert scaled.tail is None and scaled.orthonormal and not scaled.complete
    assert (0.5 * spectrum.fourier(lambda j: (1 + j) ** -2.0, 3)).tail == 0
    with pytest.raises(ValueError, match="the scale of a spectrum must be non-negative"):
        scaled * -1.0


def test_a_flow_at_inputs_takes_modes_residual_and_tail_there(sample):
    y = np.sin(6 * NEW[:, 0])
    flow = rg.flow(0.8 * sample, 8, RIDGE, at=NEW, y=y)
    F, R, values = map(np.asarray, (sample.features(NEW), sample.residual_cov(NEW), sample.values))
    given, tail = {"features": F, "residual": 0.8 * R}, 0.8 * np.diag(R).mean()
    same(flow, rg.flow(0.8 * values, 8, RIDGE, y=y, tail=tail, **given))
    np.testing.assert_allclose(flow.tail[-1], tail)
    with pytest.raises(ValueError, match="at gives features and residual as well"):
        rg.flow(sample, 8, RIDGE, at=NEW, features=given["features"])


def test_which_tail_a_spectrum_has(sample):
    """Exact in closed form, else measured at inputs; without them a warning says that it is 0."""
    unit = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    ball = spectrum.sphere(kernels.RBF(0.7), 3, 2, radius=1.0)
    left = 1.0 - np.asarray(ball.values) @ ball.degeneracy
    np.testing.assert_allclose(levels(ball).tail, left, rtol=1e-12)
    np.testing.assert_allclose(levels(ball, at=unit).tail, left, rtol=1e-10)
    normal = spectrum.gaussian_rbf(1.0, 1.0, 3)
    left = 1.0 - np.asarray(normal.values).sum()
    np.testing.assert_allclose(levels(normal).tail, left, rtol=1e-12)
    with pytest.warns(
        UserWarning, match="NystromSpectrum does not know the variance outside"
    ) as seen:
        assert levels(sample).tail == 0
    assert seen[0].filename == __file__
    residual = np.asarray(sample.residual(NEW))
    np.testing.assert_allclose(levels(sample, at=NEW).tail, residual.mean())
    assert levels(sample, tail=0.3).tail == 0.3
    # the residual of the toy is twice the tail times X, whose mean is one half
    same(levels(toy(COUNTS, TAIL), at=X), levels(VALUES, degeneracy=COUNTS, tail=TAIL))
    moving = spectrum.functionals(sample, 2).at(kernels.RBF(0.5))
    with pytest.raises(ValueError, match="modes of a FunctionalSpectrum are not eigenfunctions"):
        levels(moving)


def test_levels_are_a_pytree_and_may_be_traced():
    whole = levels(VALUES, degeneracy=COUNTS, tail=TAIL)
    both = jax.tree.map(lambda x: np.stack([x, x]), whole)

    @jax.jit
    def ask(whole, both):
        cutoffs = jax.vmap(lambda x: rg.cutoff(x, N, RIDGE))(both)
        return cutoffs, jax.value_and_grad(rg.effective_ridge)(whole, N, RIDGE)

    cutoffs, (s, slope) = jax.device_get(ask(whole, both))
    np.testing.assert_array_equal(cutoffs, 9)
    assert s == rg.effective_ridge(whole, N, RIDGE)
    L = N * VALUES / (N * VALUES + s)
    np.testing.assert_allclose(slope.tail, 1 / (1 - COUNTS @ L**2 / N), rtol=1e-12)
    np.testing.assert_allclose(slope.values, slope.tail * COUNTS * (1 - L) ** 2, rtol=1e-12)
    law = jax.device_get(rg.power_law(1.0).levels(5))
    np.testing.assert_allclose(law.values.sum() + law.tail, np.pi**2 / 6, rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        (levels(VALUES), {"degeneracy": COUNTS, "tail": TAIL}, "degeneracy and tail cannot be"),
        (levels(VALUES), {"tail": 0.0}, "tail cannot be given with Levels, which hold"),
        (toy(COUNTS, TAIL), {"degeneracy": COUNTS}, "with a Spectrum, which has its own"),
        (toy(COUNTS, TAIL), {"at": X, "tail": TAIL}, "at and tail both give the variance"),
        (VALUES, {"at": X}, "at cannot be given with bare eigenvalues"),
        (VALUES[::-1], {}, "sorted in falling order"),
        ([1.0, -0.5], {}, "eigenvalues must be non-negative"),
        (VALUES, {"degeneracy": [1, 3]}, "one per level"),
        (VALUES, {"degeneracy": [1, 3, 0]}, "degeneracy must be positive"),
        (VALUES, {"tail": -0.1}, "tail must be non-negative"),
        ([VALUES, VALUES], {"tail": [1.0, 1.0, 1.0]}, "shapes do not fit together"),
    ],
)
def test_bad_input_is_named(values, given, message):
    with pytest.raises(ValueError, match=message):
        levels(values, **given)


def test_parts_of_a_cut():
    """A cutoff inside a level divides it; only the high part has the tail."""
    whole = levels(VALUES, degeneracy=COUNTS, tail=TAIL)
    low, high = jax.jit(lambda w: w.split(np.array([0, 2, 9])))(whole)
    np.testing.assert_array_equal(low.degeneracy, [[0, 0, 0], [1, 1, 0], [1, 3, 5]])
    np.testing.assert_array_equal(high.degeneracy, COUNTS - np.asarray(low.degeneracy))
    np.testing.assert_array_equal(low.values[1], [1.0, 0.3, 0.0])
    total = np.asarray(low.variance) + np.asarray(high.variance)
    np.testing.assert_allclose(total, [VALUES * COUNTS] * 3)
    assert low.tail == 0 and high.tail == TAIL and isinstance(low, Levels)
    with pytest.raises(ValueError, match="cutoff must be an integer between 0 and 9, got 10"):
        whole.split(10)
