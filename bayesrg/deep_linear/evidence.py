# SPDX-License-Identifier: Apache-2.0
"""Evidence of deep linear networks with any number of outputs, by importance sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from ..networks import DeepLinear
from .draws import generator
from .importance import Importance, Student, tail_index
from .joint import Joint, joint_of
from .observed import check_density
from .problem import prepare
from .scalar import exact

_METHODS = ("exact", "importance_prior", "importance_laplace")
_AT_ONCE = 4000  # draws whose likelihoods are computed together; 100 000 is a multiple
_LEAST = 100  # effective draws that an estimate needs
_DEFENCE = 0.1  # part of the draws that come from the prior
_DOF = 5.0  # degrees of freedom of the t distribution


class Evidence(eqx.Module):
    """Estimate of a log evidence, as `evidence` returns it.

    Attributes
    ----------
    log_evidence : float, log density of y, in the units of y
    method : str, "exact", "importance_prior" or "importance_laplace"
    standard_error : float, that of ``log_evidence``; zero where no draws are needed
    ess : float, effective number of draws; infinite where no draws are needed
    pareto_k : float
        Tail index of the weights. Above 0.7 the estimate cannot be trusted.
    sample : Importance or None
        Weighted posterior draws of the factors of the order parameter, if draws are needed.
    """

    log_evidence: float
    method: str
    standard_error: float = 0.0
    ess: float = float("inf")
    pareto_k: float = float("-inf")
    sample: Importance | None = None


def evidence(
    net: DeepLinear,
    X: ArrayLike,
    y: ArrayLike,
    *,
    method: str | None = None,
    key: Array | int | None = None,
    draws: int = 100_000,
) -> Evidence:
    r"""Return the log evidence of a deep linear network, integrated over the order parameter.

    :math:`p(y) = E_Q\,N(y; 0, Q\otimes K + T)`, an average over the prior of the order parameter Q,
    with the kernel K at the inputs and the ridge T. Where importance sampling fails, use
    thermodynamic integration: ``bayesrg.inference.path_evidence`` with the model
    ``deep_linear_collapsed``.

    Parameters
    ----------
    net : DeepLinear
    X : (n, d), inputs
    y : (n,), or (n, c) for c outputs, targets
    method : "exact", "importance_prior" or "importance_laplace", optional
        "exact" is quadrature to all digits. It needs one output, for which it is the default.

        "importance_laplace" is the default for several outputs. Nine tenths of its draws of the
        Bartlett factors come from a t distribution of 5 degrees of freedom, with the mode and the
        curvature of the joint density of factors and targets. The others come from the prior, so
        that no weight is large. The error falls with the number of draws and with the width.

        "importance_prior" averages the likelihood over prior draws. This works only for few data.
    key : JAX key or int, randomness of the draws; "exact" needs none
    draws : int, number of draws, at least 100

    Raises
    ------
    ValueError
        For an unknown method, a missing key, mismatched shapes or non-finite data; without noise,
        where there is no density or the evidence diverges; for "importance_prior" with fewer than
        100 effective draws.
    NotImplementedError
        For the method "exact" with several outputs.

    Warns
    -----
    UserWarning
        If the tail index of the weights is above 0.7 or there are fewer than 100 effective draws:
        the standard error then cannot be trusted.

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
    _checks.on_host("deep_linear.evidence", net, X, y, key)
    draws = _checks.whole("draws", draws, least=_LEAST)
    if method == "exact":
        return Evidence(exact(net, X, y).log_evidence, method)

    problem = prepare(net, X, y)
    if problem.ridge == 0:
        check_density(net, problem.points, problem.targets)
    joint = joint_of(problem)
    if not net.widths:
        return Evidence(float(eqx.filter_jit(joint.log_likelihood)(jnp.zeros(0))), method)
    if key is None:
        raise ValueError("key is None, and importance sampling needs randomness; give a key")

    rng = generator(key)
    few = draws if method == "importance_prior" else int(_DEFENCE * draws)
    x = joint.draws(rng, few)
    if few < draws:
        mode, precision, _ = joint.mode()
        law = Student(mode, np.linalg.cholesky(precision), _DOF)
        x = np.concatenate([law.sample(rng, draws - few), x])
    latents, prior, log_weights = jax.tree.map(np.asarray, _densities(joint, x))
    if few < draws:
        # Density of the proposal: a mixture of both. The prior's part bounds the weights: none
        # exceeds the likelihood over the share of that part.
        near, far = np.log1p(-few / draws) + law.log_prob(x), np.log(few / draws) + prior
        log_weights = log_weights + prior - np.logaddexp(near, far)
    sample = Importance(latents, np.nan_to_num(log_weights, nan=-1e300, neginf=-1e300))
    ess, k = sample.ess, tail_index(sample.log_weights)
    if ess < _LEAST and method == "importance_prior":
        raise ValueError(
            f"{draws} prior draws are worth {ess:.1f} of the posterior, and an evidence needs "
            f"{_LEAST}; use method='importance_laplace', or bayesrg.inference.path_evidence"
        )
    if k > 0.7 or ess < _LEAST:
        warn(
            f"{draws} draws are worth {ess:.1f}, and the tail index of their weights is {k:.2f}: "
            "the evidence and its error cannot be trusted; use bayesrg.inference.path_evidence"
        )
    return Evidence(sample.log_mean, method, sample.standard_error, ess, k, sample)


@eqx.filter_jit
def _densities(joint: Joint, x):
    """Return the factors at points x (s, k), and log prior and log likelihood there, (s,) each."""

    def at(x):
        return joint.log_prior(x), joint.log_likelihood(x)

    return joint.latents(x), *jax.lax.map(at, x, batch_size=min(x.shape[0], _AT_ONCE))
