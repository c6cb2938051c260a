# SPDX-License-Identifier: Apache-2.0
"""Distribution of observations that are not Gaussian, by Laplace's approximation."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from jaxtyping import Bool, Float, Int
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._covariance import LowRank
from .._covariance.dense import REMEDY, warn_if_lost
from .._linalg import LEFT_OUT, judge, safe_sqrt
from .effective import EffectiveNormal
from .law_checks import at_points
from .mercer import MercerNormal

_STEPS, _HALVINGS = 100, 30


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


class _Expansion(NamedTuple):
    """Second-order expansion of the log integrand about the mode.

    ``doubt`` is 0, or nan if no mode was found; it is added to results.
    """

    head: dist.Distribution
    terms: Callable
    f: Array
    weight: Array
    root: Array  # of the curvature W
    algebra: tuple  # of I + W^1/2 K W^1/2
    doubt: Array

    def factor(self):
        """Cholesky factor of what is inverted, to be judged outside the compiled program."""
        return jnp.linalg.cholesky(lax.stop_gradient(self.algebra.inner()))

    def covariance(self):
        """Return the inverse of ``K^-1 + W``, (..., n, n)."""
        eye = jnp.eye(self.root.shape[-1], dtype=self.root.dtype)
        K = self.head._algebra().multiply(eye)
        side = self.root[..., None] * K
        solved = self.algebra.solve(side)

        # S = K - K W^1/2 B^-1 W^1/2 K with B = I + W^1/2 K W^1/2 cancels if W is large. There the
        # equal expression W^-1/2 B^-1 W^1/2 K does not, so use that in rows and columns where the
        # likelihood is stronger than the prior.
        strong = _strong(self.head, self.root)
        S = K - jnp.swapaxes(side, -1, -2) @ solved
        fixed = solved / jnp.where(strong, self.root, 1.0)[..., None]
        S = jnp.where(strong[..., None, :], jnp.swapaxes(fixed, -1, -2), S)
        return jnp.where(strong[..., None], fixed, S) + self.doubt[..., None, None]


def _derivative(function):
    """Return the derivative of a function that acts on every entry independently."""
    return lambda f: jax.jvp(function, (f,), (jnp.ones_like(f),))[1]


class LaplaceMarginal(dist.Distribution):
    r"""Distribution of observations of a latent Gaussian function, integrated out approximately.

    The density is :math:`\int N(f; m, K) \prod_i p(y_i | f_i)\, df`, where the logarithm of the
    integrand is expanded to second order about its mode :math:`\hat f`:

    .. math:: \ln p(y|\hat f) - \tfrac12 (\hat f - m)^T K^{-1} (\hat f - m)
              - \tfrac12 \ln |I + W^{1/2} K W^{1/2}|, \qquad W = -\nabla^2 \ln p(y|\hat f).

    Parameters
    ----------
    prior : MercerNormal or EffectiveNormal
        Distribution of one latent function at the n points. Its ridge is the variance of an
        independent part of the function at each point: a jitter, for instance 1e-6.
    likelihood : callable
        Takes f (..., n); returns a NumPyro distribution with the batch shape of f, so that the
        points are independent, for instance ``lambda f: Bernoulli(logits=f)``. It must be
        log-concave and four times differentiable in f. Arrays that the function captured are
        parameters.

    Raises
    ------
    ValueError
        For a prior of another class, or a likelihood whose batch shape differs from that of f.

    Notes
    -----
    The event shape is (n,); rows of observations (..., n) share the prior. The approximation is
    exact for a Gaussian likelihood. Otherwise `correction` estimates its error: the next order of
    the expansion, which ``log_prob`` leaves out. ``log_prob`` is nan, which a sampler rejects, if
    Newton's method does not converge or the likelihood is not log-concave at the mode; `mode`
    reports it. The first derivative in all parameters is exact, because the last Newton step is
    differentiated. Second derivatives are not exact.

    References
    ----------
    Rasmussen and Williams (2006), section 3.4 and algorithm 3.1.
    """

    event_dims = ("point",)
    pytree_data_fields = ("prior", "likelihood")

    def __init__(
        self,
        prior: dist.Distribution,
        likelihood: Callable,
        *,
        validate_args: bool | None = None,
    ):
        if not isinstance(prior, MercerNormal | EffectiveNormal):
            raise ValueError(
                f"prior must be a gp.MercerNormal, got {type(prior).__name__}; make one with "
                "gp.marginal(prior, X, ridge), where ridge is a small jitter"
            )
        _checks.function("likelihood", likelihood, "a function that gives a distribution")
        self.prior, self.likelihood = prior, as_pytree(likelihood)

        def density(f):
            what = "a function that gives a NumPyro distribution"
            law = _checks.instance("likelihood", likelihood(f), dist.Distribution, what)
            return law.log_prob(jnp.zeros(f.shape))

        shape = jax.eval_shape(density, prior.mean)
        if shape.shape != prior.shape():
            raise ValueError(
                f"likelihood gives log densities of shape {shape.shape} for a function of shape "
                f"{prior.shape()}; return one independent distribution per point, without to_event"
            )
        super().__init__(prior.batch_shape, prior.event_shape, validate_args=validate_args)

    @constraints.dependent_property(event_dim=1)
    def support(self):
        """Support of the likelihood, at each point."""
        return constraints.independent(self.likelihood(self.prior.mean).support, 1)

    def split(self, cutoff, rule="exact", **options):
        """Split off the first ``cutoff`` modes; the other modes stay integrated out.

        Parameters
        ----------
        cutoff : int, number of modes to split off
        rule : str, how the other modes enter the rest, as `MercerNormal.split` describes it
        **options
            Further arguments of `MercerNormal.split`.

        Returns
        -------
        root : (..., n, cutoff)
            Given modes ``w ~ Normal(0, 1)`` the observations follow ``rest.shift(root @ w)``.
        rest : LaplaceMarginal
            Distribution of the observations with the other modes integrated out.
        """
        root, rest = self.prior.split(cutoff, rule, **options)
        return root, LaplaceMarginal(rest, self.likelihood)

    def shift(self, mean: ArrayLike) -> "LaplaceMarginal":
        """Return this distribution with ``mean`` (..., n) added to the mean of the function."""
        return LaplaceMarginal(self.prior.shift(mean), self.likelihood)

    def _terms(self, value):
        """Return a function from f to the log-likelihood of each observation.

        Observations may be at the first points only. The likelihood may need all n points, so that
        f and the observations are padded.
        """
        value = jnp.asarray(value)
        absent = self.event_shape[0] - value.shape[-1]

        def pad(x):
            return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, absent)], mode="edge")

        def terms(f):
            # Some likelihoods of NumPyro contain |f|, whose second derivative is wrong at zero.
            f = f + jnp.where(f == 0, 1e-30, 0.0)
            return self.likelihood(pad(f)).log_prob(pad(value))[..., : value.shape[-1]]

        return terms

    def mode(self, value: ArrayLike) -> Mode:
        """Return the mode of the function given observations ``value`` (..., n).

        Returns
        -------
        Mode
            ``converged`` (...) is True if the squared gradient, in the metric of the curvature, is
            at most n eps^0.75. It is twice what one more step can gain.
        """
        return _found(self, self._checked(value))

    def _checked(self, value):
        return at_points("observations", value, self.event_shape)

    def _expand(self, value, head=None):
        """Return the expansion about the mode, with the derivatives of the last Newton step."""
        head = self.prior if head is None else head
        terms = self._terms(value)
        algebra = head._algebra()

        # Find the mode without derivatives. One further step from there does not move it, and the
        # derivative of this step is that of the mode.
        fixed = jax.tree.map(lax.stop_gradient, head)
        found = _mode(fixed, fixed._algebra(), terms, jnp.shape(value))
        f = jnp.where(found.converged[..., None], found.f, head.loc)
        f, weight, _ = _newton(head, algebra, terms, lax.stop_gradient(f))
        root = _root_curvature(terms, f)
        doubt = jnp.where(found.converged, 0.0, jnp.nan)
        return _Expansion(head, terms, f, weight, root, algebra.curved(root), doubt)

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of observations ``value`` (..., n); nan if no mode was found."""
        return _judged(*_log_prob(self, self._checked(value)))

    def posterior(self, value: ArrayLike):
        """Return the Gaussian approximation of the posterior given observations (..., n).

        Returns
        -------
        mean : (..., n), the mode of the function
        covariance : (..., n, n), the inverse of ``K^-1 + W``
        """
        return _judged(*_posterior(self, self._checked(value)))

    def correction(self, value: ArrayLike) -> Float[Array, "*batch"]:
        r"""Return the leading correction to ``log_prob`` at observations (..., n).

        .. math:: \tfrac18 \sum_i l''''_i S_{ii}^2 + \tfrac1{24} \sum_{ij} l'''_i l'''_j
                  (3 S_{ii} S_{ij} S_{jj} + 2 S_{ij}^3)

        with the posterior covariance S and the derivatives of the log-likelihood l at the mode. If
        the correction is not much smaller than 1, do not trust the approximation.

        References
        ----------
        Shun and McCullagh (1995), J. R. Statist. Soc. B 57, 749.
        """
        return _judged(*_correction(self, self._checked(value)))

    def loo(self, value: ArrayLike, *, order: int = 201) -> Float[Array, "*batch point"]:
        """Return the log density of each observation given all the others, (..., n).

        The posterior is divided by the Gaussian factor of the observation. This leaves a cavity
        distribution, over which the true likelihood is integrated by the trapezoid rule with
        ``order`` nodes. The nodes are dense in the range of the posterior and extend to the ends
        of the cavity.
        """
        order = _checks.whole("order", order, least=3)
        (result, share), *rest = _loo(order, self, self._checked(value))
        if share is not None:
            warn_if_lost("the inverse's diagonal", share)
        return _checks.defined("observations", _judged(result, *rest, margin=LEFT_OUT))

    def krige(self, value: ArrayLike):
        """Return a prediction of the function at the last points given observations at the first.

        Parameters
        ----------
        value : (..., n1), observations at the first n1 of the n points

        Returns
        -------
        mean, variance : (..., n - n1)
            Of the function without its jitter, at the other points.
        ridge : (..., n - n1) or (..., 1)
            Variance of the jitter at the other points.

        References
        ----------
        Rasmussen and Williams (2006), equations 3.21 and 3.24.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        return _judged(*_krige(self, value))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw functions, then observations of them: ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        first, second = random.split(key)
        return self.likelihood(self.prior.sample(first, sample_shape)).sample(second)


def _judged(result, factor, margin=1.0):
    """Return ``result``, which was compiled, once the factor it rests on is judged."""
    judge(factor, REMEDY, margin)
    return result


@jax.jit
def _found(law, value):
    prior = law.prior
    return _mode(prior, prior._algebra(), law._terms(value), value.shape)


@jax.jit
def _log_prob(law, value):
    at = law._expand(value)
    log_det = at.algebra.quad_logdet(jnp.zeros_like(at.f)[..., None, :])[1]
    quad = (at.weight * (at.f - at.head.loc)).sum(-1)
    return at.terms(at.f).sum(-1) - 0.5 * (quad + log_det) + at.doubt, at.factor()


@jax.jit
def _posterior(law, value):
    at = law._expand(value)
    return (at.f + at.doubt[..., None], at.covariance()), at.factor()


@jax.jit
def _correction(law, value):
    at = law._expand(value)
    S = at.covariance()
    third_order = _derivative(_derivative(_derivative(at.terms)))
    third, fourth = third_order(at.f), _derivative(third_order)(at.f)
    own = jnp.diagonal(S, axis1=-2, axis2=-1)
    chain = jnp.einsum("...i,...ij,...j->...", third * own, S, third * own)
    sunset = jnp.einsum("...i,...ij,...j->...", third, S**3, third)
    return (fourth * own**2).sum(-1) / 8 + chain / 8 + sunset / 12, at.factor()


@partial(jax.jit, static_argnums=0)
def _loo(order, law, value):
    at = law._expand(value)
    own = jnp.diagonal(at.covariance(), axis1=-2, axis2=-1)
    precision = at.algebra.inverse_diag()
    cavity = own / precision
    centre = at.f - cavity * at.weight  # the weight is the slope, without its cancellation

    unit = jnp.linspace(-1.0, 1.0, order).reshape((-1,) + (1,) * at.f.ndim)
    reach = jnp.arcsinh((jnp.abs(centre - at.f) + 9.0 * jnp.sqrt(cavity)) / jnp.sqrt(own))
    x = at.f + jnp.sqrt(own) * jnp.sinh(reach * unit)
    step = jnp.sqrt(own) * reach * jnp.cosh(reach * unit) * 2.0 / (order - 1)
    density = -0.5 * ((x - centre) ** 2 / cavity + jnp.log(2 * np.pi * cavity))
    result = jax.nn.logsumexp(at.terms(x) + density + jnp.log(step), axis=0)
    share = precision * at.algebra.D if isinstance(at.algebra, LowRank) else None
    return (result, share), at.factor()


@jax.jit
def _krige(law, value):
    head, rest, cross = law.prior._ahead(value.shape[-1])
    at = law._expand(value, head)
    mean = rest.loc + (jnp.swapaxes(cross, -1, -2) @ at.weight[..., None])[..., 0]
    mean = mean + at.doubt[..., None]
    if isinstance(at.algebra, LowRank) and isinstance(head, MercerNormal):
        variance = at.algebra.leverage(rest._columns) + rest._own
    else:
        solved = at.algebra.solve(at.root[..., None] * cross)
        noise = (solved**2).sum(-2)
        variance = head._missed(rest, cross, at.root[..., None] * solved, noise)
    variance = jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape)
    return (mean, variance, rest.ridge), at.factor()


def _root_curvature(terms, f):
    return safe_sqrt(-_derivative(_derivative(terms))(f))


def _strong(prior, root):
    """Return a mask of the points where the likelihood is narrower than the prior."""
    return root**2 * prior.variance > 1.0


def _newton(prior, algebra, terms, f):
    """Take one Newton step from f; return the new f, its weight, and W^1/2 at the old f.

    At points where the likelihood is strong it is treated as an observation of
    f + slope / W with noise variance 1 / W. Then no small difference of large numbers is formed.
    """
    slope, root = _derivative(terms)(f), _root_curvature(terms, f)
    strong = _strong(prior, root)
    safe = jnp.where(strong, root, 1.0)
    weak = jnp.where(strong, 0.0, slope)
    inner = root * (f - prior.loc) + jnp.where(strong, slope / safe, 0.0)
    inner = inner - root * algebra.multiply(weak[..., None])[..., 0]
    weight = weak + root * algebra.curved(root).solve(inner[..., None])[..., 0]
    smooth = prior.loc + algebra.multiply(weight[..., None])[..., 0]
    return jnp.where(strong, f + (slope - weight) / safe**2, smooth), weight, root


def _mode(prior, algebra, terms, shape):
    """Return the `Mode`, found by Newton's method with step halving.

    It converges for every log-concave likelihood.
    """
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

        def halve(state):
            i, t = state
            return i + 1, jnp.where(poor(t), 0.5 * t, t)

        _, t = lax.while_loop(
            lambda state: (state[0] < _HALVINGS) & poor(state[1]).any(), halve,
            (0, jnp.ones_like(before)),
        )  # fmt: skip
        f, weight = at(t)
        return count + 1, f, weight, done

    def unfinished(state):
        return (state[0] < _STEPS) & ~state[3].all()

    start = (jnp.asarray(0), f, jnp.zeros_like(f), jnp.zeros(f.shape[:-1], bool))
    count, f, weight, converged = lax.while_loop(unfinished, step, start)
    concave = (-_derivative(_derivative(terms))(f) >= -1e-8).all(-1)
    return Mode(f, weight, count, converged & concave)
