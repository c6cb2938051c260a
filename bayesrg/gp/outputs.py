# SPDX-License-Identifier: Apache-2.0
"""From a prior and inputs to the law of several outputs that an order parameter correlates."""

from .._checks import ArrayLike
from ..kernels import Kernel
from ..spectrum import Spectrum
from .marginal import prior_at
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
    eigen : from ``prior.at(X).eigenpairs()``, optional

    Returns
    -------
    MatrixMercerNormal
    """
    here = prior_at(prior, X)
    return MatrixMercerNormal(
        here.features, here.values, ridge, order, factor=factor, residual=here.residual,
        eigen=eigen,
    )  # fmt: skip
