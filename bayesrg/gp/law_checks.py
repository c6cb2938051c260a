# SPDX-License-Identifier: Apache-2.0
"""Checks of the distributions of this package: their arguments, and whether they have a density.

Some checks need concrete numbers and run only outside compiled programs: is the covariance
singular, do cached eigenpairs belong to these features?
"""

import jax
import numpy as np

from .. import _checks
from .._linalg import judge_condition
from .._numbers import on_device


def _same_trace(name, got, expected):
    if abs(got - expected) > 1e-5 * abs(expected) + 1e-30:
        raise ValueError(
            f"{name} belongs to other modes: its trace is {got:.6g}, and that of these features, "
            f"values and residual is {expected:.6g}; compute it from them. After a cut, compute it "
            "for the eliminated modes (spectrum.at(X).eigenpairs(cutoff))"
        )


def refuse_stale(fn):
    """Raise ValueError if eigenpairs or a Gram matrix belong to other modes, by their traces."""
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
    """Return eigenvectors (n, r) and eigenvalues (r,) as arrays, or None for None."""
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


def refuse_singular(fn):
    """Raise ValueError unless there is a density: a positive ridge, or a prior of full rank."""
    parts = (fn.ridge, fn.features, fn.values, fn.scale, fn.residual)
    if not all(part is None or _checks.known(part) for part in parts):
        return
    if (np.asarray(fn.ridge) > 0).all():
        return
    n, k = fn.features.shape
    features = np.asarray(fn.features)
    prior = (features * np.asarray(fn.values)[..., None, :]) @ features.T
    if fn.residual is not None:
        residual = np.asarray(fn.residual)
        prior = prior + (np.diag(residual) if residual.ndim == 1 else residual)

    # Eigenvalues below the round-off of the trace count as zero. The low-rank algebra divides by a
    # diagonal residual, so that this must not contain a zero.
    smallest = np.linalg.eigvalsh(np.asarray(fn.scale)[..., None, None] * prior)[..., 0]
    floor = n * np.finfo(prior.dtype).eps * np.trace(prior, axis1=-2, axis2=-1)
    diagonal = fn.residual is not None and fn.residual.ndim == 1 and k < n
    if (smallest <= floor).any() or (diagonal and not np.asarray(fn.residual).all()):
        raise ValueError(
            f"noise covariance is singular: ridge = 0 and only {k} modes for {n} points; give "
            "a positive ridge, or a residual that is positive definite"
        )


def refuse_order(order, ridge):
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


def judge_pairs(kappa, order, ridge):
    """Warn if the round-off of a dense kernel matrix is not small compared with the noise.

    The eigenvalues ``kappa`` (n,) have the round-off of the largest one. The order parameter
    multiplies them, so that the noise is compared with their product.
    """
    if not all(_checks.known(part) for part in (kappa, order, ridge)) or not kappa.size:
        return
    kappa, ridge = np.asarray(kappa), np.asarray(ridge)
    size = np.diagonal(np.asarray(order), axis1=-2, axis2=-1).max(-1)
    live = kappa[kappa > 1e-10 * kappa.max()]
    total = (live.min() if (ridge == 0).any() else kappa.min()) * size + ridge
    worst = np.maximum(total.min(), np.finfo(float).tiny)
    judge_condition((kappa.max() * size).max() / worst, (len(kappa),) * 2, kappa.dtype)
