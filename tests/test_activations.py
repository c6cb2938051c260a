# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference
from scipy.integrate import quad
from scipy.special import erf, expit, ndtr

from bayesrg import theory
from bayesrg._activations import (
    ACTIVATIONS,
    DUALS,
    activation_function,
    gaussian_moments,
    gaussian_product,
    is_odd,
    resolve,
)
from bayesrg.theory.hermite import warn_clipped

NUMPY = {
    "relu": lambda x: max(x, 0.0),
    "erf": erf,
    "linear": lambda x: x,
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "abs": abs,
    "erf_sqrt2": lambda x: erf(x / np.sqrt(2)),
    "sin": np.sin,
    "cos": np.cos,
    "step": lambda x: float(x > 0),
    "sign": np.sign,
    "gelu": lambda x: x * ndtr(x),
    "tanh": np.tanh,
    "sigmoid": expit,
    "silu": lambda x: x * expit(x),
    "softplus": lambda x: np.logaddexp(x, 0),
    "softsign": lambda x: x / (1 + abs(x)),
    "elu": lambda x: x if x > 0 else np.expm1(x),
    "hard_tanh": lambda x: min(max(x, -1.0), 1.0),
}
ODD = {"erf", "linear", "erf_sqrt2", "sin", "sign", "tanh", "softsign", "hard_tanh"}


def adaptive(f, r, h, breaks=(-1.0, 0.0, 1.0)):
    """The four moments by adaptive quadrature between points where functions bend."""
    s = np.sqrt(r)
    ends = sorted({-12.0, 12.0, *np.clip([(b - h) / s for b in breaks], -12, 12), -h / (s + 1)})

    def mean(g):
        total = 0.0
        for low, high in zip(ends[:-1], ends[1:], strict=True):
            total += quad(
                lambda z: g(z, f(h + s * z)) * np.exp(-z * z / 2), low, high,
                epsabs=1e-14, epsrel=1e-13, limit=200,
            )[0]  # fmt: skip
        return total / np.sqrt(2 * np.pi)

    a0 = mean(lambda z, v: v)
    k1 = mean(lambda z, v: z * v) / s
    k2 = mean(lambda z, v: (z * z - 1) * v) / r
    return a0, k1, k2, mean(lambda z, v: (v - a0 - k1 * s * z) ** 2)


def numbers(activation, r, h=0.0):
    """The four moments at points, whose number is filled up to four: one program a function."""
    r, h = np.broadcast_arrays(*np.atleast_1d(r, h))
    found = theory.hermite(activation, np.resize(r, 4).astype(float), np.resize(h, 4).astype(float))
    return np.stack([found.a0, found.k1, found.k2, found.ks2])[:, : r.size]


# closed forms with a kink, of a smooth function and with a jump; quadrature without and with kinks
KINDS = "relu", "erf", "step", "tanh", "hard_tanh"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in ACTIVATIONS]
)
def test_moments_are_those_of_adaptive_quadrature(name):
    points = [(1.0, 0.0), (0.3, 0.7), (4.0, -2.3)]
    ours = numbers(name, *np.array(points).T)
    for column, (r, h) in zip(ours.T, points, strict=True):
        np.testing.assert_allclose(column, adaptive(NUMPY[name], r, h), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "name, r, a0, k1, ks2",
    [
        ("erf", 1.0, 0.0, 0.6514700159, 0.0401458728),
        ("relu", 1.0, 0.3989422804, 0.5, 0.0908450569),
        ("gelu", 1.0, 0.2820947918, 0.5, 0.0956440110),
        ("sin", 1.0, 0.0, 0.6065306597, 0.0644529172),
        ("tanh", 1.0, 0.0, 0.6057055096, 0.0274153260),
        ("silu", 1.0, 0.2066209641, 0.5, 0.0630832970),
        ("tanh", 0.3, 0.0, 0.8027366125, 0.0039475668),
        ("tanh", 2.5, 0.0, 0.4411785697, 0.0722251044),
    ],
)
def test_reference_numbers(name, r, a0, k1, ks2):
    found = numbers(name, r)[[0, 1, 3], 0]
    np.testing.assert_allclose(found, [a0, k1, ks2], rtol=0, atol=5e-11)


