# SPDX-License-Identifier: Apache-2.0
"""The flow: ridge and evidence of the coarse model at every cutoff, on average and on data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float, Int

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._linalg import ratio
from ..gp import MercerNormal
from ..gp.effective import RULES, variance_after
from ..spectrum.levels import Levels, LevelsLike, levels, one_per_mode
from .cutoffs import check_points, cutoff
from .learnability import from_here, running
from .ridges import problem


class Flow(eqx.Module):
    """Ridge and evidence against the cutoff; see `flow`.

    Attributes
    ----------
    cutoff : (t,) modes kept, rising; each field below with this axis belongs to it
    tail : (t,) variance eliminated
    universal, dressed : (t,) ridges of an average data set
    arithmetic, harmonic : (t,)
        Arithmetic and harmonic mean of the eigenvalues of the noise covariance that the eliminated
        modes leave on the given points; None without features.
    rescaled : (t,) universal ridge over cutoff times value, nan at cutoff 0 and at a zero value
    evidence : (t, r)
        Log evidence of the coarse model under each of `rules`; None without a target.
    values : (k,) eigenvalues
    learnability : (k,) of each level, at the universal ridge when the flow reaches the level
    n, ridge : number of points and noise variance
    stop : the cutoff at which the data set stops the flow; an int outside a transformation
    rule, threshold : how `stop` was found
    rules : names of the columns of `evidence`
    """

    cutoff: Int[Array, " cutoff"]
    tail: Float[Array, " cutoff"]
    universal: Float[Array, " cutoff"]
    dressed: Float[Array, " cutoff"]
    arithmetic: Float[Array, " cutoff"] | None
    harmonic: Float[Array, " cutoff"] | None
    rescaled: Float[Array, " cutoff"]
    evidence: Float[Array, "cutoff rule"] | None
    values: Float[Array, " mode"]
    learnability: Float[Array, " mode"]
    n: Float[Array, ""]
    ridge: Float[Array, ""]
    stop: int | Int[Array, ""]
    rule: str = eqx.field(static=True)
    threshold: float = eqx.field(static=True)
    rules: tuple[str, ...] = eqx.field(static=True, default=RULES)


def flow(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    rule: str = "running",
    threshold: float = 0.5,
    at: ArrayLike | None = None,
    features: ArrayLike | None = None,
    residual: ArrayLike | None = None,
    y: ArrayLike | None = None,
    cutoffs: ArrayLike | None = None,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike | None = None,
) -> Flow:
    """Return ridges and evidence of the coarse model at cutoffs from zero to all modes.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (k,), variances under the data measure
    n : number of points, a positive real
    ridge : noise variance, zero allowed
    rule, threshold : where the flow stops, see `bayesrg.rg.cutoff`
    at : (n, d), optional
        Training inputs. Only with a Spectrum: its features, residual and tail are then computed
        there.
    features : (n, k), optional
        Mode functions at the training points, for the evidence and the exact ridges (the fields
        ``arithmetic`` and ``harmonic``).
    residual : (n,) or (n, n), optional
        Prior covariance at the training points outside the modes.
    y : (n,), optional
        Target, for the evidence under each rule.
    cutoffs : (t,) rising integers, optional
        Where to evaluate. By default the end of every level; with a target, the ends of about 25
        levels.
    degeneracy, tail : keywords of `bayesrg.spectrum.levels`

    Returns
    -------
    Flow

    Raises
    ------
    ValueError
        For mismatched shapes, a target without features, features with a degeneracy, a singular
        noise covariance, or cutoffs or a degeneracy that JAX traces; the other arguments may be
        traced.

    Notes
    -----
    Universal ridges and learnabilities are cumulative sums, and one Cholesky factor gives the exact
    ridges at all cutoffs. The evidence takes one more factor for each approximate rule and cutoff.

    References
    ----------
    arXiv 2405.06008, equations 33, 34 and 37.
    """
    spectrum, whole = values, levels(values, at=at, degeneracy=degeneracy, tail=tail)
    _checks.on_host("rg.flow counts modes: it", cutoffs, whole.degeneracy)
    whole, n, ridge = problem(whole, n, ridge)
    values, counts = whole.values, np.asarray(whole.degeneracy, float)
    if values.ndim != 1 or counts.ndim != 1 or whole.tail.ndim or n.ndim or ridge.ndim:
        raise ValueError(
            "flow takes one spectrum (values and degeneracy), n and ridge; call it once for each"
        )
    if at is not None:
        if features is not None or residual is not None:
            raise ValueError("at gives features and residual as well; leave them out")
        features = spectrum.features(at)
        residual = None if spectrum.complete else spectrum.residual_cov(at)
    if features is None and (y is not None or residual is not None):
        raise ValueError("y and residual need features, the modes at the same points; give them")
    posterior = isinstance(rule, str) and rule == "posterior"
    on_points = {"features": features, "residual": residual} if posterior else {}
    stop = cutoff(whole, n, ridge, rule, threshold, **on_points)

    edges = np.concatenate([[0], np.cumsum(counts)]).round().astype(int)
    kept = _grid(cutoffs, edges, dense=y is None)
    ends = np.searchsorted(edges, kept)  # levels kept
    arithmetic = harmonic = evidence = None
    if features is not None:
        one_per_mode(whole)
        fn = MercerNormal(features, values, ridge, residual=residual, tail=whole.tail)
        points = fn.event_shape[0]
        check_points(points, n)
        arithmetic, harmonic = _exact_ridges(fn, ends)
        if _checks.known(harmonic) and not np.isfinite(np.asarray(harmonic)).all():
            raise ValueError(
                "noise covariance is singular: the exact ridge needs a positive ridge, or a "
                "residual that is positive definite"
            )
        if y is not None:
            y = _checks.shaped("y", y, (points,), "one target per row of features")
            evidence = _evidence(fn, y, ends)
    return Flow(
        cutoff=_checks.on_device(kept),
        **_on_average(whole, n, ridge, kept, ends),
        arithmetic=arithmetic,
        harmonic=harmonic,
        evidence=evidence,
        values=values,
        n=n,
        ridge=ridge.astype(values.dtype),
        stop=stop,
        rule=rule,
        threshold=threshold,
    )


def _grid(cutoffs, edges, dense):
    """Return the cutoffs to evaluate, of those that end whole levels: all if ``dense``."""
    if cutoffs is None:
        if dense or edges.size <= 25:
            return edges
        spread = np.geomspace(1, edges.size - 1, 24).round().astype(int)
        return edges[np.unique(np.concatenate([[0], spread]))]
    kept = np.asarray(_checks.cutoffs(cutoffs, edges[-1], "cutoffs"))
    if kept.ndim != 1 or not np.isin(kept, edges).all() or (np.diff(kept) <= 0).any():
        raise ValueError(
            f"cutoffs must be rising integers between 0 and {edges[-1]} that end whole levels, "
            f"got {kept.tolist()}"
        )
    return kept.astype(int)


@jax.jit
def _on_average(levels, n, ridge, kept, ends):
    """Return the fields of a `Flow` that belong to an average data set."""
    tail = jnp.append(from_here(levels), 0.0)[ends] + levels.tail
    universal = ridge + tail
    last = jnp.concatenate([jnp.zeros(1), levels.values])[ends]  # smallest value that is kept
    return {
        "tail": tail,
        "universal": universal,
        "dressed": _dressed(levels, n, ridge, ends),
        "rescaled": ratio(universal, kept * last, jnp.nan),
        "learnability": running(levels, n, ridge),
    }


def _dressed(levels, n, ridge, ends):
    """Dressed ridges at rising cutoffs, each solved from the one before, which bounds it."""

    def step(upper, end):
        high = jnp.where(jnp.arange(len(levels)) >= end, levels.values, 0.0)
        high = Levels(high, levels.degeneracy, levels.tail)
        s = _fixedpoint.effective_ridge(high, n, ridge, upper).value
        return s, s

    start = jnp.full_like(ridge + levels.tail, jnp.inf, levels.values.dtype)
    return jax.lax.scan(step, start, ends)[1]


@eqx.filter_jit
def _exact_ridges(fn, ends):
    """Arithmetic and harmonic mean noise eigenvalue at the cutoffs ``ends``, from one factor."""
    points, k = fn.features.shape
    B = fn.prior.columns()[:, ::-1]  # the flow eliminates the smallest mode first

    # S is the noise without the modes: the trace of its inverse, and S^-1 B
    if fn.prior.correlated:
        S = fn.residual + fn.ridge * jnp.eye(points, dtype=B.dtype)
        root = jnp.linalg.cholesky(S)
        inverse_root = solve_triangular(root, jnp.eye(points, dtype=B.dtype), lower=True)
        trace, weighted = (inverse_root**2).sum(), inverse_root.T @ (inverse_root @ B)
    else:
        residual = 0.0 if fn.residual is None else fn.residual
        inverse = 1.0 / jnp.broadcast_to(fn.ridge + residual, (points,))
        trace, weighted = inverse.sum(), B * inverse[:, None]

    # With L = chol(I + B^T S^-1 B), the first m squared column norms of S^-1 B L^-T are what m
    # eliminated modes take from the trace of the inverse noise.
    L = jnp.linalg.cholesky(jnp.eye(k, dtype=B.dtype) + B.T @ weighted)
    columns = solve_triangular(L, weighted.T, lower=True)
    taken = _sums((columns**2).sum(1))

    outside = fn.ridge[0] + fn.prior_variance(k).mean()
    return (outside + _sums((B**2).mean(0)))[ends], (points / (trace - taken))[ends]


def _sums(x):
    """Sums of the first m entries of x (k,) for m = k, ..., 0."""
    return jnp.concatenate([jnp.zeros(1), jnp.cumsum(x)])[::-1]


@eqx.filter_jit
def _evidence(fn, y, ends):
    """Log evidence under every rule, (t, r); one factor for each rule and cutoff."""
    exact = fn.log_prob(y)
    points = fn.event_shape[0]

    def at(end):
        low = jnp.where(jnp.arange(fn.values.size) < end, fn.values, 0.0)
        high = fn.values - low
        rest = MercerNormal(fn.features, high, fn.ridge, residual=fn.residual, tail=fn.tail)
        ridges = [variance_after(rest, 0, rule, points) for rule in RULES[1:]]
        ridges = jnp.stack([jnp.broadcast_to(ridge, (points,)) for ridge in ridges])
        return jnp.append(exact, MercerNormal(fn.features, low, ridges).log_prob(y))

    return jax.lax.map(at, ends)
