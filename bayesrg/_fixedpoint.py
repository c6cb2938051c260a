# SPDX-License-Identifier: Apache-2.0
"""Roots and least points: their derivatives, and the fixed-point equation of the effective ridge.

The equation is ``s = ridge + sum_k g_k l_k s / (s + n l_k)``, for eigenvalues ``l_k`` with
degeneracies ``g_k`` and n points. The renormalisation group and deterministic equivalents share it.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jax import Array
from scipy.optimize import minimize

_STEPS = 1200  # at most; even steps that only halve s lead from 1 to the smallest float


class Root(NamedTuple):
    """Solution of a fixed-point equation, with a check of it.

    Attributes
    ----------
    value : the solution, such as a ridge (a variance)
    residual : relative difference between the two sides of the equation there
    converged : whether the residual is as small as rounding allows
    """

    value: Array
    residual: Array
    converged: Array


def entrywise(equation, s, change):
    """Return ``change`` / slope of an equation in which entry i depends on unknown i only."""
    return change / jax.jvp(equation, (s,), (jnp.ones_like(s),))[1]


def coupled(equation, s, change):
    """Return the solution of Jacobian x = ``change`` (p,), for an equation in p unknowns s (p,)."""
    return jnp.linalg.solve(jax.jacfwd(equation)(s), change)


def implicit(function, solution, args, divide=entrywise):
    """Return a root with its derivatives in ``args``, by the implicit function theorem.

    The value of ``solution`` is not changed, and the iteration that found it is not differentiated.
    Derivatives of every order exist, in forward and reverse mode.

    Parameters
    ----------
    function : callable (s, args) -> array like s
        Zero at the root. It may capture traced values.
    solution : array, real or complex
    args : pytree
        What the root can be differentiated in.
    divide : callable (equation, s, change) -> array
        Solves the linearised equation at s, as `entrywise` and `coupled` do.
    """
    solution, args = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), (solution, args))

    # make arguments of the arrays that the function captured, so that their tangents count as well
    function = eqx.filter_closure_convert(function, solution, args)
    traced, rest = eqx.partition(function, eqx.is_array)
    solution = jax.lax.stop_gradient(solution)
    return _implicit(lambda s, f, a: eqx.combine(f, rest)(s, a), divide, solution, (traced, args))


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _implicit(function, divide, solution, args):
    """The solution, with the derivative rule below."""
    return solution


@_implicit.defjvp
def _implicit_jvp(function, divide, primals, tangents):
    solution, args = primals
    # The rule differentiates the equation at s. For second derivatives s must have derivatives
    # itself, which ``solution`` has not.
    s = _implicit(function, divide, solution, args)
    change = jax.jvp(lambda a: function(s, *a), (args,), tangents[1:])[1]
    return s, -divide(lambda x: function(x, *args), s, change)


def _balance(s, values, degeneracy, n):
    """Return ``share(s) = 1 - sum_k g_k l_k/(s + n l_k)`` and the derivative of ``s * share(s)``.

    At the root the share equals ridge / s. It is the share of the n points that no mode uses up.
    """
    # Of each mode, done = n l/(s + n l) is learnt and left = s/(s + n l) is not. For modes that are
    # mostly learnt, add 1 - left instead of done: then nothing cancels if there are about as many
    # modes as points, or more points and a tiny ridge.
    total = s + n * values
    total = jnp.where(total > 0, total, 1.0)
    left, done = s / total, n * values / total
    learnt = done > left
    count = jnp.where(learnt, degeneracy, 0.0).sum()

    # two forms of 1 - count/n: each is used where neither it nor its derivative in n loses digits
    free = jnp.where(2 * count > n, (n - count) / n, 1 - count / n)
    terms = jnp.where(learnt, left, -done) / n
    slopes = jnp.where(learnt, left * (left + 2 * done), -(done**2)) / n
    return free + (degeneracy * terms).sum(), free + (degeneracy * slopes).sum()


def _newton(s, values, degeneracy, n, ridge):
    """Return the result of a Newton step from s for ``s * share(s) = ridge``."""
    # s - (s share - ridge)/slope, as a ratio of two positive sums in which nothing cancels
    left = s / (s + n * values)
    slope = _balance(s, values, degeneracy, n)[1]
    return (ridge + (degeneracy * values * left**2).sum()) / slope


def _equation(s, args):
    """Return ``share(s) - ridge / s``; where s is 0, this times s.

    It is zero at the root. With n modes and no ridge, the root grows like the square root of the
    ridge. Its infinite derivative is replaced by the largest float.
    """
    *spectrum, ridge = args
    share = _balance(s, *spectrum)[0]
    zero = jax.lax.stop_gradient(s) <= 0
    share = jnp.where(zero, jnp.maximum(share, jnp.finfo(s.dtype).tiny), share)
    return jnp.where(zero, s * share - ridge, share - ridge / jnp.where(zero, 1.0, s))


def descend(newton, upper):
    """Return positive roots (...) of convex equations, by Newton's method from above them.

    Every step ``newton(s)`` from above a root ends above the root too, so no bracket is needed: it
    starts from the bounds ``upper`` (...) and ends when no entry falls by more than a rounding
    error. Also returns whether that was before the largest number of steps.
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
    """Value, residual and convergence of one root, () each, for eigenvalues (k,)."""
    args = (values, degeneracy, n, ridge)
    values, degeneracy, n, ridge, upper = jax.lax.stop_gradient((*args, upper))
    eps = jnp.finfo(values.dtype).eps
    modes = jnp.where(values > 0, degeneracy, 0.0).sum()

    # without a ridge, and with at least as many points as modes, the root is s = 0
    overdetermined = (ridge <= 0) & (n >= modes)
    bare = values, degeneracy, n, jnp.where(overdetermined, 1.0, ridge)

    # s cannot exceed the ridge plus the sum of all eigenvalues
    bound = bare[-1] + (degeneracy * values).sum()
    start = jnp.where((upper > 0) & (upper < bound), upper, bound)
    s, settled = descend(lambda s: _newton(s, *bare), start)  # s times the imbalance is convex
    s = _newton(s, *bare)  # polishes the last digits
    residual = jnp.where(overdetermined, 0.0, jnp.abs(_equation(s, bare)))
    converged = (residual < 1e3 * eps * (1.0 + modes)) & (settled | overdetermined)
    return implicit(_equation, jnp.where(overdetermined, 0.0, s), args), residual, converged