def test_closed_forms_of_the_second_moment():
    """What the quadrature of ks2 adds up to, at zero mean, where a closed form is known."""
    r = np.array([0.01, 1.0, 7.0, 60.0])
    square = {
        "erf": 2 / np.pi * np.arcsin(2 * r / (1 + 2 * r)),
        "erf_sqrt2": 2 / np.pi * np.arcsin(r / (1 + r)),
        "gelu": r / 4
        + r / (2 * np.pi) * (np.arcsin(r / (1 + r)) + 2 * r / ((1 + r) * np.sqrt(1 + 2 * r))),
    }
    for name, expected in square.items():
        a0, k1, _, ks2 = numbers(name, r)
        np.testing.assert_allclose(ks2 + a0**2 + r * k1**2, expected, rtol=1e-13)
    # with a mean: the printed forms of relu's second moment
    h, s = 0.4, np.sqrt(r)
    a0, k1, _, ks2 = numbers("relu", r, h)
    g = np.exp(-(h**2) / r / 2) / np.sqrt(2 * np.pi)
    expected = (h**2 + r) * ndtr(h / s) + h * s * g
    np.testing.assert_allclose(ks2 + a0**2 + r * k1**2, expected, rtol=1e-13)


@pytest.mark.parametrize("r", [10.0, 30.0, 100.0, 1000.0])
def test_sharp_functions_keep_their_digits(r):
    """tanh(sqrt(r) z) turns within a small part of a standard deviation: a uniform rule fails."""
    ours = numbers("tanh", r)[:, 0]
    s = np.sqrt(r)
    # E tanh' and E tanh^2 = 1 - E tanh' over the width of the step, where tanh' lives
    x = np.arange(-4000, 4001) * 0.01
    k1 = (np.exp(-(x**2) / (2 * r)) / np.cosh(x) ** 2).sum() * 0.01 / (s * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(ours[1], k1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(ours[3], 1 - k1 - r * k1**2, rtol=0, atol=1e-11 if r < 500 else 1e-9)


def test_a_callable_is_what_its_name_is():
    r, h = np.array([0.2, 1.0, 9.0]), np.array([0.0, -0.5, 2.0])
    for name in ("relu", "step", "gelu"):
        function = activation_function(name)
        ours = numbers(lambda x, f=function: f(x), r, h)
        np.testing.assert_allclose(ours, numbers(name, r, h), rtol=0, atol=1e-12)
    # kinks elsewhere are told
    kinked = theory.Activation(lambda x: jnp.where(x > 1.5, x - 1.5, 0.0), kinks=(1.5,))
    np.testing.assert_allclose(
        numbers(kinked, r, h), numbers("relu", r, h - 1.5), rtol=0, atol=1e-12
    )
    assert activation_function(jnp.tanh) is activation_function("tanh")


def test_small_variances():
    h = 0.7
    for name, f1, f2 in (
        ("tanh", 1 / np.cosh(h) ** 2, -2 * np.tanh(h) / np.cosh(h) ** 2),
        ("softplus", expit(h), expit(h) * expit(-h)),
    ):
        r = np.array([0.0, 1e-12, 1.4e-8, 1.6e-8])
        ours = numbers(name, r, h)
        near = np.stack([NUMPY[name](h) + r * f2 / 2, f1 + 0 * r, f2 + 0 * r, r**2 * f2**2 / 2])
        np.testing.assert_allclose(ours, near, rtol=0, atol=1e-6)
        np.testing.assert_allclose(ours[0], near[0], rtol=0, atol=1e-15)
        np.testing.assert_allclose(ours[1], near[1], rtol=0, atol=1e-7)
    # a kink at the mean has limits that are no derivatives
    np.testing.assert_allclose(numbers("relu", 0.0)[:, 0], [0.0, 0.5, 0.0, 0.0])
    np.testing.assert_allclose(numbers("relu", 1e-20)[:2, 0], [1e-10 / np.sqrt(2 * np.pi), 0.5])
    np.testing.assert_allclose(numbers("relu", 0.0, [-1.0, 2.0])[:2], [[0.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(numbers("step", 0.0, [-1.0, 2.0])[0], [0.0, 1.0])
    np.testing.assert_allclose(numbers("sign", 1e-8)[3, 0], 1 - 2 / np.pi, rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["relu", "elu", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sin", "gelu"))]
)
def test_derivatives_in_mean_and_variance(name):
    def total(x):
        found = theory.hermite(name, x[0], x[1])
        return found.a0 + 2 * found.k1 + 3 * found.k2 + 4 * found.ks2

    both = jax.jit(jax.value_and_grad(total))
    for at in ([0.8, 0.3], [3.0, -1.0]):
        numeric = central_difference(lambda x: float(both(x)[0]), np.array(at))
        np.testing.assert_allclose(both(np.array(at))[1], numeric, rtol=1e-6, atol=1e-8)
    for at in ([0.0, 0.0], [0.0, 0.4], [1e-12, 0.4]):
        assert np.isfinite(both(np.array(at))[1]).all(), at


def test_derivatives_at_no_variance():
    slope = jax.jit(jax.grad(lambda r: theory.hermite("softplus", r, 0.7).a0))(0.0)
    np.testing.assert_allclose(slope, expit(0.7) * expit(-0.7) / 2, rtol=1e-12)


@pytest.mark.slow
def test_shapes_and_transformations():
    r, h = np.ones((3, 1)), np.linspace(-1, 1, 4)
    found = theory.hermite("silu", r, h)
    assert found.ks2.shape == (3, 4)
    mapped = jax.jit(jax.vmap(lambda m: theory.hermite("silu", 1.0, m)))(h)
    np.testing.assert_allclose(mapped.k1, np.asarray(found.k1)[0], rtol=1e-13)


def test_parity():
    assert {name for name in ACTIVATIONS if is_odd(name)} == ODD
    assert is_odd(lambda x: x**3) and not is_odd(lambda x: x**3 + 1e-9)


def test_duals_are_those_of_the_kernels():
    closed = {"relu", "leaky_relu", "abs", "erf", "erf_sqrt2", "sin", "cos", "step", "sign"}
    assert set(DUALS) == closed | {"linear"}
    assert all(ACTIVATIONS[name].dual is dual for name, dual in DUALS.items())


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_products_of_two_are_the_duals(name):
    r, q = 0.7, 2.1
    c = np.array([-1.0, -0.999999, -0.4, 0.0, 0.4, 0.9, 1.0]) * np.sqrt(r * q)
    f = resolve(name)
    ours = jax.jit(lambda c: gaussian_product(f, f, r, q, c, 0.0, 0.0))(c)
    ours, expected = np.asarray(ours), np.asarray(jax.jit(DUALS[name].covariance)(r, q, c))
    # a kink rounded off over a thousandth of a deviation is seen less sharply
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    clear = np.array([0, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(ours[clear], expected[clear], rtol=0, atol=1e-12)


def test_products_of_different_functions_at_a_mean():
    """E f(u) g(v) on a product grid of two independent Gaussians."""
    f, g = resolve("tanh"), resolve("silu")
    r, q, c, h, m = 1.3, 0.6, 0.5, 0.4, -0.8
    x, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    L = np.linalg.cholesky([[r, c], [c, q]])
    u, v = h + L[0, 0] * x[:, None], m + L[1, 0] * x[:, None] + L[1, 1] * x
    expected = w @ (np.tanh(u) * v * expit(v)) @ w
    product = jax.jit(lambda *x: gaussian_product(f, g, *x))
    np.testing.assert_allclose(product(r, q, c, h, m), expected, rtol=1e-9)
    # nothing varies
    still = product(0.0, 0.0, 0.0, h, m)
    np.testing.assert_allclose(still, np.tanh(h) * m * expit(m), rtol=1e-12)


def test_clipping_is_told():
    with pytest.warns(UserWarning, match="ks2 was negative by 1.0e-09"):
        warn_clipped(jnp.array([0.0, 1e-9]))
    assert theory.hermite("linear", 3.0, 1e3).ks2 == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.hermite("swish", 1.0), "activation must be one of 'relu', 'erf'.*'swish'"),
        (lambda: theory.hermite(3, 1.0), "or an elementwise callable, got 3"),
        (lambda: theory.hermite("relu", -1.0), "variance must be non-negative"),
        (lambda: theory.hermite("relu", 1.0, np.nan), "mean contains non-finite"),
        (lambda: theory.hermite(jax.nn.softmax, 1.0), "mixes the elements of its input"),
        (lambda: theory.hermite(jnp.sum, 1.0), r"maps shape \(2, 3\) to \(\)"),
        (lambda: theory.hermite(lambda x: float(x), 1.0), "fails on a traced array"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@jax.jit
def moments_at_a_kink(variance):
    at = variance, jnp.zeros(())
    return (
        gaussian_moments(resolve(jax.nn.relu), *at), gaussian_moments(resolve("relu"), *at),
        gaussian_moments(resolve(jnp.tanh), *at),
        gaussian_moments(resolve("hard_tanh"), 1e-5 * variance, jnp.ones(())),
    )  # fmt: skip


@pytest.mark.parametrize("variance", [0.0, 1e-30, 1e-9, 1e-4])
def test_a_kink_met_by_a_small_variance(variance):
    """A callable is integrated across its kink, and agrees with the closed form of its name."""
    found, named, smooth, step = moments_at_a_kink(variance)
    for a, b in zip(found[:4], named[:4], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-29)
    if variance == 1e-4:  # a step of variance 1e-9
        np.testing.assert_allclose(step.k1, 0.5, rtol=1e-11)
    np.testing.assert_allclose(smooth.k1, 1.0 - variance, rtol=1e-7)
