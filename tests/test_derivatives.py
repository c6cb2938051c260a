# SPDX-License-Identifier: Apache-2.0
"""Second derivatives of kernels, in inputs and parameters at once, against 100 digits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mpmath import mp

from bayesrg import gp
from bayesrg.kernels import (
    DEQ,
    NNGP,
    NTK,
    RBF,
    Constant,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    RationalQuadratic,
    White,
)


def inner(x, z):
    return sum(v * w for v, w in zip(x, z, strict=True))


def square(x, z, lengthscale):
    return sum(((v - w) / lengthscale) ** 2 for v, w in zip(x, z, strict=True))


def rbf(x, z, lengthscale, variance):
    return variance * mpmath.exp(-square(x, z, lengthscale) / 2)


def matern(polynomial, scale):
    def value(x, z, lengthscale, variance):
        r = mpmath.sqrt(scale * square(x, z, lengthscale))
        return variance * polynomial(r) * mpmath.exp(-r)

    return value


def rational(x, z, lengthscale, variance, alpha):
    return variance * (1 + square(x, z, lengthscale) / (2 * alpha)) ** -alpha


def periodic(x, z, lengthscale, variance, period):
    pairs = zip(x, z, strict=True)
    total = sum(mpmath.sin(mpmath.pi * (v - w) / period) ** 2 for v, w in pairs)
    return variance * mpmath.exp(-2 * total / lengthscale**2)


def bent(q):
    def moments(a, b, c):
        s = mpmath.sqrt(max(a * b - c**2, 0))
        t = mpmath.atan2(s, c)
        relu, slope = (s + (mp.pi - t) * c) / (2 * mp.pi), (mp.pi - t) / (2 * mp.pi)
        return (1 - q) ** 2 * relu + q * c, (1 - q) ** 2 * slope + q

    return moments


def error_function(a, b, c):
    root = mpmath.sqrt((1 + 2 * a) * (1 + 2 * b))
    slope = 4 / mp.pi / mpmath.sqrt((1 + 2 * a) * (1 + 2 * b) - 4 * c**2)
    return 2 / mp.pi * mpmath.asin(2 * c / root), slope


def sine(a, b, c):
    size = mpmath.exp(-(a + b) / 2)
    return size * mpmath.sinh(c), size * mpmath.cosh(c)


def cosine(a, b, c):
    return sine(a, b, c)[::-1]


def network(moments, depth, tangent=False, normed=False):
    def value(x, z, weight, bias, *strength):
        d = len(x)
        a, b, c = (weight * inner(*pair) / d + bias for pair in ((x, x), (z, z), (x, z)))
        theta = c
        for layer in range(depth + bool(strength)):
            before, rate = (a, b, c, theta), mpmath.sqrt(a * b) if normed else 1
            one = [v / v if normed else v for v in (a, b)]
            V, slope = moments(*one, c / rate)
            a, b = (weight * moments(v, v, v)[0] + bias for v in one)
            c = weight * V + bias
            theta = c + weight * slope * theta / rate
            if strength and layer < depth:
                now = a, b, c, theta
                a, b, c, theta = (
                    u + strength[0] ** 2 * v for u, v in zip(before, now, strict=True)
                )
        return theta if tangent else c

    return value


def equilibrium(moments, tangent=False):
    def value(x, z, weight, own, bias):
        def solve(x, z, a=None, b=None):
            drive = own * inner(x, z) / len(x) + bias

            def imbalance(c):
                return c - drive - weight * moments(a or c, b or c, c)[0]

            return mpmath.findroot(imbalance, (drive, drive * mpmath.mpf("1.1")))

        a, b = solve(x, x), solve(z, z)
        c = solve(x, z, a, b)
        return c / (1 - weight * moments(a, b, c)[1]) if tangent else c

    return value


MATERN = (
    matern(lambda r: 1, 1),
    matern(lambda r: 1 + r, 3),
    matern(lambda r: 1 + r + r**2 / 3, 5),
)
CUSP = ("equal", "zeros")  # pairs with a second derivative along the diagonal only
CONE = ("zero", "zeros")
CASES = {  # kernel, what it is, columns, pairs that are left out
    "NNGP erf": (NNGP(2, "erf", 1.8, 0.2), network(error_function, 2), 3, ()),
}
SLOW = {
    "Matern32": (Matern32(0.8, 1.3), MATERN[1], 3, ()),
    "Matern52, wide": (Matern52(4.0, 1.3), MATERN[2], 20, ()),
    "Linear": (Linear(0.7, 0.2), lambda x, z, v, b: v * inner(x, z) + b, 3, ()),
    "NNGP relu": (NNGP(2, "relu", 1.8, 0.2), network(bent(0), 2), 3, ()),
    "NTK erf": (NTK(1, "erf", 1.8, 0.2), network(error_function, 1, True), 3, ()),
    "DEQ erf": (DEQ("erf", 0.5, 1.1, 0.2, train="all"), equilibrium(error_function, True), 3, ()),
    "Matern12": (Matern12(0.8, 1.3), MATERN[0], 3, CUSP),
    "Matern52": (Matern52(0.8, 1.3), MATERN[2], 3, ()),
    "Matern32, wide": (Matern32(4.0, 1.3), MATERN[1], 20, ()),
    "RBF": (RBF(0.8, 1.3), rbf, 3, ()),
    "RBF, wide": (RBF(4.0, 1.3), rbf, 20, ()),
    "RationalQuadratic": (RationalQuadratic(0.8, 1.3, 0.6), rational, 3, ()),
    "RationalQuadratic, wide": (RationalQuadratic(4.0, 1.3, 0.6), rational, 20, ()),
    "Periodic": (Periodic(0.8, 1.3, 2.1), periodic, 3, ()),
    "Constant": (Constant(1.3), lambda x, z, v: v, 3, ()),
    "White": (White(1.3), lambda x, z, v: v if x == z else 0 * v, 3, CUSP),
    "power": (RBF(0.8, 1.3) ** 3, lambda *a: rbf(*a) ** 3, 3, ()),
    "NNGP relu, no bias": (NNGP(2, "relu", 1.8), network(bent(0), 2), 3, CONE),
    "NNGP abs, no bias": (NNGP(2, "abs", 1.8), network(bent(-1), 2), 3, CONE),
    "NNGP erf, no bias": (NNGP(2, "erf", 1.8), network(error_function, 2), 3, ()),
    "NTK sin, residual": (NTK(1, "sin", 1.8, 0.2, skip=0.6), network(sine, 1, True), 3, ()),
    "NNGP relu, normalised": (
        NNGP(2, "relu", 1.8, 0.2, layernorm=True),
        network(bent(0), 2, normed=True),
        3,
        (),
    ),
    "NNGP leaky relu": (NNGP(1, "leaky_relu", 1.8, 0.2, slope=0.3), network(bent(0.3), 1), 3, ()),
    "NNGP abs": (NNGP(1, "abs", 1.8, 0.2), network(bent(-1), 1), 3, ()),
    "NNGP sin": (NNGP(2, "sin", 1.8, 0.2), network(sine, 2), 3, ()),
    "NTK cos": (NTK(2, "cos", 1.8, 0.2), network(cosine, 2, True), 3, ()),
    "NTK relu": (NTK(2, "relu", 1.8, 0.2), network(bent(0), 2, True), 3, CUSP),
    "DEQ relu": (DEQ("relu", 0.9, 1.1, 0.2), equilibrium(bent(0)), 3, ()),
}


def pairs(d):
    x, z, step = np.random.default_rng(0).normal(size=(3, d))
    return {
        "generic": (x, z), "equal": (x, x), "opposite": (x, -x), "near": (x, x + 1e-6 * step),
        "zero": (0 * x, z), "zeros": (0 * x, 0 * x),
    }  # fmt: skip


def second_derivatives(kernel, d, points, directions):
    """Of the kernel's value along every direction in x, z and all parameters."""
    structure = jax.tree.structure(kernel)

    def value(p):
        moved = jax.tree.unflatten(structure, list(p[2 * d :]))
        return moved.gram(p[None, :d], p[None, d : 2 * d])[0, 0]

    def second(p, v):
        return jax.jvp(lambda p: jax.jvp(value, (p,), (v,))[1], (p,), (v,))[1]

    return jax.jit(jax.vmap(second))(points, directions)


