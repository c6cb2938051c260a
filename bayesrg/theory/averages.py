# SPDX-License-Identifier: Apache-2.0
"""Averages over data sets that every ridge regression shares, in sums of positive terms."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import _fixedpoint
from .._linalg import ratio


class Averages(NamedTuple):
    """Results of `averages`: arrays (...), or (..., k) with one number per level.

    ``s`` is the effective ridge, and ``left`` (..., k) is 1 / (n value + s). ``learnt`` and
    ``unlearnt`` (..., k) are a mode's learnability L and 1 - L; ``count`` is the sum of L over
    modes. Errors are amplified by 1 / ``free``. ``critical`` says that ``free`` is zero: there is
    no ridge and there are as many modes as points.
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
    r"""Solve for the effective ridge s and compute the averages that follow from it.

    With the learnabilities L, ``share`` is :math:`1 - \sum_k L_k/n` and ``free`` is
    :math:`1 - \sum_k L_k^2/n`.

    Parameters
    ----------
    levels : Levels, whose tail is added to the ridge
    n : (...) number of points, zero allowed
    ridge : (...) finite, zero allowed
    """
    some = jnp.where(n > 0, n, 1.0)
    root = _fixedpoint.effective_ridge(levels, some, ridge)
    ridge = ridge + levels.tail
    s = jnp.where(n > 0, root.value, ridge + levels.variance.sum(-1))
    n, ridge, some, s = jnp.broadcast_arrays(n, ridge, some, s)

    # 1 - learnt would lose all digits for modes that are almost learnt
    signal, rest = n[..., None] * levels.values, s[..., None]
    total = signal + rest
    learnt, unlearnt = ratio(signal, total), ratio(rest, total, 1.0)
    left = ratio(1.0, total)
    count = (levels.degeneracy * learnt).sum(-1)
    critical = (s == 0) & (count >= n) & (n > 0)

    # With about as many modes as points both differences from 1 would cancel. By the equation for
    # s, 1 - sum L/n is ridge/s; and L - L^2 is n value s/(n value + s)^2.
    share = ratio(ridge, s, jnp.where(critical, 0.0, 1.0 - count / some))
    free = share + (levels.variance * left * unlearnt).sum(-1)
    return Averages(
        n=n,
        ridge=ridge,
        s=s,
        learnt=learnt,
        unlearnt=unlearnt,
        left=left,
        count=count,
        share=share,
        free=free,
        critical=critical,
        residual=root.residual,
        converged=root.converged,
    )


def over(a, b):
    """Return a / b for a, b >= 0; where b is zero, infinity, or zero if a is zero as well."""
    return ratio(a, b, jnp.where(a > 0, jnp.inf, 0.0))


def log_det(levels, a):
    r"""Return the average (...) of :math:`\ln|K + \sigma^2|` over data sets of n points.

    Where s is zero it is the limit for n modes, :math:`\sum_k \ln(n\lambda_k) - n`.
    """
    s = jnp.where(a.s > 0, a.s, 1.0)
    x = a.n[..., None] * levels.values / s[..., None]
    logs = jnp.where(a.s[..., None] > 0, jnp.log1p(x), jnp.log(jnp.where(x > 0, x, 1.0)))
    return a.n * jnp.log(s) - a.n * (1.0 - a.share) + (levels.degeneracy * logs).sum(-1)
