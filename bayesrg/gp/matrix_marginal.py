# SPDX-License-Identifier: Apache-2.0
"""Joint distribution of several outputs with one prior, correlated by an order parameter."""

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
        Eigenpairs of the prior at X, ``prior.at(X).eigenpairs()``.

    Returns
    -------
    MatrixMercerNormal
        With event shape (n, c).
    """
    here = prior_at(prior, X)
    return MatrixMercerNormal(
        here.features, here.values, ridge, order, factor=factor, residual=here.residual,
        eigen=eigen,
    )  # fmt: skip
