# SPDX-License-Identifier: Apache-2.0
"""Log evidence of any model, by thermodynamic integration from the prior to the posterior."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from numpy.polynomial import legendre
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import compute_log_probs
from numpyro.primitives import Messenger

from .. import _checks
from .._kinds import near
from ..data import Data
from .dependence import Without, idle_sites
from .driver import scan
from .fit import check_data, check_size
from .samplers import Sampler, sampler_of
from .sites import Layout, bind, layout_of, one_at_a_time

# Gauss-Kronrod rule with 15 nodes on (-1, 1). It is symmetric, so only the nodes from 1 down to 0
# are listed. Columns: node, its weight, and its weight in the coarser Gauss rule, which uses every
# second node. The difference of the two rules estimates the error.
_RULE = np.array(
    [
        (0.991455371120812640, 0.022935322010529225, 0.0),
        (0.949107912342758525, 0.063092092629978553, 0.129484966168869693),
        (0.864864423359769073, 0.104790010322250184, 0.0),
        (0.741531185599394440, 0.140653259715525919, 0.279705391489276668),
        (0.586087235467691130, 0.169004726639267903, 0.0),
        (0.405845151377397167, 0.190350578064785410, 0.381830050505118945),
        (0.207784955007898468, 0.204432940075298892, 0.0),
        (0.0, 0.209482141084727828, 0.417959183673469388),
    ]
)
_NODES, _FINE, _COARSE = np.concatenate([_RULE * [-1.0, 1.0, 1.0], _RULE[-2::-1]]).T
MOST_CROWDED = 100.0  # beyond this, powers of the nodes underflow


class PathEvidence(eqx.Module):
    """Log evidence by thermodynamic integration, with its errors; made by `path_evidence`.

    If chosen sites are raised to powers, read "density of these sites" for "likelihood".

    Attributes
    ----------
    log_evidence : log evidence, in nats; with chosen sites the difference of the log normalisers
        at powers 1 and 0
    standard_error : Monte Carlo error of ``log_evidence``
    quadrature_error : difference from the coarser rule, which uses every second power
    power : (p,) powers of the likelihood, rising
    mean : (p,) mean log likelihood at each power
    mcse : (p,) Monte Carlo error of each mean
    r_hat : (p,) R-hat of the log likelihood at each power; nan with one chain
    log_z : (p,) integral of the mean from 0 up to each power: the log normaliser there, minus that
        at power 0
    log_z_error : (p,) Monte Carlo error of ``log_z``
    log_z_quadrature_error : (p,) difference of ``log_z`` from the coarser rule
    crowding : the powers are nodes on (0, 1), raised to this number
    """

    log_evidence: float
    standard_error: float
    quadrature_error: float
    power: Float[np.ndarray, " power"]
    mean: Float[np.ndarray, " power"]
    mcse: Float[np.ndarray, " power"]
    r_hat: Float[np.ndarray, " power"]
    log_z: Float[np.ndarray, " power"]
    log_z_error: Float[np.ndarray, " power"]
    log_z_quadrature_error: Float[np.ndarray, " power"]
    crowding: float


class Temper(Messenger):
    """Raise the densities of the sites ``names`` to a power.

    The sites are chosen by name and not by "is observed": if NumPyro changes coordinates, it adds
    the Jacobian as one more observed site, and this must not be raised to the power.
    """

    def __init__(self, fn, names, power):
        super().__init__(fn)
        self.names, self.power = names, power

    def process_message(self, message):
        if message["name"] in self.names:
            scale = message["scale"]
            message["scale"] = self.power if scale is None else self.power * scale


def careful_nuts(model: Callable) -> MCMCKernel:
    """Return a NUTS kernel that takes small steps.

    At low powers of the likelihood the density is often hard to follow with larger ones.
    """
    return NUTS(model, target_accept_prob=0.9)


@one_at_a_time
def path_evidence(
    model: Callable,
    data: Data | tuple,
    *,
    key: jax.Array | int,
    tempered: Sequence[str] | None = None,
    draws: int = 1000,
    warmup: int = 500,
    chains: int = 4,
    crowding: float = 3.0,
    sampler: Callable[[Callable], MCMCKernel | Sampler] = careful_nuts,
    **hyper,
) -> PathEvidence:
    r"""Estimate the log evidence of a model by sampling at 15 powers of its likelihood.

    :math:`\log p(y) = \int_0^1 E_\beta[\log p(y|\theta)]\,d\beta`. The mean
    :math:`E_\beta` is over the density proportional to :math:`p(\theta)p(y|\theta)^\beta`, which is
    the prior at :math:`\beta = 0` and the posterior at 1. Each mean is sampled. The integral is
    taken by the Gauss-Kronrod rule with 15 nodes in :math:`\beta^{1/k}`.

    With ``tempered`` only the densities of these sites are raised to powers. The result is then
    the log ratio of the normalisers with and without these sites. For an `action_factor` of
    strength :math:`\lambda` this is :math:`\log Z(\lambda)/Z(0)`, of the prior if y is None and of
    the posterior if y is given. The second minus the first is :math:`\log p(y|\lambda)/p(y|0)`,
    see `strength_evidence`.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``. Its latent sites are continuous, and its
        mean log likelihood under the prior is finite.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c). With ``tempered`` y may be None; the sites that no factor
        depends on, such as the targets, are then left out.
    key : JAX key or int
    tempered : names of sites, optional
        Observed sites and factors that are raised to powers; all others stay as they are. By
        default all observed sites and each `numpyro.factor`, which counts as likelihood, but no
        `action_factor`: it is a part of the prior, and the prior's normaliser cancels.
    draws, warmup, chains : int
        Steps kept and steps discarded per chain, and number of chains per power. All powers and
        chains run side by side in one program.
    crowding : float
        The exponent k above, from 1 to 100. A larger one puts more nodes near the prior, where the
        mean changes fast.
    sampler : callable
        Function from a model to a NumPyro kernel or a `Sampler`. By default NUTS with a target
        acceptance of 0.9.
    **hyper
        Hyper-arguments of the model.

    Returns
    -------
    PathEvidence
        The log evidence, its two errors, the mean at each power, and the integral up to it.

    Raises
    ------
    ValueError
        For numbers out of range, a model without latent sites, or names that are no observed sites
        or factors.

    References
    ----------
    Gelman and Meng (1998), Statistical Science 13, 163-185.
    """
    check_size(draws, warmup, chains)
    crowding = _checks.number("crowding", crowding, least=1.0, most=MOST_CROWDED)
    data = check_data(data, targets=tempered is None)
    bound = bind(model, hyper, path_evidence)
    key = _checks.random_key(key)
    path = path_of(bound, data, tempered, draws, warmup, chains, sampler)
    return integrated(path, key, crowding)


class Path(NamedTuple):
    """How to sample at powers of the densities of chosen sites; made by `path_of`.

    Attributes
    ----------
    sample : ``sample(key, power)`` with powers (p,) returns the log density of these sites at power
        one, (p, chain, draw)
    layout : the sites of the model
    """

    sample: Callable
    layout: Layout


def path_of(bound, data, tempered, draws, warmup, chains, sampler) -> Path:
    """Return the `Path` of a bound model; the other arguments are those of `path_evidence`.

    ``data`` comes from `check_data`.
    """
    X, y, *_ = data
    run = bound if y is not None else Without(bound, idle_sites(bound, X))
    layout = layout_of(run, X, y)
    if not layout.latents:
        raise ValueError(
            "the model has no latent site, so there is nothing to integrate; its log density is "
            "the evidence"
        )
    likelihood = sorted(layout.likelihood - layout.counts.keys())
    names = _named(likelihood if tempered is None else tempered, layout)

    def at_power(X, y, arrays, beta):
        return Temper(run, names, beta)(X, y, arrays)

    sampler = sampler_of(sampler, at_power)

    def at(key, beta, arrays):
        args = (X, y, arrays, beta)

        def log_likelihood(draw):
            values = sampler.sites(draw, args)
            values = {name: values[name] for name in layout.latents}
            terms, _ = compute_log_probs(run, (X, y, arrays), {}, values)
            return sum(terms[name] for name in sorted(names))

        state, _ = scan(sampler, sampler.init(key, warmup, args), args, warmup)
        _, drawn = scan(sampler, state, args, draws, sampler.draw)
        return jax.lax.map(log_likelihood, drawn, batch_size=min(draws, 64))

    @eqx.filter_jit
    def sampled(keys, powers, arrays):
        return jax.vmap(lambda key, beta: at(key, beta, arrays))(keys, powers)

    def sample(key, power):
        # powers and chains are one batch axis, powers first
        keys = jax.random.split(key, power.size * chains)
        values = sampled(keys, jnp.asarray(np.repeat(power, chains)), bound.arrays)
        return np.asarray(values, float).reshape(power.size, chains, draws)

    return Path(sample, layout)


def _named(tempered, layout):
    """Return the names of the sites to raise to powers; raise for what is not such a name."""
    _checks.sequence("tempered", tempered, "names of observed sites or factors")
    there = sorted(layout.likelihood)
    for name in tempered:
        if name not in there:
            hint = near(name, there) or f"; it has {', '.join(map(repr, there)) or 'none'}"
            raise ValueError(
                f"tempered must name observed sites or factors of the model, got {name!r}{hint}"
            )
    if not tempered:
        raise ValueError(
            "no site is raised to powers: tempered is empty, or the model has no observed site; "
            "name at least one observed site or factor"
        )
    return frozenset(tempered)


def moments(values):
    """Return mean, Monte Carlo error and R-hat at each power, (p,), of values (p, chain, draw)."""
    largest = abs(values).max()
    unit = largest if 0 < largest < np.inf else 1.0  # squares of small values would underflow
    dataset = xr.Dataset({"value": (("power", "chain", "draw"), values / unit)})
    several = values.shape[1] > 1
    r_hat = az.rhat(dataset)["value"].to_numpy() if several else np.full(len(values), np.nan)
    return values.mean((1, 2)), unit * az.mcse(dataset)["value"].to_numpy(), r_hat


def integrated(path: Path, key, crowding) -> PathEvidence:
    """Sample a `Path` at the nodes of the rule; return the integral, and that up to each node."""
    power = (0.5 + 0.5 * _NODES) ** crowding
    mean, mcse, r_hat = moments(path.sample(key, power))
    log_z, error, quadrature = up_to(power, mean, mcse, crowding)
    fine, coarse = _FINE * _slope(crowding), _COARSE * _slope(crowding)
    return PathEvidence(
        float(fine @ mean),
        float(np.sqrt(((fine * mcse) ** 2).sum())),
        float(abs((fine - coarse) @ mean)),
        power,
        mean,
        mcse,
        r_hat,
        log_z,
        error,
        quadrature,
        crowding,
    )


def up_to(power, mean, mcse, crowding):
    """Return the integrals of the mean from 0 to each ``power``, and two errors of each, (m,).

    The integrand in u = power^(1/k) is interpolated by the polynomial through all nodes, which at
    power 1 gives the Gauss-Kronrod rule. The errors are that of Monte Carlo and the difference from
    the polynomial through every second node.

    Parameters
    ----------
    power : (m,), where the integrals end
    mean, mcse : at the nodes, as in `PathEvidence`
    crowding : the exponent k
    """
    end = 2.0 * power ** (1.0 / crowding) - 1.0

    def weights(nodes):  # (m, nodes), by the integrals of Legendre polynomials
        integral = legendre.legint(np.eye(nodes.size), lbnd=-1.0)
        ends = legendre.legval(end, integral).T
        return ends @ np.linalg.inv(legendre.legvander(nodes, nodes.size - 1))

    fine = weights(_NODES) * _slope(crowding)
    coarse = weights(_NODES[1::2]) * _slope(crowding)[1::2]
    log_z = fine @ mean
    return log_z, np.sqrt(fine**2 @ mcse**2), abs(log_z - coarse @ mean[1::2])


def _slope(crowding):
    """Return d power / d x at the nodes x on (-1, 1), where power = ((1 + x)/2)^crowding."""
    return 0.5 * crowding * (0.5 + 0.5 * _NODES) ** (crowding - 1.0)
