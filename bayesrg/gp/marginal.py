# SPDX-License-Identifier: Apache-2.0
"""From a prior (a kernel or its spectrum) and inputs to the distribution of the observations."""

from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._prior import PriorAt
from ..kernels import Kernel
from ..spectrum import Spectrum
from .matrix import MatrixMercerNormal
from .mercer import MercerNormal


def eigenpairs(
    features: ArrayLike, values: ArrayLike, residual: ArrayLike | None = None
) -> tuple[Float[Array, "point mode"], Float[Array, " mode"]]:
    """Return eigenpairs of ``features diag(values) features^T + residual``.

    Compute them once, outside a sampler.

    Parameters
    ----------
    features : (n, k), mode functions at the points
    values : (k,), prior variances of the modes
    residual : (n,) or (n, n), optional
        Covariance of what the modes leave out; (n,) is a diagonal matrix.

    Returns
    -------
    vectors : (n, r)
        Orthonormal columns; r = n, or k if no residual is given and k < n.
    eigenvalues : (r,)
        Largest first; rounding errors below zero are set to zero.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.

    Notes
    -----
    Without a dense residual they come from singular values, which keep the digits of eigenvalues
    that are smaller than the rounding error of the largest. A distribution with these has all its
    digits at any ridge. Eigenvectors have no derivative where eigenvalues are equal; it is nan.
    Distributions that take the pairs as ``eigen`` do not need it.
    """
    values = _checks.nonnegative("values", values, ndim=1)
    return PriorAt(features, values, residual).eigenpairs()


def marginal(
    prior: Kernel | Spectrum,
    X: ArrayLike,
    ridge: ArrayLike,
    *,
    scale: ArrayLike = 1.0,
    eigen: tuple[ArrayLike, ArrayLike] | None = None,
) -> MercerNormal:
    """Return the distribution of noisy observations at X, with the function integrated out.

    Parameters
    ----------
    prior : Spectrum or Kernel
        A spectrum gives modes, and the residual that they leave out. A kernel gives no modes, and
        its whole covariance as residual.
    X : (n, d), inputs
    ridge : () or (n,), noise variance
    scale : ()
        Amplitude (a variance) of the prior.
    eigen : (vectors, values), optional
        Eigenpairs of the prior at X, ``prior.at(X).eigenpairs()``.

    Returns
    -------
    MercerNormal
        It equals ``Normal(0, scale * K(X, X) + ridge I)`` for every spectrum of a kernel K, except
        `bayesrg.spectrum.neural`, whose residual is independent between inputs.
    """
    return MercerNormal(**vars(_prior_at(prior, X)), ridge=ridge, scale=scale, eigen=eigen)


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
    at = _prior_at(prior, X)
    parts = {"features": at.features, "values": at.values, "residual": at.residual}
    return MatrixMercerNormal(**parts, ridge=ridge, order=order, factor=factor, eigen=eigen)


def _prior_at(prior, X):
    """Return the prior at training inputs X (n, d), and warn if its modes were made from these."""
    _checks.instance("prior", prior, Kernel | Spectrum, _checks.PRIOR)
    X = _checks.inputs("X", X, wide=True)
    prior.warn_if_shared(X)
    return prior.at(X)
