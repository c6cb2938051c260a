# SPDX-License-Identifier: Apache-2.0
"""Derivatives of roots, and the fixed point of renormalisation group and deterministic equivalents.

It is ``s = ridge + sum_k g_k l_k s / (s + n l_k)``, eigenvalues ``l_k`` with degeneracies ``g_k``.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


def entrywise(equation, s, change):
    """Divide ``change`` by the slope of an equation whose every entry has its own unknown."""
    return change / jax.jvp(equation, (s,), (jnp.ones_like(s),))[1]


def coupled(equation, s, change):
    """Divide ``change`` (p,) by the Jacobian of an equation whose unknowns s (p,) mix."""
    return jnp.linalg.solve(jax.jacfwd(equation)(s), change)


def implicit(function, solution, args, divide=entrywise):
    """Give a root its derivatives, of any order and in both modes; its value is not changed.

    By the implicit function theorem the tangent is minus that of ``function`` over its slope,
    taken at a root that has derivatives itself. How the root was found is not differentiated,
    and a program that takes no derivatives is not larger for it.

    Parameters
    ----------
    function : callable (s, args) -> array like s
        Vanishes at the root. It may close over traced values.
    solution : array, real or complex
    args : pytree in which the root is differentiable
    divide : callable (equation, s, change) -> array
        Solves the linearised equation at s: `entrywise`, `coupled`, or one made for the equation.

    Returns
    -------
    array like ``solution``
    """
    solution, args = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), (solution, args))

    # arrays that the function closes over become arguments, so that their tangents count as well
    function = eqx.filter_closure_convert(function, solution, args)
    traced, rest = eqx.partition(function, eqx.is_array)
    solution = jax.lax.stop_gradient(solution)
    return _implicit(lambda s, f, a: eqx.combine(f, rest)(s, a), divide, solution, (traced, args))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _implicit(function, divide, solution, args):
    return solution


@_implicit.defjvp
def _implicit_jvp(function, divide, primals, tangents):
    solution, args = primals
    s = _implicit(function, divide, solution, args)  # not ``solution``: s has derivatives itself
    change = jax.jvp(lambda a: function(s, *a), (args,), tangents[1:])[1]
    return s, -divide(lambda x: function(x, *args), s, change)


def _balance(s, values, degeneracy, n):
    """Share of n that modes leave free at s, ridge / s at the root; the derivative of s times it.

    The share is ``1 - sum_k g_k l_k/(s + n l_k)``. A mode that is mostly learnt enters by the part
    of it that is not, so that nothing cancels if there are about as many modes as points, or more
    points and a tiny ridge.
    """
    total = s + n * values
    total = jnp.where(total > 0, total, 1.0)
    left, done = s / total, n * values / total
    learnt = done > left
    count = jnp.where(learnt, degeneracy, 0.0).sum()
    free = jnp.where(2 * count > n, (n - count) / n, 1 - count / n)  # the derivative cancels too
    terms = jnp.where(learnt, left, -done) / n
    slopes = jnp.where(learnt, left * (left + 2 * done), -(done**2)) / n
    return free + (degeneracy * terms).sum(), free + (degeneracy * slopes).sum()


def _newton(s, values, degeneracy, n, ridge):
    """Take a Newton step from s, written as a ratio of positive sums."""
    left = s / (s + n * values)
    slope = _balance(s, values, degeneracy, n)[1]
    return (ridge + (degeneracy * values * left**2).sum()) / slope


def _equation(s, args):
    """Relative imbalance at s, or the absolute one where s is 0.

    With n modes and no ridge the root grows like the square root of the ridge, with infinite slope:
    the largest float stands for it.
    """
    *spectrum, ridge = args
    share = _balance(s, *spectrum)[0]
    zero = jax.lax.stop_gradient(s) <= 0
    share = jnp.where(zero, jnp.maximum(share, jnp.finfo(s.dtype).tiny), share)
    return jnp.where(zero, s * share - ridge, share - ridge / jnp.where(zero, 1.0, s))


def descend(newton, upper):
    """Repeat Newton steps from above the positive root of a convex equation.

    Every step lands between the root and where it left, so no bracket is kept. Steps end when no
    entry falls by more than round-off.

    Parameters
    ----------
    newton : callable s -> s, one step
    upper : (...) upper bounds, each entry with a root of its own

    Returns
    -------
    s, settled
        The roots (...), and whether steps ended before the largest number of them.
    """

    def falls(state):
        s, before, count = state
        return (s < before * (1 - 4 * jnp.finfo(s.dtype).eps)).any() & (count < _STEPS)

    def step(state):
        s, _, count = state
        return newton(s), s, count + 1

    s, _, count = jax.lax.while_loop(falls, step, (upper, 2 * upper, 0))
    return s, count < _STEPS


def bisect(is_below, low, high, steps):
    """Halve the intervals from ``low`` to ``high`` (...) ``steps`` times and return their ends.

    ``is_below(x)`` says for each entry whether x lies below its root.
    """

    def halve(_, ends):
        middle = (ends[0] + ends[1]) / 2
        below = is_below(middle)
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    return jax.lax.fori_loop(0, steps, halve, (low, high))


def _solve(values, degeneracy, n, ridge, upper):
    args = (values, degeneracy, n, ridge)
    values, degeneracy, n, ridge, upper = jax.lax.stop_gradient((*args, upper))
    eps = jnp.finfo(values.dtype).eps
    modes = jnp.where(values > 0, degeneracy, 0.0).sum()

    # without a ridge, and with at least as many points as modes, the root is s = 0
    overdetermined = (ridge <= 0) & (n >= modes)
    bare = values, degeneracy, n, jnp.where(overdetermined, 1.0, ridge)
    bound = bare[-1] + (degeneracy * values).sum()
    start = jnp.where((upper > 0) & (upper < bound), upper, bound)
    s, settled = descend(lambda s: _newton(s, *bare), start)  # s times the imbalance is convex
    s = _newton(s, *bare)  # polishes the last digits
    residual = jnp.where(overdetermined, 0.0, jnp.abs(_equation(s, bare)))
    converged = (residual < 1e3 * eps * (1.0 + modes)) & (settled | overdetermined)
    return implicit(_equation, jnp.where(overdetermined, 0.0, s), args), residual, converged


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


@jax.jit
def effective_ridge(levels, n, ridge, upper=jnp.inf):
    """Solve the fixed point of `bayesrg.spectrum.Levels`; every argument may be batched.

    Parameters
    ----------
    levels : Levels
        Their tail is added to the ridge.
    n : (...) number of points, any positive real
    ridge : (...) variance
    upper : (...) a bound on the root, from which to start if it is closer than the trivial one

    Returns
    -------
    Root
    """
    values, dtype = levels.values, levels.values.dtype
    n, ridge = jnp.asarray(n, dtype), jnp.asarray(ridge + levels.tail, dtype)
    if values.shape[-1] == 0:
        value = jnp.broadcast_to(ridge, jnp.broadcast_shapes(n.shape, ridge.shape))
        return Root(value, jnp.zeros_like(value), jnp.ones_like(value, bool))
    return Root(*_batched(values, levels.degeneracy, n, ridge, jnp.asarray(upper, dtype)))


def iterate(function, upper, args, *, rtol=1e-13, steps=10_000):
    """Iterate a rising map of positive vectors from above its largest fixed point.

    Parameters
    ----------
    function : callable (s, args) -> s
    upper : (p,) upper bound, at which the map does not rise
    args : pytree, in which the result is differentiable
    rtol : relative change at which iterations end
    steps : most iterations

    Returns
    -------
    Root
        ``residual`` () is the largest relative change that another iteration makes.
    """
    tolerance = max(rtol, 8 * float(jnp.finfo(upper.dtype).eps))
    fixed, upper = jax.lax.stop_gradient((args, upper))
    solution = optimistix.fixed_point(
        function, optimistix.FixedPointIteration(tolerance, 0.0), upper, fixed,
        max_steps=steps, throw=False,
    )  # fmt: skip
    residual = jnp.abs(function(solution.value, fixed) / solution.value - 1).max()
    root = implicit(lambda s, a: s - function(s, a), solution.value, args, coupled)
    return Root(root, residual, residual < 10 * tolerance)


def hessian(gradient, x):
    """Hessian at x (k,) by central differences of a compiled gradient; nothing else is compiled."""
    steps = 1e-4 * np.eye(x.size)
    H = np.stack([(gradient(x + e) - gradient(x - e)) / 2e-4 for e in steps])
    return 0.5 * (H + H.T)
