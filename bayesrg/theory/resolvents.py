# SPDX-License-Identifier: Apache-2.0
"""Deterministic equivalents of one and of two resolvents, as matrices."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..spectrum import Levels
from .averages import averages
from .moments import Moments


def resolvent(
    moments: Moments, n: ArrayLike, ridge: ArrayLike
) -> Float[Array, "feature feature_bis"]:
    r"""Average :math:`\lambda(X^TX + \lambda)^{-1}`, which is :math:`\tau(\Omega + \tau)^{-1}`.

    Parameters
    ----------
    moments : Moments
    n : () number of rows, zero allowed
    ridge : () finite; zero gives the limit, a projector once n exceeds the rank

    Returns
    -------
    (p, p)
        Equivalent in traces with, and between vectors, that do not depend on the data.

    References
    ----------
    arXiv 2402.13999.
    """
    return _one(moments, *_checked(moments, n, ridge))


@jax.jit
def _one(moments, n, ridge):
    return _rotate(moments, jnp.diag(_averages(moments, n, ridge).unlearnt))


def two_resolvents(
    moments: Moments, n: ArrayLike, ridge: ArrayLike, A: ArrayLike
) -> Float[Array, "feature feature_bis"]:
    r"""Average :math:`\lambda^2 G A G` of the resolvent :math:`G = (X^TX + \lambda)^{-1}`.

    With :math:`R = (\Omega+\tau)^{-1}` it is
    :math:`\tau^2[RAR + \mathrm{tr}(\Omega RAR)/(n - \mathrm{df}_2)\, R\Omega R]`.

    Parameters
    ----------
    moments : Moments
    n : () number of rows, positive
    ridge : () finite; zero gives the limit
    A : (p, p) or (p,), a matrix that does not depend on the data, or its diagonal

    Returns
    -------
    (p, p)

    Raises
    ------
    ValueError
        For a matrix of another shape.

    References
    ----------
    arXiv 2402.13999 for A = Omega, from which the error follows.
    """
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    values, p = moments.values, moments.values.size
    A = _checks.finite("A", A, ndim=(1, 2)).astype(values.dtype)
    if A.shape not in ((p,), (p, p)):
        raise ValueError(f"A has shape {A.shape} for {p} features; give ({p}, {p}) or its diagonal")
    return _two(moments, *_checked(moments, _checks.positive("n", n), ridge), A)


@jax.jit
def _two(moments, n, ridge, A):
    values = moments.values
    A = jnp.diag(A) if A.ndim == 1 else A
    if moments.vectors is not None:
        A = moments.vectors.T @ A @ moments.vectors
    a = _averages(moments, n, ridge)
    # with no ridge and n modes the factor diverges more slowly than what it multiplies vanishes
    factor = jnp.where(a.critical, 0.0, a.n / jnp.where(a.critical, 1.0, a.free))
    held = factor * (values * a.left * a.left * jnp.diagonal(A)).sum()
    inner = a.unlearnt[:, None] * A * a.unlearnt + jnp.diag(held * a.unlearnt**2 * values)
    return _rotate(moments, inner)


def _checked(moments, n, ridge):
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    n = _checks.nonnegative("n", n, ndim=0).astype(moments.values.dtype)
    ridge = _checks.nonnegative("ridge", ridge, ndim=0).astype(moments.values.dtype)
    return n, ridge


def _averages(moments, n, ridge):
    lost = (ridge == 0) & (moments.values <= moments.floor)
    values = jnp.where(lost, 0.0, moments.values)
    return averages(Levels(values, jnp.ones_like(values)), n, ridge)


def _rotate(moments, inner):
    if moments.vectors is None:
        return inner
    return moments.vectors @ inner @ moments.vectors.T
