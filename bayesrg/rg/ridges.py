# SPDX-License-Identifier: Apache-2.0
"""Ridges that stand for modes: universal, effective, dressed, in two stages."""

from functools import partial

import jax
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._fixedpoint import Root
from ..spectrum.levels import LevelsLike, levels, signal_share


def effective_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    r"""Ridge that n points effectively see: the root s of :math:`s = \sigma^2 + \sum_k \lambda_k s/(s+n\lambda_k)`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
        Bare eigenvalues fall and are variances under the data measure. See
        `bayesrg.spectrum.levels` for what a spectrum leaves out.
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes, added to the ridge; not with Levels, which hold it

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
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    """Effective ridge of the modes above a cutoff alone: what eliminating them makes of the ridge.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept; with a degeneracy it may cut a level, whose other modes count as eliminated.
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    s : (...)
        At most ridge plus the eliminated variance.

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
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike = 0,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Root:
    """Solve for the ridge above a cutoff and say how well the equation is met.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept, as in `dressed_ridge`; 0 gives the effective ridge.
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    Root
        ``value`` (...), relative ``residual`` (...) and ``converged`` (...).

    References
    ----------
    arXiv 2405.06008; see `effective_ridge`.
    """
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    high = _above(whole, whole.checked_cutoff(cutoff))
    return _fixedpoint.effective_ridge(high, n, ridge)  # one program for all that solve it


@jax.jit
def _above(levels, cutoff):
    return levels.split(cutoff)[1]


def problem(values, n, ridge, degeneracy=None, tail=None):
    """Check what every average over data sets takes: levels, number of points, noise variance."""
    _checks.warn_32_bits("a ridge")
    found = levels(values, degeneracy=degeneracy, tail=tail)
    n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
    batch = {"values": found.values, "degeneracy": found.degeneracy}
    batch = {name: x.shape[:-1] for name, x in batch.items()}
    _checks.fit(**batch, n=n.shape, ridge=ridge.shape, tail=found.tail.shape)
    return found, n, ridge


def universal_ridge(
    values: LevelsLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    r"""Ridge plus the variance of the modes above a cutoff, :math:`\sigma^2 + \sum_{k>\kappa}\lambda_k`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept, as in `dressed_ridge`.
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    (...)

    References
    ----------
    arXiv 2405.06008, equations 33 and 34.
    """  # noqa: E501
    whole, _, ridge = problem(values, 1.0, ridge, degeneracy, tail)
    return universal(whole, ridge, whole.checked_cutoff(cutoff))


@jax.jit
def universal(levels, ridge, cutoff):
    """`universal_ridge` without checks."""
    high = levels.split(cutoff)[1]
    return ridge + high.tail + high.variance.sum(-1)


def two_stage_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    rule: str = "universal",
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    """Effective ridge of the low modes on top of what eliminating the high ones left.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (..., k)
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept, as in `dressed_ridge`.
    rule : "universal", "dressed" or "exact"
        What the first stage hands on. A number cannot be right for both stages: the universal
        ridge gives too large a result, to second order in the learnability of the eliminated
        modes, the dressed one too small a result. "exact" hands on the dressed ridge as a
        function of the bare one, and equals `effective_ridge`.
    degeneracy : (..., k) modes that a bare eigenvalue stands for, 1 by default
    tail : (...) variance outside the modes; both as in `effective_ridge`

    Returns
    -------
    (...)

    References
    ----------
    arXiv 2405.06008: the flow as a semigroup.
    """
    _checks.choice("rule", rule, ("universal", "dressed", "exact"))
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    return _two_stage(whole, n, ridge, whole.checked_cutoff(cutoff), rule)


@partial(jax.jit, static_argnames="rule")
def _two_stage(whole, n, ridge, cutoff, rule):
    low, high = whole.split(cutoff)
    if rule == "universal":
        s = universal(whole, ridge, cutoff)
    elif rule == "dressed":
        s = _fixedpoint.effective_ridge(high, n, ridge).value
    else:  # the composition law
        s = _fixedpoint.effective_ridge(whole, n, ridge).value
        left = low.variance * signal_share(s[..., None], n[..., None] * low.values)
        return _fixedpoint.effective_ridge(high, n, ridge + left.sum(-1)).value
    return _fixedpoint.effective_ridge(low, n, s).value
