# SPDX-License-Identifier: Apache-2.0
"""Deep linear network of convolutions, weights integrated out: its order parameter is sampled.

c_l ~ Gamma((C_l - i) / 2, 1/2), t_l ~ Normal(0, 1)     Bartlett factor B_l, l = L..1
G_l = F_l B_l / sqrt(C_l),  F_{l-1} F_{l-1}^T = T_l[G_l G_l^T],  Q = G_1 G_1^T
y | Q ~ Normal(0, sum_ij Q_ij K_ij + ridge I)           K_ij between patches i and j of inputs

C_l are the numbers of channels; T_l adds up the sites that a mask sees. Every step factorises a
matrix of all points, so use at most about 500 points. arXiv 2406.03260.
"""

import jax
import jax.numpy as jnp
import numpyro

import bayesrg as brg
from bayesrg.deep_linear import conv_covariance, conv_factor, conv_sizes
from bayesrg.models import deep_linear_collapsed


def model(
    X,
    y=None,
    *,
    inputs=1,
    channels=(6, 4),
    masks=(3, 2),
    strides=(2, 1),
    ridge=0.1,
    weight_scales=1.0,
):
    """Sample the Bartlett factors c1, t1, c2, ... of the order parameter Q and observe y.

    Parameters
    ----------
    X : (n, inputs * S_0), first all S_0 sites of the first channel, then those of the second, ...
    y : (n,), optional
    inputs : number of channels of X
    channels, masks, strides, weight_scales : one value per layer, see `bayesrg.networks.ConvLinear`
    ridge : noise variance
    """
    net = brg.networks.ConvLinear(
        channels, masks, strides, ridge=ridge, weight_scales=weight_scales
    )
    X = jnp.reshape(X, (X.shape[0], inputs, -1))

    latents = deep_linear_collapsed.bartlett_sites(conv_sizes(net, X.shape[2]))
    factor = conv_factor(net, X.shape[2], latents)
    G, sites = factor[0], factor.shape[1]
    with numpyro.plate("site", sites, dim=-2), numpyro.plate("site_bis", sites, dim=-1):
        numpyro.deterministic("Q", G @ G.T)

    K = conv_covariance(net, X, factor)[0, :, 0]
    none = jnp.zeros((X.shape[0], 0), K.dtype)  # no modes: the whole covariance is the residual
    law = brg.gp.MercerNormal(none, none[0], net.ridge, residual=K)
    numpyro.sample("y", law, obs=y)


def demo(key):
    """Return data in which two of seven inputs matter, so that one patch carries the signal."""
    inputs, noise = jax.random.split(key)
    X = jax.random.normal(inputs, (40, 7))
    y = X[:, 2] + X[:, 3] + jnp.sqrt(0.1) * jax.random.normal(noise, (40,))
    return brg.data.Data(X[:20], y[:20], X[20:], y[20:])
