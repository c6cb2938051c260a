# SPDX-License-Identifier: Apache-2.0
r"""Gaussian moments of one activation, and of two with correlated arguments, at any mean.

What has no closed form is integrated by Gauss's rule on [-12, 12] standard deviations, in panels
between the function's kinks. Its points crowd at the ends of a panel, so that it is exact at
kinks and keeps up with functions that turn within a small part of a standard deviation.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._linalg import safe_sqrt

_gauss = lru_cache(8)(np.polynomial.legendre.leggauss)
_REACH = 12.0


class Moments(NamedTuple):
    r"""Moments of f(x) for :math:`x \sim N(h, r)`.

    ``a0`` :math:`= E f`, ``k1`` :math:`= E f'`, ``k2`` :math:`= E f''`, ``ks2``
    :math:`= Var f - r k_1^2 \ge 0`; ``clipped`` is what the last was below zero by, relative to
    :math:`E f^2` or 1.
    """

    a0: Array
    k1: Array
    k2: Array
    ks2: Array
    clipped: Array

    def variance(self, r):
        """Variance of f(x), given the variance of x."""
        return self.ks2 + r * self.k1**2


def gaussian_moments(activation, r, h):
    """Moments of an `Activation` at variances ``r`` and means ``h``, arrays broadcast together.

    Notes
    -----
    Quadrature takes Stein's form, which needs no derivative of f. Below a variance of the square
    root of the machine precision derivatives at the mean replace it, unless a kink is near.
    """
    one = partial(_moments, activation)
    return Moments(*jnp.vectorize(one, signature="(),()->(),(),(),(),()")(r, h))


def gaussian_product(f, g, r, q, c, h, m):
    r"""Return :math:`E f(u) g(v)` for (u, v) of means h, m, variances r, q and covariance c.

    f and g are `Activation`, the rest arrays broadcast together. One of the two is integrated at
    given u, so that correlations up to one are no harder than none.
    """
    return jnp.vectorize(partial(_product, f, g))(r, q, c, h, m)


def _rule(ends, points=128):
    """Weighted points of the standard normal, (m,) each, in k + 1 panels between ends (k,)."""
    nodes, weights = _gauss(points)
    outer = jnp.full_like(ends[:1], _REACH)
    ends = jnp.concatenate([-outer, jnp.clip(ends, -_REACH, _REACH), outer])
    half = (ends[1:, None] - ends[:-1, None]) / 2
    middle = (ends[1:, None] + ends[:-1, None]) / 2
    z = middle + half * jnp.asarray(nodes, ends.dtype)[None]
    w = half * jnp.asarray(weights, ends.dtype)[None]
    return z.ravel(), (w * jnp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)).ravel()


def _ends(kinks, mean, deviation):
    """Where kinks lie in standard deviations from the mean, (k,)."""
    places = [k if isinstance(k, Array) else float(k) for k in kinks]
    return (jnp.asarray(places, mean.dtype) - mean) / jnp.where(deviation == 0, 1.0, deviation)


def _taylor(function, h, r):
    """Moments for a tiny variance, from four derivatives at the mean."""
    chain = [function]
    for _ in range(4):
        below = chain[-1]
        chain.append(lambda x, f=below: jax.jvp(f, (x,), (jnp.ones_like(x),))[1])
    f, f1, f2, f3, f4 = (g(h) for g in chain)
    return f + r * f2 / 2, f1 + r * f3 / 2, f2 + r * f4 / 2, r**2 * f2**2 / 2


def _moments(activation, r, h):
    if activation.closed is not None:
        what = "E f, E f', E f'', E f^2 or None"
        a0, k1, k2, square = _checks.several("what closed returned", activation.closed(h, r), what)
        if square is not None:
            raw = square - a0**2 - r * k1**2
            missing = jnp.maximum(-raw, 0.0) / jnp.maximum(square, 1.0)
            return a0, k1, k2, jnp.maximum(raw, 0.0), missing
    # at variance 0 and a kink the limits from above are those of any tiny deviation
    s = jnp.where(r > 0, safe_sqrt(r), 1e-30)
    ends = _ends(activation.kinks, h, s)
    z, w = _rule(ends)
    f = activation.function(h + s * z)
    if activation.closed is not None:
        return a0, k1, k2, (w * (f - a0 - k1 * s * z) ** 2).sum(), jnp.zeros_like(r)
    smooth = (jnp.abs(ends) > _REACH).all()
    tiny = smooth & (r < np.sqrt(jnp.finfo(r.dtype).eps))
    here = activation.function(h)
    change = f - here  # a constant has no part in the derivatives, its round-off has
    a0 = here + (w * change).sum()
    k1 = (w * z * change).sum() / jnp.where(tiny, 1.0, s)
    bulk = jnp.where(tiny | (r == 0), 1.0, r)  # k2 may diverge at a kink, and is 0 there
    k2 = jnp.where(r > 0, (w * (z**2 - 1) * change).sum(), 0.0) / bulk
    ks2 = (w * (f - a0 - k1 * s * z) ** 2).sum()
    low = _taylor(activation.function, h, r)
    four = (jnp.where(tiny, x, y) for x, y in zip(low, (a0, k1, k2, ks2), strict=True))
    return *four, jnp.zeros_like(r)


def _product(f, g, r, q, c, h, m):
    s = safe_sqrt(r)
    slope = jnp.where(r > 0, c / jnp.where(r > 0, r, 1.0), 0.0)
    rest = jnp.maximum(q - c * slope, 0.0)
    ends = jnp.concatenate([_ends(f.kinks, h, s), _ends(g.kinks, m, slope * s)])
    z, w = _rule(jnp.sort(ends))
    inner = gaussian_moments(g, rest, m + slope * s * z).a0
    return (w * f.function(h + s * z) * inner).sum()
