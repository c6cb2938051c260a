# SPDX-License-Identifier: Apache-2.0
"""Log evidence of any model, by thermodynamic integration from the prior to the posterior."""

from collections.abc import Callable

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger

from .. import _checks
from ..data import Data
from .driver import scan
from .fit import check_data, check_size
from .samplers import Sampler, sampler_of
from .sites import bind, layout_of, one_at_a_time

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


class PathEvidence(eqx.Module):
    """Log evidence by thermodynamic integration, with its errors; made by `path_evidence`.

    Attributes
    ----------
    log_evidence : log evidence, in nats
    standard_error : Monte Carlo error of ``log_evidence``
    quadrature_error : difference from the coarser rule, which uses every second power
    power : (p,) powers of the likelihood, rising
    mean : (p,) mean log likelihood at each power
    mcse : (p,) Monte Carlo error of each mean
    r_hat : (p,) R-hat of the log likelihood at each power; nan with one chain
    """

    log_evidence: float
    standard_error: float
    quadrature_error: float
    power: Float[np.ndarray, " power"]
    mean: Float[np.ndarray, " power"]
    mcse: Float[np.ndarray, " power"]
    r_hat: Float[np.ndarray, " power"]


class _Temper(Messenger):
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

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``. Its latent sites are continuous, and its
        mean log likelihood under the prior is finite.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    key : JAX key or int
    draws, warmup, chains : int
        Steps kept and steps discarded per chain, and number of chains per power. All powers and
        chains run side by side in one program.
    crowding : float
        The exponent k above. A larger one puts more nodes near the prior, where the mean changes
        fast.
    sampler : callable
        Function from a model to a NumPyro kernel or a `Sampler`. By default NUTS with a target
        acceptance of 0.9.
    **hyper
        Hyper-arguments of the model.

    Returns
    -------
    PathEvidence
        The log evidence, its two errors, and the mean at each power.

    Raises
    ------
    ValueError
        For numbers out of range, or a model without latent sites.

    References
    ----------
    Gelman and Meng (1998), Statistical Science 13, 163-185.
    """
    check_size(draws, warmup, chains)
    crowding = _checks.number("crowding", crowding, least=1.0)
    X, y, *_ = check_data(data)
    bound = bind(model, hyper)
    layout = layout_of(bound, X, y)
    if not layout.latents:
        raise ValueError(
            "the model has no latent site, so there is nothing to integrate; its log density is "
            "the evidence"
        )
    key = _checks.random_key(key)

    # nodes u on (0, 1), powers u^k, and slope = d power / d x by which the weights are multiplied
    x, fine, coarse = np.concatenate([_RULE * [-1.0, 1.0, 1.0], _RULE[-2::-1]]).T
    u = 0.5 * (1.0 + x)
    slope = 0.5 * crowding * u ** (crowding - 1.0)
    power = u**crowding

    def tempered(X, y, arrays, beta):
        return _Temper(bound, layout.likelihood, beta)(X, y, arrays)

    sampler = sampler_of(sampler, tempered)

    def at(key, beta, arrays):
        args = (X, y, arrays, beta)

        def log_likelihood(draw):  # log density at power 1 minus log density at power 0
            values = sampler.sites(draw, args)
            values = {name: values[name] for name in layout.latents}
            total, prior = (
                log_density(_Temper(bound, layout.likelihood, scale), (X, y, arrays), {}, values)[0]
                for scale in (1.0, 0.0)
            )
            return total - prior

        state, _ = scan(sampler, sampler.init(key, warmup, args), args, warmup)
        _, drawn = scan(sampler, state, args, draws, sampler.draw)
        return jax.lax.map(log_likelihood, drawn, batch_size=min(draws, 64))

    @eqx.filter_jit
    def run(keys, arrays):
        powers = jnp.repeat(jnp.asarray(power), chains)
        return jax.vmap(lambda key, beta: at(key, beta, arrays))(keys, powers)

    # powers and chains are one batch axis, powers first
    values = run(jax.random.split(key, power.size * chains), bound.arrays)
    values = np.asarray(values).reshape(power.size, chains, draws)
    dataset = xr.Dataset({"value": (("power", "chain", "draw"), values)})
    mean = values.mean((1, 2))
    mcse = az.mcse(dataset)["value"].to_numpy()
    r_hat = az.rhat(dataset)["value"].to_numpy() if chains > 1 else np.full(power.size, np.nan)
    return PathEvidence(
        float((fine * slope) @ mean),
        float(np.sqrt(((fine * slope * mcse) ** 2).sum())),
        float(abs(((fine - coarse) * slope) @ mean)),
        power,
        mean,
        mcse,
        r_hat,
    )
