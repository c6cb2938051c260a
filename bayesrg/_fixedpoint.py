# SPDX-License-Identifier: Apache-2.0
"""The one fixed point that the renormalisation group and deterministic equivalents share.

``s = ridge + sum_k g_k l_k s / (s + n l_k)`` for eigenvalues ``l_k`` with degeneracies ``g_k``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix
from jax import Array


class Root(NamedTuple):
    """Solution of the fixed-point equation.

    ``value`` is the effective ridge (a variance), ``residual`` the relative imbalance of the
    equation there, ``converged`` whether it is at round-off.
    """

    value: Array
    residual: Array
    converged: Array


def _balance(log_s, args):
    """Relative imbalance of the equation: rising in ``log_s``, zero at the root."""
    return _imbalance(jnp.exp(log_s), *args)[0]


def _imbalance(s, values, degeneracy, n, ridge):
    """Relative imbalance at ``s``, and the derivative of ``s`` times it.

    Modes that are mostly learnt enter through what is left of them, so that nothing cancels
    when there are about as many modes as points and s is tiny.
    """
    total = s + n * values
    learnt = n * values > s
    free = (n - jnp.where(learnt, degeneracy, 0.0).sum()) / n
    terms = jnp.where(learnt, s / n, -values) / total
    slopes = jnp.where(learnt, s * (s + 2 * n * values) / n, -n * values**2) / total**2
    return (
        free + (degeneracy * terms).sum() - ridge / s,
        free + (degeneracy * slopes).sum(),
    )


def _solve(values, degeneracy, n, ridge):
    eps = jnp.finfo(values.dtype).eps
    modes = jnp.where(values > 0, degeneracy, 0.0).sum()
    # With no ridge and at least as many points as modes nothing is left over: s = 0. There
    # s = ridge * n / (n - modes) to first order, which carries the derivative.
    overdetermined = (ridge <= 0) & (n >= modes)
    bare = jnp.where(overdetermined, 1.0, ridge)
    counts = jnp.cumsum(jnp.where(values > 0, degeneracy, 0.0))
    lower = jnp.maximum(bare, ((counts - n) * values).max(initial=0.0))
    upper = bare + (degeneracy * values).sum()
    args = (values, degeneracy, n, bare)
    tolerance = 64 * eps
    solution = optimistix.root_find(
        _balance,
        optimistix.Bisection(rtol=tolerance, atol=tolerance, flip=False),
        jnp.log(upper),
        args=jax.lax.stop_gradient(args),
        options={
            "lower": jax.lax.stop_gradient(jnp.log(lower) - 0.1),
            "upper": jax.lax.stop_gradient(jnp.log(upper) + 0.1),
        },
        max_steps=80,
        throw=False,
    )
    s = jax.lax.stop_gradient(jnp.exp(solution.value))
    # Newton steps from the root: they polish the last digits, and because the root is a fixed
    # point of the step, differentiating two of them gives its first and second derivatives.
    for _ in range(2):
        imbalance, slope = _imbalance(s, *args)
        s = s - s * imbalance / slope
    residual = jnp.abs(_balance(jnp.log(s), args))
    limit = jnp.where(n > modes, ridge * n / jnp.where(n > modes, n - modes, 1.0), 0.0 * ridge)
    value = jnp.where(overdetermined, limit, s)
    residual = jnp.where(overdetermined, 0.0, residual)
    return value, residual, residual < 1e3 * eps * (1.0 + modes)


_batched = jnp.vectorize(_solve, signature="(k),(k),(),()->(),(),()")


def effective_ridge(values, degeneracy, n, ridge):
    """Solve the fixed point; every argument may be batched.

    Parameters
    ----------
    values : (..., k) eigenvalues under a probability measure
    degeneracy : (..., k) modes that each eigenvalue stands for
    n : (...) number of points, any positive real
    ridge : (...) variance

    Returns
    -------
    Root
    """
    dtype = values.dtype
    n, ridge = jnp.asarray(n, dtype), jnp.asarray(ridge, dtype)
    if values.shape[-1] == 0:
        value = jnp.broadcast_to(ridge, jnp.broadcast_shapes(n.shape, ridge.shape))
        return Root(value, jnp.zeros_like(value), jnp.ones_like(value, bool))
    return Root(*_batched(values, degeneracy, n, ridge))
