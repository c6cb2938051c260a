# SPDX-License-Identifier: Apache-2.0
r"""Gaussian moments of one argument, in closed form.

Every function takes the mean h and the variance r of x and returns :math:`E f`, :math:`E f'`,
:math:`E f''` and :math:`E f^2`, the last None where it has no closed form. At r = 0 they are the
limits; where a limit is infinite, 0, because what it multiplies vanishes faster.
"""

import jax.numpy as jnp
from jax.scipy.special import erf, ndtr

from .._linalg import safe_sqrt


def _density(t):
    return jnp.exp(-(t**2) / 2) / jnp.sqrt(2 * jnp.pi)


def _over_root(x, r):
    """``x / sqrt(r)``, zero where r is."""
    return jnp.where(r > 0, x / jnp.sqrt(jnp.where(r > 0, r, 1.0)), 0.0)


def _threshold(h, r):
    """Standardised mean t, normal distribution function and density there."""
    t = jnp.where(r > 0, _over_root(h, r), 40.0 * jnp.sign(h))
    return t, ndtr(t), _density(t)


def linear(h, r):
    """``x``."""
    return h, jnp.ones_like(r), jnp.zeros_like(r), h**2 + r


def relu(h, r):
    """``max(x, 0)``."""
    _, P, g = _threshold(h, r)
    s = safe_sqrt(r)
    return h * P + s * g, P, _over_root(g, r), (h**2 + r) * P + h * s * g


def bent(a, b):
    """``a x + b max(x, 0)``."""

    def moments(h, r):
        a0, k1, k2, square = relu(h, r)
        total = a**2 * (h**2 + r) + (2 * a * b + b**2) * square
        return a * h + b * a0, a + b * k1, b * k2, total

    return moments


def step(h, r):
    """1 above zero, 0 below."""
    t, P, g = _threshold(h, r)
    k1 = _over_root(g, r)
    return P, k1, -_over_root(t * k1, r), P


def sign(h, r):
    """1 above zero, -1 below."""
    a0, k1, k2, _ = step(h, r)
    return 2 * a0 - 1, 2 * k1, 2 * k2, jnp.ones_like(r)


def sin(h, r):
    """Sine."""
    e = jnp.exp(-r / 2)
    square = -(jnp.expm1(-2 * r) * jnp.cos(2 * h) - 2 * jnp.sin(h) ** 2) / 2
    return e * jnp.sin(h), e * jnp.cos(h), -e * jnp.sin(h), square


def cos(h, r):
    """Cosine."""
    e = jnp.exp(-r / 2)
    square = (1 + jnp.exp(-2 * r) * jnp.cos(2 * h)) / 2
    return e * jnp.cos(h), -e * jnp.sin(h), -e * jnp.cos(h), square


def error_function(scale):
    """``erf(scale * x)``."""

    def moments(h, r):
        h, c = scale * h, 1 + 2 * scale**2 * r
        k1 = 2 * jnp.exp(-(h**2) / c) / jnp.sqrt(jnp.pi * c)
        return erf(h / jnp.sqrt(c)), scale * k1, -2 * scale**2 * h * k1 / c, None

    return moments


def gelu(h, r):
    """``x`` times the normal distribution function of ``x``."""
    c = 1 + r
    t = h / jnp.sqrt(c)
    P, G = ndtr(t), _density(t) / jnp.sqrt(c)
    return h * P + r * G, P + h * G / c, G * (1 + 1 / c - t**2 / c), None
