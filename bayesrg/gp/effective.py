# SPDX-License-Identifier: Apache-2.0
"""Diagonal noise that replaces the modes which coarse-graining eliminates."""

import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .._covariance import LowRank
from .._fixedpoint import effective_ridge
from ..spectrum import Levels
from .law import Law
from .law_checks import at_points, check_sample_shape


def _local(fn, cutoff, n):
    return fn.ridge + fn.prior_variance(cutoff)


def _row_mean(fn, cutoff, n):
    return fn.prior_variance(cutoff)[..., :n].mean(-1, keepdims=True)


def _tail(fn, n):
    """Return the prior variance outside the columns, under the data measure, (..., 1)."""
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


def variance_after(fn, cutoff, rule, n):
    r"""Return the noise variance for the low modes, after the other modes are eliminated.

    Parameters
    ----------
    fn : MercerNormal
    cutoff : int, number of modes kept
    rule : "local", "dressed", "universal" or "truncate"
        Formula for the noise variance; see the notes.
    n : int, number of training points, the first ones among the rows

    Returns
    -------
    (..., 1) or (..., n)

    Notes
    -----
    With the bare ridge :math:`\sigma^2` and the eliminated eigenvalues :math:`e_k`:

    - local: :math:`\sigma^2 + K_>(x_i, x_i)`, one value per point
    - universal: :math:`\sigma^2 + \sum_k e_k` plus the tail
    - dressed: the root s of :math:`s = \sigma^2 + \sum_k e_k s/(s + n e_k)`, with the tail
    - truncate: :math:`\sigma^2`

    References
    ----------
    arXiv 2405.06008, equations 33 and 34 (universal).
    """
    variance = _RULES[rule](fn, cutoff, n)
    if _checks.known(variance) and not (np.asarray(variance) > 0).all():
        raise ValueError(f'rule {rule!r} gives zero noise; give a positive ridge, or rule="exact"')
    return variance


class EffectiveNormal(Law):
    """Independent normal observations, with noise that replaces eliminated modes.

    It is what remains of a `MercerNormal` when the low modes are given and the high modes are
    treated as noise.

    Parameters
    ----------
    loc : (..., n) or (..., 1)
        Mean.
    noise_variance : (..., n) or (..., 1)
        Variance of an observation in ``log_prob``.
    ridge : (..., n) or (..., 1)
        Variance of the observation noise alone.
    eliminated : (..., n)
        Prior variance of the eliminated modes at each point, for prediction.

    Notes
    -----
    The event shape is (n,). Results have the precision of the arguments.
    """

    support = constraints.real_vector
    event_dims = ("point",)
    pytree_data_fields = ("noise_variance", "eliminated")
    _by_point = ("ridge", "loc", "noise_variance", "eliminated")

    def __init__(
        self,
        loc: ArrayLike,
        noise_variance: ArrayLike,
        ridge: ArrayLike,
        eliminated: ArrayLike,
        *,
        validate_args: bool | None = None,
    ):
        self.loc = _checks.finite("loc", loc)
        self.noise_variance = _checks.positive("noise_variance", noise_variance)
        self.ridge = _checks.nonnegative("ridge", ridge)
        self.eliminated = _checks.finite("eliminated", eliminated)
        names = ("loc", "noise_variance", "ridge", "eliminated")
        shape = _checks.fit(**{name: getattr(self, name).shape for name in names})
        if self.eliminated.shape[-1:] != shape[-1:] or not shape:
            raise ValueError(
                f"eliminated has shape {self.eliminated.shape}; give one entry per point, {shape}"
            )
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    @property
    def variance(self) -> Float[Array, "*batch point"]:
        """Variance of the observations, (..., n)."""
        return jnp.broadcast_to(self.noise_variance, self.shape())

    @validate_sample
    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of observations ``value`` (..., n)."""
        return self.loo(value).sum(-1)

    def loo(self, value: ArrayLike) -> Float[Array, "*batch point"]:
        """Return the log density of each observation, (..., n); the others do not change it."""
        v = self.noise_variance
        return -0.5 * (self._centred(value) ** 2 / v + jnp.log(v) + np.log(2 * np.pi))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        """Draw observations, ``sample_shape + batch_shape + (n,)``."""
        key = _checks.random_key(key)
        shape = check_sample_shape(sample_shape) + self.shape()
        return self.colour(random.normal(key, shape, self.eliminated.dtype))

    def colour(self, white: ArrayLike) -> Float[Array, "*batch point"]:
        """Return observations made of standard normal numbers ``white`` (..., n)."""
        return self.loc + jnp.sqrt(self.noise_variance) * jnp.asarray(white)

    def solve(self, B: ArrayLike) -> Float[Array, "*batch point column"]:
        """Return the inverse covariance times columns B (..., n, c)."""
        return jnp.asarray(B) / self.variance[..., None]

    def prior_variance(self) -> Float[Array, "*batch point"]:
        """Return the prior variance of the eliminated modes at each point, without noise."""
        return self.eliminated

    def krige(self, value: ArrayLike):
        """Return a prediction at the last points, given observations at the first points.

        The mean is that of the low modes; the variance is that of the eliminated modes.

        Parameters
        ----------
        value : (..., n1), observations at the first n1 points

        Returns
        -------
        mean, variance : (..., n - n1)
            Of the function without noise, at the other points.
        ridge : (..., n - n1) or (..., 1)
            Noise variance at the other points.
        """
        value = at_points("observations", value, self.event_shape, first=True)
        n = value.shape[-1]
        mean, variance = self.mean[..., n:], self.eliminated[..., n:]
        shape = jnp.broadcast_shapes(value.shape[:-1] + (1,), mean.shape)
        ridge = self.ridge if self.ridge.shape[-1] == 1 else self.ridge[..., n:]
        return jnp.broadcast_to(mean, shape), jnp.broadcast_to(variance, shape), ridge

    # What a `LaplaceMarginal` asks of its prior.

    def _algebra(self):
        """Return the algebra of the covariance: no columns, and the noise on the diagonal."""
        dtype = self.eliminated.dtype
        columns, values = jnp.zeros(self.event_shape + (0,), dtype), jnp.zeros(0, dtype)
        return LowRank(columns, values, self.variance)

    def _between(self, n):
        return jnp.zeros((n, self.event_shape[0] - n), self.eliminated.dtype)

    def _missed(self, rest, cross, gain, extra=0.0):
        """Return the variance of ``rest`` at other points; observations do not change it."""
        return rest.prior_variance()
