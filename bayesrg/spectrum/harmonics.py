# SPDX-License-Identifier: Apache-2.0
"""Spherical harmonics in any dimension: their number, Legendre sums, an orthonormal basis."""

import math
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float


def multiplicity(dim, degree):
    """Number of linearly independent harmonics of one degree in ``dim`` dimensions."""
    if degree == 0:
        return 1
    return (2 * degree + dim - 2) * math.comb(degree + dim - 3, degree - 1) // degree


def _recurrence(dim, degrees):
    """Factors of t P_l and of -P_(l-1) in P_(l+1), for l = 1, 2, ... up to ``degrees - 1``."""
    k = np.arange(1.0, degrees)
    return (2 * k + dim - 2) / (k + dim - 2), k / (k + dim - 2)


def legendre(dim, degree, t):
    """Legendre polynomials P_l in ``dim`` dimensions at t (n,), as (degree + 1, n); P_l(1) = 1."""
    P = [np.ones_like(t), t]
    for up, down in zip(*_recurrence(dim, degree), strict=True):
        P.append(up * t * P[-1] - down * P[-2])
    return np.stack(P[: degree + 1])


@partial(jax.jit, static_argnums=0)
def legendre_sum(
    dim: int, coefficients: Float[Array, " level"], t: Float[Array, "point point_new"]
) -> Float[Array, "point point_new"]:
    """Sum of Legendre polynomials P_0, P_1, ... at t (n, m), times ``coefficients``."""
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
    """Return the factors of each harmonic, in order of the degree; see `harmonics`.

    Returns
    -------
    factors : (modes, at most degree)
        Columns of the table of Gegenbauer polynomials. The last column of the table is 1.
    frequency, sine : (modes,)
        Frequency m of the factor on the circle, and whether it is a sine.
    constant : (modes,)
    """
    size = (degree + 1) * (dim - 2)  # columns of the table for one degree n of the polynomials

    # Harmonics in two dimensions, one list per degree, as (factors, frequency, sine, log constant);
    # then add one dimension j after the other. A harmonic of degree k in j dimensions is one of
    # degree m in j - 1 dimensions times a polynomial of degree n = k - m.
    levels = [[((), 0, 0, 0.0)]]
    levels += [[((), m, s, 0.5 * math.log(2.0)) for s in (0, 1)] for m in range(1, degree + 1)]
    for j in range(3, dim + 1):
        # the constant: minus half the logarithm of the mean of (1 - x_j^2)^m over the sphere
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
    r"""Return orthonormal real harmonics (n, k) up to ``degree`` at unit vectors U (n, d).

    A harmonic is the real or imaginary part of :math:`(x_1 + i x_2)^m`, times one factor
    :math:`r_j^n p_n(x_j/r_j)` for each dimension j = 3 ... d. Here
    :math:`r_j^2 = x_1^2 + \ldots + x_j^2`, and :math:`p_n` are the orthonormal Gegenbauer
    polynomials of index :math:`m + (j - 2)/2`, with the degree m of all factors before. Every
    factor is a polynomial in x, so nothing is singular at a pole. At most ``degree`` factors are
    not 1.

    References
    ----------
    Avery (1989), Hyperspherical Harmonics, chapter 3.
    """
    n, d = U.shape
    factors, frequency, sine, norm = _plan(d, degree)

    # powers of x_1 + i x_2, real and imaginary parts
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

    # the table of Gegenbauer factors, by the recurrence of orthonormal polynomials in n
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
