# SPDX-License-Identifier: Apache-2.0
"""The equivalent kernel: regression on infinitely dense data, and its first correction."""

import equinox as eqx
import jax
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..rg.local import probabilities, same_modes
from ..spectrum import Levels, Spectrum
from ..spectrum.levels import LevelsLike, levels, without_tail

_PER_MODE = "one per mode"


class EquivalentKernel(eqx.Module):
    r"""Leading order of Gaussian-process regression in points over ridge; see `equivalent_kernel`.

    Attributes
    ----------
    values : (k,) eigenvalues
    n, ridge : () number of points and noise variance
    learnability : (k,) factor by which each coefficient of the target shrinks
    """

    values: Float[Array, " mode"]
    n: Float[Array, ""]
    ridge: Float[Array, ""]
    learnability: Float[Array, " mode"]

    def __call__(self, features: ArrayLike, others: ArrayLike) -> Float[Array, "point point_bis"]:
        r"""Return the kernel (p, m), the sum of :math:`L_k\phi_k(x)\phi_k(z)` over modes.

        ``features`` (p, k) and ``others`` (m, k) are mode functions at two sets of inputs.
        """
        features = _checks.features("features", features)
        others = _checks.finite("others", others, ndim=2)
        same_modes(features, self.values)
        same_modes(others, self.values, "others")
        return (features * self.learnability) @ others.T

    @property
    def variance(self) -> Float[Array, " mode"]:
        """Posterior variance (k,) of each mode's coefficient."""
        return self.values * self._missed

    def coefficients(self, target: ArrayLike) -> Float[Array, " mode"]:
        """Return mean coefficients (k,) for a target with coefficients (k,)."""
        return self.learnability * _checks.shaped("target", target, self.values.shape, _PER_MODE)

    def error(self, power: ArrayLike) -> Array:
        """Return the squared error of the mean for a noiseless target of power (k,)."""
        power = _checks.nonnegative("power", power)
        power = _checks.shaped("power", power, self.values.shape, _PER_MODE)
        return (self._missed**2 * power).sum(-1)

    @property
    def _missed(self):
        """One minus the learnability, without cancellation."""
        return self.ridge / (self.ridge + self.n * self.values)

    def correction(
        self, features: ArrayLike, target: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Float[Array, " mode"]:
        r"""Return the first correction to the mean coefficients, of order :math:`n/\sigma^4`.

        It is the effect, to first order, of a ridge that depends on the input,
        :math:`\sigma^2 + Cov(x, x)`: the ridge is renormalised already at this order.

        Parameters
        ----------
        features : (p, k) mode functions on a grid or a sample of the inputs
        target : (k,) coefficients of the target
        weights : (p,), optional
            Probability of each row; equal by default.

        Returns
        -------
        (k,) to be added to ``coefficients(target)``
        """
        features = _checks.features("features", features)
        same_modes(features, self.values)
        target = _checks.shaped("target", target, self.values.shape, _PER_MODE)
        weights = probabilities(weights, features.shape[0])
        pulled, corrected = _corrected(self, features, target, weights)
        _checks.defined("features or target", pulled)
        return corrected


@jax.jit
def _corrected(kernel, features, target, weights):
    """Return the correction, and before it the average over inputs from which it follows."""
    missed = features @ (kernel._missed * target)
    pulled = features.T @ (weights * (features**2 @ kernel.variance) * missed)
    return pulled, -kernel.n / kernel.ridge**2 * kernel.variance * pulled


def equivalent_kernel(values: LevelsLike, n: ArrayLike, ridge: ArrayLike) -> EquivalentKernel:
    r"""Return regression in the limit of many points at fixed n over ridge.

    Each coefficient of the target shrinks by a factor of its own,
    :math:`\bar f_k = \lambda_k/(\lambda_k + \sigma^2/n)\, y_k`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure
        Bare eigenvalues may come in any order. A tail is added to the ridge.
    n : () number of points, a positive real
    ridge : () noise variance, positive
        With the universal ridge of the eliminated modes, and low values alone, it is the mean
        predictor at the end of the flow.

    References
    ----------
    arXiv 2405.06008, equations 10 to 12; Cohen, Malka and Ringel (2021) for the correction.
    """
    if not isinstance(values, Levels | Spectrum):
        values = without_tail(values, falling=False)
    n, ridge = _checks.positive("n", n, ndim=0), _checks.positive("ridge", ridge, ndim=0)
    return _shrunk(levels(values), n, ridge)


@jax.jit
def _shrunk(levels, n, ridge):
    ridge = ridge + levels.tail
    return EquivalentKernel(levels.values, n, ridge, levels.learnt(n, ridge))
