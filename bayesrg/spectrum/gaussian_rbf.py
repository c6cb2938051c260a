# SPDX-License-Identifier: Apache-2.0
"""Spectrum in closed form: squared-exponential kernel, inputs with a Gaussian density."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..kernels import RBF
from .base import Spectrum


class GaussianRBFSpectrum(Spectrum):
    """First modes of an `RBF` kernel under a normal density of inputs. Made by `gaussian_rbf`."""

    kernel: RBF
    scale: Float[Array, ""]
    values: Float[Array, " mode"]
    degeneracy: Float[Array, " mode"]

    @property
    def tail(self) -> Float[Array, ""]:
        """Variance () of all other modes: one minus the sum of ``values``."""
        _, b, _, total = _rates(self.kernel.lengthscale, self.scale)
        return (b / total) ** len(self)

    def features(self, X):
        X = _checks.inputs("X", X)
        if X.shape[1] != 1:
            raise ValueError(f"X has {X.shape[1]} columns; these modes take one, shape (n, 1)")
        return _functions(len(self), self.kernel.lengthscale, self.scale, X[:, 0])


def _rates(lengthscale, scale):
    """The rates a (density), b (kernel) and g (modes) of `gaussian_rbf`, and their sum A."""
    a, b = 0.25 / scale**2, 0.5 / lengthscale**2
    g = jnp.sqrt(a**2 + 2.0 * a * b)
    return a, b, g, a + b + g


@partial(jax.jit, static_argnums=0)
def _functions(modes, lengthscale, scale, x):
    """Orthonormal functions (n, modes) at x (n,), by the recurrence of Hermite polynomials."""
    a, _, g, _ = _rates(lengthscale, scale)
    z = jnp.sqrt(2.0 * g) * x

    def step(carry, k):
        # Far from 0 the first functions underflow, but later ones do not. So scale the two terms
        # of the recurrence to size 1, and carry the logarithm of their size.
        before, now, log_size = carry
        size = lax.stop_gradient(jnp.maximum(jnp.abs(before), jnp.abs(now)))
        before, now, log_size = before / size, now / size, log_size + jnp.log(size)
        after = (jnp.sqrt(2.0) * z * now - jnp.sqrt(k - 1.0) * before) / jnp.sqrt(k)
        return (now, after, log_size), now * jnp.exp(log_size)

    ground = 0.25 * jnp.log(g / a) - (g - a) * x**2
    start = (jnp.zeros_like(z), jnp.ones_like(z), ground)
    return lax.scan(step, start, jnp.arange(1.0, modes + 1.0, dtype=z.dtype))[1].T


def gaussian_rbf(lengthscale: ArrayLike, scale: ArrayLike, modes: int) -> GaussianRBFSpectrum:
    r"""Return the spectrum of :math:`e^{-(x-z)^2/2\ell^2}` under inputs :math:`x\sim N(0, s^2)`.

    With :math:`a = 1/4s^2`, :math:`b = 1/2\ell^2`, :math:`g = \sqrt{a^2 + 2ab}` and
    :math:`A = a + b + g` the eigenvalues are :math:`\sqrt{2a/A}\,(b/A)^k`, k = 0, 1, ... The mode
    functions are :math:`e^{-(g-a)x^2}` times the Hermite polynomials of :math:`\sqrt{2g}\,x`.

    Parameters
    ----------
    lengthscale : ()
        Length :math:`\ell` of the kernel, in units of the input. It may be sampled.
    scale : ()
        Standard deviation s of the inputs. It may be sampled.
    modes : int
        Number of modes.

    Returns
    -------
    GaussianRBFSpectrum
        For inputs of one column (n, 1). The residual variance tends to 1 where the density is low.

    Raises
    ------
    ValueError
        If lengthscale, scale or modes is not positive.

    References
    ----------
    Zhu, Williams, Rohwer and Morciniec (1998); Rasmussen and Williams (2006), equation 4.40.
    """
    lengthscale = _checks.positive("lengthscale", lengthscale, ndim=0)
    scale = _checks.positive("scale", scale, ndim=0)
    modes = _checks.whole("modes", modes)
    a, b, _, total = _rates(lengthscale, scale)
    values = jnp.sqrt(2.0 * a / total) * (b / total) ** jnp.arange(modes)
    _checks.defined("lengthscale or scale", values)
    return GaussianRBFSpectrum(RBF(lengthscale), scale, values, jnp.ones_like(values))
