# SPDX-License-Identifier: Apache-2.0
"""Quotients and roots whose derivatives are finite at zero, and values known better than derived.

In ``jnp.where`` the derivative of the branch that is not taken counts too, and 0 * infinity is nan.
So the argument of that branch is replaced by a harmless number first.
"""

import jax
import jax.numpy as jnp


def ratio(a, b, otherwise=0.0):
    """Return ``a / b``, and ``otherwise`` where b is zero. The derivative is zero there."""
    zero = b == 0
    return jnp.where(zero, otherwise, a / jnp.where(zero, 1.0, b))


def safe_sqrt(x):
    """Return the square root of ``max(x, 0)``, with derivative 0 instead of infinity at zero."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


@jax.custom_jvp
def with_value(x, value):
    """Return ``value`` (...), with the derivatives, of every order, of ``x`` (...).

    Use it if a value is known with more digits than the formula for ``x`` gives. Replacing x by
    the value would lose the derivatives of the formula.
    """
    return value


@with_value.defjvp
def _with_value_jvp(primals, tangents):
    return with_value(*primals), tangents[0]
