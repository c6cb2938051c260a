# SPDX-License-Identifier: Apache-2.0
"""Spherical harmonics in any dimension: multiplicities, Legendre sums, an orthonormal basis."""

import math
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float


def multiplicity(dim, degree):
    """Harmonics of one degree in ``dim`` dimensions."""
    if degree == 0:
        return 1
    return (2 * degree + dim - 2) * math.comb(degree + dim - 3, degree - 1) // degree


def _recurrence(dim, degrees):
    """Factors of t P_l and of P_(l-1) in P_(l+1), for l = 1, 2, ... up to ``degrees - 1``."""
    k = np.arange(1.0, degrees)
    return (2 * k + dim - 2) / (k + dim - 2), k / (k + dim - 2)


def legendre(dim, degree, t):
    """Legendre polynomials of ``dim`` dimensions, one at 1, at t (n,): (degree + 1, n), NumPy."""
    P = [np.ones_like(t), t]
    for up, down in zip(*_recurrence(dim, degree), strict=True):
        P.append(up * t * P[-1] - down * P[-2])
    return np.stack(P[: degree + 1])


@partial(jax.jit, static_argnums=0)
def legendre_sum(
    dim: int, coefficients: Float[Array, " level"], t: Float[Array, "point point_new"]
) -> Float[Array, "point point_new"]:
    """Sum of coefficients (degree 0, 1, ...) times Legendre polynomials at cosines t (n, m)."""
    total = jnp.full_like(t, 1.0) * coefficients[0]
    if coefficients.shape[0] == 1:
        return total

    def step(carry, factors):
        before, now, total = carry
        up, down, coefficient = factors
        after = up * t * now - down * before
        return (now, after, total + coefficient * after), None

    start = (jnp.ones_like(t), t, total + coefficients[1] * t)
    factors = (*map(jnp.asarray, _recurrence(dim, len(coefficients) - 1)), coefficients[2:])
    return lax.scan(step, start, factors)[0][2]


@lru_cache(maxsize=8)
def _plan(dim, degree):
    """Which factors make which harmonic, degree by degree; see `harmonics`.

    Returns factors (modes, at most degree) as indices into the table, the frequency on the circle
    and whether it is a sine (modes,), and the constant (modes,).
    """
    size = (degree + 1) * (dim - 2)  # of the table, a step in n
    levels = [[((), 0, 0, 0.0)]]
    levels += [[((), m, s, 0.5 * math.log(2.0)) for s in (0, 1)] for m in range(1, degree + 1)]
    for j in range(3, dim + 1):
        # minus half the logarithm of the mean of (1 - x_j^2)^m over the sphere in j dimensions
        norm = [
            0.5 * (math.lgamma((j - 1) / 2) - math.lgamma((j - 1) / 2 + m))
            + 0.5 * (math.lgamma(j / 2 + m) - math.lgamma(j / 2))
            for m in range(degree + 1)
        ]
        levels = [
            [
                (
                    (*factors, (n - 1) * size + (j - 3) * (degree + 1) + m) if n else factors,
                    frequency,
                    sine,
                    log_norm + norm[m],
                )
                for m, n in ((m, k - m) for m in range(k + 1))
                for factors, frequency, sine, log_norm in levels[m]
            ]
            for k in range(degree + 1)
        ]
    modes = [mode for level in levels for mode in level]
    width = max(len(mode[0]) for mode in modes)
    one = degree * size  # the last column of the table is 1
    factors = np.array([[*mode[0], *[one] * (width - len(mode[0]))] for mode in modes], int)
    frequency, sine, log_norm = (np.array(column) for column in list(zip(*modes, strict=True))[1:])
    return factors.reshape(len(modes), width), frequency, sine, np.exp(log_norm)


@partial(jax.jit, static_argnums=0)
def harmonics(degree: int, U: Float[Array, "point feature"]) -> Float[Array, "point mode"]:
    r"""Orthonormal real harmonics of degree 0 to ``degree`` at unit vectors U (n, d): (n, k).

    In hyperspherical coordinates a harmonic is a product over the dimensions j = 3 ... d of
    :math:`r_j^n p_n(x_j/r_j)`, with :math:`r_j^2 = x_1^2 + \ldots + x_j^2` and p the orthonormal
    Gegenbauer polynomials of index :math:`m + (j - 2)/2`, m the degree that the dimensions below
    j have, times the real or imaginary part of :math:`(x_1 + i x_2)^m`. All factors are
    polynomials in x, so that nothing is singular at a pole. At most ``degree`` of them are not 1.

    References
    ----------
    Avery (1989), Hyperspherical Harmonics, chapter 3.
    """
    n, d = U.shape
    factors, frequency, sine, norm = _plan(d, degree)

    def turn(carry, _):
        cos, sin = carry
        turned = (cos * U[:, 0] - sin * U[:, 1], sin * U[:, 0] + cos * U[:, 1])
        return turned, turned

    first = (jnp.ones_like(U[:, 0]), jnp.zeros_like(U[:, 0]))
    circle = jnp.stack(lax.scan(turn, first, length=degree)[1])  # (2, degree, n)
    circle = jnp.concatenate([jnp.stack(first)[:, None], circle], 1)
    result = norm * circle[sine, frequency].T
    if not factors.size:
        return result
    squares = jnp.cumsum(U**2, 1)[:, 2:, None]
    x = U[:, 2:, None]  # (n, d - 2, 1)
    index = np.arange(degree + 1.0) + np.arange(1, d - 1)[:, None] / 2  # (d - 2, degree + 1)
    k = np.arange(1.0, degree + 1)[:, None, None]
    b = 0.5 * np.sqrt(k * (k + 2 * index - 1) / ((k + index) * (k + index - 1)))

    def climb(carry, coefficients):
        before, now = carry
        down, up = coefficients
        after = (x * now - down * squares * before) / up
        return (now, after), after

    start = jnp.ones((n, *index.shape), U.dtype)
    steps = (np.concatenate([np.zeros_like(b[:1]), b[:-1]]), b)
    steps = tuple(jnp.asarray(s, U.dtype) for s in steps)
    table = lax.scan(climb, (jnp.zeros_like(start), start), steps)[1]  # (degree, n, d - 2, m)
    table = jnp.moveaxis(table, 0, 1).reshape(n, -1)
    table = jnp.concatenate([table, jnp.ones((n, 1), U.dtype)], 1)
    for column in factors.T:
        result = result * table[:, column]
    return result
