# SPDX-License-Identifier: Apache-2.0
r"""Gaussian moments of one activation, and of two with correlated arguments, at any mean.

Moments without a closed form are integrated over [-12, 12] standard deviations, by the
Gauss-Legendre rule on each panel between two kinks. A kink inside a panel would cost accuracy. The
points of the rule crowd at the ends of a panel; so functions that turn near a kink within a small
part of a standard deviation are resolved as well.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._linalg import ratio, safe_sqrt

_gauss = lru_cache(8)(np.polynomial.legendre.leggauss)
_REACH = 12.0


class Moments(NamedTuple):
    r"""Moments of f(x) for :math:`x \sim N(h, r)`, arrays (...) each.

    ``a0`` :math:`= E f`, ``k1`` :math:`= E f'`, ``k2`` :math:`= E f''`, and ``ks2``
    :math:`= Var f - r k_1^2 \ge 0`, the variance beyond the linear part. Rounding can make the
    last negative. It is then set to 0, and ``clipped`` is the amount below zero, divided by the
    larger of :math:`E f^2` and 1.
    """

    a0: Array
    k1: Array
    k2: Array
    ks2: Array
    clipped: Array

    def variance(self, r):
        """Variance of f(x), given the variance ``r`` (...) of x."""
        return self.ks2 + r * self.k1**2


def gaussian_moments(activation, r, h):
    """Return the `Moments` of an `Activation` at variances ``r`` and means ``h``, (...) each.

    Notes
    -----
    Integrals for E f' and E f'' use Stein's lemma, ``E f' = E f(x) (x - h) / r``, which needs no
    derivative of f. They divide by the variance and lose digits when it is small. So below the
    square root of the machine precision a Taylor series about the mean replaces them, unless a
    kink is near.
    """
    one = partial(_moments, activation)
    return Moments(*jnp.vectorize(one, signature="(),()->(),(),(),(),()")(r, h))


def gaussian_product(f, g, r, q, c, h, m):
    r"""Return :math:`E f(u) g(v)` for (u, v) of means h, m, variances r, q and covariance c.

    f and g are `Activation`; the others are arrays that broadcast together. The integral over v at
    given u is done first. What remains is smooth in u at any correlation, 1 included.
    """
    return jnp.vectorize(partial(_product, f, g))(r, q, c, h, m)


def _rule(ends, points=128):
    """Points and weights (m,) of a rule for the standard normal, in k + 1 panels between ends (k,).

    m is ``points`` times k + 1.
    """
    nodes, weights = _gauss(points)
    outer = jnp.full_like(ends[:1], _REACH)
    ends = jnp.concatenate([-outer, jnp.clip(ends, -_REACH, _REACH), outer])
    half = (ends[1:, None] - ends[:-1, None]) / 2
    middle = (ends[1:, None] + ends[:-1, None]) / 2
    z = middle + half * jnp.asarray(nodes, ends.dtype)[None]
    w = half * jnp.asarray(weights, ends.dtype)[None]
    return z.ravel(), (w * jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)).ravel()


def _ends(kinks, mean, deviation):
    """Distances (k,) of the kinks from the mean, in standard deviations."""
    places = [k if isinstance(k, Array) else float(k) for k in kinks]
    return (jnp.asarray(places, mean.dtype) - mean) / jnp.where(deviation == 0, 1.0, deviation)


def _taylor(function, h, r):
    """``a0``, ``k1``, ``k2`` and ``ks2`` at a tiny variance r, from derivatives at the mean h."""
    chain = [function]
    for _ in range(4):
        below = chain[-1]
        chain.append(lambda x, f=below: jax.jvp(f, (x,), (jnp.ones_like(x),))[1])
    f, f1, f2, f3, f4 = (g(h) for g in chain)
    return f + r * f2 / 2, f1 + r * f3 / 2, f2 + r * f4 / 2, r**2 * f2**2 / 2


def _moments(activation, r, h):
    """The five fields of `Moments` for one variance and one mean, () each."""
    if activation.closed is not None:
        what = "E f, E f', E f'', E f^2 or None"
        a0, k1, k2, square = _checks.several("what closed returned", activation.closed(h, r), what)
        if square is not None:
            # a difference of nearly equal numbers if f is nearly linear: rounding may make it < 0
            raw = square - a0**2 - r * k1**2
            missing = jnp.maximum(-raw, 0.0) / jnp.maximum(square, 1.0)
            return a0, k1, k2, jnp.maximum(raw, 0.0), missing

    # At variance 0 and a kink, moments are limits. A tiny deviation gives them.
    s = jnp.where(r > 0, safe_sqrt(r), 1e-30)
    ends = _ends(activation.kinks, h, s)
    z, w = _rule(ends)
    f = activation.function(h + s * z)
    if activation.closed is not None:  # all but E f^2 is known
        return a0, k1, k2, (w * (f - a0 - k1 * s * z) ** 2).sum(), jnp.zeros_like(r)

    smooth = (jnp.abs(ends) > _REACH).all()
    tiny = smooth & (r < np.sqrt(jnp.finfo(r.dtype).eps))

    # Stein's lemma. A constant adds nothing to the derivatives but its rounding error: subtract it.
    here = activation.function(h)
    change = f - here
    a0 = here + (w * change).sum()
    k1 = (w * z * change).sum() / jnp.where(tiny, 1.0, s)
    bulk = jnp.where(tiny | (r == 0), 1.0, r)  # at r = 0 and a kink k2 may be infinite: give 0
    k2 = jnp.where(r > 0, (w * (z**2 - 1) * change).sum(), 0.0) / bulk

    # the variance beyond the linear part, as an integral of squares: never negative
    ks2 = (w * (f - a0 - k1 * s * z) ** 2).sum()

    low = _taylor(activation.function, h, r)
    four = (jnp.where(tiny, x, y) for x, y in zip(low, (a0, k1, k2, ks2), strict=True))
    return *four, jnp.zeros_like(r)


def _product(f, g, r, q, c, h, m):
    """``E f(u) g(v)`` for one pair: the mean of g at given u, then an integral over u."""
    # given u, v has mean m + slope (u - h) and variance rest
    s = safe_sqrt(r)
    slope = ratio(c, r)
    rest = jnp.maximum(q - c * slope, 0.0)

    ends = jnp.concatenate([_ends(f.kinks, h, s), _ends(g.kinks, m, slope * s)])
    z, w = _rule(jnp.sort(ends))
    inner = gaussian_moments(g, rest, m + slope * s * z).a0
    return (w * f.function(h + s * z) * inner).sum()
