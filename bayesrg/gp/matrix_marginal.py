# SPDX-License-Identifier: Apache-2.0
"""From a prior and inputs to the law of several outputs that an order parameter correlates."""

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
    """Marginalise several functions of one prior that an order parameter correlates.

    Parameters
    ----------
    prior : Kernel or Spectrum
        Of one output at order parameter 1; a spectrum brings modes that can be cut.
    X : (n, d)
    ridge : (...), noise variance
    order : (..., c, c), order parameter
    factor : (..., c, r), a factor of it, as in `MatrixMercerNormal`
    eigen : from `eigenpairs_of` the prior at X, optional

    Returns
    -------
    MatrixMercerNormal
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
