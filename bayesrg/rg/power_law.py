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
from .._linalg import ratio
from ..spectrum import Levels


class PowerLaw(eqx.Module):
    r"""Eigenvalues :math:`\lambda_k = \lambda_1 k^{-(1+\alpha)}`, k = 1, 2, ...; see `power_law`.

    Attributes
    ----------
    alpha : decay exponent minus one, positive
    first : largest eigenvalue, a variance
    """

    alpha: Float[Array, ""] = eqx.field(converter=partial(_checks.positive, "alpha", ndim=0))
    first: Float[Array, ""] = eqx.field(converter=partial(_checks.positive, "first", ndim=0))

    def values(self, modes: int) -> Float[Array, " mode"]:
        """Return the first ``modes`` eigenvalues, (modes,)."""
        return _values(_checks.whole("modes", modes), self)

    def levels(self, modes: int) -> Levels:
        """Return the first ``modes`` eigenvalues as `bayesrg.spectrum.Levels`, with their tail."""
        values = self.values(modes)
        return Levels(values, np.ones(values.shape, values.dtype), self.tail(modes))

    def tail(self, cutoff: ArrayLike) -> Array:
        """Return the variance above a cutoff (...): Hurwitz zeta of 1 + alpha at cutoff + 1."""
        return _tail(self, _checks.nonnegative("cutoff", cutoff))

    @property
    def fixed_point(self) -> Array:
        """Fixed point of the rescaled ridge, 1 / alpha, attractive towards few modes."""
        return 1.0 / self.alpha

    def rescaled_ridge(self, cutoff: ArrayLike, ridge: ArrayLike) -> Array:
        r"""Return the universal ridge over cutoff times eigenvalue, at cutoffs (...) from 1 on.

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
        """Threshold at which the ridge after a sharp cutoff is the effective ridge, from 0 to 1."""
        odds = (self.alpha * self.constant) ** ((1 + self.alpha) / self.alpha)
        return odds / (1 + odds)

    def crossover(self, ridge: ArrayLike) -> Array:
        """Return the number of points (...) from which on the ridge dominates the error."""
        return (self.first / _checks.positive("ridge", ridge)) ** (1 / self.alpha)

    def error(self, n: ArrayLike, ridge: ArrayLike) -> Array:
        r"""Return the generalisation error (...) if the target is drawn from the prior.

        It solves
        :math:`\epsilon = \lambda_1 C_\alpha (n\lambda_1/(\sigma^2+\epsilon))^{-\alpha/(1+\alpha)}`,
        in which an integral over modes stands for their sum.
        """
        n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
        _checks.fit(n=n.shape, ridge=ridge.shape)
        return _error(self, n, ridge)

    def ridge_error(self, n: ArrayLike, ridge: ArrayLike) -> Array:
        r"""Return the limit (...) of `error` at large n, of power :math:`-\alpha/(1+\alpha)`."""
        n, ridge = _checks.positive("n", n), _checks.positive("ridge", ridge)
        return _ridge_error(self, n, ridge)

    def ridgeless_error(self, n: ArrayLike) -> Array:
        r"""Return the limit (...) of `error` at ridge zero, of power :math:`-\alpha` in n."""
        return _ridgeless_error(self, _checks.positive("n", n))

    def stop(self, n: ArrayLike, ridge: ArrayLike, threshold: ArrayLike = 0.5) -> Array:
        r"""Return the cutoff (...) at which the running learnability is the threshold T.

        It solves :math:`\kappa/\alpha + (\sigma^2/\lambda_1)\kappa^{1+\alpha} = n(1-T)/T`, in which
        an integral over modes stands for their sum. The solution is
        :math:`(n\lambda_1(1-T)/(\sigma^2T))^{1/(1+\alpha)}` where the ridge dominates and
        :math:`\alpha n(1-T)/T` without ridge.
        """
        n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
        threshold = _checks.positive("threshold", threshold)
        if _checks.known(threshold) and (np.asarray(threshold) >= 1).any():
            raise ValueError(
                "threshold must lie strictly between 0 and 1, got "
                f"{np.asarray(threshold).max()}; the usual choice is 0.5"
            )
        return _stop(self, n, ridge, threshold)


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
    args = _ridge_error(law, n, 1.0), law.alpha, ridge

    def excess(error, args):
        front, alpha, ridge = args
        return error - front * (ridge + error) ** (alpha / (1 + alpha))

    front, alpha, bare = jax.lax.stop_gradient(args)
    power = alpha / (1 + alpha)
    # ridge + error is at most twice the larger of the two: one upper bound for each case
    bounds = front * (2 * bare) ** power, (2**power * front) ** (1 + alpha)

    def newton(error):
        value = front * (bare + error) ** power
        return error - (error - value) / (1 - power * value / (bare + error))

    return implicit(excess, descend(newton, jnp.maximum(*bounds))[0], args)


@jax.jit
def _ridge_error(law, n, ridge):
    return law.first * law.constant * (n * law.first / ridge) ** (-law.alpha / (1 + law.alpha))


@jax.jit
def _ridgeless_error(law, n):
    return law.first * law.constant ** (1 + law.alpha) * n**-law.alpha


@jax.jit
def _stop(law, n, ridge, threshold):
    """Solve the equation of `PowerLaw.stop`."""
    reach, bare = jnp.broadcast_arrays(n * (1 - threshold) / threshold, ridge / law.first)
    args = reach, bare, law.alpha

    def excess(kept, args):
        reach, bare, alpha = args
        return kept * (1 / alpha + bare * kept**alpha) - reach

    fixed = jax.lax.stop_gradient(args)
    reach, bare, alpha = fixed
    # each of the two terms of the equation alone bounds the solution from above
    by_ridge = ratio(reach, bare, jnp.inf) ** (1 / (1 + alpha))

    def newton(kept):
        slope = 1 / alpha + (1 + alpha) * bare * kept**alpha
        return kept - excess(kept, fixed) / slope

    return implicit(excess, descend(newton, jnp.minimum(alpha * reach, by_ridge))[0], args)


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
    arXiv 2405.06008, where errors fall with the exponent alpha / (1 + alpha); Bahri et al. (2021)
    for the exponent alpha without ridge.
    """
    return PowerLaw(alpha, first)
