# SPDX-License-Identifier: Apache-2.0
"""Derivatives of stationary kernels by matrix products, against those of the subtracted form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference

from bayesrg.kernels import RBF, Matern12, Matern32, Matern52, RationalQuadratic
from bayesrg.kernels.rows import squared_distance

CLASSES = RBF, Matern12, Matern32, Matern52, RationalQuadratic
PROFILES = {  # profile at r, and its derivative in r^2, by NumPy
    "RBF": (lambda r: np.exp(-(r**2) / 2), lambda r: -np.exp(-(r**2) / 2) / 2),
    "Matern12": (lambda r: np.exp(-r), lambda r: -np.exp(-r) / (2 * np.where(r > 0, r, np.inf))),
    "Matern32": (
        lambda r: (1 + 3**0.5 * r) * np.exp(-(3**0.5) * r),
        lambda r: -1.5 * np.exp(-(3**0.5) * r),
    ),
    "Matern52": (
        lambda r: (1 + 5**0.5 * r + 5 * r**2 / 3) * np.exp(-(5**0.5) * r),
        lambda r: -5 / 6 * (1 + 5**0.5 * r) * np.exp(-(5**0.5) * r),
    ),
    "RationalQuadratic": (lambda r: 1 / (1 + r**2 / 2), lambda r: -0.5 / (1 + r**2 / 2) ** 2),
}


def rows(d, offset):
    """Rows of which two are equal, two are 1e-7 apart, and the others are scattered."""
    rng = np.random.default_rng(d)
    X = rng.standard_normal((9, d))
    X[1] = X[0]
    X = X + offset
    X[3] = X[2] + 1e-7 * rng.standard_normal(d)
    lengthscale, weights = rng.uniform(1, 2, d) * d**0.5, rng.standard_normal((9, 9))
    return X, lengthscale, weights


@jax.jit
def ask(X, lengthscale, weights):
    def value(cls, X, lengthscale):
        return (weights * cls(lengthscale)(X)).sum()

    return [jax.value_and_grad(value, (1, 2))(cls, X, lengthscale) for cls in CLASSES]


def subtracted(name, X, lengthscale, weights):
    """Value and gradients of the sum of weights times the kernel, from all differences."""
    profile, slope = PROFILES[name]
    difference = (X[:, None] - X) / lengthscale
    r = np.sqrt((difference**2).sum(-1))
    pulled = (weights * slope(r))[..., None] * 2 * difference / lengthscale
    in_inputs = pulled.sum(1) - pulled.sum(0)
    return (weights * profile(r)).sum(), in_inputs, -(pulled * difference).sum((0, 1))


def rounding(X, lengthscale, weights):
    """Rounding error of gradients of Matern12, whose slope is 1 / (2 r) at a small distance r.

    It multiplies the error of products of centred inputs, a few eps |x|^2.
    """
    scaled = (X - np.median(X, 0)) / lengthscale
    nearest = np.sqrt((((X[2] - X[3]) / lengthscale) ** 2).sum())
    size = (scaled**2).sum(1).max() * np.abs(weights).max()
    return 4 * np.finfo(float).eps * size / (2 * nearest)


@pytest.mark.parametrize("offset", [0.0, 2000.0, 1e6])
@pytest.mark.parametrize("d", [1, 8, *(pytest.param(d, marks=pytest.mark.slow) for d in (2, 40))])
def test_gradients_are_those_of_the_subtracted_form(d, offset):
    X, lengthscale, weights = rows(d, offset)
    found = ask(X, lengthscale, weights)
    for cls, (value, slopes) in zip(CLASSES, found, strict=True):
        right = subtracted(cls.__name__, X, lengthscale, weights)
        np.testing.assert_allclose(value, right[0], rtol=1e-12)
        atol = rounding(X, lengthscale, weights) if cls is Matern12 else 1e-13
        for slope, expected in zip(slopes, right[1:], strict=True):
            np.testing.assert_allclose(slope, expected, rtol=1e-12, atol=atol)


@pytest.mark.parametrize("i", range(len(CLASSES)), ids=[cls.__name__ for cls in CLASSES])
def test_gradients_are_central_differences(i):
    X, lengthscale, weights = rows(8, 0.0)
    in_inputs, in_lengthscales = ask(X, lengthscale, weights)[i][1]
    difference = central_difference(lambda v: ask(X, v, weights)[i][0], lengthscale)
    np.testing.assert_allclose(in_lengthscales, difference, rtol=1e-6, atol=1e-8)
    if CLASSES[i] is not Matern12:  # the steps are wider than the distance of the nearest rows
        difference = central_difference(lambda v: ask(v, lengthscale, weights)[i][0], X)
        np.testing.assert_allclose(in_inputs, difference, rtol=1e-5, atol=1e-5)


def test_forward_and_mixed_derivatives_of_distances():
    X, lengthscale, weights = rows(8, 1e6)
    rng = np.random.default_rng(0)
    dX, dl = rng.standard_normal(X.shape), rng.standard_normal(8)

    def value(X, lengthscale):
        return (weights * squared_distance(X, X, lengthscale)).sum()

    def slope(X, lengthscale):
        return jax.jvp(value, (X, lengthscale), (dX, dl))[1]

    @jax.jit
    @jax.vmap
    def both(lengthscale):
        return slope(X, lengthscale), jax.jvp(lambda *a: slope(*a), (X, lengthscale), (dX, dl))[1]

    def exact(h):
        moved, scale = (X - X[0]) + h * dX, lengthscale + h * dl
        return (weights * (((moved[:, None] - moved) / scale) ** 2).sum(-1)).sum()

    first, second = both(jnp.stack([lengthscale, 2 * lengthscale]))
    h = 1e-3
    steps = exact(h), exact(0.0), exact(-h)
    np.testing.assert_allclose(first[0], (steps[0] - steps[2]) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(second[0], (steps[0] - 2 * steps[1] + steps[2]) / h**2, rtol=1e-4)


def test_no_array_has_an_entry_per_pair_and_column():
    X, lengthscale, _ = rows(8, 0.0)
    program = str(jax.make_jaxpr(jax.grad(lambda v: Matern52(v)(X).sum()))(lengthscale))
    assert "f64[9,9]" in program
    assert "9,9,8]" not in program


def test_in_32_bits_the_derivative_is_that_of_the_differences():
    X, lengthscale, weights = (v.astype(np.float32) for v in rows(8, 100.0))
    with jax.enable_x64(False):
        slope = jax.jit(jax.grad(lambda v: (weights * squared_distance(X, X, v)).sum()))(
            lengthscale
        )
    assert slope.dtype == np.float32
    X, lengthscale, weights = (v.astype(float) for v in (X, lengthscale, weights))
    squares = (X[:, None] - X) ** 2
    right = -2 * (weights[..., None] * squares).sum((0, 1)) / lengthscale**3
    np.testing.assert_allclose(slope, right, rtol=1e-4)
