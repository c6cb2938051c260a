# SPDX-License-Identifier: Apache-2.0
"""The test error of ridge regression from its training data alone."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike


def gcv(X: ArrayLike, y: ArrayLike, ridge: ArrayLike) -> Float[Array, "*batch"]:
    r"""Estimate the test error by generalised cross-validation.

    :math:`n\,|(K+\lambda)^{-1}y|^2 / (\mathrm{tr}(K+\lambda)^{-1})^2` with :math:`K = XX^T`: the
    training error over the square of the share of unfitted degrees of freedom.

    Parameters
    ----------
    X : (n, p) features
    y : (n,) targets
    ridge : (...) added to K, which carries no 1/n; zero is the limit from above

    Returns
    -------
    (...)
        Mean squared error on new labels, noise included.

    Raises
    ------
    ValueError
        For non-finite entries, numbers of rows that differ, or a negative ridge.

    References
    ----------
    Golub, Heath and Wahba (1979); arXiv 2402.13999 and arXiv 1903.08560 for why it is consistent.
    """
    _checks.warn_32_bits("theory.gcv")
    X = _checks.inputs("X", X)
    y = _checks.finite("y", _checks.targets("y", y, X.shape[0]), ndim=1)
    ridge = _checks.nonnegative("ridge", ridge).astype(X.dtype)[..., None]
    n = X.shape[0]
    U, singular, _ = jnp.linalg.svd(X, full_matrices=False)
    resolved = singular > max(X.shape) * jnp.finfo(X.dtype).eps * singular.max()
    values = jnp.where(resolved, singular, 0.0) ** 2
    overlap = U.T @ y
    # directions outside the features, n - len(values) of them, have value zero
    outside, more = ((y - U @ overlap) ** 2).sum(), n - values.size
    lowest = 0.0 if more else values.min()
    # the resolvent over its largest eigenvalue, of which the ratio does not depend
    total = values + ridge
    r = jnp.where(total > 0, (lowest + ridge) / jnp.where(total > 0, total, 1.0), 1.0)
    square = (r**2 * overlap**2).sum(-1) + (outside if more else 0.0)
    return n * square / (r.sum(-1) + more) ** 2
