# SPDX-License-Identifier: Apache-2.0
r"""Second moments of an activation at two Gaussian arguments, in closed form.

For ``(u, v) ~ N(0, [[a, c], [c, b]])`` the dual of f is :math:`V(a, b, c) = E f(u) f(v)`. Its
derivative in ``c`` is :math:`\dot V = E f'(u) f'(v)` (Price's theorem). Piecewise linear functions
need only the dual of the relu (Cho and Saul 2009, equation 6). The angle between u and v is
t = atan2(s, c) with s = sqrt(ab - c^2), and

.. math:: V = \frac{s + (\pi - t)c}{2\pi}, \quad \dot V = \frac{\pi - t}{2\pi}, \quad
          dV = V\, dL + \dot V\, (dc - c\, dL), \quad
          d\dot V = \frac{dc - c\, dL}{2\pi s}, \quad dL = \frac{da}{2a} + \frac{db}{2b}

Where two rows of inputs coincide (s = 0) the code sets :math:`d\dot V` to zero. There
:math:`\dot V` has a cusp as a function of the inputs, but is smooth in the hyper-parameters. The
first two derivatives of V in the inputs exist there, because their factors of :math:`\dot V`
vanish with s; both are exact. Rows of length zero are the exception: V has the shape of a cone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .._linalg import ratio, safe_sqrt, with_value


class Dual(NamedTuple):
    r"""Second moments of an activation and of its derivative, as functions of variances.

    Attributes
    ----------
    covariance : callable (a, b, c) -> E f(u) f(v), elementwise
    diagonal : callable a -> E f(u)^2
    slope : callable (a, b, c) -> E f'(u) f'(v), or None for a function that jumps
    slope_diagonal : callable a -> E f'(u)^2, or None
    gaps : callable (e, g, t) -> (e', g'), or None
        Given if the moments depend on the angle t between u and v. It maps the gaps
        :math:`e, g = 1 \mp c/\sqrt{ab}` of the inputs to those of the outputs. Then
        ``covariance`` and ``slope`` accept (s, t) as a fourth argument, because a caller that
        follows the gaps knows s and t to more digits than a, b and c contain.
    """

    covariance: Callable
    diagonal: Callable
    slope: Callable | None = None
    slope_diagonal: Callable | None = None
    gaps: Callable | None = None

    def prepare(self, a: Array) -> Array:
        """Return what the moments need to know of one argument: its variance ``a`` (...)."""
        return a


def _growth(a, b, da, db):
    """Relative change of ``sqrt(ab)``."""
    return (ratio(da, a) + ratio(db, b)) / 2


def _angle(a, b, c):
    """Area s and angle t of two vectors with squared lengths a and b and inner product c.

    A vector of length zero has no angle: use 90 degrees, or 0 if both have length zero.
    """
    # derivatives are written out in the rules below, so none is needed here
    a, b, c = lax.stop_gradient((a, b, c))
    s = safe_sqrt(a * b - c**2)
    alone = (s == 0) & (c == 0) & ((a > 0) | (b > 0))
    return s, jnp.where(alone, jnp.pi / 2, jnp.arctan2(s, c))


def angle_between(e, g):
    r"""Angle t from the gaps :math:`e, g = 1 \mp \cos t`."""
    # arctan2 would be ten times slower
    return 2 * jnp.arctan(jnp.sqrt(e / g))


def _over_area(x, a, b, s):
    """``x / s``; 0 where s is not larger than its rounding error."""
    least = max(1e-7, float(jnp.finfo(s.dtype).eps) ** 0.5)
    clear = s > least * jnp.sqrt(a * b)
    return jnp.where(clear, x / jnp.where(clear, s, 1.0), 0.0)


# Below, s and t are given beside a, b and c, from which they follow. They carry the value only;
# the derivative rules state how it changes with a, b and c, and ignore the tangents of s and t.


@jax.custom_jvp
def _area(a, b, c, s, t):
    """Area s, with its derivative in a, b and c."""
    return s


@_area.defjvp
def _area_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    return s, _over_area((b * da + a * db) / 2 - c * dc, a, b, _area(*primals))


@jax.custom_jvp
def _relu_slope(a, b, c, s, t):
    """``E f'(u) f'(v)`` of the relu, from the angle t."""
    return (jnp.pi - t) / (2 * jnp.pi)


@_relu_slope.defjvp
def _relu_slope_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    turn = dc - c * _growth(a, b, da, db)  # change of c at fixed lengths: it turns the angle
    return _relu_slope(*primals), _over_area(turn, a, b, _area(*primals)) / (2 * jnp.pi)


@jax.custom_jvp
def _relu(a, b, c, s, t):
    """``E f(u) f(v)`` of the relu, from the area s and the angle t."""
    return (s + (jnp.pi - t) * c) / (2 * jnp.pi)


@_relu.defjvp
def _relu_jvp(primals, tangents):
    a, b, c, s, t = primals
    da, db, dc, *_ = tangents
    growth = _growth(a, b, da, db)
    # V is homogeneous in the lengths: longer vectors scale it, and a turn changes it by V'
    change = _relu(*primals) * growth + _relu_slope(*primals) * (dc - c * growth)
    return _relu(*primals), change


def relu_dual(a, b, c, angle=None):
    """``E f(u) f(v)`` of the relu: half the arc-cosine kernel of order 1 (Cho and Saul 2009)."""
    return _relu(a, b, c, *(_angle(a, b, c) if angle is None else angle))


def relu_slope(a, b, c, angle=None):
    """``E f'(u) f'(v)`` of the relu: half the arc-cosine kernel of order 0 (Cho and Saul 2009).

    It is also ``E f(u) f(v)`` of the step function, which is the derivative of the relu.
    """
    return _relu_slope(a, b, c, *(_angle(a, b, c) if angle is None else angle))


def leaky(q):
    """Dual of a relu with slope ``q`` below zero; -1 gives abs. ``q`` may be traced."""
    # only the dual of a float can be kept: a traced value cannot be looked up
    return _leaky(q) if isinstance(q, float) else _leaky.__wrapped__(q)


@lru_cache(64)
def _leaky(q):
    # f(x) = q x + (1 - q) max(x, 0), so that V = (1 - q)^2 V_relu + q c
    own, m = (1 + q**2) / 2, (1 - q) ** 2 / (2 * np.pi)

    def gaps(e, g, t):
        # own - V for unit vectors, in terms that are each small when the angle is
        s, c = jnp.sqrt(e * g), (g - e) / 2
        apart = own * e - m * (s - t * c)

        # With q < 0 opposite vectors also come close (abs maps them to one value): there use
        # the angle pi - t, which keeps its digits.
        if not isinstance(q, float) or q < 0:
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
    """Return the dual of ``f(factor * x)``, given the dual of ``f(x)``."""
    r = factor**2
    return Dual(
        lambda a, b, c: dual.covariance(r * a, r * b, r * c),
        lambda a: dual.diagonal(r * a),
        lambda a, b, c: r * dual.slope(r * a, r * b, r * c),
        lambda a: r * dual.slope_diagonal(r * a),
    )


@jax.custom_jvp
def erf_dual(a, b, c):
    """``E erf(u) erf(v) = (2/pi) asin(2c / sqrt((1 + 2a)(1 + 2b)))`` (Williams 1998)."""
    rho = jnp.clip(2 * c / jnp.sqrt((1 + 2 * a) * (1 + 2 * b)), -1.0, 1.0)
    # the arcsine of rho, by an arctangent
    return 2 / jnp.pi * jnp.arctan(rho / jnp.sqrt((1 - rho) * (1 + rho)))


@erf_dual.defjvp
def _erf_dual_jvp(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    change = dc - c * (da / (1 + 2 * a) + db / (1 + 2 * b))
    return erf_dual(a, b, c), erf_slope(a, b, c) * change


def erf_slope(a, b, c):
    """``E f'(u) f'(v)`` of the error function: ``(4/pi) / sqrt((1 + 2a)(1 + 2b) - 4c^2)``."""
    # By Cauchy and Schwarz ab >= c^2, which rounding may violate: clip the value, and keep the
    # derivatives. The argument of the root is then at least 1 + 2a + 2b.
    area = a * b - c**2
    return 4 / jnp.pi / jnp.sqrt(1 + 2 * a + 2 * b + 4 * with_value(area, jnp.clip(area, 0.0)))


def _size(c):
    """Absolute value of c and its sign; both are smooth from the right at zero (slope 1, not 0)."""
    return jnp.where(c < 0, -c, c), jnp.where(c < 0, -1.0, 1.0)


def sin_dual(a, b, c):
    """``E sin(u) sin(v) = exp(-(a + b)/2) sinh c``, with no overflow and no cancellation."""
    size, sign = _size(c)
    return -sign * jnp.exp(size - (a + b) / 2) * jnp.expm1(-2 * size) / 2


def cos_dual(a, b, c):
    """``E cos(u) cos(v) = exp(-(a + b)/2) cosh c``, with no overflow."""
    size, _ = _size(c)
    return jnp.exp(size - (a + b) / 2) * (1 + jnp.exp(-2 * size)) / 2


def _sin_square(a):
    """``E sin(u)^2`` at variance a."""
    return -jnp.expm1(-2 * a) / 2


def _cos_square(a):
    """``E cos(u)^2`` at variance a."""
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
