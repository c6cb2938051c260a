# SPDX-License-Identifier: Apache-2.0
"""Second derivatives of kernels, in inputs and parameters at once, against 60 digits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mpmath import mp

import bayesrg as brg
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
from bayesrg.kernels.rows import squared_distance

rng = np.random.default_rng(0)


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


def network(moments, depth, tangent=False):
    def value(x, z, weight, bias):
        d = len(x)
        a, b, c = (weight * inner(*pair) / d + bias for pair in ((x, x), (z, z), (x, z)))
        theta = c
        for _ in range(depth):
            V, slope = moments(a, b, c)
            a, b = (weight * moments(v, v, v)[0] + bias for v in (a, b))
            c = weight * V + bias
            theta = c + weight * slope * theta
        return theta if tangent else c

    return value


def equilibrium(moments, tangent=False):
    def value(x, z, weight, own, bias):
        def solve(x, z, a=None, b=None):
            drive = own * inner(x, z) / len(x) + bias

            def imbalance(c):
                return c - drive - weight * moments(a or c, b or c, c)[0]

            return mpmath.findroot(imbalance, (drive, drive * mpf("1.1")))

        a, b = solve(x, x), solve(z, z)
        c = solve(x, z, a, b)
        return c / (1 - weight * moments(a, b, c)[1]) if tangent else c

    mpf = mpmath.mpf
    return value


MATERN = (
    matern(lambda r: 1, 1),
    matern(lambda r: 1 + r, 3),
    matern(lambda r: 1 + r + r**2 / 3, 5),
)
CUSP = ("equal", "zeros")  # pairs at which no second derivative exists
BOTH = (*CUSP, "opposite")
CASES = {  # kernel, what it is, columns, pairs that are left out
    "Matern32": (Matern32(0.8, 1.3), MATERN[1], 3, ()),
    "Matern52, wide": (Matern52(4.0, 1.3), MATERN[2], 20, ()),
    "RationalQuadratic, wide": (RationalQuadratic(4.0, 1.3, 0.6), rational, 20, ()),
    "Linear": (Linear(0.7, 0.2), lambda x, z, v, b: v * inner(x, z) + b, 3, ()),
    "NNGP relu": (NNGP(2, "relu", 1.8, 0.2), network(bent(0), 2), 3, ()),
    "NNGP erf": (NNGP(2, "erf", 1.8, 0.2), network(error_function, 2), 3, ()),
    "NTK erf": (NTK(1, "erf", 1.8, 0.2), network(error_function, 1, True), 3, ()),
    "DEQ erf": (DEQ("erf", 0.5, 1.1, 0.2, train="all"), equilibrium(error_function, True), 3, ()),
}
SLOW = {
    "Matern12": (Matern12(0.8, 1.3), MATERN[0], 3, CUSP),
    "Matern52": (Matern52(0.8, 1.3), MATERN[2], 3, ()),
    "Matern32, wide": (Matern32(4.0, 1.3), MATERN[1], 20, ()),
    "RBF": (RBF(0.8, 1.3), rbf, 3, ()),
    "RBF, wide": (RBF(4.0, 1.3), rbf, 20, ()),
    "RationalQuadratic": (RationalQuadratic(0.8, 1.3, 0.6), rational, 3, ()),
    "Periodic": (Periodic(0.8, 1.3, 2.1), periodic, 3, ()),
    "Constant": (Constant(1.3), lambda x, z, v: v, 3, ()),
    "White": (White(1.3), lambda x, z, v: mpmath.mpf(0), 3, CUSP),
    "power": (RBF(0.8, 1.3) ** 3, lambda *a: rbf(*a) ** 3, 3, ()),
    "NNGP leaky relu": (NNGP(1, "leaky_relu", 1.8, 0.2, slope=0.3), network(bent(0.3), 1), 3, ()),
    "NNGP abs": (NNGP(1, "abs", 1.8, 0.2), network(bent(-1), 1), 3, ()),
    "NNGP sin": (NNGP(2, "sin", 1.8, 0.2), network(sine, 2), 3, ()),
    "NTK cos": (NTK(2, "cos", 1.8, 0.2), network(cosine, 2, True), 3, ()),
    "NTK relu": (NTK(2, "relu", 1.8, 0.2), network(bent(0), 2, True), 3, BOTH),
    "DEQ relu": (DEQ("relu", 0.9, 1.1, 0.2), equilibrium(bent(0)), 3, ()),
}


def pairs(d):
    x, z = rng.normal(size=(2, d))
    near = x + 1e-6 * rng.normal(size=d)
    return {
        "generic": (x, z), "equal": (x, x), "opposite": (x, -x), "near": (x, near),
        "zero": (0 * x, z), "zeros": (0 * x, 0 * x),
    }  # fmt: skip


def second_derivatives(kernel, d, points, directions):
    """Of the kernel's value along every direction in x, z and all parameters."""
    structure = jax.tree.structure(kernel)

    def value(p):
        moved = jax.tree.unflatten(structure, list(p[2 * d :]))
        return moved.gram(p[None, :d], p[None, d : 2 * d])[0, 0]

    def second(p, v):
        def first(p):
            return jax.jvp(value, (p,), (v,))[1]

        return jax.jvp(first, (p,), (v,))[1]

    return jax.jit(jax.vmap(second))(points, directions)


def high_precision(function, d, p, v, h="1e-14"):
    with mp.workdps(60):
        h = mpmath.mpf(h)
        p, v = ([mpmath.mpf(float(x)) for x in a] for a in (p, v))

        def at(step):
            q = [x + step * y for x, y in zip(p, v, strict=True)]
            return function(q[:d], q[d : 2 * d], *q[2 * d :])

        return float((at(h) - 2 * at(0) + at(-h)) / h**2)


@pytest.mark.parametrize(
    "name", [*CASES, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_second_derivatives(name):
    kernel, function, d, without = (CASES | SLOW)[name]
    leaves = np.asarray(jax.tree.leaves(kernel))
    chosen = [np.concatenate([*pair, leaves]) for key, pair in pairs(d).items() if key not in without]
    points = np.repeat(chosen, 3, 0)
    directions = rng.normal(size=points.shape)
    found = second_derivatives(kernel, d, jnp.asarray(points), jnp.asarray(directions))
    expected = [high_precision(function, d, *both) for both in zip(points, directions, strict=True)]
    print(np.array(found)-expected, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
