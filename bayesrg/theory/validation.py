# SPDX-License-Identifier: Apache-2.0
"""The test error of ridge regression from its training data alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks, _linalg
from .._checks import ArrayLike


def gcv(features: ArrayLike, y: ArrayLike, ridge: ArrayLike) -> Float[Array, "*batch"]:
    r"""Estimate the test error of ridge regression by generalised cross-validation.

    It is :math:`n\,|(K+\lambda)^{-1}y|^2 / (\mathrm{tr}(K+\lambda)^{-1})^2` with
    :math:`K = XX^T`: the training error over the square of the share of degrees of freedom that
    are not fitted. `sample_curve` gives it for other numbers of points too.

    Parameters
    ----------
    features : (n, p) X
    y : (n,) targets
    ridge : (...) added to K, which is not divided by n; zero gives the limit from above

    Returns
    -------
    (...)
        Mean squared error on new labels, noise included.

    Raises
    ------
    ValueError
        For non-finite entries, numbers of rows that differ, or a negative ridge.

    Notes
    -----
    First derivatives are right where singular values are equal; second ones in X raise.

    References
    ----------
    Golub, Heath and Wahba (1979); arXiv 2402.13999 and arXiv 1903.08560 for why it is consistent.
    """
    _checks.warn_32_bits("theory.gcv")
    X = _checks.inputs("features", features)
    y = _checks.finite("y", _checks.targets("y", y, X.shape[0]), ndim=1)
    return _estimate(X, y, _checks.nonnegative("ridge", ridge))


@jax.jit
def _estimate(X, y, ridge):
    return _ratio(X, y, ridge.astype(X.dtype)[..., None])


@eqx.filter_custom_jvp
def _ratio(X, y, ridge):
    return X.shape[0] * _spectral(X, y, ridge)[0]


def _spectral(X, y, ridge):
    """Return the estimate over n, its numerator, the root of its denominator, and their parts.

    By the singular values of X. Numerator and denominator are multiplied by powers of the lowest
    eigenvalue of K + ridge, so that neither overflows as the ridge goes to zero.
    """
    U, singular, Vt = jnp.linalg.svd(X, full_matrices=False)
    resolved = singular > max(X.shape) * jnp.finfo(X.dtype).eps * singular.max()
    singular = jnp.where(resolved, singular, 0.0)
    values, overlap = singular**2, U.T @ y
    # directions outside the features, n - len(values) of them, have value zero
    more = X.shape[0] - values.size
    outside = y - U @ overlap if more else jnp.zeros_like(y)
    lowest = 0.0 if more else values.min()
    # eigenvalues of the resolvent over the largest of them; the ratio does not depend on that
    total = values + ridge
    safe = jnp.where(total > 0, total, 1.0)
    r = jnp.where(total > 0, (lowest + ridge) / safe, 1.0)
    square, trace = (r**2 * overlap**2).sum(-1) + (outside**2).sum(), r.sum(-1) + more
    shrunk = jnp.where(total > 0, singular / safe, 0.0)  # of the weights: X^T (K + ridge)^-1
    return square / trace**2, square, trace, (U, Vt, r, shrunk, overlap, outside)


@_ratio.def_jvp
def _ratio_jvp(primals, tangents):
    """Write out the derivative in X: with dP = -P dK P for the resolvent, at any degeneracy."""
    (X, y, ridge), (dX, dy, d_ridge) = primals, tangents
    n, fixed = X.shape[0], _linalg.once(X, X)

    def spectral(y, ridge):
        return n * _spectral(fixed, y, ridge)[0]

    value, change = eqx.filter_jvp(spectral, (y, ridge), (dy, d_ridge))
    if dX is not None:
        _, square, trace, (U, Vt, r, shrunk, overlap, outside) = _spectral(fixed, y, ridge)
        once = (r * overlap) @ U.T + outside
        twice = (r**2 * overlap) @ U.T + outside
        d_square = -2.0 * ((once @ dX) * ((shrunk * r * overlap) @ Vt)).sum(-1)
        d_square = d_square - 2.0 * ((twice @ dX) * ((shrunk * overlap) @ Vt)).sum(-1)
        d_trace = -2.0 * (r * shrunk * (U.T @ dX * Vt).sum(-1)).sum(-1)
        dK = n * (d_square / trace**2 - 2.0 * square * d_trace / trace**3)
        change = dK if change is None else change + dK
    return value, change
