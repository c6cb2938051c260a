# SPDX-License-Identifier: Apache-2.0
"""One ridge in place of many modes: universal, dressed, effective, and in two stages."""

from functools import partial

import jax
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from ..spectrum.levels import LevelsLike, levels


def effective_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    r"""Noise variance plus the prior variance that n points do not determine, on average.

    The root s of :math:`s = \sigma^2 + \sum_k \lambda_k s/(s+n\lambda_k)`.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    s : (...)
        From the ridge to the ridge plus the sum of values, to about 15 digits (6 in 32-bit
        floats). Zero for a zero ridge and at least as many points as modes. Differentiable in
        values, n and ridge.

    References
    ----------
    arXiv 2405.06008; Silverman (1984); Sollich (1999); Canatar, Bordelon and Pehlevan (2021),
    equation 4.
    """
    return solve(values, n, ridge, 0, degeneracy, tail).value


def dressed_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    """Effective ridge if only the modes above a cutoff existed: what their elimination leaves.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept. A cutoff inside a level eliminates the other modes of the level.
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    s : (...)
        At most the ridge plus the eliminated variance.

    Notes
    -----
    The dressed ridge takes into account, to all orders, that data determine part of the eliminated
    modes. It composes as a function of the bare ridge: raise the bare ridge by the variance
    ``sum_low l_k (1 - L_k)`` that is not learnt in the low modes, and the dressed ridge is the
    effective ridge of all modes. The number alone does not compose, see `two_stage_ridge`.

    References
    ----------
    arXiv 2405.06008.
    """
    return solve(values, n, ridge, cutoff, degeneracy, tail).value


def solve(values, n, ridge, cutoff, degeneracy, tail):
    """Check arguments, and return the dressed ridge with residual and convergence, a `Root`."""
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    high = _above(whole, whole.checked_cutoff(cutoff))
    return _fixedpoint.effective_ridge(high, n, ridge)  # one program for all that solve it


@jax.jit
def _above(levels, cutoff):
    return levels.split(cutoff)[1]


def problem(values, n, ridge, degeneracy=None, tail=None):
    """Check the arguments of every average over data sets, and return levels, n and ridge."""
    _checks.warn_32_bits("a ridge")
    found = levels(values, degeneracy=degeneracy, tail=tail)
    n, ridge = _checks.positive("n", n), _checks.nonnegative("ridge", ridge)
    _checks.fit(
        values=found.values.shape[:-1],
        degeneracy=found.degeneracy.shape[:-1],
        n=n.shape,
        ridge=ridge.shape,
        tail=found.tail.shape,
    )
    return found, n, ridge


def universal_ridge(
    values: LevelsLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Float[Array, "*batch"]:
    r"""Ridge plus the prior variance above a cutoff, :math:`\sigma^2 + \sum_{k>\kappa}\lambda_k`.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept. A cutoff inside a level eliminates the other modes of the level.
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    (...)

    References
    ----------
    arXiv 2405.06008, equations 33 and 34.
    """
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
    """Effective ridge of the low modes alone, with the ridge that eliminating the others left.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    cutoff : (...) integers
        Modes kept. A cutoff inside a level eliminates the other modes of the level.
    rule : "universal" or "dressed"
        The ridge of the first stage, `universal_ridge` or `dressed_ridge`.
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    (...)
        Above `effective_ridge` for the universal rule, by an error of second order in the
        learnability of the eliminated modes; below it for the dressed rule. No single number
        handed on by the first stage is right for the second.

    References
    ----------
    arXiv 2405.06008: the flow as a semigroup.
    """
    _checks.choice("rule", rule, ("universal", "dressed"))
    whole, n, ridge = problem(values, n, ridge, degeneracy, tail)
    return _two_stage(whole, n, ridge, whole.checked_cutoff(cutoff), rule)


@partial(jax.jit, static_argnames="rule")
def _two_stage(whole, n, ridge, cutoff, rule):
    low, high = whole.split(cutoff)
    if rule == "universal":
        s = universal(whole, ridge, cutoff)
    else:
        s = _fixedpoint.effective_ridge(high, n, ridge).value
    return _fixedpoint.effective_ridge(low, n, s).value
