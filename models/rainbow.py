# SPDX-License-Identifier: Apache-2.0
"""Rainbow network: weights with a structured covariance and a linear read-out, all sampled.

z_l ~ Normal(0, 1)                                  (N_l, r_l), l = 1..L
x_l = act(W_l x_{l-1}),  W_l = z_l R_l^T / sqrt(N_{l-1}),  R_l R_l^T = C_l(W_1, ..., W_{l-1})
w ~ Normal(0, sqrt(alpha))                          (N_L,)
f = x_L w / sqrt(N_L)
y ~ Normal(f, noise)

The density does not change if units are permuted, so check the convergence of f and of the feature
kernels, not of z. The model rainbow_collapsed integrates the read-out w out. arXiv 2402.13999.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg

NET = brg.networks.Rainbow((6, 6))


def model(X, y=None, *, net=NET, alpha=1.0, noise=0.3):
    """Sample the weights z1, z2, ... and the read-out w, and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    net : bayesrg.networks.Rainbow
    alpha : prior variance of f if each feature has mean square 1; a number or a distribution
    noise : standard deviation of an observation; a number or a distribution
    """
    brg.data.one_target(X, y)
    observe(features(X, net), y, alpha, noise)


def features(X, net):
    """Sample the weights and return features (n, N_L), scaled so that f does not grow with N_L."""
    white, dims = [], {"event_dims": ["unit", "unit_bis"]}
    for layer, shape in enumerate(net.white_shapes(X.shape[1]), 1):
        normal = dist.Normal(0.0, 1.0).expand(shape).to_event(2)
        white.append(numpyro.sample(f"z{layer}", normal, infer=dims))
    F = net.apply(net.weights(white, X.shape[1]), X)
    return F / jnp.sqrt(F.shape[1])


def observe(F, y, alpha, noise):
    """Sample the read-out w of features F (n, N_L), record f = F w, and observe y (n,)."""
    alpha, noise = given_or_drawn("alpha", alpha), given_or_drawn("noise", noise)
    prior = dist.Normal(0.0, jnp.sqrt(alpha)).expand(F.shape[1:]).to_event(1)
    w = numpyro.sample("w", prior, infer={"event_dims": ["unit"]})
    with numpyro.plate("point", F.shape[0], dim=-1):
        f = numpyro.deterministic("f", F @ w)
        numpyro.sample("y", dist.Normal(f, noise), obs=y)


def given_or_drawn(name, value):
    """Return a number as it is; if ``value`` is a distribution, sample a site ``name`` from it."""
    return numpyro.sample(name, value) if isinstance(value, dist.Distribution) else value


def demo(key):
    """Return 25 training points of a noisy sine of the first of three inputs."""
    inputs, noise = jax.random.split(key)
    X = jax.random.normal(inputs, (50, 3))
    y = jnp.sin(1.5 * X[:, 0]) + 0.3 * jax.random.normal(noise, (50,))
    return brg.data.Data(X[:25], y[:25], X[25:], y[25:])
