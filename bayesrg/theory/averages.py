# SPDX-License-Identifier: Apache-2.0
"""Averages over data sets that every ridge regression shares, in sums of positive terms."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _fixedpoint
from ..spectrum.levels import signal_share


class Averages(NamedTuple):
    """What the eigenvalues say about regression on n points; see `averages`.

    ``s`` is the effective ridge, ``share`` the ridge over it, ``free`` the inverse of the factor
    that amplifies errors, ``critical`` says that it vanishes: no ridge and n modes.
    ``left`` (..., k) is 1 / (n values + s), zero where nothing is.
    """

    n: Array
    ridge: Array
    s: Array
    learnt: Array
    unlearnt: Array
    left: Array
    count: Array
    share: Array
    free: Array
    critical: Array
    residual: Array
    converged: Array


def averages(levels, n, ridge):
    r"""Solve for the effective ridge s and take the averages that follow from it.

    With the learnabilities L, ``share`` is :math:`1 - \sum_k L_k/n` and ``free`` is
    :math:`1 - \sum_k L_k^2/n`; both differences cancel near n modes and are written as
    :math:`\sigma^2/s` and :math:`\sigma^2/s + s\sum_k \lambda_k/(n\lambda_k+s)^2`.

    Parameters
    ----------
    levels : Levels, whose tail joins the ridge
    n : (...) number of points, zero allowed
    ridge : (...) finite, zero allowed

    Returns
    -------
    Averages
    """
    values, degeneracy = levels.values, levels.degeneracy
    some = jnp.where(n > 0, n, 1.0)
    root = _fixedpoint.effective_ridge(levels, some, ridge)
    ridge = ridge + levels.tail
    s = jnp.where(n > 0, root.value, ridge + levels.variance.sum(-1))
    n, ridge, some, s = jnp.broadcast_arrays(n, ridge, some, s)
    signal, noise = n[..., None] * values, s[..., None]
    learnt = jnp.where(degeneracy > 0, signal_share(signal, noise), 0.0)
    # not 1 - learnt, which would cancel
    unlearnt = jnp.where(learnt > 0, signal_share(noise, signal), 1.0)
    total = signal + noise
    left = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    count = (degeneracy * learnt).sum(-1)
    share = jnp.where(s > 0, ridge / jnp.where(s > 0, s, 1.0), 1.0 - count / some)
    critical = (s == 0) & (count >= n) & (n > 0)
    free = share + (levels.variance * left * unlearnt).sum(-1)
    return Averages(
        n, ridge, s, learnt, unlearnt, left, count, share, free, critical, root.residual,
        root.converged,
    )  # fmt: skip


def log_det(levels, a):
    r"""Average of :math:`\ln|K + \sigma^2|` over n points, for a positive effective ridge."""
    s = jnp.where(a.s > 0, a.s, 1.0)
    logs = jnp.log1p(a.n[..., None] * levels.values / s[..., None])
    return a.n * jnp.log(s) - a.n * (1.0 - a.share) + (levels.degeneracy * logs).sum(-1)
