# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments of the distributions: shapes, cached eigenpairs, singular covariances.

Checks of numbers do nothing for traced ones. They use NumPy, because operations of JAX on known
numbers would be traced under `jax.jit`.
"""

import jax
import numpy as np

from .. import _checks
from .._linalg import warn_condition
from .._numbers import on_device


def _same_trace(name, got, expected):
    if abs(got - expected) > 1e-5 * abs(expected) + 1e-30:
        raise ValueError(
            f"{name} belongs to other modes: its trace is {got:.6g}, and that of these features, "
            f"values and residual is {expected:.6g}; compute it from them. After a cut, compute it "
            "for the eliminated modes (spectrum.at(X).eigenpairs(cutoff))"
        )


def check_caches(fn):
    """Raise ValueError if the trace of eigenpairs or Gram matrix is that of other modes."""
    given = (fn.features, fn.values, fn.residual, fn.eigen, fn.gram)
    if not all(_checks.known(part) for part in jax.tree.leaves(given)):
        return
    n = fn.event_shape[0]
    squares = np.asarray(fn.features) ** 2
    if fn.eigen is not None and fn.eigen[0].shape[0] == n and fn.values.ndim == 1:
        trace = (squares @ np.asarray(fn.values)).sum()
        if fn.residual is not None:
            residual = np.asarray(fn.residual)
            trace += residual.sum() if residual.ndim == 1 else np.trace(residual)
        _same_trace("eigen", np.asarray(fn.eigen[1]).sum(), trace)
    if fn.gram is not None:
        _same_trace("gram", np.trace(np.asarray(fn.gram)), squares.sum())


def check_eigen(pairs):
    """Return eigenvectors (n, r) and eigenvalues (r,) as arrays; None stays None."""
    if pairs is None:
        return None
    _checks.several("eigen", pairs, "vectors, eigenvalues")
    vectors, values = (_checks.finite(f"eigen[{i}]", part) for i, part in enumerate(pairs))
    if vectors.ndim != 2 or values.shape[-1:] != vectors.shape[1:]:
        raise ValueError(
            f"eigen has vectors of shape {vectors.shape} and eigenvalues of shape {values.shape}; "
            "give what gp.eigenpairs returns, (n, r) and (r,)"
        )
    return vectors, values


def check_sample_shape(shape):
    """Return the shape of several draws as a tuple of whole numbers of at least zero."""
    shape = _checks.sequence("sample_shape", shape, "whole numbers, one per axis of draws")
    return tuple(_checks.whole("an entry of sample_shape", size, least=0) for size in shape)


def at_points(name, value, event, *, first=False):
    """Return ``value`` as an array whose last axes have the shape ``event``.

    With ``first`` the array may have values at the first points only. Integers stay integers,
    because a likelihood may need counts.
    """
    _checks.finite(name, value)
    value = on_device(_checks.numbers(name, value))
    shape = value.shape[value.ndim - len(event) :] if value.ndim >= len(event) else None
    if shape == event or (first and shape and 0 < shape[0] <= event[0] and shape[1:] == event[1:]):
        return value
    raise ValueError(
        f"{name} have shape {value.shape} for {event[0]} points; their last "
        + (
            "axis is the point axis: give several targets as rows, y.T"
            if len(event) == 1
            else f"axes are {event}: one row per point, one column per output"
        )
    )


def check_definite(fn):
    """Raise ValueError if there is no density: zero noise, and a prior of less than full rank."""
    if not all(_checks.known(part) for part in jax.tree.leaves((fn.ridge, fn.prior, fn.scale))):
        return
    if (np.asarray(fn.ridge) > 0).all():
        return
    n, k = fn.features.shape
    features, residual = np.asarray(fn.features), 0.0
    if fn.residual is not None:
        residual = np.asarray(fn.residual)
        residual = np.diag(residual) if residual.ndim == 1 else residual
    prior = (features * np.asarray(fn.values)[..., None, :]) @ features.T + residual

    # Eigenvalues below the rounding error of the trace count as zero. The low-rank algebra divides
    # by a diagonal residual, so this must not contain a zero.
    smallest = np.linalg.eigvalsh(np.asarray(fn.scale)[..., None, None] * prior)[..., 0]
    floor = n * np.finfo(prior.dtype).eps * np.trace(prior, axis1=-2, axis2=-1)
    divided = fn.prior.thin and fn.residual is not None
    if (smallest <= floor).any() or (divided and not np.diagonal(residual).all()):
        raise ValueError(
            f"noise covariance is singular: ridge = 0 and only {k} modes for {n} points; give "
            "a positive ridge, or a residual that is positive definite"
        )


def check_order(order, ridge):
    """Raise ValueError unless ``order`` (..., c, c) is a covariance, of full rank without noise."""
    if not _checks.known(order):
        return
    host = np.asarray(order)
    largest = np.abs(host).max(initial=0.0)
    slack = max(1e-10, 10 * host.shape[-1] * np.finfo(host.dtype).eps) * largest
    if (np.abs(host - np.swapaxes(host, -1, -2)) > slack).any():
        raise ValueError("order is not symmetric; give F @ F.T for a factor F")
    smallest = np.linalg.eigvalsh(host).min(initial=0.0 if not host.size else np.inf)
    if smallest < -slack:
        raise ValueError(
            f"order must be positive semi-definite, got an eigenvalue {smallest}; give F @ F.T"
        )
    if _checks.known(ridge) and (np.asarray(ridge) == 0).any() and smallest <= 1e-14 * largest:
        raise ValueError(
            "order is singular and ridge is 0, so the observations have no density; give a "
            "positive ridge"
        )


def warn_rounded(kappa, order, ridge):
    """Warn if the rounding error of a dense kernel matrix is not small compared with the noise.

    The eigenvalues ``kappa`` (n,) have the rounding error of the largest one. The order parameter
    multiplies them, so the noise is compared with their product.
    """
    if not all(_checks.known(part) for part in (kappa, order, ridge)) or not kappa.size:
        return
    kappa, ridge = np.asarray(kappa), np.asarray(ridge)
    size = np.diagonal(np.asarray(order), axis1=-2, axis2=-1).max(-1)
    live = kappa[kappa > 1e-10 * kappa.max()]
    total = (live.min() if (ridge == 0).any() else kappa.min()) * size + ridge
    worst = np.maximum(total.min(), np.finfo(float).tiny)
    warn_condition((kappa.max() * size).max() / worst, (len(kappa),) * 2, kappa.dtype)
