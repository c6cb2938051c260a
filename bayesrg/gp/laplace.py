# SPDX-License-Identifier: Apache-2.0
"""Distribution of observations that are not Gaussian, by Laplace's approximation."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._covariance import LowRank
from .._covariance.dense import REMEDY, warn_if_lost
from .._linalg import LEFT_OUT, check_factor
from .effective import EffectiveNormal
from .expansion import Expansion, Mode, expand, find_mode
from .law_checks import at_points
from .mercer import MercerNormal


class LaplaceMarginal(dist.Distribution):
    r"""Distribution of observations of a Gaussian function, which Laplace's method integrates out.

    The density is :math:`\int N(f; m, K) \prod_i p(y_i | f_i)\, df`. The logarithm of the integrand
    is expanded to second order about the mode :math:`\hat f`, so the log density is

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
        log-concave and four times differentiable in f. Arrays that the function uses from outside
        are parameters of the distribution.

    Raises
    ------
    ValueError
        For a prior of another class, or a likelihood whose batch shape differs from that of f.

    Notes
    -----
    The event shape is (n,); rows of observations (..., n) share the prior. The approximation is
    exact for a Gaussian likelihood. Otherwise `correction` estimates its error: the next order of
    the expansion, which ``log_prob`` leaves out. If Newton's method does not converge or the
    likelihood is not log-concave at the mode, ``log_prob`` is nan, which a sampler rejects, and
    `mode` returns ``converged`` False. The first derivatives in all parameters are exact, because
    the last Newton step is differentiated. Second derivatives are not exact.

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

        The arguments are those of `MercerNormal.split`. Returns columns ``root`` (..., n, cutoff)
        and a LaplaceMarginal ``rest``: given modes ``w ~ Normal(0, 1)``, the observations follow
        ``rest.shift(root @ w)``.
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
            at most n eps^0.75. The squared gradient is twice the log density that one more step can
            gain.
        """
        return _mode(self, at_points("observations", value, self.event_shape))

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of observations ``value`` (..., n); nan if no mode was found."""
        return self._compiled(partial(_evaluate, Expansion.log_density), value)

    def posterior(self, value: ArrayLike):
        """Return the Gaussian approximation of the posterior given observations (..., n).

        Returns
        -------
        mean : (..., n), the mode of the function
        covariance : (..., n, n), the inverse of ``K^-1 + W``
        """
        return self._compiled(partial(_evaluate, Expansion.posterior), value)

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
        return self._compiled(partial(_evaluate, Expansion.correction), value)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Return the log density of each observation given all the others, (..., n).

        The posterior is divided by the Gaussian factor of the observation. This leaves a cavity
        distribution, over which the true likelihood is integrated by the trapezoid rule. The nodes
        are dense in the range of the posterior and extend to the ends of the cavity.
        """
        program = partial(_evaluate, Expansion.leave_one_out)
        result, share = self._compiled(program, value, margin=LEFT_OUT)
        if share is not None:
            warn_if_lost("the inverse's diagonal", share)
        return _checks.defined("observations", result)

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
        return self._compiled(_krige, value, first=True)

    def _compiled(self, program, value, *, first=False, margin=1.0):
        """Return the result of a compiled program, after a check of the factor it rests on."""
        value = at_points("observations", value, self.event_shape, first=first)
        result, factor = program(self, value)
        check_factor(factor, REMEDY, margin)
        return result

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw functions, then observations of them: ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        first, second = random.split(key)
        return self.likelihood(self.prior.sample(first, sample_shape)).sample(second)


@jax.jit
def _mode(law, value):
    return find_mode(law.prior, law._terms(value), value.shape)


# The next two programs return a result and the Cholesky factor that it rests on, because a compiled
# program cannot check the factor. `LaplaceMarginal._compiled` does.


@partial(jax.jit, static_argnums=0)
def _evaluate(ask, law, value):
    """Return what the function ``ask`` computes from the `Expansion`."""
    at = expand(law.prior, law._terms(value), value.shape)
    return ask(at), at.factor()


@jax.jit
def _krige(law, value):
    head, rest, cross = law.prior._ahead(value.shape[-1])
    at = expand(head, law._terms(value), value.shape)
    mean = rest.loc + (jnp.swapaxes(cross, -1, -2) @ at.weight[..., None])[..., 0]
    mean = mean + at.doubt[..., None]
    if isinstance(at.algebra, LowRank) and isinstance(head, MercerNormal):
        variance = at.algebra.leverage(rest._columns) + rest._own
    else:
        solved = at.algebra.solve(at.root[..., None] * cross)
        extra = (solved**2).sum(-2)
        variance = head._missed(rest, cross, at.root[..., None] * solved, extra)
    variance = jnp.broadcast_to(jnp.clip(variance, 0.0), mean.shape)
    return (mean, variance, rest.ridge), at.factor()
