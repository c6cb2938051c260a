# SPDX-License-Identifier: Apache-2.0
"""Rainbow network with its read-out integrated out: the hidden weights alone are sampled.

z_l ~ Normal(0, 1)                                  (N_l, r_l), l = 1..L
x_l = act(W_l x_{l-1}),  W_l = z_l R_l^T / sqrt(N_{l-1}),  R_l R_l^T = C_l(W_1, ..., W_{l-1})
y | z ~ Normal(0, alpha F F^T + noise^2 I),  F = x_L / sqrt(N_L)

The density is that of rainbow with w integrated out. With functionals, the likelihood's first
columns are white modes of the function that mean the same at every draw of the weights, and
`bayesrg.rg.Coarse` can cut there.
"""

import jax.numpy as jnp
import numpyro

import bayesrg as brg
from bayesrg.models import rainbow

demo = rainbow.demo


def model(X, y=None, *, net=rainbow.NET, alpha=1.0, noise=0.3, functionals=None):
    """Wire the sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    net : bayesrg.networks.Rainbow
    alpha : prior variance of the function for features of unit size, or a distribution of it
    noise : standard deviation, or a distribution of it
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
