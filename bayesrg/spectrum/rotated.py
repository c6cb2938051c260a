# SPDX-License-Identifier: Apache-2.0
"""Regression at the reference sample itself, where each mode is independent of the others."""

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
    """Terms of the log evidence, one per mode. Made by `rotated_density`.

    Do not store them in the group ``log_likelihood``, which holds one density per observation. Name
    the group ``log_likelihood_modes``; `bayesrg.gp.MercerNormal.loo` gives densities of points.

    Attributes
    ----------
    modes : (k,)
        Log density of the projection of the observations onto each eigenvector.
    complement : ()
        Log density of the part that is orthogonal to all eigenvectors.
    """

    modes: Float[Array, " mode"]
    complement: Float[Array, ""]

    @property
    def total(self) -> Float[Array, ""]:
        """The log evidence, ()."""
        return self.modes.sum() + self.complement


def _rotate(kernel, y, ridge):
    """Check arguments, and return eigenvectors, eigenvalues, y, its projections and the ridge."""
    what = "a ModifiedKernel, which spectrum.modify makes"
    vectors, values = _checks.instance("kernel", kernel, ModifiedKernel, what).eigen
    y = _checks.finite("y", y, ndim=1)
    _checks.targets("y", y, vectors.shape[0])
    return vectors, values, y, vectors.T @ y, _checks.positive("ridge", ridge, ndim=0)


def rotated_density(kernel: ModifiedKernel, y: ArrayLike, ridge: ArrayLike) -> RotatedDensity:
    r"""Return the log evidence of observations at the reference sample, mode by mode.

    Mode i has :math:`-\tfrac12[(v_i\cdot y)^2/s_i + \ln 2\pi s_i]`, :math:`s_i = n g_i + \sigma^2`,
    with eigenvector :math:`v_i` and new eigenvalue :math:`g_i`. The n - k modes that `nystrom`
    dropped as rounding errors have the variance :math:`\sigma^2` of the noise alone.

    Parameters
    ----------
    kernel : ModifiedKernel
        Made by `modify` from all modes of a `nystrom` spectrum. Its map may be traced.
    y : (n,)
        Observations at the reference sample.
    ridge : ()
        Noise variance :math:`\sigma^2`, positive.

    Returns
    -------
    RotatedDensity
        One term per mode; ``total`` is their sum.

    Raises
    ------
    ValueError
        If the spectrum does not have all modes, or if shapes do not fit.

    References
    ----------
    arXiv 2307.14531 (the kernel); Rasmussen and Williams (2006), equation 2.30.
    """
    vectors, values, y, inside, ridge = _rotate(kernel, y, ridge)
    n, k = vectors.shape
    variance = values + ridge
    modes = -0.5 * (inside**2 / variance + jnp.log(2 * np.pi * variance))
    # what is orthogonal to all eigenvectors has the variance of the noise alone
    outside = ((y - vectors @ inside) ** 2).sum() / ridge if k < n else 0.0
    return RotatedDensity(modes, -0.5 * (outside + (n - k) * jnp.log(2 * np.pi * ridge)))


def mode_posterior(kernel: ModifiedKernel, y: ArrayLike, ridge: ArrayLike) -> LinearPosterior:
    r"""Return the posterior of the coefficients c of :math:`f = \sum_i c_i\phi_i`.

    At the reference sample the coefficients are independent, with mean
    :math:`\frac{v_i\cdot y}{\sqrt n} \frac{g_i}{g_i + \sigma^2/n}` and variance
    :math:`g_i\sigma^2/(n g_i + \sigma^2)`, for eigenvectors :math:`v_i` and eigenvalues
    :math:`g_i`.

    Parameters
    ----------
    kernel : ModifiedKernel
        Made by `modify` from all modes of a `nystrom` spectrum.
    y : (n,)
        Observations at the reference sample.
    ridge : ()
        Noise variance :math:`\sigma^2`, positive.

    Returns
    -------
    LinearPosterior
        Of k coefficients, one per mode.

    References
    ----------
    arXiv 2307.14531; arXiv 2405.06008 (the decoupling).
    """
    vectors, values, _, inside, ridge = _rotate(kernel, y, ridge)
    n = vectors.shape[0]
    gain = values / (values + ridge)
    root = jnp.diag(safe_sqrt(gain * ridge / n))
    evidence = rotated_density(kernel, y, ridge).total
    return LinearPosterior(inside / np.sqrt(n) * gain, root, evidence)
