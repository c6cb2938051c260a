# SPDX-License-Identifier: Apache-2.0
"""Rainbow network with its read-out integrated out: only the hidden weights are sampled.

z_l ~ Normal(0, 1)                                  (N_l, r_l), l = 1..L
x_l = act(W_l x_{l-1}),  W_l = z_l R_l^T / sqrt(N_{l-1}),  R_l R_l^T = C_l(W_1, ..., W_{l-1})
y | z ~ Normal(0, alpha F F^T + noise^2 I),  F = x_L / sqrt(N_L)

z and y have the same density as in the model rainbow. With the argument functionals the first
columns of F belong to fixed linear functionals of the function. They mean the same at every draw of
the weights, so `bayesrg.rg.Coarse` can keep some of them. arXiv 2402.13999.
"""

import jax.numpy as jnp
import numpyro

import bayesrg as brg
from bayesrg.models import rainbow

demo = rainbow.demo


def model(X, y=None, *, net=rainbow.NET, alpha=1.0, noise=0.3, functionals=None):
    """Sample the weights z1, z2, ... and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    net : bayesrg.networks.Rainbow
    alpha : prior variance of f if each feature has mean square 1; a number or a distribution
    noise : standard deviation of an observation; a number or a distribution
    functionals : from `bayesrg.spectrum.functionals` of a reference kernel, optional
    """
    brg.data.one_target(X, y)
    alpha = rainbow.given_or_drawn("alpha", alpha)
    noise = rainbow.given_or_drawn("noise", noise)
    if functionals is None:
        F = rainbow.features(X, net)
    else:
        whole = rainbow.features(jnp.concatenate([X, functionals.X_ref]), net)
        F = functionals.columns(whole[: len(X)], whole[len(X) :])
    ones = jnp.ones(F.shape[1])
    law = brg.gp.MercerNormal(F, ones, noise**2, scale=alpha, orthonormal=False)
    numpyro.sample("y", law, obs=y)
