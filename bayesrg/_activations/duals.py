# SPDX-License-Identifier: Apache-2.0
r"""Second Gaussian moments of two arguments, in closed form and with safe derivatives.

For ``(u, v) ~ N(0, [[a, c], [c, b]])`` an activation's dual is :math:`V(a, b, c) = E f(u) f(v)`;
its derivative in ``c`` is :math:`\dot V = E f'(u) f'(v)` (Price's theorem). The kinked functions
share one primitive, that of the relu, with s = sqrt(ab - c^2) and t = atan2(s, c):

.. math:: V = \frac{s + (\pi - t)c}{2\pi}, \quad \dot V = \frac{\pi - t}{2\pi}, \quad
          dV = V\, dL + \dot V\, (dc - c\, dL), \quad
          d\dot V = \frac{dc - c\, dL}{2\pi s}, \quad dL = \frac{da}{2a} + \frac{db}{2b}

The last is set to zero where rows coincide: there V' has a cusp in the inputs, but none in
hyper-parameters. V has two derivatives in the inputs there, in which V' is multiplied by factors
that vanish with s. So its first and second derivatives are exact, except at zero rows, where V is
a cone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .._linalg import safe_sqrt, with_value


class Dual(NamedTuple):
    r"""Second moments of an activation and of its derivative, off the diagonal and on it.

    Attributes
    ----------
    covariance : callable (a, b, c) -> V, elementwise
    diagonal : callable a -> V(a, a, a)
    slope : callable (a, b, c) -> E f'(u) f'(v), or None for a function that jumps
    slope_diagonal : callable, on the diagonal
    gaps : callable (e, g, t) -> (e', g'), or None
        Where a function's moments turn on an angle t: :math:`1 \mp c/\sqrt{ab}` after it, from
        those before. Then ``covariance`` and ``slope`` take (s, t) as a fourth argument, known
        better than a, b and c tell.
    """

    covariance: Callable
    diagonal: Callable
    slope: Callable | None = None
    slope_diagonal: Callable | None = None
    gaps: Callable | None = None

    def prepare(self, a: Array) -> Array:
        """Give what the moments need to know of one argument: no more than its variance."""
        return a


def _ratio(x, y):
    """``x / y``, zero where y is zero."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)


def _growth(a, b, da, db):
    """Relative change of ``sqrt(ab)``."""
    return (_ratio(da, a) + _ratio(db, b)) / 2


def _angle(a, b, c):
    """Area ``s`` and angle ``t`` between two vectors of squared lengths a, b, inner product c.

    A vector of length zero is at a right angle to others, and at angle zero to one of length zero.
    """
    a, b, c = lax.stop_gradient((a, b, c))
    s = safe_sqrt(a * b - c**2)
    alone = (s == 0) & (c == 0) & ((a > 0) | (b > 0))
    return s, jnp.where(alone, jnp.pi / 2, jnp.arctan2(s, c))


def angle_between(e, g):
    r"""Angle t from the gaps :math:`e, g = 1 \mp \cos t`; an arctan2 is ten times slower."""
    return 2 * jnp.arctan(jnp.sqrt(e / g))


def _over_area(x, a, b, s):
    """``x / s``, zero where s is round-off."""
    least = max(1e-7, float(jnp.finfo(s.dtype).eps) ** 0.5)
    clear = s > least * jnp.sqrt(a * b)
    return jnp.where(clear, x / jnp.where(clear, s, 1.0), 0.0)


@jax.custom_jvp
def _area(a, b, c, s, t):
    return s


@_area.defjvp
def _area_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    return s, _over_area((b * da + a * db) / 2 - c * dc, a, b, _area(*primals))


@jax.custom_jvp
def _relu_slope(a, b, c, s, t):
    return (jnp.pi - t) / (2 * jnp.pi)


@_relu_slope.defjvp
def _relu_slope_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    turn = dc - c * _growth(a, b, da, db)
    return _relu_slope(*primals), _over_area(turn, a, b, _area(*primals)) / (2 * jnp.pi)


@jax.custom_jvp
def _relu(a, b, c, s, t):
    return (s + (jnp.pi - t) * c) / (2 * jnp.pi)


@_relu.defjvp
def _relu_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    growth = _growth(a, b, da, db)
    change = _relu(*primals) * growth + _relu_slope(*primals) * (dc - c * growth)
    return _relu(*primals), change


def relu_dual(a, b, c, angle=None):
    """Arc-cosine kernel of order 1, halved."""
    return _relu(a, b, c, *(_angle(a, b, c) if angle is None else angle))


def relu_slope(a, b, c, angle=None):
    """Arc-cosine kernel of order 0, halved; that of the step as well."""
    return _relu_slope(a, b, c, *(_angle(a, b, c) if angle is None else angle))


