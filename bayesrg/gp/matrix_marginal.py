# SPDX-License-Identifier: Apache-2.0
"""Joint distribution of several outputs with one prior, correlated by an order parameter."""

import jax.numpy as jnp

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Kernel
from ..spectrum import Spectrum
from .matrix import MatrixMercerNormal


def matrix_marginal(
    prior: Kernel | Spectrum,
    X: ArrayLike,
    ridge: ArrayLike,
    order: ArrayLike,
    *,
    factor: ArrayLike | None = None,
    eigen: tuple[ArrayLike, ArrayLike] | None = None,
) -> MatrixMercerNormal:
    """Return the distribution of observations of several outputs with one prior.

    An order parameter correlates the outputs: the covariance of outputs a and b is ``order[a, b]``
    times that of the prior.

    Parameters
    ----------
    prior : Kernel or Spectrum
        Prior of one output at order parameter 1. A spectrum has modes, which can be cut off.
    X : (n, d), inputs
    ridge : (...), noise variance
    order : (..., c, c), order parameter
    factor : (..., c, r), optional
        Matrix F with F F^T = order, which `MatrixMercerNormal` describes.
    eigen : (vectors, values), optional
        Eigenpairs of the prior at X, from `eigenpairs_of`.

    Returns
    -------
    MatrixMercerNormal
        With event shape (n, c).
    """
    _checks.instance("prior", prior, Kernel | Spectrum, _checks.PRIOR)
    X = _checks.inputs("X", X, wide=True)
    if isinstance(prior, Kernel):
        features, residual = jnp.zeros((X.shape[0], 0), X.dtype), prior(X)
        values = features[0]
    else:
        prior.warn_if_shared(X)
        features, values = prior.features(X), prior.values
        residual = None if prior.complete else prior.residual_cov(X)
    return MatrixMercerNormal(
        features, values, ridge, order, factor=factor, residual=residual, eigen=eigen
    )