def high_precision(function, d, p, v):
    with mp.workdps(100):
        h, (p, v) = mpmath.mpf("1e-14"), ([mpmath.mpf(float(x)) for x in a] for a in (p, v))

        def at(step):
            q = [x + step * y for x, y in zip(p, v, strict=True)]
            return function(q[:d], q[d : 2 * d], *q[2 * d :])

        return float((at(h) - 2 * at(0) + at(-h)) / h**2)


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)])
def test_second_derivatives(name):
    kernel, function, d, without = (CASES | SLOW)[name]
    leaves = np.asarray(jax.tree.leaves(kernel))
    chosen = {k: np.concatenate([*v, leaves]) for k, v in pairs(d).items()}
    points = np.repeat(list(chosen.values()), 3, 0)
    names = np.repeat(list(chosen), 3)
    directions = np.random.default_rng(1).normal(size=points.shape)
    directions[:, 2 * d :] *= leaves > 0  # a variance of zero can only grow
    tied = np.isin(names, without) & np.isin(names, CUSP)
    directions[tied, d : 2 * d] = directions[tied, :d]
    kept = tied | ~np.isin(names, without)
    points, directions = points[kept], directions[kept]
    found = second_derivatives(kernel, d, jnp.asarray(points), jnp.asarray(directions))
    expected = [high_precision(function, d, *both) for both in zip(points, directions, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_mixed_derivatives_at_one_point():
    with mp.workdps(100):
        h = mpmath.mpf("1e-14")
        ends = [[mpmath.mpf(0.3) + h], [mpmath.mpf(0.3) - h]]
        pairs = [(1 if u is v else -1) * network(error_function, 1)(u, v, 2, 0)
                 for u in ends for v in ends]  # fmt: skip
        erf = float(sum(pairs) / (2 * h) ** 2)
    expected = {
        "Matern32": (Matern32(1.0), 3.0), "Matern52": (Matern52(1.0), 5 / 3),
        "Linear": (Linear(), 1.0), "relu": (NNGP(1), 2.0), "erf": (NNGP(1, "erf"), erf),
        "Periodic": (Periodic(1.0), 4 * np.pi**2),
    }  # fmt: skip

    def mixed(kernel, x):
        def value(x, z):
            return kernel.gram(x[None, None], z[None, None])[0, 0]

        return jax.grad(jax.grad(value), 1)(x, x)

    found = jax.jit(lambda x: [mixed(kernel, x) for kernel, _ in expected.values()])(0.3)
    np.testing.assert_allclose(found, [right for _, right in expected.values()], rtol=1e-13)


def test_derivative_in_a_bias_of_zero_at_a_zero_input():
    """With itself a row stands at no angle: each layer halves what comes from below, and adds 1."""
    zero = jnp.zeros((1, 2))

    def entries(b):
        return [
            k.gram(zero, zero)[0, 0] for k in (NTK(2, "relu", 1.0, b), DEQ("relu", 1.0, 1.0, b))
        ]

    np.testing.assert_allclose(jax.jit(jax.jacfwd(entries))(0.0), [1.75 + 1.0, 2.0], rtol=1e-14)


@pytest.mark.slow
def test_hessian_of_a_posterior_mean_at_a_training_point():
    x = np.linspace(0, 1, 12, endpoint=False)
    y = np.sin(2 * np.pi * x) + 0.3 * np.cos(8 * x)
    posterior = gp.condition(Matern52(0.5), x, y, 1e-2)

    def mean(x):
        return posterior.mean(x[None, None])[0]

    r = np.sqrt(5) * np.abs(x[:, None] - x) / 0.5
    K = (1 + r + r**2 / 3) * np.exp(-r)
    curvature = -20 / 3 * (1 + r - r**2) * np.exp(-r)
    right = curvature @ np.linalg.solve(K + 1e-2 * np.eye(12), y)
    found = jax.jit(jax.vmap(jax.hessian(mean)))(jnp.asarray(x))
    np.testing.assert_allclose(found, right, rtol=1e-10, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.2, 0.0])
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_second_derivatives_of_a_series(name, bias):
    """Against those of its one hidden layer, integrated on a grid of weights and biases."""
    z, w = np.polynomial.hermite_e.hermegauss(90)
    w, function = w / w.sum(), getattr(jax.nn, name)
    weights, biases = np.meshgrid(z, z, indexing="ij")

    def grid(p):
        x, y, weight, *b = p
        b = b[0] if b else 0.0
        root = jnp.sqrt(b) if bias else 0.0
        u, v = (jnp.sqrt(weight) * t * weights + root * biases for t in (x, y))
        slope = jax.vmap(jax.vmap(jax.grad(function)))
        V, dV = (w @ (f(u) * f(v)) @ w for f in (function, slope))
        return weight * V + b + weight * dV * (weight * x * y + b)

    def kernel(p):
        return NTK(1, name, p[2], p[3] if bias else 0.0, order=100).gram(p[:1, None], p[1:2, None])

    rest = [0.6, bias][: 2 if bias else 1]
    points = jnp.asarray([np.concatenate([*map(np.ravel, v), rest]) for v in pairs(1).values()])
    for derivative, rtol in ((jax.jacfwd, 1e-9), (jax.hessian, 2e-9)):
        found = jax.jit(jax.vmap(derivative(lambda p: kernel(p)[0, 0])))(points)
        right = jax.jit(jax.vmap(derivative(grid)))(points)
        np.testing.assert_allclose(found, right, rtol=rtol, atol=rtol)
