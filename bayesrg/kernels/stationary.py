# SPDX-License-Identifier: Apache-2.0
"""Kernels that depend on the distance between inputs, and the linear kernel."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._linalg import ratio, safe_sqrt, with_value
from .base import Kernel, as_variance
from .rows import equal_rows, squared_distance

__all__ = ["RBF", "Linear", "Matern12", "Matern32", "Matern52", "Periodic", "RationalQuadratic"]

_lengthscale = partial(_checks.positive, "lengthscale", ndim=(0, 1))


class Stationary(Kernel):
    """Base class of kernels that depend on the distance: ``variance * profile(r^2)``.

    r is the distance divided by the lengthscale. A lengthscale (d,) has one value per column
    (automatic relevance determination). A subclass defines ``profile``.
    """

    lengthscale: Float[Array, "..."] = eqx.field(converter=_lengthscale)
    variance: Float[Array, ""] = eqx.field(converter=as_variance, default=1.0)

    @abstractmethod
    def profile(self, r2: Array) -> Array:
        """Correlation at squared distance ``r2`` (...), elementwise; 1 at ``r2`` = 0."""

    @eqx.filter_jit
    def gram(self, X, Z):
        self._check_columns(X)
        if self.lengthscale.ndim:
            r2 = squared_distance(X, Z, self.lengthscale)
        else:
            # divide once, by the square; a tiny lengthscale must not make it 0/0
            unit = self.lengthscale**2
            r2 = squared_distance(X, Z) / jnp.maximum(unit, jnp.finfo(unit.dtype).tiny)
        return self.variance * self.profile(r2)

    def _check_columns(self, X, *names):
        """Raise if the lengthscale, or a field in ``names``, has another size than rows of X."""
        for name in ("lengthscale", *names):
            shape = getattr(self, name).shape
            if shape not in ((), X.shape[1:]):
                raise ValueError(
                    f"{name} has shape {shape} but the inputs have {X.shape[1]} columns; give one "
                    "number, or one per column"
                )

    def gram_diag(self, X):
        return jnp.broadcast_to(self.variance, X.shape[:1])


class RBF(Stationary):
    """Squared-exponential kernel ``variance * exp(-r^2 / 2)``, with r = distance / lengthscale.

    ``lengthscale`` () or (d,) is in units of the inputs, ``variance`` () in units of y squared.
    """

    def profile(self, r2):
        return jnp.exp(-0.5 * r2)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _matern(p, u):
    """Matern correlation of smoothness p + 1/2 at squared distances u (...), p = 0, 1 or 2.

    u is (2p + 1) r^2. The derivative in u is a multiple of the Matern correlation of smoothness
    p - 1/2. Used in place of the derivative of the formula, it keeps all digits at u = 0.
    """
    u = jnp.minimum(u, 1e30)  # at infinity the product would be infinity times 0
    r = safe_sqrt(u)
    polynomial = (1.0, 1.0 + r, 1.0 + r + u / 3.0)[p]
    return polynomial * jnp.exp(-r)


@_matern.defjvp
def _matern_jvp(p, primals, tangents):
    (u,), (du,) = primals, tangents
    if p == 0:  # -exp(-r)/(2 r), infinite at 0, where 0 is given instead
        r = safe_sqrt(u)
        slope = ratio(-0.5 * jnp.exp(-r), r)
    else:
        slope = -_matern(p - 1, u) / (4 * p - 2)
    return _matern(p, u), slope * du


class Matern12(Stationary):
    """Matern kernel of smoothness 1/2: ``variance * exp(-r)``, with r = distance / lengthscale.

    ``lengthscale`` () or (d,) is in units of the inputs, ``variance`` () in units of y squared. At
    r = 0 the kernel has no derivative in the inputs; 0 is returned.
    """

    def profile(self, r2):
        return _matern(0, r2)


class Matern32(Stationary):
    """Matern kernel of smoothness 3/2: ``variance * (1 + s) * exp(-s)``, with s = sqrt(3) r.

    r is distance / lengthscale. ``lengthscale`` () or (d,) is in units of the inputs, ``variance``
    () in units of y squared. At r = 0 the kernel has two derivatives in the inputs; for higher
    ones 0 is returned.
    """

    def profile(self, r2):
        return _matern(1, 3.0 * r2)


class Matern52(Stationary):
    """Matern kernel of smoothness 5/2: ``variance * (1 + s + s^2 / 3) * exp(-s)``, s = sqrt(5) r.

    r is distance / lengthscale. ``lengthscale`` () or (d,) is in units of the inputs, ``variance``
    () in units of y squared. At r = 0 the kernel has four derivatives in the inputs; for higher
    ones 0 is returned.
    """

    def profile(self, r2):
        return _matern(2, 5.0 * r2)


class RationalQuadratic(Stationary):
    """Rational quadratic kernel ``variance * (1 + r^2 / (2 alpha))^-alpha``.

    It is a mixture of squared exponentials of many lengthscales; r is distance / lengthscale.
    ``alpha`` () is positive and without unit. ``lengthscale`` () or (d,) is in units of the inputs,
    ``variance`` () in units of y squared.
    """

    alpha: Float[Array, ""] = eqx.field(
        converter=partial(_checks.positive, "alpha", ndim=0), default=1.0
    )

    def profile(self, r2):
        # log1p keeps the digits of a small r2 / alpha, so that large alpha gives the RBF kernel
        return jnp.exp(-self.alpha * jnp.log1p(r2 / (2.0 * self.alpha)))


class Periodic(Stationary):
    r"""Periodic kernel :math:`v \exp(-2 \sum_j \sin^2(\pi (x_j - z_j)/p_j)/\ell_j^2)`.

    It is `RBF` of points on circles: each column of the inputs becomes an angle on a circle of
    radius 1. ``period`` () or (d,), one for all columns or one per column, is in units of the
    inputs. ``lengthscale`` () or (d,) is without unit, ``variance`` () in units of y squared.
    """

    period: Float[Array, "..."] = eqx.field(
        converter=partial(_checks.positive, "period", ndim=(0, 1)), default=1.0
    )

    def profile(self, r2):
        return jnp.exp(-0.5 * r2)

    @eqx.filter_jit
    def gram(self, X, Z):
        return self.variance * self.profile(squared_distance(self._circles(X), self._circles(Z)))

    def _circles(self, X):
        """Points (n, 2d) on the circles of all columns, in units of their lengthscales."""
        self._check_columns(X, "period")
        angle = 2 * jnp.pi * X / self.period
        points = jnp.cos(angle) / self.lengthscale, jnp.sin(angle) / self.lengthscale
        return jnp.concatenate(points, 1)


class Linear(Kernel):
    """Linear kernel ``variance * x.z + bias``, the prior of Bayesian linear regression.

    ``variance`` () is the prior variance of a weight, ``bias`` () that of the intercept.
    """

    variance: Float[Array, ""] = eqx.field(converter=as_variance, default=1.0)
    bias: Float[Array, ""] = eqx.field(
        converter=partial(_checks.nonnegative, "bias", ndim=0), default=0.0
    )

    @eqx.filter_jit
    def gram(self, X, Z):
        # A matrix product may sum in another order than the squared lengths, so x.z of equal rows
        # can differ from x.x by rounding. Replace its value, and keep its derivatives.
        product = X @ Z.T
        squares = 0.5 * ((X**2).sum(-1)[:, None] + (Z**2).sum(-1))
        product = with_value(product, jnp.where(equal_rows(X, Z), squares, product))
        return self.variance * product + self.bias

    @eqx.filter_jit
    def gram_diag(self, X):
        return self.variance * (X**2).sum(-1) + self.bias
