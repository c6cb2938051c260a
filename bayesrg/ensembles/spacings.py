# SPDX-License-Identifier: Apache-2.0
"""Laws of the spacing between neighbouring levels, and the ratio of two spacings."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import gammaln
from jaxtyping import Float
from numpyro.distributions.util import validate_sample

from .. import _checks
from .._checks import ArrayLike
from .statistics import sorted_levels


class _Spacing(dist.Weibull):
    """A Weibull distribution whose density is zero, with finite derivatives, below zero."""

    def sample(
        self, key: Array | int, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*shape"]:
        """Draw spacings, ``sample_shape + batch_shape``."""
        return super().sample(_checks.random_key(key), sample_shape)

    def log_prob(self, value: ArrayLike) -> Float[Array, "*batch"]:
        """Return the log density of spacings ``value`` (...); minus infinity unless positive."""
        return self._checked(_checks.finite("spacings", value))

    @validate_sample
    def _checked(self, value):
        return _log_density(self.scale, self.concentration, value)


@jax.jit
def _log_density(scale, power, value):
    inside = (value > 0) & (value < jnp.inf)
    s = jnp.where(inside, value, 1.0) / scale
    found = jnp.log(power / scale) + (power - 1) * jnp.log(s) - s**power
    return jnp.where(inside, found, -jnp.inf)


class WignerSurmise(_Spacing):
    r"""Spacing of two levels of a real symmetric matrix.

    The density of a spacing S of mean :math:`\bar S` is, with :math:`s = S/\bar S`,
    :math:`\frac{\pi s}{2\bar S}\,e^{-\pi s^2/4}`. It is exact for two levels, where
    :math:`\bar S = \sqrt\pi\,\sigma` with the width sigma of `CoulombGas`, and within 0.01 in
    distribution for the bulk of a large matrix.

    Parameters
    ----------
    mean : (...), positive

    References
    ----------
    arXiv 2407.16427.
    """

    def __init__(self, mean: ArrayLike, *, validate_args: bool | None = None):
        mean = _checks.positive("mean", mean)
        super().__init__(2 / np.sqrt(np.pi) * mean, 2.0, validate_args=validate_args)


class Brody(_Spacing):
    r"""Spacings of mean one between no repulsion (q = 0, Poisson) and the surmise (q = 1).

    The density is :math:`(1+q)\,b\,s^q e^{-b s^{1+q}}` with
    :math:`b = \Gamma(\frac{2+q}{1+q})^{1+q}`.

    Parameters
    ----------
    q : (...), above -1

    References
    ----------
    Brody (1973); arXiv 2407.16427 for weights.
    """

    def __init__(self, q: ArrayLike, *, validate_args: bool | None = None):
        q = _checks.finite("q", q)
        if _checks.known(q) and not (np.asarray(q) > -1).all():
            raise ValueError(f"q must be above -1, got {np.asarray(q).min()}; 1 is the surmise")
        super().__init__(*_brody(q), validate_args=validate_args)


@jax.jit
def _brody(q):
    return jnp.exp(-gammaln((2 + q) / (1 + q))), 1 + q


def spacing_ratios(levels: ArrayLike) -> Float[Array, "*batch ratio"]:
    r"""Return the ratios of neighbouring spacings, the smaller over the larger, (..., n - 2).

    They need no unfolding. Their mean is .5307 for real symmetric matrices, .3863 for
    independent levels.

    Parameters
    ----------
    levels : (..., n), sorted

    Raises
    ------
    ValueError
        For fewer than three levels, or two equal ones.

    References
    ----------
    Atas and others (2013); arXiv 2407.16427.
    """
    return _ratios(sorted_levels("levels", levels, least=3))


@jax.jit
def _ratios(levels):
    gaps = jnp.abs(jnp.diff(levels, axis=-1))
    left, right = gaps[..., :-1], gaps[..., 1:]
    return jnp.minimum(left, right) / jnp.maximum(left, right)