def _batched(values, degeneracy, n, ridge, upper):
    """Return value, residual and convergence of all roots of a batch, (...) each."""
    # One root after another: each stops when it is done, and its modes stay in the cache. With
    # vmap all would take as many steps as the slowest.
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
    """Return the effective ridge of ``levels``, whose tail is added to the ridge: a `Root` (...).

    Leading axes of the arguments are batch axes that broadcast together. ``upper`` is an upper
    bound on the root, where the iteration starts if the bound is below ridge + sum_k g_k l_k.
    """
    values, dtype = levels.values, levels.values.dtype
    n, ridge = jnp.asarray(n, dtype), jnp.asarray(ridge + levels.tail, dtype)
    if values.shape[-1] == 0:
        value = jnp.broadcast_to(ridge, jnp.broadcast_shapes(n.shape, ridge.shape))
        return Root(value, jnp.zeros_like(value), jnp.ones_like(value, bool))
    return Root(*_batched(values, levels.degeneracy, n, ridge, jnp.asarray(upper, dtype)))


def iterate(function, upper, args):
    """Return the largest fixed point of a rising map of positive vectors, by iteration from above.

    Parameters
    ----------
    function : callable (s, args) -> s
        The map. Its results rise if entries of s rise.
    upper : (p,)
        Upper bound on the fixed point; ``function(upper, args) <= upper``.
    args : pytree
        What the result can be differentiated in.

    Returns
    -------
    Root
        ``value`` (p,). ``residual`` () is the largest relative change by one more iteration.
    """
    tolerance = max(1e-13, 8 * float(jnp.finfo(upper.dtype).eps))
    fixed, upper = jax.lax.stop_gradient((args, upper))
    solver = optimistix.FixedPointIteration(tolerance, 0.0)
    solution = optimistix.fixed_point(function, solver, upper, fixed, max_steps=10_000, throw=False)
    residual = jnp.abs(function(solution.value, fixed) / solution.value - 1).max()
    root = implicit(lambda s, a: s - function(s, a), solution.value, args, coupled)
    return Root(root, residual, residual < 10 * tolerance)


def least_point(value_and_grad, starts):
    """Return the least point of a smooth function, from the best of several starts, on the host.

    L-BFGS comes close, and Newton steps polish the point (k,) to round-off. ``value_and_grad`` is a
    compiled function from x (k,) to the value () and the gradient (k,).
    """

    def on_host(x):
        value, gradient = value_and_grad(x)
        return float(value), np.asarray(gradient)

    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    found = [minimize(on_host, x, jac=True, method="L-BFGS-B", options=options) for x in starts]
    x = min(found, key=lambda result: result.fun).x
    for _ in range(5):
        x = x - np.linalg.lstsq(hessian(on_host, x), on_host(x)[1])[0]
    return x


def hessian(value_and_grad, x, gradient=None):
    """Return the Hessian (k, k) at x (k,), by differences of a compiled gradient.

    The differences are central. If the ``gradient`` at x is given, they are taken from there, with
    half of the work and relative errors of about 1e-4. The program of the gradient is used again,
    so nothing else is compiled.
    """
    steps = 1e-4 * np.eye(x.size)
    if gradient is None:
        slopes = [(value_and_grad(x + e)[1] - value_and_grad(x - e)[1]) / 2e-4 for e in steps]
    else:
        slopes = [(value_and_grad(x + e)[1] - gradient) / 1e-4 for e in steps]
    H = np.stack(slopes)
    return 0.5 * (H + H.T)