def leaky(q):
    """Dual of a relu with slope ``q`` below zero, which may be traced; -1 gives abs."""
    return _leaky(q) if isinstance(q, float) else _leaky.__wrapped__(q)


@lru_cache(64)
def _leaky(q):
    own, m = (1 + q**2) / 2, (1 - q) ** 2 / (2 * np.pi)

    def gaps(e, g, t):
        s, c = jnp.sqrt(e * g), (g - e) / 2
        apart = own * e - m * (s - t * c)
        if not isinstance(q, float) or q < 0:  # antipodes may meet
            far = own + q - q * g - m * (s + angle_between(g, e) * c)
            apart = jnp.where((c < 0) & (q < 0), far, apart)
        apart = jnp.maximum(apart / own, 0.0)
        return apart, 2 - apart

    return Dual(
        lambda a, b, c, angle=None: (1 - q) ** 2 * relu_dual(a, b, c, angle) + q * c,
        lambda a: (1 + q**2) / 2 * a,
        lambda a, b, c, angle=None: (1 - q) ** 2 * relu_slope(a, b, c, angle) + q,
        lambda a: jnp.full_like(a, own),
        gaps,
    )


def scaled(dual, factor):
    """Dual of ``f(factor * x)`` from that of f."""
    r = factor**2
    return Dual(
        lambda a, b, c: dual.covariance(r * a, r * b, r * c),
        lambda a: dual.diagonal(r * a),
        lambda a, b, c: r * dual.slope(r * a, r * b, r * c),
        lambda a: r * dual.slope_diagonal(r * a),
    )


@jax.custom_jvp
def erf_dual(a, b, c):
    """Covariance of error functions, ``(2/pi) asin(2c / sqrt((1 + 2a)(1 + 2b)))``."""
    ratio = 2 * c / jnp.sqrt((1 + 2 * a) * (1 + 2 * b))
    ratio = jnp.clip(ratio, -1.0, 1.0)
    return 2 / jnp.pi * jnp.arctan(ratio / jnp.sqrt((1 - ratio) * (1 + ratio)))  # its arcsine


@erf_dual.defjvp
def _erf_dual_jvp(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    change = dc - c * (da / (1 + 2 * a) + db / (1 + 2 * b))
    return erf_dual(a, b, c), erf_slope(a, b, c) * change


def erf_slope(a, b, c):
    """``(4/pi) / sqrt((1 + 2a)(1 + 2b) - 4c^2)``."""
    # Cauchy and Schwarz: the root is that of 1 + 2a + 2b at least.
    area = a * b - c**2
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * a + 2 * b + 4 * with_value(area, jnp.clip(area, 0.0)))


def _size(c):
    """``|c|`` with slope 1, not 0, at zero, and the sign that goes with it."""
    return jnp.where(c < 0, -c, c), jnp.where(c < 0, -1.0, 1.0)


def sin_dual(a, b, c):
    """``exp(-(a + b)/2) sinh c``, with no overflow and no cancellation."""
    size, sign = _size(c)
    return -sign * jnp.exp(size - (a + b) / 2) * jnp.expm1(-2 * size) / 2


def cos_dual(a, b, c):
    """``exp(-(a + b)/2) cosh c``, with no overflow."""
    size, _ = _size(c)
    return jnp.exp(size - (a + b) / 2) * (1 + jnp.exp(-2 * size)) / 2


def _sin_square(a):
    return -jnp.expm1(-2 * a) / 2


def _cos_square(a):
    return (1 + jnp.exp(-2 * a)) / 2


RELU = leaky(0.0)._replace(covariance=relu_dual, slope=relu_slope)
ABS = leaky(-1.0)
STEP = Dual(
    relu_slope, lambda a: jnp.full_like(a, 0.5), gaps=lambda e, g, t: (t / jnp.pi, 2 - t / jnp.pi)
)
SIGN = Dual(
    lambda a, b, c, angle=None: 4 * relu_slope(a, b, c, angle) - 1,
    jnp.ones_like,
    gaps=lambda e, g, t: (2 * t / jnp.pi, 2 * angle_between(g, e) / jnp.pi),
)
ERF = Dual(
    erf_dual,
    lambda a: 2 / jnp.pi * jnp.arcsin(2 * a / (1 + 2 * a)),
    erf_slope,
    lambda a: 4 / jnp.pi / jnp.sqrt(1 + 4 * a),
)
ERF_SQRT2 = scaled(ERF, float(np.sqrt(0.5)))
SIN = Dual(sin_dual, _sin_square, cos_dual, _cos_square)
COS = Dual(cos_dual, _cos_square, sin_dual, _sin_square)
LINEAR = Dual(
    lambda a, b, c: c,
    lambda a: a,
    lambda a, b, c: jnp.ones_like(c),
    jnp.ones_like,
)
