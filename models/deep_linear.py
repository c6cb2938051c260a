# SPDX-License-Identifier: Apache-2.0
"""Deep linear network, all weights sampled.

z_l ~ Normal(0, 1)                                  (N_l, N_{l-1}), l = 1..L+1
f = X W_1^T ... W_{L+1}^T,  W_l = s_l z_l / sqrt(N_{l-1})
y | f ~ Normal(f, sqrt(ridge))

The density does not change if hidden units are rotated, so check the convergence of f and Q, not of
z. The model deep_linear_collapsed samples the order parameter Q in place of the weights and gives Q
and f the same posterior. arXiv 2406.03260.
"""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.deep_linear import check_observed, order_of_weights


def model(
    X,
    y=None,
    *,
    widths=(8, 6),
    ridge=0.1,
    outputs=1,
    weight_scales=1.0,
    parametrisation="standard",
    richness=1.0,
    force=False,
):
    """Sample the weights z1, z2, ... and observe y; Q and f are deterministic sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,) for one output, (n, c) for several, optional
    widths : (N_1, ..., N_L), units of the hidden layers
    ridge : noise variance
    outputs : number c of outputs
    weight_scales, parametrisation, richness : see `bayesrg.networks.DeepLinear`
    force : sample even if the noise is so small relative to y that sampling is slow
    """
    options = {"outputs": outputs, "weight_scales": weight_scales}
    options |= {"parametrisation": parametrisation, "richness": richness}
    net = network(widths, ridge, **options)
    y = check_observed(net, X, y, weights=True, force=force)

    white = []
    for layer, shape in enumerate(net.white_shapes(X.shape[1]), 1):
        law, infer = dist.Normal(0.0, 1.0).expand(shape), {"event_dims": ["unit", "unit_bis"]}
        white.append(numpyro.sample(f"z{layer}", law.to_event(2), infer=infer))
    weights = net.weights(white, X.shape[1])

    with numpyro.plate("output", outputs, dim=-2), numpyro.plate("output_bis", outputs, dim=-1):
        numpyro.deterministic("Q", order_of_weights(net, weights))

    # targets first, so that the points are the last axis
    f, noise = net.apply(weights, X).T, jnp.sqrt(net.noise_variance)
    columns = numpyro.plate("output", outputs, dim=-2) if outputs > 1 else nullcontext()
    with columns, numpyro.plate("point", X.shape[0], dim=-1):
        f = numpyro.deterministic("f", f if outputs > 1 else f[0])
        numpyro.sample("y", dist.Normal(f, noise), obs=None if y is None else y.T)


def demo(key):
    """Return data of a noisy linear function of six inputs."""
    inputs, noise = jax.random.split(key)
    X = jax.random.normal(inputs, (40, 6))
    y = X @ jnp.array([1.0, -0.7, 0.4, 0.2, 0.0, 0.0])
    y = y + jnp.sqrt(0.1) * jax.random.normal(noise, (40,))
    return brg.data.Data(X[:20], y[:20], X[20:], y[20:])


def exact(data, *, force=False, **hyper):
    """Return the log evidence and the posterior means of Q and f, for one output."""
    posterior = brg.deep_linear.exact(network(**hyper), data.X, data.y)
    means = {"Q": posterior.moment(1), "f": posterior.predict(data.X)[0]}
    return means | {"log_evidence": posterior.log_evidence}


def network(widths=(8, 6), ridge=0.1, **options):
    """Return the network that the hyper-arguments of the model describe."""
    return brg.networks.DeepLinear(widths, ridge=ridge, **options)
