# SPDX-License-Identifier: Apache-2.0
"""Ridges that stand for modes: universal, effective, dressed, in two stages."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._fixedpoint import Root


def levels(values, degeneracy, n, ridge, tail):
    """Check and convert what every function of a spectrum takes; the tail joins the ridge."""
    _checks.warn_32_bits("a ridge")
    values = _checks.eigenvalues(values)
    if degeneracy is None:
        degeneracy = jnp.ones_like(values)
    degeneracy = _checks.positive("degeneracy", degeneracy)
    if degeneracy.shape[-1:] != values.shape[-1:]:
        raise ValueError(
            f"degeneracy has shape {degeneracy.shape} but values {values.shape}; give one per level"
        )
    n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
    tail = _checks.nonnegative("tail", tail)
    batches = {"values": values, "degeneracy": degeneracy}
    shapes = {name: x.shape[:-1] for name, x in batches.items()}
    _checks.fit(**shapes, n=n.shape, ridge=ridge.shape, tail=tail.shape)
    return values, degeneracy.astype(values.dtype), n, ridge + tail


def effective_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    r"""Ridge that n points effectively see: the root s of :math:`s = \sigma^2 + \sum_k \lambda_k s/(s+n\lambda_k)`.

    Parameters
    ----------
    values : (..., k) eigenvalues under the data measure, falling, variances
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy : (..., k) modes a value stands for, 1 by default
    tail : (...) variance outside the spectrum, added to the ridge

    Returns
    -------
    s : (...)
        Between the ridge and the ridge plus the sum of values; zero for a zero ridge and no more
        modes than points. Differentiable in values, n and ridge.

    Notes
    -----
    About 15 digits in 64-bit floats, 6 in 32-bit.

    References
    ----------
    arXiv 2405.06008, section 4 of its theory; Silverman (1984); Sollich (1999); Canatar,
    Bordelon and Pehlevan (2021), equation 4.
    """  # noqa: E501
    return solve_ridge(values, n, ridge, degeneracy=degeneracy, tail=tail).value


def dressed_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    """Effective ridge of the modes above a cutoff alone: what eliminating them makes of the ridge.

    Parameters
    ----------
    cutoff : (...) integers
        Modes kept; with a degeneracy it may cut a level, whose other modes count as eliminated.

    Returns
    -------
    s : (...)
        At most ridge plus the eliminated variance; the other arguments are those of
        `effective_ridge`, and all of them batch together.

    Notes
    -----
    What flows is the function from bare to dressed ridge. Its composition law: the effective
    ridge is the dressed ridge of the bare one raised by what the low modes leave,
    ``s = dressed_ridge(values, n, ridge + sum_low l_k (1 - L_k(s)), cutoff)``; see
    `two_stage_ridge`.

    References
    ----------
    arXiv 2405.06008; the dressed flow sums all orders in the learnability of what is eliminated.
    """
    return solve_ridge(values, n, ridge, cutoff, degeneracy=degeneracy, tail=tail).value


def solve_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike = 0,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Root:
    """Solve for the ridge above a cutoff and say how well the equation is met.

    Arguments are those of `dressed_ridge`; cutoff 0 gives the effective ridge.

    Returns
    -------
    Root
        ``value`` (...), relative ``residual`` (...) and ``converged`` (...).

    References
    ----------
    arXiv 2405.06008; see `effective_ridge`.
    """
    values, degeneracy, n, ridge = levels(values, degeneracy, n, ridge, tail)
    high = degeneracy - kept_of(degeneracy, cutoff)
    return _fixedpoint.effective_ridge(jnp.where(high > 0, values, 0.0), high, n, ridge)


def kept_of(degeneracy, cutoff):
    """Modes of each level (..., k) that lie below the cutoff (...)."""
    if _checks.known(degeneracy):
        cutoff = _checks.cutoffs(cutoff, int(np.asarray(degeneracy).sum(-1).max().round()))
    cutoff = jnp.asarray(_checks.numbers("cutoff", cutoff), degeneracy.dtype)
    _checks.fit(cutoff=cutoff.shape, values=degeneracy.shape[:-1])
    return jnp.clip(cutoff[..., None] - (jnp.cumsum(degeneracy, -1) - degeneracy), 0.0, degeneracy)


def universal_ridge(
    values: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    r"""Ridge plus the variance of the modes above a cutoff, :math:`\sigma^2 + \sum_{k>\kappa}\lambda_k`.

    Arguments are those of `dressed_ridge`; no number of points enters.

    Returns
    -------
    (...)

    References
    ----------
    arXiv 2405.06008, equations 33 and 34.
    """  # noqa: E501
    values, degeneracy, _, ridge = levels(values, degeneracy, 1.0, ridge, tail)
    return ridge + ((degeneracy - kept_of(degeneracy, cutoff)) * values).sum(-1)


def two_stage_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    rule: str = "universal",
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    """Effective ridge of the low modes on top of what eliminating the high ones left.

    Parameters
    ----------
    rule : "universal", "dressed" or "exact"
        What the first stage hands on. A number cannot be right for both stages: the universal
        ridge gives too large a result, to second order in the learnability of the eliminated
        modes, the dressed one too small a result. "exact" hands on the dressed ridge as a
        function of the bare one, and equals `effective_ridge`.

    Returns
    -------
    (...)
        The other arguments are those of `dressed_ridge`.

    References
    ----------
    arXiv 2405.06008: the flow as a semigroup.
    """
    _checks.choice("rule", rule, ("universal", "dressed", "exact"))
    whole = {"degeneracy": degeneracy, "tail": tail}
    if rule == "exact":
        s = effective_ridge(values, n, ridge, **whole)
    elif rule == "universal":
        s = universal_ridge(values, ridge, cutoff, **whole)
    else:
        s = dressed_ridge(values, n, ridge, cutoff, **whole)
    values, degeneracy, n, ridge = levels(values, degeneracy, n, ridge, tail)
    low = kept_of(degeneracy, cutoff)
    if rule == "exact":  # the composition law
        total = s[..., None] + n[..., None] * values
        left = low * values * s[..., None] / jnp.where(total > 0, total, 1.0)
        ridge = ridge + left.sum(-1)
        return solve_ridge(values, n, ridge, cutoff, degeneracy=degeneracy).value
    return _fixedpoint.effective_ridge(jnp.where(low > 0, values, 0.0), low, n, s).value
