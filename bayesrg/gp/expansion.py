# SPDX-License-Identifier: Apache-2.0
"""Mode of a latent function given observations, and the expansion about it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int
from numpyro.distributions import Distribution

from .._covariance import LowRank
from .._linalg import safe_sqrt

_STEPS, _HALVINGS = 100, 30
_NODES = 201  # of the integral over one observation, given the others


class Mode(NamedTuple):
    """Mode of a latent function, as `LaplaceMarginal.mode` returns it.

    Attributes
    ----------
    f : (..., n), the mode
    weight : (..., n), K^-1 (f - mean), for the prior covariance K
    steps : (), number of Newton steps
    converged : (...), True if the gradient is small and the likelihood is log-concave at f
    """

    f: Float[Array, "*batch point"]
    weight: Float[Array, "*batch point"]
    steps: Int[Array, ""]
    converged: Bool[Array, "*batch"]


class Expansion(NamedTuple):
    """Second-order expansion of the log integrand about the mode.

    ``terms`` is the log-likelihood of each observation as a function of f, ``root`` the square root
    of the curvature W, and ``algebra`` that of I + W^1/2 K W^1/2. ``doubt`` is 0, or nan if no mode
    was found; it is added to results.
    """

    prior: Distribution
    terms: Callable
    f: Array
    weight: Array
    root: Array
    algebra: tuple
    doubt: Array

    def factor(self):
        """Return the Cholesky factor of what is inverted, to be checked outside the program."""
        return jnp.linalg.cholesky(lax.stop_gradient(self.algebra.inner()))

    def covariance(self):
        """Return the inverse of ``K^-1 + W``, (..., n, n)."""
        eye = jnp.eye(self.root.shape[-1], dtype=self.root.dtype)
        K = self.prior._algebra().multiply(eye)
        side = self.root[..., None] * K
        solved = self.algebra.solve(side)

        # S = K - K W^1/2 B^-1 W^1/2 K with B = I + W^1/2 K W^1/2 cancels if W is large. There the
        # equal expression W^-1/2 B^-1 W^1/2 K does not, so use that in rows and columns where the
        # likelihood is stronger than the prior.
        strong = _strong(self.prior, self.root)
        S = K - jnp.swapaxes(side, -1, -2) @ solved
        fixed = solved / jnp.where(strong, self.root, 1.0)[..., None]
        S = jnp.where(strong[..., None, :], jnp.swapaxes(fixed, -1, -2), S)
        return jnp.where(strong[..., None], fixed, S) + self.doubt[..., None, None]

    def log_density(self):
        """Return Laplace's approximation of the log density, (...)."""
        log_det = self.algebra.quad_logdet(jnp.zeros_like(self.f)[..., None, :])[1]
        quad = (self.weight * (self.f - self.prior.loc)).sum(-1)
        return self.terms(self.f).sum(-1) - 0.5 * (quad + log_det) + self.doubt

    def posterior(self):
        """Return mean (..., n) and covariance (..., n, n) of the function."""
        return self.f + self.doubt[..., None], self.covariance()

    def correction(self):
        """Return the next order of the log density, (...)."""
        S = self.covariance()
        third_order = derivative(derivative(derivative(self.terms)))
        third, fourth = third_order(self.f), derivative(third_order)(self.f)
        own = jnp.diagonal(S, axis1=-2, axis2=-1)
        chain = jnp.einsum("...i,...ij,...j->...", third * own, S, third * own)
        sunset = jnp.einsum("...i,...ij,...j->...", third, S**3, third)
        return (fourth * own**2).sum(-1) / 8 + chain / 8 + sunset / 12

    def leave_one_out(self):
        """Return the log density of each observation given the others, (..., n).

        Also returns the share that is left of a difference, None without one (see `warn_if_lost`).
        """
        own = jnp.diagonal(self.covariance(), axis1=-2, axis2=-1)
        precision = self.algebra.inverse_diag()
        cavity = own / precision
        centre = self.f - cavity * self.weight  # the weight is the slope, without cancellation

        # Nodes are equally spaced in arcsinh of the distance from the mode.
        unit = jnp.linspace(-1.0, 1.0, _NODES).reshape((-1,) + (1,) * self.f.ndim)
        reach = jnp.arcsinh((jnp.abs(centre - self.f) + 9.0 * jnp.sqrt(cavity)) / jnp.sqrt(own))
        x = self.f + jnp.sqrt(own) * jnp.sinh(reach * unit)
        step = jnp.sqrt(own) * reach * jnp.cosh(reach * unit) * 2.0 / (_NODES - 1)
        density = -0.5 * ((x - centre) ** 2 / cavity + jnp.log(2 * np.pi * cavity))
        result = jax.nn.logsumexp(self.terms(x) + density + jnp.log(step), axis=0)
        low_rank = isinstance(self.algebra, LowRank)
        return result, precision * self.algebra.D if low_rank else None


