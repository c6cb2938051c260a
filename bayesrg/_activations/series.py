# SPDX-License-Identifier: Apache-2.0
r"""Second moments of any activation at two Gaussian arguments, as a Hermite series.

.. math:: h_k(a) = E f(\sqrt a z)\,\mathrm{He}_k(z)/\sqrt{k!}, \qquad
          V(a, b, c) = \sum_k h_k(a)\, h_k(b)\, \rho^k, \qquad \rho = c/\sqrt{ab}

(Mehler's formula) for variances a, b and covariance c. The coefficients are integrals over one
argument, by the panels of `moments`; a function with kinks needs more terms, but each term is
exact. The moments of the derivative, :math:`E f'(u) f'(v)`, are the series of f'.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .._callables import Number
from .._linalg import ratio, safe_sqrt
from . import duals
from .functions import SLOPE, Activation, resolve
from .moments import _ends, _rule


class Coefficients(NamedTuple):
    """Coefficients of the series of one argument, at each of its variances (...).

    ``value`` and ``slope`` (..., order) are the coefficients of f and f'. ``square`` and
    ``slope_square`` (...) are the mean squares of f and f'.
    """

    variance: Array
    value: Array
    slope: Array
    square: Array
    slope_square: Array


class Series(NamedTuple):
    """Second moments of an activation as a series of ``order`` terms, used like a `duals.Dual`.

    What `Dual` calls variances a and b are here the `Coefficients` that ``prepare`` makes of them.
    """

    activation: Activation
    order: int
    gaps: None = None

    def prepare(self, a):
        """Coefficients of the series of f and f' at variances ``a`` (...)."""
        s = safe_sqrt(a)
        # If the only kink is at 0, the panels are equal for all variances: one rule serves.
        if not all(isinstance(k, Number) and k == 0 for k in self.activation.kinks):
            one = jax.checkpoint(lambda s: self._project(self._rule(s), s))
            found = lax.map(one, s.ravel(), batch_size=64)
            found = jax.tree.map(lambda v: v.reshape(*a.shape, *v.shape[1:]), found)
        else:
            found = self._project(self._rule(jnp.zeros((), s.dtype)), s)
        return Coefficients(a, *found)

    def covariance(self, p, q, c):
        """``E f(u) f(v)`` for coefficients p and q and covariances c (...), that broadcast."""
        return _sum(p.value, q.value, _correlation(p.variance, q.variance, c))

    def slope(self, p, q, c):
        """``E f'(u) f'(v)`` for coefficients p and q and covariances c (...), that broadcast."""
        return _sum(p.slope, q.slope, _correlation(p.variance, q.variance, c))

    def diagonal(self, p):
        """``E f(u)^2`` (...) for coefficients p; an integral, so that no term is left out."""
        return p.square

    def slope_diagonal(self, p):
        """``E f'(u)^2`` (...) for coefficients p; an integral, so that no term is left out."""
        return p.slope_square

    def left_out(self, p):
        """Shares of ``E f^2`` and ``E f'^2`` that the series leave out, and a measure of jumps.

        The last is the relative difference between two values of ``E f'``: the mean of f', and the
        integral by parts. They are equal unless f jumps. Each result has the shape of ``p``'s
        variances (...).
        """
        tiny = jnp.finfo(p.square.dtype).tiny

        def share(square, kept):
            return jnp.maximum(square - (kept**2).sum(-1), 0.0) / jnp.maximum(square, tiny)

        parts = ratio(p.value[..., 1], safe_sqrt(p.variance)) - p.slope[..., 0]
        jump = jnp.abs(parts) / jnp.sqrt(jnp.maximum(p.slope_square, tiny))
        jump = jnp.where(p.variance > 1e-6, jump, 0.0)
        return share(p.square, p.value), share(p.slope_square, p.slope), jump

    def _rule(self, s):
        """Points and weights (m,) for a standard normal z, with kinks of ``f(s z)`` at s ()."""
        return _rule(_ends(self.activation.kinks, jnp.zeros_like(s), s), max(128, 2 * self.order))

    def _project(self, rule, s):
        """Coefficients (..., order) and mean squares (...) of f and f' at deviations s (...)."""
        z, w = rule
        x = s[..., None] * z
        f, slope = jax.jvp(self.activation.function, (x,), (jnp.ones_like(x),))
        H = w[:, None] * _hermite(z, self.order).T
        return f @ H, slope @ H, f**2 @ w, slope**2 @ w


def dual_of(activation, slope=SLOPE, order=64):
    """Return an activation's second moments in closed form, or as a series of ``order`` terms.

    ``slope`` is the slope of the leaky relu below zero. It may be traced.
    """
    if isinstance(activation, str) and activation == "leaky_relu":
        return duals.leaky(slope if isinstance(slope, Array) else float(slope))
    entry = resolve(activation)
    return entry.dual or Series(entry, order)


def _correlation(a, b, c):
    """``c / sqrt(ab)``, clipped to [-1, 1]; the derivative is that of the ratio before clipping."""
    rho = ratio(c, safe_sqrt(a * b))
    return rho + lax.stop_gradient(jnp.clip(rho, -1.0, 1.0) - rho)


def _hermite(z, order):
    r"""Hermite polynomials :math:`\mathrm{He}_k(z)/\sqrt{k!}`, (order, m) at points z (m,)."""

    def step(carry, k):
        below, here = carry
        above = (z * here - jnp.sqrt(k) * below) / jnp.sqrt(k + 1)
        return (here, above), here

    start = jnp.zeros_like(z), jnp.ones_like(z)
    return lax.scan(step, start, jnp.arange(order, dtype=z.dtype))[1]


def _horner(A, B, rho):
    """``sum_k A_k B_k rho^k`` by Horner's rule, for A and B (..., order) and rho (...)."""
    shape = jnp.broadcast_shapes(A.shape[:-1], B.shape[:-1], rho.shape)
    A, B = (jnp.moveaxis(v, -1, 0) for v in (A, B))

    def step(total, pair):
        return total * rho + pair[0] * pair[1], None

    return lax.scan(step, jnp.zeros(shape, rho.dtype), (A, B), reverse=True)[0]


@jax.custom_jvp
def _sum(A, B, rho):
    """``sum_k A_k B_k rho^k`` for A and B (..., order) and rho (...), with a lean derivative."""
    return _horner(A, B, rho)


@_sum.defjvp
def _sum_jvp(primals, tangents):
    # JAX's own derivative of the loop would store every partial sum. The derivative in rho is
    # again such a series, with coefficients (k + 1) A_{k+1} and B_{k+1}.
    A, B, rho = primals
    dA, dB, drho = tangents
    k = np.arange(1, A.shape[-1])
    change = _horner(dA, B, rho) + _horner(A, dB, rho)
    if A.shape[-1] > 1:
        change = change + _sum(A[..., 1:] * jnp.asarray(k, A.dtype), B[..., 1:], rho) * drho
    return _sum(A, B, rho), change
