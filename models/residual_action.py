# SPDX-License-Identifier: Apache-2.0
"""Residual network whose weights prefer layers that move the inputs little.

A, a ~ Normal(0, 1), B ~ Normal(0, 1 / sqrt(h))     for each layer, with h hidden units
x_{k+1} = x_k + B tanh(A x_k + a)                   k = 0..K-1, x_0 = X
density times exp(-lam action)                      the transport cost T, or the energy K T
f = x_K H^T                                         H is the head of the network
y | f ~ Bernoulli(sigmoid(f)), Categorical(softmax(f)) or Normal(f, noise)

The density does not change if hidden units are permuted, so check the convergence of f,
transport_cost and layer_action, not of the weights. The action's factor is not normalised, so lam
must be a number; draws from the prior are those at lam = 0. arXiv 2009.08372.
"""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
from numpyro.infer import NUTS

import bayesrg as brg


def model(
    X,
    y=None,
    *,
    net=None,
    lam=1.0,
    kind="transport",
    likelihood="bernoulli",
    scales=None,
    noise=0.1,
):
    """Sample the weights of all layers and observe y; actions and f are deterministic sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,) of 0 and 1, or -1 and 1 (bernoulli), of 0 to c - 1 (categorical), or (n, c), optional
    net : bayesrg.networks.Residual; by default `network` with 6 hidden units and 4 layers
    lam : strength of the action, a number of at least zero
    kind : "transport" or "kinetic", the action in the density
    likelihood : "bernoulli", "categorical" or "normal"
    scales : dict from A, a, B, b, weight, bias to scales other than 1, see
        `bayesrg.inference.sample_weights`; b is zero by default
    noise : standard deviation of an observation, where it is normal
    """
    X = jnp.reshape(X, (X.shape[0], -1))
    net = network(X.shape[1]) if net is None else net
    params = brg.inference.sample_weights(net, X.shape[1], scales)
    paths = net.paths(params, X)
    with numpyro.plate("layer", net.depth):
        numpyro.deterministic("layer_action", brg.dynamics.layer_action(paths))
    numpyro.deterministic("transport_cost", brg.dynamics.transport_cost(paths))
    numpyro.deterministic("kinetic_energy", brg.dynamics.kinetic_energy(paths))
    brg.inference.action_factor("action", paths, lam, kind=kind)

    f = net.read_out(params, paths.states[-1])
    law, y = brg.inference.output_law(f, y, likelihood=likelihood, noise=noise)
    columns, points = numpyro.plate("output", f.shape[1], dim=-2), numpyro.plate("point", len(X))
    with columns if f.shape[1] > 1 else nullcontext(), points:
        numpyro.deterministic("f", f.T if f.shape[1] > 1 else f[:, 0])
    with columns if len(law.batch_shape) > 1 else nullcontext(), points:
        numpyro.sample("y", law, obs=y)


def network(features, hidden=6, depth=4):
    """Return a network of one output, four times the first coordinate of the last state."""
    head = 4.0 * jnp.eye(1, features)
    return brg.networks.Residual(hidden, depth, outputs=1, head=head)


def demo(key):
    """Return two half moons of 30 points each with noise 0.15, and as many for testing."""
    t, noise = jnp.linspace(0.0, jnp.pi, 30), 0.15 * jax.random.normal(key, (2, 60, 2))
    upper, lower = jnp.stack([jnp.cos(t), jnp.sin(t)], 1), jnp.array([1.0, 0.5])
    X, y = jnp.concatenate([upper, lower - upper]) + noise, jnp.repeat(jnp.arange(2), 30)
    return brg.data.Data(X[0], y, X[1], y)


def prepare(data, **hyper):
    """Return a sampler for `bayesrg.fit` whose chains start near a short normal fit."""
    start = brg.inference.normal_start(model, data, key=0, **hyper)
    return {"sampler": partial(NUTS, init_strategy=start)}
