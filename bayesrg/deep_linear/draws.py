# SPDX-License-Identifier: Apache-2.0
"""Draws from an exact posterior, in arrays shaped like the draws of a sampler."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from .. import _checks
from .problem import Problem


class ExactDraws(eqx.Module):
    """Stratified draws from an exact posterior, stored as one chain.

    ``bayesrg.io.label(posterior=draws)`` makes a DataTree of them. Their effective sample size has
    no meaning, because they are spread evenly over the posterior.

    Attributes
    ----------
    Q : (1, s, 1, 1), order parameter
    effective_ridge : (1, s), T / q; with the mean-field parametrisation T gamma^2 / q
    f : (1, s, n), outputs at the training inputs, in units of y
    exact : bool, always true
    """

    Q: Float[np.ndarray, "chain draw output output_bis"]
    effective_ridge: Float[np.ndarray, "chain draw"]
    f: Float[np.ndarray, "chain draw point"]
    exact: bool = True


def generator(key) -> np.random.Generator:
    """Return a generator of random numbers on the host, from a JAX key or an integer."""
    return np.random.default_rng(np.asarray(jax.random.key_data(_checks.random_key(key))))


def stratified(problem: Problem, log_q, weights, count, key) -> ExactDraws:
    """Draw ``count`` values of log q, and outputs given each, from a posterior on a grid.

    The grid ``log_q`` (g,) has the probabilities ``weights`` (g,). One value comes from each of
    ``count`` equal parts of the posterior, in random order.
    """
    _checks.on_host("a posterior of deep_linear", key)
    count, rng = _checks.whole("count", count), generator(key)
    u = rng.permutation((np.arange(count) + rng.random(count)) / count)

    # The weight of a node is spread evenly over its cell, whose edges lie halfway to its
    # neighbours: the distribution function is then linear between the edges.
    if log_q.size > 1:
        middle = 0.5 * (log_q[1:] + log_q[:-1])
        edges = np.concatenate([2 * log_q[:1] - middle[:1], middle, 2 * log_q[-1:] - middle[-1:]])
        x = np.interp(u, np.append(0.0, np.cumsum(weights)), edges)
    else:
        x = np.full(count, log_q[0])

    # Given q the outputs in the eigenbasis are independent: mean a y and variance T a, for the
    # share a = kappa q / (kappa q + T).
    learnt = problem.learnt(x)
    noise = rng.standard_normal(learnt.shape)
    inside = learnt * problem.target + np.sqrt(problem.ridge * learnt) * noise
    q = np.exp(x)
    return ExactDraws(
        q[None, :, None, None],
        problem.ridge / q[None],
        (inside @ problem.vectors.T)[None] / problem.output_scale,
    )
