# SPDX-License-Identifier: Apache-2.0
"""The one fixed point that the renormalisation group and deterministic equivalents share.

``s = ridge + sum_k g_k l_k s / (s + n l_k)`` for eigenvalues ``l_k`` with degeneracies ``g_k``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix
from jax import Array

_STEPS = 1200  # halvings from the largest float to the smallest


class Root(NamedTuple):
    """Solution of the fixed-point equation.

    ``value`` is the effective ridge (a variance), ``residual`` the relative imbalance of the
    equation there, ``converged`` whether it is at round-off.
    """

    value: Array
    residual: Array
    converged: Array


def _imbalance(s, values, degeneracy, n, ridge):
    """Relative imbalance at ``s``, and the Newton step from there.

    Modes that are mostly learnt enter through what is left of them, and the step is a ratio of
    positive sums, so that nothing cancels where there are about as many modes as points, or more
    points and a tiny ridge.
    """
    total = s + n * values
    left, done = s / total, n * values / total
    learnt = done > left
    free = (n - jnp.where(learnt, degeneracy, 0.0).sum()) / n
    terms = jnp.where(learnt, left, -done) / n
    slopes = jnp.where(learnt, left * (left + 2 * done), -(done**2)) / n
    slope = free + (degeneracy * slopes).sum()
    step = (ridge + (degeneracy * values * left**2).sum()) / slope
    return free + (degeneracy * terms).sum() - ridge / s, step


def _descend(args, upper):
    """Newton's method from above the root, which ``s`` times the imbalance, convex in s, allows.

    Every step lands between the root and where it left, so no bracket is kept; steps end when
    they no longer fall by more than round-off.
    """

    def falls(state):
        s, before, count = state
        return (s < before * (1 - 4 * jnp.finfo(s.dtype).eps)) & (count < _STEPS)

    def step(state):
        s, _, count = state
        return _imbalance(s, *args)[1], s, count + 1

    s, _, count = jax.lax.while_loop(falls, step, (upper, 2 * upper, 0))
    return s, count < _STEPS


def _solve(values, degeneracy, n, ridge, upper):
    eps = jnp.finfo(values.dtype).eps
    modes = jnp.where(values > 0, degeneracy, 0.0).sum()
    # With no ridge and at least as many points as modes nothing is left over: s = 0. There
    # s = ridge * n / (n - modes) to first order, which carries the derivative.
    overdetermined = (ridge <= 0) & (n >= modes)
    bare = jnp.where(overdetermined, 1.0, ridge)
    args = (values, degeneracy, n, bare)
    bound = bare + (degeneracy * values).sum()
    start = jnp.where((upper > 0) & (upper < bound), upper, bound)
    s, settled = _descend(*jax.lax.stop_gradient((args, start)))
    # Newton steps from the root: they polish the last digits, and because the root is a fixed
    # point of the step, differentiating two of them gives its first and second derivatives.
    for _ in range(2):
        s = _imbalance(s, *args)[1]
    residual = jnp.abs(_imbalance(s, *args)[0])
    limit = jnp.where(n > modes, ridge * n / jnp.where(n > modes, n - modes, 1.0), 0.0 * ridge)
    value = jnp.where(overdetermined, limit, s)
    residual = jnp.where(overdetermined, 0.0, residual)
    return value, residual, (residual < 1e3 * eps * (1.0 + modes)) & (settled | overdetermined)


@jax.jit
def _batched(values, degeneracy, n, ridge, upper):
    """Solve one by one: each ends when it is done, and its modes stay in the cache."""
    batch = jnp.broadcast_shapes(
        values.shape[:-1], degeneracy.shape[:-1], n.shape, ridge.shape, upper.shape
    )
    if batch == ():
        return _solve(values, degeneracy, n, ridge, upper)
    shared = values.ndim == degeneracy.ndim == 1

    def flat(x, core):
        return jnp.broadcast_to(x, batch + core).reshape((-1,) + core)

    modes = () if shared else (flat(values, values.shape[-1:]), flat(degeneracy, values.shape[-1:]))
    scalars = tuple(flat(x, ()) for x in (n, ridge, upper))

    def one(arguments):
        return _solve(*((values, degeneracy) if shared else ()), *arguments)

    return tuple(x.reshape(batch) for x in jax.lax.map(one, modes + scalars))


def effective_ridge(values, degeneracy, n, ridge, upper=jnp.inf):
    """Solve the fixed point; every argument may be batched.

    Parameters
    ----------
    values : (..., k) eigenvalues under a probability measure
    degeneracy : (..., k) modes that each eigenvalue stands for
    n : (...) number of points, any positive real
    ridge : (...) variance
    upper : (...) a bound on the root, from which to start if it is closer than the trivial one

    Returns
    -------
    Root
    """
    dtype = values.dtype
    n, ridge = jnp.asarray(n, dtype), jnp.asarray(ridge, dtype)
    if values.shape[-1] == 0:
        value = jnp.broadcast_to(ridge, jnp.broadcast_shapes(n.shape, ridge.shape))
        return Root(value, jnp.zeros_like(value), jnp.ones_like(value, bool))
    return Root(*_batched(values, degeneracy, n, ridge, jnp.asarray(upper, dtype)))


def iterate(function, upper, args, *, rtol=1e-13, steps=10_000):
    """Iterate a rising map of positive vectors from above its largest fixed point.

    Parameters
    ----------
    function : callable (s, args) -> s
    upper : (p,) upper bound, at which the map does not rise
    args : pytree, in which the result is differentiable by the implicit function theorem
    rtol : relative change at which iterations end
    steps : most iterations

    Returns
    -------
    Root
        ``residual`` () is the largest relative change that another iteration makes.
    """
    tolerance = max(rtol, 8 * float(jnp.finfo(upper.dtype).eps))
    solution = optimistix.fixed_point(
        function, optimistix.FixedPointIteration(tolerance, 0.0), upper, args,
        max_steps=steps, throw=False,
    )  # fmt: skip
    s = solution.value
    residual = jnp.abs(function(s, args) / s - 1).max()
    return Root(s, residual, residual < 10 * tolerance)
