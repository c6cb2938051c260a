# SPDX-License-Identifier: Apache-2.0
"""Where the flow stops: eight rules that count the modes a data set can learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._linalg import ratio
from ..spectrum.levels import LevelsLike, one_per_mode
from .learnability import effective, from_here, posterior, running
from .ridges import problem

SAME = 1e-10  # values that differ by less than this, relatively, are one multiplet


def _bare(levels, n, ridge, last):
    return levels.learnt(n, ridge + levels.tail)


def _self_consistent(levels, n, ridge, last):
    return effective(levels, n, ridge)


_BY_LEARNABILITY = {
    "bare": _bare,
    "running": running,
    "self_consistent": _self_consistent,
    "fisher": running,  # n l / ridge >= T / (1 - T) is the same condition
}


def _dof(levels, n, ridge, threshold):
    learnt = effective(levels, n, ridge)
    return jnp.round((levels.degeneracy * learnt).sum(-1))


def _effective_rank(levels, n, ridge, threshold):
    """Start of the first level from which on the variance is large against its value."""
    remaining = from_here(levels) + (ridge + levels.tail)[..., None]
    stops = remaining >= (1 - threshold) / threshold * n[..., None] * levels.values
    return _first(stops, levels.degeneracy)


def _match(levels, n, ridge, threshold):
    """Modes whose elimination adds what the effective ridge adds, to the nearest mode."""
    values, degeneracy = levels.values, levels.degeneracy
    s = _fixedpoint.effective_ridge(levels, n, ridge).value
    excess = from_here(levels) - (s - ridge - levels.tail)[..., None]

    # modes to keep of each level, if the cut lies in it, and what is then still missing
    inside = jnp.clip(jnp.round(ratio(excess, values)), 0.0, degeneracy)
    distance = jnp.abs(excess - inside * values)

    best = jnp.argmin(distance, -1)[..., None]
    before = jnp.cumsum(degeneracy, -1) - degeneracy
    return jnp.take_along_axis(before + inside, best, -1)[..., 0]


_BY_COUNT = {"dof": _dof, "effective_rank": _effective_rank, "match": _match}
CUTOFF_RULES = (*_BY_LEARNABILITY, *_BY_COUNT, "posterior")


def cutoff(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    rule: str = "running",
    threshold: float = 0.5,
    *,
    scan: str = "ir",
    features: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> int | np.ndarray | Array:
    r"""Return the number of modes that n points determine, the cutoff at which the flow stops.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (..., k), variances under the data measure
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    rule : str
        Most rules keep the modes whose learnability is at least the threshold T. They differ in the
        ridge with which the learnability is computed.

        "running": the ridge plus the variance of all modes that come after the mode.
        "fisher": Fisher information :math:`n\lambda_k/\sigma_k^2` of at least :math:`T/(1-T)`;
        the same condition as "running".
        "bare": the ridge alone. Keeps too many modes if the eliminated variance exceeds the ridge.
        "self_consistent": the effective ridge.
        "posterior": the exact learnability on given points; needs ``features``.
        "effective_rank": the first cutoff at which ridge and remaining variance are at least
        :math:`n\lambda_{\kappa+1}(1-T)/T`. This variance contains the next mode, so the rule keeps
        about one mode less than "running".
        "dof": the sum of learnabilities at the effective ridge, rounded.
        "match": the cutoff whose eliminated variance is closest to effective ridge minus ridge.
    threshold : float, strictly between 0 and 1
        T; a mode exactly at it is kept. "dof" and "match" ignore it.
    scan : "ir" or "uv"
        "ir": go from the largest mode on and stop at the first below the threshold. "uv": go from
        the smallest mode on and stop at the first that reaches the threshold. Both agree if the
        learnability falls from mode to mode.
    features : (n, k), optional
        Mode functions at the points, for the rule "posterior".
    residual : (n,) or (n, n), optional
        Prior covariance at the points outside the modes, in place of ``tail``.
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    int, or integers (...) for batches
        Number of modes kept. A cutoff inside a group of equal values (1e-10 relative) would depend
        on an arbitrary basis, so it is raised to the end of the group.

    Raises
    ------
    ValueError
        For an unknown rule or scan, a threshold out of range, or "posterior" without features.

    References
    ----------
    arXiv 2405.06008, equation 37 ("running"); Bartlett et al. (2020) ("effective_rank"); Berman,
    Klinger and Stapleton, arXiv 2305.10491 ("fisher").
    """
    _checks.choice("rule", rule, CUTOFF_RULES)
    _checks.choice("scan", scan, ("ir", "uv"))
    threshold = _checks.threshold(threshold)
    if (features is not None or residual is not None) and rule != "posterior":
        raise ValueError(
            f'features and residual belong to rule="posterior", not to {rule!r}; leave them out'
        )
    levels, n, ridge = problem(values, n, ridge, degeneracy, tail)
    if not len(levels):
        shapes = levels.values.shape[:-1], levels.tail.shape, n.shape, ridge.shape
        batch = jnp.broadcast_shapes(*shapes)
        return np.zeros(batch, int) if batch else 0
    learnt = _posterior(levels, n, ridge, features, residual) if rule == "posterior" else None
    kept = _kept(levels, n, ridge, threshold, learnt, rule, scan)
    if not _checks.known(kept):
        return kept
    return int(kept) if kept.ndim == 0 else np.asarray(kept).astype(int)


def _posterior(levels, n, ridge, features, residual):
    """Check arguments of the rule "posterior", and return learnability (k,) on its points."""
    if features is None:
        raise ValueError('rule "posterior" needs features, the modes (n, k) at the points')
    one_per_mode(levels)
    check_points(_checks.features("features", features).shape[0], n)
    ridge = ridge + levels.tail if residual is None else ridge
    return posterior(features, levels.values, ridge, residual)


def check_points(rows, n):
    """Require features at n points, where n can be read."""
    if _checks.known(n) and not (np.asarray(n) == rows).all():
        raise ValueError(f"features has {rows} rows but n is {n}; give them the same number")


@partial(jax.jit, static_argnames=("rule", "scan"))
def _kept(levels, n, ridge, threshold, learnt, rule, scan):
    """Count the modes kept; ``learnt`` is None unless the rule is "posterior"."""
    if rule in _BY_COUNT:
        kept = _BY_COUNT[rule](levels, n, ridge, threshold)
    else:
        if learnt is None:
            learnt = _BY_LEARNABILITY[rule](levels, n, ridge, scan == "uv")
        kept = _scan(learnt >= threshold, levels.degeneracy, scan)
    return _whole(kept, levels)


def _scan(learnt, degeneracy, scan):
    """Count the modes before the first level that is not learnt ("ir"), or up to the last."""
    if scan == "ir":
        return _first(~learnt, degeneracy)
    ends = jnp.cumsum(degeneracy, -1)
    return jnp.where(learnt, ends, 0.0).max(-1, initial=0.0)


def _first(stops, degeneracy):
    """Count the modes before the first level that stops; all where none does."""
    return jnp.where(jnp.cumsum(stops, -1) == 0, degeneracy, 0.0).sum(-1)


def _whole(kept, levels):
    """Raise counts (...) to the end of the multiplet that they cut."""
    values, ends = levels.values, jnp.cumsum(levels.degeneracy, -1)
    following = jnp.concatenate([values[..., 1:], jnp.full_like(values[..., :1], -1.0)], -1)
    last = values - following > SAME * values  # the last level of each multiplet
    edges = jnp.where(last, ends, jnp.inf)
    raised = jnp.where(edges >= kept[..., None], edges, jnp.inf).min(-1, initial=jnp.inf)
    return jnp.where(kept > 0, raised, 0.0).astype(int)
