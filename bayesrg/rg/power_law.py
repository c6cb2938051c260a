# SPDX-License-Identifier: Apache-2.0
"""Power-law spectra, where flow, fixed point and learning curve have closed forms."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import zeta
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import descend, implicit
from ..spectrum import Levels


class PowerLaw(eqx.Module):
    r"""Eigenvalues :math:`\lambda_k = \lambda_1 k^{-(1+\alpha)}`, k = 1, 2, ...; see `power_law`.

    Attributes
    ----------
    alpha : decay exponent less one, positive
    first : largest eigenvalue, a variance
    """

    alpha: Float[Array, ""] = eqx.field(converter=partial(_checks.positive, "alpha", ndim=0))
    first: Float[Array, ""] = eqx.field(converter=partial(_checks.positive, "first", ndim=0))

    def values(self, modes: int) -> Float[Array, " mode"]:
        """First ``modes`` eigenvalues, (modes,); `tail` at that cutoff is what they leave out."""
        modes = _checks.whole("modes", modes)
        return _values(modes, self)

    def levels(self, modes: int) -> Levels:
        """First ``modes`` eigenvalues as `bayesrg.spectrum.Levels`, (modes,), with their tail."""
        values = self.values(modes)
        return Levels(values, np.ones(values.shape, values.dtype), self.tail(modes))

    def tail(self, cutoff: ArrayLike) -> Array:
        """Variance above a cutoff (...): Hurwitz zeta of 1 + alpha at cutoff + 1, exact."""
        return _tail(self, _checks.nonnegative("cutoff", cutoff))

    @property
    def fixed_point(self) -> Array:
        """Fixed point of the rescaled ridge, 1 / alpha, attractive towards few modes."""
        return 1.0 / self.alpha

    def rescaled_ridge(self, cutoff: ArrayLike, ridge: ArrayLike) -> Array:
        r"""Universal ridge over cutoff times value, at cutoffs (...) of one or more.

        To leading order :math:`1/\alpha + (\sigma^2/\lambda_1)\kappa^\alpha`: the bare ridge is
        irrelevant towards few modes.
        """
        cutoff, ridge = _checks.positive("cutoff", cutoff), _checks.nonnegative("ridge", ridge)
        return _rescaled_ridge(self, cutoff, ridge)

    @property
    @jax.jit
    def constant(self) -> Array:
        r"""The number :math:`C_\alpha = (\pi/(1+\alpha))/\sin(\pi/(1+\alpha))`."""
        angle = jnp.pi / (1 + self.alpha)
        return angle / jnp.sin(angle)

    @property
    @jax.jit
    def matching_threshold(self) -> Array:
        """Threshold at which a sharp cutoff leaves just the effective ridge, from 0 to 1."""
        odds = (self.alpha * self.constant) ** ((1 + self.alpha) / self.alpha)
        return odds / (1 + odds)

    @property
    @jax.jit
    def exponents(self) -> tuple[Array, Array]:
        """Learning-curve exponents: with a ridge alpha / (1 + alpha), without one alpha."""
        return self.alpha / (1 + self.alpha), self.alpha

    def crossover(self, ridge: ArrayLike) -> Array:
        """Number of points (...) at which the ridge takes over from the eliminated variance."""
        return (self.first / _checks.positive("ridge", ridge)) ** (1 / self.alpha)

    def error(self, n: ArrayLike, ridge: ArrayLike) -> Array:
        r"""Generalisation error (...) of the matched Gaussian process, continuum limit.

        Solves :math:`\epsilon = \lambda_1 C_\alpha (n\lambda_1/(\sigma^2+\epsilon))^{-\alpha/(1+\alpha)}`.
        """  # noqa: E501
        n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
        _checks.fit(n=n.shape, ridge=ridge.shape)
        return _error(self, n, ridge)

    def ridge_error(self, n: ArrayLike, ridge: ArrayLike) -> Array:
        """Limit of `error` at many points (...), where the ridge dominates."""
        n, ridge = _checks.positive("n", n), _checks.positive("ridge", ridge)
        return _ridge_error(self, n, ridge)

    def ridgeless_error(self, n: ArrayLike) -> Array:
        """Limit of `error` at ridge zero, (...)."""
        n = _checks.positive("n", n)
        return _ridgeless_error(self, n)

    def stop(self, n: ArrayLike, ridge: ArrayLike, threshold: ArrayLike = 0.5) -> Array:
        r"""Cutoff (...) at which the running learnability is the threshold, continuum limit.

        It is :math:`(n\lambda_1(1-T)/(\sigma^2T))^{1/(1+\alpha)}` where the ridge dominates,
        :math:`\alpha n(1-T)/T` without one; between them it solves
        :math:`\kappa/\alpha + (\sigma^2/\lambda_1)\kappa^{1+\alpha} = n(1-T)/T`.
        """
        n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
        threshold = _checks.positive("threshold", threshold)
        if _checks.known(threshold) and not (np.asarray(threshold) < 1).all():
            raise ValueError(
                "threshold must lie strictly between 0 and 1, got "
                f"{np.asarray(threshold).max()}; the usual choice is 0.5"
            )
        return _stop(self, n, ridge, threshold)

    def mismatched_exponent(self, beta: ArrayLike) -> Array:
        """Ridgeless exponent for target power k^-(1 + beta): the least of beta, 2 + 2 alpha."""
        return jnp.minimum(_checks.positive("beta", beta), 2 * (1 + self.alpha))


@partial(jax.jit, static_argnums=0)
def _values(modes, law):
    return law.first * jnp.arange(1, modes + 1.0) ** (-1 - law.alpha)


@jax.jit
def _tail(law, cutoff):
    return law.first * zeta(1 + law.alpha, cutoff + 1.0)


@jax.jit
def _rescaled_ridge(law, cutoff, ridge):
    return (ridge + _tail(law, cutoff)) / (law.first * cutoff ** (-law.alpha))


@jax.jit
def _error(law, n, ridge):
    """Solve the equation of `PowerLaw.error`."""
    n, ridge = jnp.broadcast_arrays(n, ridge)
    front = law.first * law.constant * (n * law.first) ** -law.exponents[0]
    args = front, law.alpha, ridge

    def excess(error, args):
        front, alpha, ridge = args
        return error - front * (ridge + error) ** (alpha / (1 + alpha))

    fixed, alpha, bare = jax.lax.stop_gradient(args)
    power = alpha / (1 + alpha)
    bounds = fixed * (2 * bare) ** power, (2**power * fixed) ** (1 + alpha)

    def newton(error):
        value = fixed * (bare + error) ** power
        return error - (error - value) / (1 - power * value / (bare + error))

    return implicit(excess, descend(newton, jnp.maximum(*bounds))[0], args)


@jax.jit
def _ridge_error(law, n, ridge):
    return law.first * law.constant * (n * law.first / ridge) ** -law.exponents[0]


@jax.jit
def _ridgeless_error(law, n):
    return law.first * law.constant ** (1 + law.alpha) * n**-law.alpha


@jax.jit
def _stop(law, n, ridge, threshold):
    """Solve the equation of `PowerLaw.stop`."""
    reach = n * (1 - threshold) / threshold
    reach, ratio = jnp.broadcast_arrays(reach, ridge / law.first)
    args = reach, ratio, law.alpha

    def excess(kept, args):
        reach, ratio, alpha = args
        return kept * (1 / alpha + ratio * kept**alpha) - reach

    fixed = jax.lax.stop_gradient(args)
    reach, ratio, alpha = fixed
    bounded = ratio > 0
    by_ridge = (reach / jnp.where(bounded, ratio, 1.0)) ** (1 / (1 + alpha))
    start = jnp.minimum(alpha * reach, jnp.where(bounded, by_ridge, jnp.inf))

    def newton(kept):
        slope = 1 / alpha + (1 + alpha) * ratio * kept**alpha
        return kept - excess(kept, fixed) / slope

    return implicit(excess, descend(newton, start)[0], args)


def power_law(alpha: ArrayLike, first: ArrayLike = 1.0) -> PowerLaw:
    r"""Describe the spectrum :math:`\lambda_k = \lambda_1 k^{-(1+\alpha)}` in closed form.

    Parameters
    ----------
    alpha : () positive
    first : () largest eigenvalue, a variance

    Returns
    -------
    PowerLaw

    References
    ----------
    arXiv 2405.06008, whose learning-curve exponent is alpha / (1 + alpha); Bahri et al. (2021) for
    the ridgeless one.
    """
    return PowerLaw(alpha, first)
