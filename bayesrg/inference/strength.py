# SPDX-License-Identifier: Apache-2.0
"""The strength of an action factor: its evidence, and the one that gives a mean action."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float
from numpyro import handlers
from numpyro.infer.initialization import init_to_sample
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import log_density

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from ..data import Data
from .convergence import SamplingWarning
from .fit import check_data, check_size
from .path import (
    MOST_CROWDED,
    PathEvidence,
    Temper,
    careful_nuts,
    integrated,
    moments,
    path_of,
    up_to,
)
from .samplers import Sampler
from .sites import bind, layout_of, one_at_a_time

_STEP = 4.0  # by this factor the strength moves until the target is bracketed


class StrengthEvidence(eqx.Module):
    r"""Evidence of strengths of an action factor; made by `strength_evidence`.

    Attributes
    ----------
    lam : (m,) strengths
    log_z_prior : (m,) log of the prior's normaliser, :math:`\log Z(\lambda)/Z(0)`
    log_z_posterior : (m,) the same ratio for the posterior
    log_evidence : (m,) their difference, :math:`\log p(y|\lambda)/p(y|0)`, in nats
    prior_error, posterior_error : (m,) Monte Carlo errors of the two log normalisers
    standard_error : (m,) Monte Carlo error of ``log_evidence``
    quadrature_error : (m,) sum over both paths of the difference from the coarser rule
    prior, posterior : the two paths, from strength 0 to the largest one
    """

    lam: Float[np.ndarray, " strength"]
    log_z_prior: Float[np.ndarray, " strength"]
    log_z_posterior: Float[np.ndarray, " strength"]
    log_evidence: Float[np.ndarray, " strength"]
    prior_error: Float[np.ndarray, " strength"]
    posterior_error: Float[np.ndarray, " strength"]
    standard_error: Float[np.ndarray, " strength"]
    quadrature_error: Float[np.ndarray, " strength"]
    prior: PathEvidence
    posterior: PathEvidence


class StrengthSearch(eqx.Module):
    """Strength of an action factor whose mean action is a target; made by `strength_for_action`.

    Attributes
    ----------
    strength : the strength found
    bracket : (low, high), the mean is above the target at ``low`` and below it at ``high``; (0, 0)
        if strength 0 has the target
    converged : whether the mean at ``strength`` is within two of its errors of the target
    lam : (r,) strength of each run, in the order of the runs
    mean : (r,) mean action of each run
    mcse : (r,) Monte Carlo error of each mean
    r_hat : (r,) R-hat of the action in each run; nan with one chain
    """

    strength: float
    bracket: tuple[float, float]
    converged: bool
    lam: Float[np.ndarray, " run"]
    mean: Float[np.ndarray, " run"]
    mcse: Float[np.ndarray, " run"]
    r_hat: Float[np.ndarray, " run"]


@one_at_a_time
def strength_evidence(
    model: Callable,
    data: Data | tuple,
    lams: ArrayLike,
    *,
    key: jax.Array | int,
    strength: str = "lam",
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    crowding: float = 3.0,
    sampler: Callable[[Callable], MCMCKernel | Sampler] = careful_nuts,
    **hyper,
) -> StrengthEvidence:
    r"""Compare strengths of an `action_factor`; return the log evidence of each.

    Two paths are sampled, :math:`d\log Z/d\lambda=-\langle A\rangle_\lambda`, both from strength 0
    to the largest one: one of the prior, without the targets, and one of the posterior. The
    integrals up to the other strengths use the same samples.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``. The strengths of its action factors are
        proportional to the hyper-argument that ``strength`` names, or do not depend on it; nothing
        else depends on it. At strength 0 the prior is a proper distribution.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    lams : (m,)
        Strengths, at least 0.
    key : JAX key or int
    strength : str
        Name of the hyper-argument of the model that is the strength.
    draws, warmup, chains : int
        Steps kept and steps discarded per chain, and number of chains, for each of the 15 nodes of
        a path.
    crowding : float
        A larger number puts more nodes near strength 0, where the mean action changes fast. Raise
        it if ``quadrature_error`` is large.
    sampler : callable
        Function from a model to a NumPyro kernel or a `Sampler`. By default NUTS with a target
        acceptance of 0.9.
    **hyper
        The other hyper-arguments of the model.

    Returns
    -------
    StrengthEvidence
        Log normalisers of prior and posterior and log evidence, all relative to strength 0.

    Raises
    ------
    ValueError
        For numbers out of range, if no action factor is proportional to the strength, or if
        something else depends on it.

    References
    ----------
    Gelman and Meng (1998), Statistical Science 13, 163-185.
    """
    check_size(draws, warmup, chains)
    crowding = _checks.number("crowding", crowding, least=1.0, most=MOST_CROWDED)
    data = check_data(data)
    _checks.on_host("strength_evidence", lams)
    lams = np.asarray(_checks.nonnegative("lams", lams, ndim=1), float)
    if not lams.size or lams.max() == 0:
        raise ValueError(f"lams must have an entry above 0, got {lams}; all else is relative to 0")
    key = _checks.random_key(key)
    top = float(lams.max())
    bound, factors = _at_strength(model, data, strength, top, hyper, strength_evidence)

    size = draws, warmup, chains, sampler
    ends, found, paths = lams / top, [], []
    for i, y in enumerate((None, data.y)):
        path = path_of(bound, data._replace(y=y), tuple(factors), *size)
        paths.append(integrated(path, jax.random.fold_in(key, i), crowding))
        p = paths[-1]
        found.append(up_to(ends, p.mean, p.mcse, crowding))

    (prior, prior_error, coarse), (posterior, posterior_error, coarser) = found
    return StrengthEvidence(
        lams,
        prior,
        posterior,
        posterior - prior,
        prior_error,
        posterior_error,
        np.hypot(prior_error, posterior_error),
        coarse + coarser,
        *paths,
    )


@one_at_a_time
def strength_for_action(
    model: Callable,
    data: Data | tuple,
    target: float,
    *,
    key: jax.Array | int,
    strength: str = "lam",
    start: float = 1.0,
    runs: int = 30,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    sampler: Callable[[Callable], MCMCKernel | Sampler] = careful_nuts,
    **hyper,
) -> StrengthSearch:
    r"""Find the strength of an `action_factor` at which the mean action is ``target``.

    The mean falls as the strength rises, since its derivative is minus the variance of the action.
    The search is a bisection in the logarithm of the strength. It ends when the mean is within two
    of its Monte Carlo errors of the target, and these two errors are at most half of the target.
    All runs use one compiled program.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``. It has one action factor whose strength
        is the hyper-argument that ``strength`` names, or proportional to it; nothing else depends
        on it.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c). The mean is over the posterior, or over the prior if y is None.
    target : float
        Mean of the action in the factor: the kinetic energy or the transport cost, a mean over
        points also with ``scale_by_n``.
    key : JAX key or int
    strength : str
        Name of the hyper-argument of the model that is the strength.
    start : float
        Strength of the first run after that at 0; then it is multiplied or divided by 4 until the
        target is bracketed.
    runs : int
        Largest number of runs.
    draws, warmup, chains : int
        Steps kept and steps discarded per chain, and number of chains, for each run.
    sampler : callable
        Function from a model to a NumPyro kernel or a `Sampler`. By default NUTS with a target
        acceptance of 0.9.
    **hyper
        The other hyper-arguments of the model.

    Returns
    -------
    StrengthSearch
        The strength, its bracket, and the mean action of every run.

    Raises
    ------
    ValueError
        If ``target`` is above the mean action at strength 0, for numbers out of range, or if the
        model does not have one action factor proportional to the strength, or has something else
        that depends on it.

    Warns
    -----
    SamplingWarning
        If the search ends after ``runs`` runs.
    """
    check_size(draws, warmup, chains)
    target = _checks.number("target", target, above=0.0)
    start = _checks.number("start", start, above=0.0)
    _checks.whole("runs", runs, least=2)
    data = check_data(data, targets=False)
    key = _checks.random_key(key)
    bound, factors = _at_strength(model, data, strength, 1.0, hyper, strength_for_action)
    if len(factors) > 1:
        names = ", ".join(map(repr, factors))
        raise ValueError(
            f"the strengths of {names} depend on {strength!r}, so the target could be the action "
            "of any of them; give the others strengths of their own"
        )
    (unit,) = factors.values()
    path = path_of(bound, data, tuple(factors), draws, warmup, chains, sampler)
    record = []

    def run(lam):
        values = path.sample(jax.random.fold_in(key, len(record)), np.array([lam])) / -unit
        record.append((lam, *(float(v[0]) for v in moments(values))))
        _, mean, error, _ = record[-1]
        if not np.isfinite(mean):
            raise ValueError(
                f"the mean action at strength {lam:g} is {mean}; give the weights a proper prior "
                "without so wide tails, or draw more steps"
            )
        return mean, error, abs(mean - target) <= 2 * error <= target / 2

    def result(lam, bracket, converged):
        return StrengthSearch(lam, bracket, converged, *np.array(record).T)

    mean, error, close = run(0.0)
    if close:
        return result(0.0, (0.0, 0.0), True)
    if mean + 2 * error < target:
        raise ValueError(
            f"target is {target:g}, above the mean action {mean:.4g} (error {error:.2g}) at "
            "strength 0, and the mean falls as the strength rises; give a smaller target"
        )

    low, high, lam = 0.0, np.inf, start
    while len(record) < runs:
        mean, _, close = run(lam)
        low, high = (lam, high) if mean > target else (low, lam)
        if close:
            return result(lam, (low, high), True)
        if high == np.inf:
            lam = low * _STEP
        else:
            lam = high / _STEP if low == 0.0 else float(np.sqrt(low * high))
    warn(
        f"after {runs} runs no mean action is within two errors of {target:g}, with errors of at "
        f"most a quarter of it; the last is {mean:.4g} at strength {record[-1][0]:.4g}. Raise "
        "draws, or runs",
        SamplingWarning,
    )
    return result(record[-1][0], (low, high), False)


def _at_strength(model, data, strength, lam, hyper, caller):
    """Return the model bound at strength ``lam``, and its action factors that are proportional.

    The factors are a dict from their names to the number that multiplies the action in the
    exponent.
    """
    if not isinstance(strength, str):
        raise ValueError(
            f"strength must be the name of a hyper-argument of the model, got {strength!r}"
        )
    if strength in hyper:
        raise ValueError(
            f"{caller.__name__} sets the hyper-argument {strength!r} itself; leave it out"
        )
    bounds = [bind(model, hyper | {strength: x}, caller) for x in (lam, lam / 2)]
    layouts = [layout_of(bound, data.X, data.y) for bound in bounds]
    there, less = (layout.strengths() for layout in layouts)

    factors = {}
    for name in there:
        full, other = float(there[name]), float(less[name])
        if full == other:
            continue
        if not np.isclose(2 * other, full, rtol=1e-5):
            raise ValueError(
                f"the strength of {name!r} is {full:g} at {strength}={lam:g} and {other:g} at half "
                f"of it; make it proportional to {strength!r}, so that its powers are strengths"
            )
        factors[name] = full * layouts[0].counts[name]
    if not factors:
        raise ValueError(
            f"no action_factor of the model has a strength that depends on {strength!r}; it has "
            f"the action factors {', '.join(map(repr, there)) or 'none'}"
        )

    full, other = _without(tuple(factors), bounds, layouts[0].latents, data)
    if not np.isclose(full, other, rtol=1e-4, atol=1e-4, equal_nan=True):
        raise ValueError(
            f"the model depends on {strength!r} also beside its action factors: its log density "
            f"without them is {full:.6g} at {lam:g} and {other:.6g} at half of it; give the rest "
            "of the model a hyper-argument of its own"
        )
    return bounds[0], factors


def _without(factors, bounds, latents, data):
    """Return the log densities of bound models without ``factors``, all at one draw."""

    def densities():
        model = handlers.seed(bounds[0], 0)
        model = handlers.substitute(model, substitute_fn=init_to_sample)
        drawn = handlers.trace(model).get_trace(data.X, data.y)
        values = {name: drawn[name]["value"] for name in latents}
        off = [Temper(bound, factors, 0.0) for bound in bounds]
        return [log_density(model, (data.X, data.y), {}, values)[0] for model in off]

    return [float(value) for value in jax.jit(densities)()]