def expand(prior, terms, shape):
    """Return the `Expansion` for observations of ``shape`` (..., n).

    It has the derivatives of one Newton step at the mode. That step does not move the mode, so its
    derivative is that of the mode, and the search needs none.
    """
    found = find_mode(jax.tree.map(lax.stop_gradient, prior), terms, shape)
    algebra = prior._algebra()
    f = jnp.where(found.converged[..., None], found.f, prior.loc)
    f, weight, _ = _newton(prior, algebra, terms, lax.stop_gradient(f))
    root = _root_curvature(terms, f)
    doubt = jnp.where(found.converged, 0.0, jnp.nan)
    return Expansion(prior, terms, f, weight, root, algebra.curved(root), doubt)


def derivative(function):
    """Return the derivative of a function that acts on every entry independently."""
    return lambda f: jax.jvp(function, (f,), (jnp.ones_like(f),))[1]


def _root_curvature(terms, f):
    return safe_sqrt(-derivative(derivative(terms))(f))


def _strong(prior, root):
    """Return a mask of the points where the likelihood is narrower than the prior."""
    return root**2 * prior.variance > 1.0


def _newton(prior, algebra, terms, f):
    """Take one Newton step from f; return the new f, its weight, and W^1/2 at the old f.

    At points where the likelihood is strong it is treated as an observation of
    f + slope / W with noise variance 1 / W. Then no small difference of large numbers is formed.
    """
    slope, root = derivative(terms)(f), _root_curvature(terms, f)
    strong = _strong(prior, root)
    safe = jnp.where(strong, root, 1.0)
    weak = jnp.where(strong, 0.0, slope)
    inner = root * (f - prior.loc) + jnp.where(strong, slope / safe, 0.0)
    inner = inner - root * algebra.multiply(weak[..., None])[..., 0]
    weight = weak + root * algebra.curved(root).solve(inner[..., None])[..., 0]
    smooth = prior.loc + algebra.multiply(weight[..., None])[..., 0]
    return jnp.where(strong, f + (slope - weight) / safe**2, smooth), weight, root


def find_mode(prior, terms, shape):
    """Return the `Mode` given observations of ``shape`` (..., n).

    Newton's method with step halving converges for every log-concave likelihood.
    """
    algebra = prior._algebra()
    f = jnp.broadcast_to(prior.loc, jnp.broadcast_shapes(prior.mean.shape[:-1] + (1,), shape))
    eps = jnp.finfo(f.dtype).eps

    def gain(f, weight):
        value = terms(f).sum(-1) - 0.5 * (weight * (f - prior.loc)).sum(-1)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def step(state):
        count, f, weight, _ = state
        f_new, weight_new, root = _newton(prior, algebra, terms, f)
        df, dw = f_new - f, weight_new - weight

        # The squared gradient in the metric of the curvature. The absolute value is needed because
        # round-off may change the sign of the first term.
        decrement = jnp.abs((df * dw).sum(-1)) + ((root * df) ** 2).sum(-1)
        done = decrement <= f.shape[-1] * eps**0.75
        before = gain(f, weight)
        slack = 100 * eps * jnp.abs(before)

        def at(t):
            return f + t[..., None] * df, weight + t[..., None] * dw

        def poor(t):
            return gain(*at(t)) < before + 1e-4 * t * decrement - slack

        def unfit(state):
            return (state[0] < _HALVINGS) & poor(state[1]).any()

        def halve(state):
            i, t = state
            return i + 1, jnp.where(poor(t), 0.5 * t, t)

        _, t = lax.while_loop(unfit, halve, (0, jnp.ones_like(before)))
        return count + 1, *at(t), done

    def unfinished(state):
        return (state[0] < _STEPS) & ~state[3].all()

    start = (jnp.asarray(0), f, jnp.zeros_like(f), jnp.zeros(f.shape[:-1], bool))
    count, f, weight, converged = lax.while_loop(unfinished, step, start)
    concave = (-derivative(derivative(terms))(f) >= -1e-8).all(-1)
    return Mode(f, weight, count, converged & concave)
