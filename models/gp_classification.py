# SPDX-License-Identifier: Apache-2.0
"""Gaussian-process classification: the latent function written as low modes plus white noise.

amplitude ~ LogNormal(1, 1)                            variance of the prior
f_modes, f_white ~ Normal(0, 1)                        one per kept mode, one per point
f = sum of kept modes + root of the covariance of the other modes, times f_white
y | f ~ Bernoulli(sigmoid(f))                          0 or 1; labels -1 become 0

Under the exact rule the prior of f does not depend on the cutoff. The function `laplace` is this
model with f_white integrated out, approximately.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg


def model(X, y=None, *, cutoff=5, rule="exact", spectrum=None, eigen=None, jitter=1e-6):
    """Sample the amplitude and the latent function, as f_modes and f_white, and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,) of 0 and 1, or of -1 and 1, optional
    cutoff : number of modes in f_modes
    rule : how the other modes are replaced, see `bayesrg.rg.Coarse`
    spectrum : Spectrum, optional
        The prior at amplitude 1; by default 31 Fourier modes on [0, 1] with values (1 + j)^-2.
    eigen : eigenpairs, ``spectrum.at(X).eigenpairs(cutoff)``, optional
        Only for the exact rule; no step of the sampler then factorises a matrix.
    jitter : variance of an independent part of the function at each point
    """
    coarse = brg.rg.Coarse(cutoff, rule, eigen=eigen, centered=False)
    brg.rg.coarsen(_latent, f=coarse)(X, y, spectrum, jitter)


def laplace(X, y=None, *, cutoff=5, rule="exact", spectrum=None, jitter=1e-6):
    """Sample amplitude and low modes and observe y; f_white is integrated out, approximately.

    Laplace's approximation is used. X, y, cutoff, rule, spectrum and jitter are those of `model`.
    """
    coarse = brg.rg.Coarse(cutoff, rule)
    brg.rg.coarsen(_marginal, y=coarse)(X, y, spectrum, jitter)


def _prior(X, spectrum, jitter):
    amplitude = numpyro.sample("amplitude", dist.LogNormal(1.0, 1.0))
    spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 31) if spectrum is None else spectrum
    return brg.gp.marginal(spectrum, X, jitter, scale=amplitude)


def _latent(X, y, spectrum, jitter):
    f = numpyro.sample("f", _prior(X, spectrum, jitter))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", likelihood(f), obs=_zero_one(y))


def _marginal(X, y, spectrum, jitter):
    prior = _prior(X, spectrum, jitter)
    numpyro.sample("y", brg.gp.LaplaceMarginal(prior, likelihood), obs=_zero_one(y))


def _zero_one(y):
    return None if y is None else jnp.where(y == -1, 0.0, y)


def likelihood(f):
    """Return the distribution of the labels for given log odds f (n,)."""
    return dist.Bernoulli(logits=f)


def demo(key):
    """Return 60 training points of two classes whose log odds are a periodic function."""
    inputs, labels = jax.random.split(key)
    x = jax.random.uniform(inputs, (120, 1))
    logits = 3 * jnp.sin(2 * jnp.pi * x[:, 0]) + 2 * jnp.cos(6 * jnp.pi * x[:, 0])
    y = jax.random.bernoulli(labels, jax.nn.sigmoid(logits)).astype(float)
    return brg.data.Data(x[:60], y[:60], x[60:], y[60:])
