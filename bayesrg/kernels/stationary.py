# SPDX-License-Identifier: Apache-2.0
"""Kernels of the Euclidean distance between inputs, and the linear kernel."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._linalg import safe_sqrt
from .base import Kernel, MomentKernel, squared_distance

__all__ = ["RBF", "Linear", "Matern12", "Matern32", "Matern52", "RationalQuadratic"]

_lengthscale = partial(_checks.positive, "lengthscale", ndim=(0, 1))
_variance = partial(_checks.nonnegative, "variance", ndim=0)


class Stationary(Kernel):
    """Variance times a falling function of the squared distance in units of the lengthscale.

    A lengthscale (d,) gives every input column its own unit (automatic relevance determination).
    """

    lengthscale: Float[Array, "..."] = eqx.field(converter=_lengthscale)
    variance: Float[Array, ""] = eqx.field(converter=_variance, default=1.0)

    @abstractmethod
    def profile(self, r2: Array) -> Array:
        """Correlation at squared distance ``r2``, elementwise; 1 at zero."""

    def gram(self, X, Z):
        if self.lengthscale.ndim and self.lengthscale.shape[0] != X.shape[1]:
            raise ValueError(
                f"lengthscale has shape {self.lengthscale.shape} but the inputs have "
                f"{X.shape[1]} columns; give one number, or one a column"
            )
        if self.lengthscale.ndim:
            r2 = squared_distance(X / self.lengthscale, Z / self.lengthscale)
        else:
            r2 = squared_distance(X, Z) / self.lengthscale**2
        return self.variance * self.profile(r2)

    def gram_diag(self, X):
        return jnp.broadcast_to(self.variance, X.shape[:1])


class RBF(Stationary):
    """Squared-exponential kernel ``variance * exp(-r^2 / 2)``, r the distance / lengthscale.

    ``lengthscale`` () or (d,) in units of the inputs, ``variance`` () in units of y squared.
    """

    def profile(self, r2):
        return jnp.exp(-0.5 * r2)


class Matern12(Stationary):
    """Exponential kernel ``variance * exp(-r)``; arguments as in `RBF`.

    Its derivative in the inputs does not exist at r = 0; there it is 0 by convention.
    """

    def profile(self, r2):
        return jnp.exp(-safe_sqrt(r2))


class Matern32(Stationary):
    """Matern kernel of smoothness 3/2; arguments as in `RBF`."""

    def profile(self, r2):
        r = safe_sqrt(3.0 * r2)
        return (1.0 + r) * jnp.exp(-r)


class Matern52(Stationary):
    """Matern kernel of smoothness 5/2; arguments as in `RBF`."""

    def profile(self, r2):
        r = safe_sqrt(5.0 * r2)
        return (1.0 + r + r**2 / 3.0) * jnp.exp(-r)


class RationalQuadratic(Stationary):
    """Scale mixture of squared exponentials, ``variance * (1 + r^2 / 2 alpha)^-alpha``.

    ``alpha`` () is positive and without unit; the other arguments are as in `RBF`.
    """

    alpha: Float[Array, ""] = eqx.field(
        converter=partial(_checks.positive, "alpha", ndim=0), default=1.0
    )

    def profile(self, r2):
        return jnp.exp(-self.alpha * jnp.log1p(r2 / (2.0 * self.alpha)))


class Linear(MomentKernel):
    """Linear kernel ``variance * x.z + bias``: Bayesian linear regression.

    ``variance`` () is that of a weight, ``bias`` () that of the intercept.
    """

    variance: Float[Array, ""] = eqx.field(converter=_variance, default=1.0)
    bias: Float[Array, ""] = eqx.field(
        converter=partial(_checks.nonnegative, "bias", ndim=0), default=0.0
    )

    def moments(self, xx, zz, xz):
        return self.variance * xz + self.bias
