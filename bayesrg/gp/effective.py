# SPDX-License-Identifier: Apache-2.0
"""What a coarse-graining step makes of the modes it eliminates: a larger, diagonal noise."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import LowRank
from .._fixedpoint import effective_ridge
from ..spectrum import Levels
from .law_checks import at_points, check_sample_shape


def _local(fn, cutoff, n):
    return fn.ridge + fn.prior_variance(cutoff)


def _row_mean(fn, cutoff, n):
    return fn.prior_variance(cutoff)[..., :n].mean(-1, keepdims=True)


def _tail(fn, n):
    """Population variance outside the columns, scaled: (..., 1)."""
    if fn.tail is not None:
        return (fn.scale * fn.tail)[..., None]
    if fn.residual is None:
        return jnp.zeros_like(fn.ridge[..., :1])
    return _row_mean(fn, fn.features.shape[-1], n)


def _universal(fn, cutoff, n):
    if not fn.orthonormal:
        return fn.ridge + _row_mean(fn, cutoff, n)
    high = fn.scale * fn.values[..., cutoff:].sum(-1)
    return fn.ridge + high[..., None] + _tail(fn, n)


def _dressed(fn, cutoff, n):
    if not fn.orthonormal:
        raise ValueError(
            'rule "dressed" needs modes that are orthonormal under the data measure, and these '
            'columns are not; choose rule="universal", "local" or "exact"'
        )
    if fn.ridge.shape[-1] != 1:
        raise ValueError(
            'rule "dressed" needs one ridge for all points, got a ridge of shape '
            f'{fn.ridge.shape}; choose rule="local"'
        )
    high = jnp.sort(fn.scale[..., None] * fn.values[..., cutoff:], descending=True)
    levels = Levels(high, jnp.ones_like(high), _tail(fn, n)[..., 0])
    return effective_ridge(levels, n, fn.ridge[..., 0]).value[..., None]


_RULES = {
    "local": _local,
    "dressed": _dressed,
    "universal": _universal,
    "truncate": lambda fn, cutoff, n: fn.ridge,
}
RULES = ("exact", *_RULES)


def noise_after(fn, cutoff, rule, n=None):
    r"""Noise variance of the low modes' regression once the others are eliminated.

    Parameters
    ----------
    fn : MercerNormal
    cutoff : int, modes kept
    rule : "local", "dressed", "universal" or "truncate"
    n : int, training points among the rows; all of them by default

    Returns
    -------
    (..., 1) or (..., n)

    Notes
    -----
    With :math:`e_k` the eliminated eigenvalues: local is :math:`\sigma^2 + K_>(x_i, x_i)`,
    universal :math:`\sigma^2 + \sum_k e_k` plus the tail, dressed the root of
    :math:`s = \sigma^2 + \sum_k e_k s/(s + n e_k)`, truncate :math:`\sigma^2`.

    References
    ----------
    arXiv 2405.06008, equations 33 and 34 (universal).
    """
    if _checks.choice("rule", rule, RULES) == "exact":
        raise ValueError('rule "exact" has no diagonal noise; use split')
    noise = _RULES[rule](fn, cutoff, fn.event_shape[0] if n is None else n)
    if _checks.known(noise) and not (np.asarray(noise) > 0).all():
        raise ValueError(f'rule {rule!r} leaves no noise; give a positive ridge, or rule="exact"')
    return noise


class EffectiveNormal(dist.Distribution):
    """Independent observations whose noise stands for the modes eliminated from a `MercerNormal`.

    Parameters
    ----------
    loc : (..., n) or (..., 1)
    noise : (..., n) or (..., 1), variance under which the observations are judged
    ridge : (..., n) or (..., 1), variance of the observation noise alone
    eliminated : (..., n), prior variance of the eliminated modes at each point, for prediction

    Notes
    -----
    Event shape (n,). Runs in the precision of its arguments.
    """

    support = constraints.real_vector
    event_dims = ("point",)
    pytree_data_fields = ("loc", "noise", "ridge", "eliminated")

    def __init__(self, loc, noise, ridge, eliminated, *, validate_args=None):
        self.loc, self.noise = _checks.finite("loc", loc), _checks.positive("noise", noise)
        self.ridge = _checks.nonnegative("ridge", ridge)
        self.eliminated = _checks.finite("eliminated", eliminated)
        shape = _checks.fit(
            loc=self.loc.shape, noise=self.noise.shape, ridge=self.ridge.shape,
            eliminated=self.eliminated.shape,
        )  # fmt: skip
        if self.eliminated.shape[-1:] != shape[-1:] or not shape:
            raise ValueError(
                f"eliminated has shape {self.eliminated.shape}; give one entry per point, {shape}"
            )
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def shift(self, mean: ArrayLike) -> "EffectiveNormal":
        """Add ``mean`` (..., n) to the location."""
        mean = at_points("means", mean, self.event_shape)
        return EffectiveNormal(self.loc + mean, self.noise, self.ridge, self.eliminated)

    @property
    def mean(self) -> Float[Array, "*batch point"]:
        """The mean, (..., n)."""
        return jnp.broadcast_to(self.loc, self.shape())

    @property
    def variance(self) -> Float[Array, "*batch point"]:
        """The noise, (..., n)."""
        return jnp.broadcast_to(self.noise, self.shape())

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Log density of observations (..., n)."""
        return self.loo(value).sum(-1)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Log density of each observation, (..., n); the others say nothing about it."""
        r = at_points("observations", value, self.event_shape) - self.loc
        terms = -0.5 * (r**2 / self.noise + jnp.log(self.noise) + np.log(2 * np.pi))
        return jnp.broadcast_to(terms, jnp.broadcast_shapes(terms.shape, self.shape()))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        return self.colour(
            random.normal(
                key, check_sample_shape(sample_shape) + self.shape(), self.eliminated.dtype
            )
        )

    def colour(self, white: ArrayLike) -> Float[Array, "*batch point"]:
        """Turn standard normal ``white`` (..., n) into observations."""
        return self.loc + jnp.sqrt(self.noise) * jnp.asarray(white)

    def _algebra(self):
        return LowRank(jnp.zeros(self.event_shape + (0,), self.eliminated.dtype),
                       jnp.zeros(0, self.eliminated.dtype), self.variance)  # fmt: skip

    def solve(self, B: ArrayLike) -> Float[Array, "*batch point column"]:
        """Inverse covariance times columns B (..., n, c)."""
        return jnp.asarray(B) / self.variance[..., None]

    def prior_variance(self) -> Float[Array, "*batch point"]:
        """Variance of the eliminated modes at each point, noise left out."""
        return self.eliminated

    def _ahead(self, n):
        """Laws of the first n points and of the others, between which nothing is left."""

        def take(rows):
            parts = (self.loc, self.noise, self.ridge)
            rest = [x if x.shape[-1] == 1 else x[..., rows] for x in parts]
            return EffectiveNormal(*rest, self.eliminated[..., rows])

        between = jnp.zeros((n, self.event_shape[0] - n), self.eliminated.dtype)
        return take(slice(None, n)), take(slice(n, None)), between

    def _missed(self, rest, cross, gain, noise=0.0):
        """Variance of ``rest`` at other points, which observations do not change."""
        return rest.prior_variance()

    def krige(self, value: ArrayLike):
        """Predict at the last points: the low modes alone, with the eliminated variance added.

        Parameters
        ----------
        value : (..., n1), observations at the first points

        Returns
        -------
        mean, variance : (..., n - n1) of the noiseless function
        ridge : noise variance there
        """
        value = at_points("observations", value, self.event_shape, first=True)
        n = value.shape[-1]
        ridge = self.ridge if self.ridge.shape[-1] == 1 else self.ridge[..., n:]
        rest = jnp.broadcast_to(
            self.mean[..., n:], value.shape[:-1] + self.mean[..., n:].shape[-1:]
        )
        return rest, jnp.broadcast_to(self.eliminated[..., n:], rest.shape), ridge
