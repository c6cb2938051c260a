# SPDX-License-Identifier: Apache-2.0
"""A prior that prefers paths of little action, as a factor of a model."""

from typing import NamedTuple

import numpy as np
import numpyro
import numpyro.distributions as dist

from .. import _checks
from .._checks import ArrayLike
from .._paths import Paths
from ..dynamics import kinetic_energy, transport_cost

_ACTIONS = {"kinetic": kinetic_energy, "transport": transport_cost}

# what is wrong with a strength that has a distribution, and what to do
UNNORMALISED = (
    "lam has a prior but the action factor is unnormalised: {}, and the normaliser "
    "Z(lam) = int p_0 exp(-lam A), which no sampler computes, changes with it. Give a fixed lam; "
    "or compare strengths by inference.strength_evidence (thermodynamic integration); or find the "
    "strength at which the action has a given mean by inference.strength_for_action"
)


class Strength(NamedTuple):
    """What a site of `action_factor` remembers, under "action" in the ``infer`` of the site.

    Attributes
    ----------
    lam : the strength, a number or a traced scalar
    count : number by which the mean action is multiplied: the number of points with ``scale_by_n``,
        else 1
    """

    lam: float
    count: int


def action_factor(
    name: str,
    paths: Paths,
    lam: ArrayLike | dist.Distribution,
    *,
    kind: str = "kinetic",
    scale_by_n: bool = False,
) -> None:
    r"""Multiply the density of a NumPyro model by :math:`e^{-\lambda A}`; return nothing.

    The prior of the weights becomes the Gibbs prior :math:`p_0(\theta)e^{-\lambda A(\theta;X)}`,
    which depends on the inputs. It is not normalised. The posterior at a fixed :math:`\lambda` does
    not need the normaliser, but :math:`\lambda` itself cannot be sampled: `fit`, `sbc` and
    `path_evidence` refuse a model in which it depends on a latent site. With
    :math:`\lambda=n/\lambda_{LAP}`, or :math:`1/\lambda_{LAP}` with ``scale_by_n``, and a flat
    :math:`p_0` the mode of the posterior is where least-action training at its multiplier
    :math:`\lambda_{LAP}` and with the transport cost is stationary.

    Parameters
    ----------
    name : str
        Name of the site.
    paths : Paths
        Of n points through K layers, for one draw of the weights.
    lam : number
        Strength of the factor, at least 0. It may be a traced scalar, such as a hyper-argument. A
        distribution raises.
    kind : "kinetic" or "transport"
        The action A: `dynamics.kinetic_energy` or `dynamics.transport_cost`, a mean over points.
        The kinetic energy is K times the transport cost.
    scale_by_n : bool
        Whether to multiply the action by the number of points.

    Raises
    ------
    ValueError
        If ``lam`` is negative, not finite, or a distribution, or for another kind.

    References
    ----------
    arXiv 2009.08372 for the action.
    """
    if not isinstance(name, str):
        raise ValueError(f"name must be the name of a site, got {name!r}; give a string")
    what = "the Paths of points through a network, e.g. networks.Residual.paths(params, X)"
    _checks.instance("paths", paths, Paths, what)
    if paths.increments.ndim != 3:
        raise ValueError(
            f"paths has increments of shape {paths.increments.shape}; give those of one draw, "
            "(layers, points, features)"
        )
    _checks.choice("kind", kind, tuple(_ACTIONS))
    count = paths.increments.shape[1] if _checks.flag("scale_by_n", scale_by_n) else 1
    lam = _strength(lam)

    log_factor = -lam * count * _ACTIONS[kind](paths)
    unit = dist.Unit(log_factor)
    # as numpyro.factor does, but the site remembers its strength
    infer = {"is_auxiliary": True, "action": Strength(lam, count)}
    numpyro.sample(name, unit, obs=unit.sample(None), infer=infer)


def _strength(lam):
    """Return the strength as a number or a traced scalar; raise for what cannot be one."""
    if isinstance(lam, dist.Distribution):
        raise ValueError(UNNORMALISED.format(f"it is a {type(lam).__name__}"))
    value = _checks.numbers("lam", lam)
    if not _checks.known(value):
        return _checks.finite("lam", value, ndim=0)
    value = np.asarray(value)
    if value.ndim == 0 and not 0 <= value < np.inf:
        raise ValueError(f"lam must be a finite number of at least 0, got {value}")
    return _checks.number("lam", value)
