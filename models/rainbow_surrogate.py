# SPDX-License-Identifier: Apache-2.0
"""Gaussian equivalent of a rainbow network: a linear network with noise for its non-linearity.

xi_l ~ Normal(0, 1)                                 (n, N_l), l = 1..L
x_l = E x_l + k1_l W_l (x_{l-1} - E x_{l-1}) + sqrt(ks2_l) xi_l
w ~ Normal(0, sqrt(alpha))                          (N_L,)
f = x_L w / sqrt(N_L)
y ~ Normal(f, noise)

The weights W_l are fixed; k1_l and ks2_l are the moments of the activation in layer l. Use it for
predictive checks: if it predicts what the network predicts, the theory of learning curves holds.
arXiv 2402.13999.
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.models import rainbow
from bayesrg.theory import linearise
from bayesrg.theory.surrogate import add_noise

demo = rainbow.demo


def model(X, y=None, *, net=rainbow.NET, weights=None, layers=None, alpha=1.0, noise=0.3):
    """Sample the noise xi1, xi2, ... of the layers and the read-out w, and observe y.

    Parameters
    ----------
    X : (n, d), centred
    y : (n,), optional
    net : bayesrg.networks.Rainbow
    weights : weights of the layers of ``net``; by default a draw from the prior
    layers : moments from `bayesrg.theory.linearise`; by default for inputs of covariance I
    alpha : prior variance of f if each feature has mean square 1; a number or a distribution
    noise : standard deviation of an observation; a number or a distribution
    """
    brg.data.one_target(X, y)
    n, d = X.shape
    weights = net.init(0, d) if weights is None else weights
    if layers is None:
        layers = linearise(weights, net.activations, jnp.eye(d))
    xi = []
    for index, width in enumerate(net.widths, 1):
        white = dist.Normal(0.0, 1.0).expand((n, width)).to_event(2)
        xi.append(numpyro.sample(f"xi{index}", white, infer={"event_dims": ["point", "unit"]}))
    F = add_noise(xi, weights, layers, X) / jnp.sqrt(net.widths[-1])
    rainbow.observe(F, y, alpha, noise)
