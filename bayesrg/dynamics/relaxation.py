# SPDX-License-Identifier: Apache-2.0
r"""Relaxation of modes, :math:`(1 - \eta g)^t`, with right derivatives where rates are equal.

Derivatives of eigenvectors are nan or wrong where eigenvalues are equal. So eigenvectors are
constants here. Results are functions of a symmetric matrix, and derivatives of such functions are
computed from divided differences, which exist for equal eigenvalues too.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .._linalg import once


def factors(
    g: Float[Array, "..."],
    step_size: Float[Array, ""] | None,
    t: Float[Array, "..."],
    floor: Float[Array, ""],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    r"""Return :math:`(1 - \eta g)^t` and :math:`(1 - (1 - \eta g)^t)/g` for modes of rate g.

    Arguments broadcast. ``step_size`` None is the flow, and t may be ``jnp.inf``. Rates up to
    ``floor`` count as zero: the results are 1 and :math:`\eta t`, or 1 and 0 in the limit.
    """
    eta = 1.0 if step_size is None else step_size
    moves = g > floor
    x = jnp.where(moves, eta * g, 0.5)

    # the limit is put in below; until then its time is 1, so that no derivative is nan
    ends = jnp.isfinite(t)
    t = jnp.where(ends, t, 1.0)

    if step_size is None:
        left, learnt, limit = jnp.exp(-x * t), -jnp.expm1(-x * t), jnp.zeros_like(x)
    else:
        # log1p keeps the digits of small x; above 1/2 a power is as good, and has a sign beyond 1
        slow = t * jnp.log1p(-jnp.minimum(x, 0.5))
        sign = jnp.where((t % 2 == 1) & (x > 1), -1.0, 1.0)
        fast = sign * jnp.where(t > 0, jnp.abs(1.0 - x), 1.0) ** t
        left = jnp.where(x < 0.5, jnp.exp(slow), fast)
        learnt = jnp.where(x < 0.5, -jnp.expm1(slow), 1.0 - fast)
        limit = jnp.where(x < 2, 0.0, jnp.inf)

    left, learnt = jnp.where(ends, left, limit), jnp.where(ends, learnt, 1.0 - limit)
    still = jnp.where(ends, eta * t, 0.0)
    return jnp.where(moves, left, 1.0), jnp.where(moves, eta * learnt / x, still)


def floor_of(g: Float[Array, " mode"]) -> Float[Array, ""]:
    """Return the rate () up to which a mode counts as still: the rounding error of the fastest."""
    return g.shape[0] * jnp.finfo(g.dtype).eps * lax.stop_gradient(jnp.abs(g).max())


@jax.custom_jvp
def learn(B, U, g, step_size, t, c):
    r"""Apply :math:`(1 - (1 - \eta B)^t)/B` in the eigenbasis of B.

    Parameters
    ----------
    B : (n, n) symmetric
        Only derivatives use it.
    U, g : (n, n), (n,)
        Eigenvectors of B as columns, and eigenvalues of B plus a multiple of the identity.
    step_size : () or None
        None for the flow.
    t : (...)
        Times.
    c : (n, m)
        Vectors, by their coordinates in the eigenbasis.

    Returns
    -------
    (..., n, m)

    References
    ----------
    Daleckii and Krein (1965); Higham (2008), theorem 3.11.
    """
    return factors(g, step_size, t[..., None], floor_of(g))[1][..., None] * c


@learn.defjvp
def _learn_jvp(primals, tangents):
    (B, U, g, step_size, t, c), (dB, _, dg, d_step, dt, dc) = primals, tangents
    U = once(U, B)

    def diagonal(g, step_size, t, c):
        return factors(g, step_size, t[..., None], floor_of(g))[1][..., None] * c

    # at constant eigenvectors
    result, change = jax.jvp(diagonal, (g, step_size, t, c), (dg, d_step, dt, dc))

    # by a turn of the eigenvectors: U^T dB U times divided differences of the function, which are
    # its slope where two rates are equal
    floor = floor_of(g)
    gap, total = g[:, None] - g, g[:, None] + g
    close = jnp.abs(gap) <= 1e-6 * total + floor
    middle = 0.5 * total
    slope = jax.jvp(
        lambda v: factors(v, step_size, t[..., None, None], floor)[1],
        (middle,),
        (jnp.ones_like(middle),),
    )[1]
    value = factors(g, step_size, t[..., None], floor)[1]
    ratio = (value[..., :, None] - value[..., None, :]) / jnp.where(close, 1.0, gap)
    turned = (U.T @ dB @ U) * (1.0 - jnp.eye(g.shape[0], dtype=g.dtype))
    return result, change + (jnp.where(close, slope, ratio) * turned) @ c


@jax.custom_jvp
def eigenvalues(B, U, e):
    """Return the eigenvalues ``e`` (n,) of B, with the derivative diag(U^T dB U)."""
    return e


@eigenvalues.defjvp
def _eigenvalues_jvp(primals, tangents):
    (B, U, e), (dB, *_) = primals, tangents
    U = once(U, B)
    return e, jnp.einsum("pi,pq,qi->i", U, dB, U)
