# SPDX-License-Identifier: Apache-2.0
"""Observations at the reference sample, rotated into its eigenvectors: one mode, one number."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import safe_sqrt
from .._posterior import LinearPosterior
from .modify import ModifiedKernel


class RotatedDensity(NamedTuple):
    """Log density of rotated observations: ``modes`` (k,), and ``complement`` () of dropped ones.

    They add up to the log evidence. They are not pointwise densities of observations, so they have
    no place in ``log_likelihood``, where leave-one-out would leave out a mode: store them as
    ``log_likelihood_modes``, and take `bayesrg.gp.MercerNormal.loo` for the points.
    """

    modes: Float[Array, " mode"]
    complement: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        """The log evidence, ()."""
        return self.modes.sum() + self.complement


def _rotate(kernel, y, ridge):
    what = "a ModifiedKernel, which spectrum.modify makes"
    vectors, values = _checks.instance("kernel", kernel, ModifiedKernel, what).eigen
    y = _checks.finite("y", y, ndim=1)
    _checks.targets("y", y, vectors.shape[0])
    return vectors, values, y, vectors.T @ y, _checks.positive("ridge", ridge, ndim=0)


def rotated_density(kernel: ModifiedKernel, y: ArrayLike, ridge: ArrayLike) -> RotatedDensity:
    r"""Evaluate the log evidence of observations at the reference sample, mode by mode.

    Mode i has :math:`-\tfrac12[(v_i\cdot y)^2/s_i + \ln 2\pi s_i]`, :math:`s_i = n g_i + \sigma^2`,
    and the n - k dropped modes have the density of the ridge alone.

    Parameters
    ----------
    kernel : ModifiedKernel of all modes of a `nystrom` spectrum, whose map may be traced
    y : (n,) observations at its reference sample
    ridge : (), noise variance, above zero

    Returns
    -------
    RotatedDensity

    Raises
    ------
    ValueError
        For a kernel whose spectrum was cut by a rank, and mismatched shapes.

    References
    ----------
    arXiv 2307.14531 (the kernel); Rasmussen and Williams (2006), equation 2.30.
    """
    vectors, values, y, inside, ridge = _rotate(kernel, y, ridge)
    n, k = vectors.shape
    variance = values + ridge
    modes = -0.5 * (inside**2 / variance + jnp.log(2 * np.pi * variance))
    outside = ((y - vectors @ inside) ** 2).sum() / ridge if k < n else 0.0
    return RotatedDensity(modes, -0.5 * (outside + (n - k) * jnp.log(2 * np.pi * ridge)))


def mode_posterior(kernel: ModifiedKernel, y: ArrayLike, ridge: ArrayLike) -> LinearPosterior:
    r"""Condition the coefficients of :math:`f = \sum_i c_i\phi_i` on noisy observations.

    On its own sample the modes decouple: :math:`m_i = \frac{v_i\cdot y}{\sqrt n}
    \frac{g_i}{g_i + \sigma^2/n}` and variance :math:`g_i\sigma^2/(n g_i + \sigma^2)`.

    Parameters
    ----------
    kernel : ModifiedKernel of all modes of a `nystrom` spectrum
    y : (n,) observations at its reference sample
    ridge : (), noise variance, above zero

    Returns
    -------
    LinearPosterior

    References
    ----------
    arXiv 2307.14531; arXiv 2405.06008 (the decoupling).
    """
    vectors, values, _, inside, noise = _rotate(kernel, y, ridge)
    n = vectors.shape[0]
    gain = values / (values + noise)
    root = jnp.diag(safe_sqrt(gain * noise / n))
    return LinearPosterior(
        inside / np.sqrt(n) * gain, root, rotated_density(kernel, y, ridge).total
    )
