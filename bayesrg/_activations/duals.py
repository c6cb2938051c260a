# SPDX-License-Identifier: Apache-2.0
"""Second Gaussian moments of two arguments, in closed form and with safe derivatives.

For ``(u, v) ~ N(0, [[a, c], [c, b]])`` an activation's dual is ``V(a, b, c) = E f(u) f(v)``; its
derivative in ``c`` is ``E f'(u) f'(v)`` (Price's theorem). ``diagonal(a) = E f(u)^2``.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .._linalg import safe_sqrt


class Dual(NamedTuple):
    """Second moments of an activation: off the diagonal and on it."""

    covariance: Callable[[Array, Array, Array], Array]
    diagonal: Callable[[Array], Array]


def _angle(a, b, c):
    """Area ``s`` and angle ``t`` between two vectors of squared lengths a, b, inner product c."""
    s = safe_sqrt(a * b - c**2)
    return s, jnp.arctan2(s, c)


def _ratio(x, y):
    """``x / y``, zero where y is zero."""
    return jnp.where(y > 0, x / jnp.where(y > 0, y, 1.0), 0.0)


@jax.custom_jvp
def relu_dual(a, b, c):
    """Arc-cosine kernel of order 1, halved: ``(s + (pi - t) c) / 2 pi``."""
    s, t = _angle(a, b, c)
    return (s + (jnp.pi - t) * c) / (2 * jnp.pi)


@relu_dual.defjvp
def _relu_dual_jvp(primals, tangents):
    # The square root and the arc cosine are singular at equal inputs, their combination is not:
    # dV = (pi - t)/(2 pi) dc + s/(4 pi) (da/a + db/b) is finite everywhere.
    a, b, c = primals
    da, db, dc = tangents
    s, t = _angle(a, b, c)
    value = (s + (jnp.pi - t) * c) / (2 * jnp.pi)
    change = (jnp.pi - t) / (2 * jnp.pi) * dc
    return value, change + s / (4 * jnp.pi) * (_ratio(da, a) + _ratio(db, b))


@jax.custom_jvp
def erf_dual(a, b, c):
    """Covariance of error functions, ``(2/pi) asin(2c / sqrt((1 + 2a)(1 + 2b)))``."""
    ratio = 2 * c / jnp.sqrt((1 + 2 * a) * (1 + 2 * b))
    return 2 / jnp.pi * jnp.arcsin(jnp.clip(ratio, -1.0, 1.0))


@erf_dual.defjvp
def _erf_dual_jvp(primals, tangents):
    a, b, c = primals
    da, db, dc = tangents
    # (1 + 2a)(1 + 2b) - 4c^2 >= 1 + 2a + 2b by Cauchy and Schwarz: it never vanishes.
    slope = 4 / jnp.pi / jnp.sqrt(1 + 2 * a + 2 * b + 4 * jnp.clip(a * b - c**2, 0.0))
    return erf_dual(a, b, c), slope * (dc - c * (da / (1 + 2 * a) + db / (1 + 2 * b)))


RELU = Dual(relu_dual, lambda a: a / 2)
ERF = Dual(erf_dual, lambda a: 2 / jnp.pi * jnp.arcsin(2 * a / (1 + 2 * a)))
LINEAR = Dual(lambda a, b, c: c, lambda a: a)
