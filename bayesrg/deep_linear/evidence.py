# SPDX-License-Identifier: Apache-2.0
"""Evidence of deep linear networks with any number of outputs, by importance sampling."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from ..networks import DeepLinear
from .importance import Importance, Student
from .joint import Joint, joint_of
from .observed import check_observed
from .problem import prepare
from .scalar import exact

_METHODS = ("exact", "importance_prior", "importance_laplace")
_AT_ONCE = 4096  # draws whose likelihoods are computed together
_LEAST = 100  # effective draws that an estimate needs
_DEFENCE = 0.1  # part of the draws that come from the prior
_DOF = 5.0  # degrees of freedom of the t distribution


class Evidence(eqx.Module):
    """Estimate of a log evidence, as `evidence` returns it.

    Attributes
    ----------
    log_evidence : float, log density of Y, in the units of Y
    standard_error : float
        Standard error of ``log_evidence``; zero where no draws are needed.
    ess : float, effective number of draws; infinite where no draws are needed
    pareto_k : float
        Tail index of the weights. Above 0.7 the estimate cannot be trusted.
    method : str, "exact", "importance_prior" or "importance_laplace"
    sample : Importance or None
        Weighted posterior draws of the factors of the order parameter; None where no draws are
        needed.
    """

    log_evidence: float
    standard_error: float
    ess: float
    pareto_k: float
    method: str
    sample: Importance | None


def evidence(
    net: DeepLinear,
    X: ArrayLike,
    Y: ArrayLike,
    *,
    method: str | None = None,
    key: Array | int = 0,
    draws: int = 100_000,
) -> Evidence:
    r"""Return the log evidence of a deep linear network, the order parameter integrated out.

    :math:`p(Y) = E_Q\,N(Y; 0, Q\otimes K + T)`, an average over the prior of the order parameter Q.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d), inputs
    Y : (n,), or (n, c) for c outputs
        Targets.
    method : "exact", "importance_prior" or "importance_laplace", optional
        "exact" is quadrature to all digits and needs one output; it is then the default.

        "importance_laplace" is the default for several outputs. Nine tenths of its draws of the
        Bartlett factors come from a t distribution of 5 degrees of freedom, with the mode and the
        curvature of the joint density. The others come from the prior, so that no weight is large.

        "importance_prior" averages the likelihood over prior draws. It works for few data only.
    key : JAX key or int
        Randomness of the draws.
    draws : int, number of draws, at least 100

    Returns
    -------
    Evidence
        The error falls as one over the square root of the number of draws. For
        "importance_laplace" it also falls with the width.

    Raises
    ------
    ValueError
        For an unknown method, mismatched shapes or non-finite data; without noise, where there is
        no density or the evidence diverges; for "importance_prior" with fewer than 100 effective
        draws.
    NotImplementedError
        For the method "exact" with several outputs.

    Warns
    -----
    UserWarning
        If the tail index of the weights is above 0.7 or there are fewer than 100 effective draws:
        the standard error then cannot be trusted.

    Notes
    -----
    Where importance sampling fails, use thermodynamic integration:
    ``bayesrg.inference.path_evidence`` with the model ``deep_linear_collapsed``.

    References
    ----------
    arXiv 2406.03260 for the mixture; 1507.02646 for the tail index.
    """
    _checks.instance("net", net, DeepLinear, _checks.NET)
    method = ("exact" if net.outputs == 1 else "importance_laplace") if method is None else method
    if isinstance(method, str) and method == "path":
        raise ValueError(
            "method 'path' needs a sampler; call bayesrg.inference.path_evidence with the model "
            "deep_linear_collapsed"
        )
    _checks.choice("method", method, _METHODS)
    _checks.on_host("deep_linear.evidence", net, X, Y, key)
    draws = _checks.whole("draws", draws, least=_LEAST)
    if method == "exact":
        value = exact(net, X, Y).log_evidence
        return Evidence(value, 0.0, float("inf"), float("-inf"), method, None)
    check_observed(net, X, Y, weights=False)
    joint = joint_of(prepare(net, X, Y, name="Y"))
    key = _checks.random_key(key)
    if not net.widths:
        value = float(joint.log_likelihood(jnp.zeros(0)))
        return Evidence(value, 0.0, float("inf"), float("-inf"), method, None)
    if method == "importance_prior":
        x, log_weights = _from_prior(joint, key, int(draws))
    else:
        x, log_weights = _from_mode(joint, key, *map(jnp.asarray, joint.mode()), int(draws))
    sample = Importance(joint.latents(x), jnp.nan_to_num(log_weights, nan=-1e300, neginf=-1e300))
    ess, k = sample.ess, sample.pareto_k
    if ess < _LEAST and method == "importance_prior":
        raise ValueError(
            f"{draws} prior draws are worth {ess:.1f} of the posterior, and an evidence needs "
            f"{_LEAST}; use method='importance_laplace', or bayesrg.inference.path_evidence"
        )
    if k > 0.7 or ess < _LEAST:
        warnings.warn(
            f"{draws} draws are worth {ess:.1f}, and the tail index of their weights is {k:.2f}: "
            "the evidence and its error cannot be trusted; use bayesrg.inference.path_evidence",
            stacklevel=2,
        )
    return Evidence(sample.log_mean, sample.standard_error, ess, k, method, sample)


def _prior_draws(joint, key, draws):
    gamma, normal = jax.random.split(key)
    dof = jnp.asarray(joint.dof)
    logs = jax.random.loggamma(gamma, dof / 2.0, (draws, dof.size)) + np.log(2.0)
    return joint.join(logs, jax.random.normal(normal, (draws, joint.dimension - dof.size)))


def _over(function, x):
    return jax.lax.map(function, x, batch_size=min(x.shape[0], _AT_ONCE))


@eqx.filter_jit
def _from_prior(joint: Joint, key, draws):
    x = _prior_draws(joint, key, draws)
    return x, _over(joint.log_likelihood, x)


@eqx.filter_jit
def _from_mode(joint: Joint, key, mode, precision, draws):
    """Draw from a mixture of a t distribution and the prior; return points and log weights.

    The prior's part bounds the weights: none exceeds the likelihood over the share of that part.
    """
    local, far = jax.random.split(key)
    law = Student(mode, jnp.linalg.cholesky(precision), _DOF)
    few = int(_DEFENCE * draws)
    x = jnp.concatenate([law.sample(local, draws - few), _prior_draws(joint, far, few)])
    prior = _over(joint.log_prior, x)
    mixture = jnp.logaddexp(np.log(few / draws) + prior, np.log1p(-few / draws) + law.log_prob(x))
    return x, prior + _over(joint.log_likelihood, x) - mixture
