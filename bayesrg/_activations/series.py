# SPDX-License-Identifier: Apache-2.0
r"""Second Gaussian moments of any activation, as a Hermite series in the correlation.

.. math:: h_k(a) = E f(\sqrt a z)\,\mathrm{He}_k(z)/\sqrt{k!}, \qquad
          V(a, b, c) = \sum_k h_k(a)\, h_k(b)\, \rho^k, \qquad \rho = c/\sqrt{ab}

(Mehler). Coefficients are integrals over one argument, by the rule of `moments`, so that the
series is smooth in the correlation up to 1, and kinks cost terms but no accuracy of a term. That
of the derivative is the series of f'.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .._linalg import safe_sqrt
from . import duals
from .functions import ACTIVATIONS, SLOPE, Activation, resolve
from .moments import _ends, _rule


class Coefficients(NamedTuple):
    """What a series needs of one argument's variance (...).

    ``value`` and ``slope`` (..., order) are the coefficients of f and f', ``square`` and
    ``slope_square`` (...) their mean squares.
    """

    variance: Array
    value: Array
    slope: Array
    square: Array
    slope_square: Array


class Series(NamedTuple):
    """Dual of an activation that has none in closed form; it is used like a `duals.Dual`."""

    activation: Activation
    order: int
    gaps: None = None

    def prepare(self, a):
        """Coefficients of both series at variances ``a`` (...)."""
        s = safe_sqrt(a)
        if any(self.activation.kinks):
            one = jax.checkpoint(lambda s: self._project(self._rule(s), s))
            found = lax.map(one, s.ravel(), batch_size=64)
            found = jax.tree.map(lambda v: v.reshape(*a.shape, *v.shape[1:]), found)
        else:
            found = self._project(self._rule(jnp.zeros((), s.dtype)), s)
        return Coefficients(a, *found)

    def covariance(self, p, q, c):
        """``E f(u) f(v)`` for coefficients p and q and covariances c, broadcast together."""
        return _sum(p.value, q.value, _correlation(p.variance, q.variance, c))

    def slope(self, p, q, c):
        """``E f'(u) f'(v)``."""
        return _sum(p.slope, q.slope, _correlation(p.variance, q.variance, c))

    def diagonal(self, p):
        """``E f(u)^2``, by quadrature: nothing is truncated."""
        return p.square

    def slope_diagonal(self, p):
        """``E f'(u)^2``."""
        return p.slope_square

    def left_out(self, p):
        """Shares of ``E f^2`` and ``E f'^2`` that the series leave out, and a sign of jumps.

        The last is the relative difference between ``E f'`` and what integration by parts gives
        for it, zero for functions that have a derivative.
        """
        tiny = jnp.finfo(p.square.dtype).tiny

        def share(square, kept):
            return jnp.maximum(square - (kept**2).sum(-1), 0.0) / jnp.maximum(square, tiny)

        parts = _over(p.value[..., 1], safe_sqrt(p.variance)) - p.slope[..., 0]
        jump = jnp.abs(parts) / jnp.sqrt(jnp.maximum(p.slope_square, tiny))
        jump = jnp.where(p.variance > 1e-6, jump, 0.0)
        return share(p.square, p.value), share(p.slope_square, p.slope), jump

    def _rule(self, s):
        """Points and weights of the standard normal between kinks, at standard deviation s ()."""
        return _rule(_ends(self.activation.kinks, jnp.zeros_like(s), s), max(128, 2 * self.order))

    def _project(self, rule, s):
        """Coefficients (..., order) and mean squares (...) of f and f' at deviations s (...)."""
        z, w = rule
        x = s[..., None] * z
        f, slope = jax.jvp(self.activation.function, (x,), (jnp.ones_like(x),))
        H = w[:, None] * _hermite(z, self.order).T
        return f @ H, slope @ H, f**2 @ w, slope**2 @ w


def dual_of(activation, slope=SLOPE, order=64):
    """Closed form of an activation's second moments, or its series with ``order`` terms.

    A callable that is the function of a named activation is that activation; ``slope`` is that of
    the leaky relu below zero.
    """
    if isinstance(activation, str) and activation == "leaky_relu":
        return duals.leaky(float(slope))
    entry = resolve(activation)
    if entry.dual is None:
        named = (e for e in ACTIVATIONS.values() if e.function is entry.function)
        entry = next(named, entry)
    return entry.dual or Series(entry, order)


def _over(x, y):
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)


def _correlation(a, b, c):
    """``c / sqrt(ab)`` in [-1, 1], with the derivative of the ratio also at the ends."""
    rho = _over(c, safe_sqrt(a * b))
    return rho + lax.stop_gradient(jnp.clip(rho, -1.0, 1.0) - rho)


def _hermite(z, order):
    r"""Hermite polynomials :math:`\mathrm{He}_k(z)/\sqrt{k!}` for k < order: (order, q)."""

    def step(carry, k):
        below, here = carry
        above = (z * here - jnp.sqrt(k) * below) / jnp.sqrt(k + 1)
        return (here, above), here

    start = jnp.zeros_like(z), jnp.ones_like(z)
    return lax.scan(step, start, jnp.arange(order, dtype=z.dtype))[1]


def _horner(A, B, rho):
    shape = jnp.broadcast_shapes(A.shape[:-1], B.shape[:-1], rho.shape)
    A, B = (jnp.moveaxis(v, -1, 0) for v in (A, B))

    def step(total, pair):
        return total * rho + pair[0] * pair[1], None

    return lax.scan(step, jnp.zeros(shape, rho.dtype), (A, B), reverse=True)[0]


@jax.custom_jvp
def _sum(A, B, rho):
    """``sum_k A_k B_k rho^k`` for A and B (..., order): leading axes broadcast with rho (...)."""
    return _horner(A, B, rho)


@_sum.defjvp
def _sum_jvp(primals, tangents):
    # Through the recursion itself every partial sum would be stored.
    A, B, rho = primals
    dA, dB, drho = tangents
    k = np.arange(1, A.shape[-1])
    change = _horner(dA, B, rho) + _horner(A, dB, rho)
    if A.shape[-1] > 1:
        change = change + _sum(A[..., 1:] * jnp.asarray(k, A.dtype), B[..., 1:], rho) * drho
    return _sum(A, B, rho), change
