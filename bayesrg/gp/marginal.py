# SPDX-License-Identifier: Apache-2.0
"""From a prior (a kernel or its spectrum) and inputs to the law of the observations."""

from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._prior import PriorAt
from ..kernels import Kernel
from ..spectrum import Spectrum
from .mercer import MercerNormal


def eigenpairs(
    features: ArrayLike, values: ArrayLike, residual: ArrayLike | None = None
) -> tuple[Float[Array, "point mode"], Float[Array, " mode"]]:
    """Eigenpairs of ``features diag(values) features^T + residual``, made once outside a sampler.

    Parameters
    ----------
    features : (n, k) mode functions at the points
    values : (k,) prior variances of the modes
    residual : (n,) diagonal or (n, n) covariance of the rest, optional

    Returns
    -------
    vectors : (n, r) orthonormal columns, r = n, or k where no residual is given and k < n
    eigenvalues : (r,) falling, round-off below zero clipped

    Raises
    ------
    RuntimeError
        With 64-bit floats off.

    Notes
    -----
    Without a dense residual they come from singular values, which keep eigenvalues far below the
    round-off of the largest: then a law has all its digits at any ridge. Derivatives of the
    vectors, which do not exist where eigenvalues meet, are nan; laws that take the pairs as
    ``eigen`` do not ask for them.
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
    """Marginalise the function of a prior at X: the law of noisy observations there.

    Parameters
    ----------
    prior : Spectrum or Kernel
        A spectrum brings its modes, and what they leave out; a kernel has no explicit
        mode, all of it is residual.
    X : (n, d)
    ridge : () or (n,), noise variance
    scale : (), amplitude of the prior, a variance
    eigen : from ``prior.at(X).eigenpairs()``, optional

    Returns
    -------
    MercerNormal
        Equal to ``Normal(0, scale * K(X, X) + ridge I)`` for every spectrum of the kernel K, but
        for `bayesrg.spectrum.neural`, whose rest is independent between inputs.
    """
    return MercerNormal(**vars(prior_at(prior, X)), ridge=ridge, scale=scale, eigen=eigen)


def prior_at(prior: Kernel | Spectrum, X: ArrayLike) -> PriorAt:
    """Return the prior at training inputs X (n, d), and warn if its modes were made from these."""
    _checks.instance("prior", prior, Kernel | Spectrum, _checks.PRIOR)
    X = _checks.inputs("X", X, wide=True)
    prior.warn_if_shared(X)
    return prior.at(X)
