# SPDX-License-Identifier: Apache-2.0
r"""Gaussian moments of activation functions of one argument, in closed form.

Every function takes the mean h and the variance r of x, arrays that broadcast together. It returns
four arrays, :math:`E f(x)`, :math:`E f'(x)`, :math:`E f''(x)` and :math:`E f(x)^2`. The last is
None if no closed form is known. At r = 0 the values are limits. An infinite limit (of a derivative,
at a kink) is returned as 0, because it is always multiplied by a factor that vanishes faster.
"""

import jax.numpy as jnp
from jax.scipy.special import erf, ndtr

from .._linalg import ratio, safe_sqrt


def _density(t):
    """Density of the standard normal distribution at ``t``."""
    return jnp.exp(-(t**2) / 2) / jnp.sqrt(2 * jnp.pi)


def _threshold(h, r):
    """Mean in standard deviations, t, with normal distribution function and density at t."""
    # At r = 0 the mean is infinitely many deviations from the kink: 40 gives exactly 0 or 1.
    t = jnp.where(r > 0, ratio(h, safe_sqrt(r)), 40.0 * jnp.sign(h))
    return t, ndtr(t), _density(t)


def linear(h, r):
    """Return the moments of ``f(x) = x``."""
    return h, jnp.ones_like(r), jnp.zeros_like(r), h**2 + r


def relu(h, r):
    """Return the moments of ``f(x) = max(x, 0)``."""
    _, P, g = _threshold(h, r)
    s = safe_sqrt(r)
    return h * P + s * g, P, ratio(g, safe_sqrt(r)), (h**2 + r) * P + h * s * g


def bent(a, b):
    """Return the function that gives the moments of ``f(x) = a x + b max(x, 0)``."""

    def moments(h, r):
        a0, k1, k2, square = relu(h, r)
        # the cross term holds E x max(x, 0), which is E max(x, 0)^2
        total = a**2 * (h**2 + r) + (2 * a * b + b**2) * square
        return a * h + b * a0, a + b * k1, b * k2, total

    return moments


def step(h, r):
    """Return the moments of the step function: 1 for x > 0, 0 for x < 0."""
    t, P, g = _threshold(h, r)
    k1 = ratio(g, safe_sqrt(r))
    return P, k1, -ratio(t * k1, safe_sqrt(r)), P


def sign(h, r):
    """Return the moments of the sign function: 1 for x > 0, -1 for x < 0."""
    a0, k1, k2, _ = step(h, r)
    return 2 * a0 - 1, 2 * k1, 2 * k2, jnp.ones_like(r)


def sin(h, r):
    """Return the moments of ``f(x) = sin x``."""
    e = jnp.exp(-r / 2)
    # (1 - e^{-2r} cos 2h)/2, written so that no digits are lost at small r and h
    square = -(jnp.expm1(-2 * r) * jnp.cos(2 * h) - 2 * jnp.sin(h) ** 2) / 2
    return e * jnp.sin(h), e * jnp.cos(h), -e * jnp.sin(h), square


def cos(h, r):
    """Return the moments of ``f(x) = cos x``."""
    e = jnp.exp(-r / 2)
    square = (1 + jnp.exp(-2 * r) * jnp.cos(2 * h)) / 2
    return e * jnp.cos(h), -e * jnp.sin(h), -e * jnp.cos(h), square


def error_function(scale):
    """Return the function that gives the moments of ``f(x) = erf(scale * x)``."""

    def moments(h, r):
        h, c = scale * h, 1 + 2 * scale**2 * r
        k1 = 2 * jnp.exp(-(h**2) / c) / jnp.sqrt(jnp.pi * c)
        return erf(h / jnp.sqrt(c)), scale * k1, -2 * scale**2 * h * k1 / c, None

    return moments


def gelu(h, r):
    """Return the moments of the gelu: x times the normal distribution function at x."""
    c = 1 + r
    t = h / jnp.sqrt(c)
    P, G = ndtr(t), _density(t) / jnp.sqrt(c)
    return h * P + r * G, P + h * G / c, G * (1 + 1 / c - t**2 / c), None
