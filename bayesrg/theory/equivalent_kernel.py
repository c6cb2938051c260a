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


class EquivalentKernel(eqx.Module):
    r"""Leading order of Gaussian-process regression in points over ridge; see `equivalent_kernel`.

    Attributes
    ----------
    values : (k,) eigenvalues
    n, ridge : number of points and noise variance
    learnability : (k,) at the ridge itself
    """

    values: Float[Array, " mode"]
    n: Float[Array, ""]
    ridge: Float[Array, ""]
    learnability: Float[Array, " mode"]

    def __call__(self, features: ArrayLike, others: ArrayLike) -> Float[Array, "point point_bis"]:
        r"""Kernel :math:`\sum_k L_k\phi_k(x)\phi_k(z)` from mode functions (p, k) and (m, k)."""
        features = _checks.features("features", features)
        others = _checks.finite("others", others, ndim=2)
        same_modes(features, self.values)
        same_modes(others, self.values, "others")
        return (features * self.learnability) @ others.T

    @property
    def variance(self) -> Float[Array, " mode"]:
        """Posterior variance of each mode's coefficient, (k,)."""
        return self.values * self._missed

    def coefficients(self, target: ArrayLike) -> Float[Array, " mode"]:
        """Mean coefficients (k,) for a target with coefficients (k,)."""
        target = _checks.finite("target", target, ndim=1)
        same_modes(target[None], self.values, "target")
        return self.learnability * target

    def error(self, power: ArrayLike) -> Array:
        """Squared error of the mean predictor on a noiseless target of power (k,)."""
        power = _checks.nonnegative("power", power, ndim=1)
        same_modes(power[None], self.values, "power")
        return (self._missed**2 * power).sum(-1)

    @property
    def _missed(self):
        """One minus the learnability, without cancellation."""
        return self.ridge / (self.ridge + self.n * self.values)

    def correction(
        self, features: ArrayLike, target: ArrayLike, *, weights: ArrayLike | None = None
    ) -> Float[Array, " mode"]:
        r"""First correction to the mean coefficients, of order :math:`n/\sigma^4`.

        It is what an input-dependent ridge :math:`\sigma^2 + Cov(x, x)` changes to first order:
        the ridge is renormalised already here.

        Parameters
        ----------
        features : (p, k) mode functions on a grid or a sample of the inputs
        target : (k,) coefficients of the target
        weights : (p,), optional
            Probability of each row; equal by default.

        Returns
        -------
        (k,)
            To be added to ``coefficients(target)``.
        """
        features = _checks.features("features", features)
        same_modes(features, self.values)
        target = _checks.finite("target", target, ndim=1)
        weights = probabilities(weights, features.shape[0])
        same_modes(target[None], self.values, "target")
        pulled, corrected = _corrected(self, features, target, weights)
        _checks.defined("features or target", pulled)
        return corrected


@jax.jit
def _corrected(kernel, features, target, weights):
    missed = features @ (kernel._missed * target)
    pulled = features.T @ (weights * (features**2 @ kernel.variance) * missed)
    return pulled, -kernel.n / kernel.ridge**2 * kernel.variance * pulled


@jax.jit
def _shrunk(levels, n, ridge):
    ridge = ridge + levels.tail
    return EquivalentKernel(levels.values, n, ridge, levels.learnt(n, ridge))


def equivalent_kernel(values: LevelsLike, n: ArrayLike, ridge: ArrayLike) -> EquivalentKernel:
    r"""Take the limit of many points at fixed n over ridge: coefficients shrink by a factor each.

    :math:`\bar f_k = \lambda_k/(\lambda_k + \sigma^2/n)\, y_k`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,) under the data measure
        Bare eigenvalues may come in any order. A tail is added to the ridge.
    n : () number of points, a positive real
    ridge : () noise variance, positive
        With the universal ridge of the eliminated modes, and low values alone, it is the mean
        predictor at the end of the flow.

    Returns
    -------
    EquivalentKernel

    References
    ----------
    arXiv 2405.06008, equations 10 to 12; Cohen, Malka and Ringel (2021) for the correction.
    """
    if not isinstance(values, Levels | Spectrum):
        values = without_tail(values, falling=False)
    whole = levels(values)
    n, ridge = _checks.positive("n", n, ndim=0), _checks.positive("ridge", ridge, ndim=0)
    return _shrunk(whole, n, ridge)
