# SPDX-License-Identifier: Apache-2.0
"""Dyson Brownian motion: levels of a symmetric matrix that moves in a potential under noise."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import coupled, implicit
from .._linalg import eigh
from .._trajectory import DIVERGED, GO, Algorithm, Info, State

_NEWTON, _HALVINGS = 1000, 20


def dyson(
    noise: ArrayLike,
    *,
    dt: ArrayLike,
    rate: ArrayLike | None = None,
    loc: ArrayLike = 0.0,
    slope: Callable | None = None,
    beta: ArrayLike = 1.0,
    method: str = "matrix",
) -> Algorithm:
    r"""Return the motion of a symmetric matrix, or of its levels, in a potential V, for `run`.

    The levels follow

    .. math:: dx_i = -V'(x_i)\,dt + \beta g^2\sum_{j\ne i}\frac{dt}{x_i - x_j} + \sqrt2\,g\,dB_i

    and settle to a gas of density :math:`\prod_{i<j}|x_i - x_j|^\beta e^{-\sum V(x_i)/g^2}`. For
    :math:`V = \gamma(x - x_0)^2/2` that is `bayesrg.ensembles.CoulombGas` of the width
    :math:`g/\sqrt\gamma`.

    Parameters
    ----------
    noise : (), positive
        g.
    dt : (), positive
        Time per step.
    rate, loc : ()
        :math:`\gamma` (positive) and :math:`x_0` of a quadratic potential.
    slope : callable, optional
        :math:`V'`, from levels (n,) to (n,), for another potential. It is applied entry by entry.
    beta : ()
        Repulsion; 1 with the method "matrix", else 0 or at least 0.01.
    method : str
        - "matrix": the position is a symmetric matrix (n, n). A quadratic potential is followed
          exactly for any ``dt``, another one by Euler steps. Levels cannot cross.
        - "implicit": the position is n ascending levels, moved by the backward Euler method, with
          errors of order ``dt``. Its equation has one solution in this order if V is convex.

        The explicit Euler method for levels is not offered: levels cross, and their spread then
        grows without bound.

    Returns
    -------
    Algorithm
        It observes ``{"spread": ...}``, the variance of the levels, and diverges where this is not
        finite or a step of the implicit method finds no solution. Record levels with
        ``run(..., keep=lambda state: jnp.linalg.eigvalsh(state.x))``.

    Raises
    ------
    ValueError
        Unless either ``rate`` or ``slope`` is given, or for beta other than 1 of a matrix.

    References
    ----------
    arXiv 2407.16427.
    """
    if (rate is None) == (slope is None):
        raise ValueError("give rate of a quadratic potential, or slope, the derivative of V")
    if slope is not None and not (_checks.known(loc) and np.all(np.equal(loc, 0.0))):
        raise ValueError("loc is the centre of a quadratic potential; put it into slope")
    if _checks.choice("method", method, ("matrix", "implicit")) == "matrix":
        if not (_checks.known(beta) and np.all(np.equal(beta, 1.0))):
            raise ValueError(
                f'beta is {beta}, and a real symmetric matrix has 1; use method="implicit"'
            )
    noise = _checks.positive("noise", noise, ndim=0)
    dt = _checks.positive("dt", dt, ndim=0)
    loc, beta = _checks.finite("loc", loc, ndim=0), _checks.nonnegative("beta", beta, ndim=0)
    if _checks.known(beta) and 0 < beta < 0.01:
        raise ValueError(f"beta must be 0 or at least 0.01, got {beta}: the solver fails between")
    if rate is not None:
        rate = _checks.positive("rate", rate, ndim=0)
        potential = _Quadratic(rate, loc)
    else:
        potential = _checks.function("slope", slope, "a function of levels")
    kind = {"implicit": _Levels, "matrix": _Matrix if rate is None else _Quadratics}[method]
    rule = kind(potential, noise, dt, beta)
    return Algorithm(rule.init, rule.step, dt)


class _Quadratic(eqx.Module):
    rate: Float[Array, ""]
    loc: Float[Array, ""]

    def __call__(self, x):
        return self.rate * (x - self.loc)


class _Motion(eqx.Module):
    slope: Callable
    noise: Float[Array, ""]
    dt: Float[Array, ""]
    beta: Float[Array, ""]

    def init(self, x0):
        matrix = not isinstance(self, _Levels)
        x0 = _checks.finite("x0", x0)
        if x0.ndim != (2 if matrix else 1) or not x0.size or x0.shape[0] != x0.shape[-1]:
            shape = "a symmetric matrix (n, n)" if matrix else "ascending levels (n,)"
            raise ValueError(f"x0 has shape {jnp.shape(x0)}; this method moves {shape}")
        x0 = x0.astype(float)
        found = jax.eval_shape(self.slope, x0[0] if matrix else x0)
        if getattr(found, "shape", None) != x0.shape[:1]:
            raise ValueError(
                f"slope must return one number per level, shape {x0.shape[:1]}, got "
                f"{getattr(found, 'shape', found)}"
            )
        if matrix:
            return State(_checks.symmetric("x0", x0))
        _checks.require_x64('dynamics.dyson with method="implicit"')
        if _checks.known(x0) and not (np.diff(np.asarray(x0)) > 0).all():
            raise ValueError(
                "x0 must be strictly ascending levels; use jnp.sort, and part equal ones"
            )
        return State(x0)

    def step(self, state, key):
        x = self.move(state.x, key)
        levels = jnp.diagonal(state.x) if state.x.ndim == 2 else state.x
        spread = ((state.x**2).sum() - levels.sum() ** 2 / len(levels)) / len(levels)
        bad = ~jnp.isfinite(spread) | ~jnp.isfinite(x).all()
        return State(x), Info({"spread": spread}, jnp.where(bad, DIVERGED, GO))


def _symmetric_noise(key, n, dtype):
    """Draw a symmetric matrix with off-diagonal variance 1/2 and diagonal variance 1."""
    A = random.normal(key, (n, n), dtype)
    return (A + A.T) / 2


class _Quadratics(_Motion):
    """The exact motion of a matrix in a quadratic potential."""

    def move(self, X, key):
        V = self.slope
        left = jnp.exp(-V.rate * self.dt)
        centre = V.loc * jnp.eye(len(X), dtype=X.dtype)
        G = _symmetric_noise(key, len(X), X.dtype) * self.noise / jnp.sqrt(V.rate)
        return centre + left * (X - centre) + jnp.sqrt(-jnp.expm1(-2 * V.rate * self.dt)) * G


class _Matrix(_Motion):
    """Euler steps of a matrix in another potential."""

    def move(self, X, key):
        x, U = eigh(X)
        drift = (U * self.slope(x)) @ U.T
        return (
            X
            - self.dt * drift
            + jnp.sqrt(2 * self.dt) * self.noise * _symmetric_noise(key, len(X), X.dtype)
        )


class _Levels(_Motion):
    """Backward Euler steps of levels: z + h V'(z) - h beta g^2 sum_j 1/(z_i - z_j) = x + noise."""

    def move(self, x, key):
        h, repulsion = self.dt, self.dt * self.beta * self.noise**2
        target = x + jnp.sqrt(2 * h) * self.noise * random.normal(key, x.shape, x.dtype)
        free = self.beta == 0
        off = ~jnp.eye(len(x), dtype=bool)

        def equation(z, args):
            h, repulsion, target = args
            gaps = jnp.where(off, z[:, None] - z[None, :], 1.0)
            return z + h * self.slope(z) - repulsion * jnp.where(off, 1 / gaps, 0.0).sum(1) - target

        args = h, repulsion, target

        def newton(carry):
            z, _, i = carry
            value = equation(z, args)
            step = jnp.linalg.solve(jax.jacfwd(equation)(z, args), value)

            # the sum of log gaps is self-concordant: from anywhere, a step that is shortened by
            # its own length leads towards the root
            length = jnp.sqrt(jnp.maximum(value @ step, 0.0) / jnp.where(free, 1.0, repulsion))
            damped = jnp.where(free | (length < 0.25), 1.0, 1 / (1 + length))
            trial = z - (damped * 0.5 ** jnp.arange(_HALVINGS))[:, None] * step
            ordered = (jnp.diff(trial, axis=-1) > 0).all(-1)
            ordered |= free  # levels that do not repel may cross
            z = trial[jnp.argmax(ordered)]  # the longest step that keeps the order
            return z, jnp.abs(step).max(), i + 1

        def unsettled(carry):
            z, change, i = carry
            eps = jnp.finfo(x.dtype).eps
            return (change > 100 * eps * (1 + jnp.abs(z).max())) & (i < _NEWTON)

        # start where gaps are not much below those that repulsion makes in one step
        gaps = jnp.maximum(jnp.diff(x), jnp.sqrt(repulsion) / 2)
        apart = jnp.concatenate([jnp.zeros(1), jnp.cumsum(gaps)])
        start = x.mean() + apart - apart.mean(), jnp.asarray(jnp.inf, x.dtype), 0
        z, _, count = lax.while_loop(unsettled, newton, start)
        z = implicit(equation, z, args, coupled)
        return jnp.where(count < _NEWTON, jnp.sort(z), jnp.nan)
