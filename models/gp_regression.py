# SPDX-License-Identifier: Apache-2.0
"""Gaussian-process regression: amplitude and noise inferred, the function integrated out.

amplitude ~ LogNormal(0, 1)        variance of the prior
noise     ~ LogNormal(-1, 1)       standard deviation of an observation
y | amplitude, noise ~ Normal(0, amplitude K(X, X) + noise^2 I)
"""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg


def model(X, y=None, *, spectrum=None, eigen=None):
    """Sample amplitude and noise and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    spectrum : Spectrum or Kernel, optional
        The prior at amplitude 1; by default that of a wide network with one hidden relu layer.
    eigen : eigenpairs, ``spectrum.at(X).eigenpairs()``, optional
        With them no step of the sampler factorises a matrix.
    """
    prior = brg.kernels.NNGP(1) if spectrum is None else spectrum
    amplitude = numpyro.sample("amplitude", dist.LogNormal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-1.0, 1.0))
    likelihood = brg.gp.marginal(prior, X, noise**2, scale=amplitude, eigen=eigen)
    numpyro.sample("y", likelihood, obs=y)


def demo(key):
    """Return 200 handwritten digits for training, even against odd."""
    return brg.data.load("digits", n=200, key=key)


def prepare(data):
    """Return the spectrum on the reference sample and its eigenpairs at X, made once."""
    spectrum = brg.spectrum.nystrom(brg.kernels.NNGP(1), data.X_ref)
    return {"spectrum": spectrum, "eigen": spectrum.at(data.X).eigenpairs()}


def grid():
    """Return values of both parameters that cover their posteriors, for quadrature."""
    return {"amplitude": jnp.geomspace(0.02, 50.0, 80), "noise": jnp.geomspace(1e-4, 10.0, 120)}


def exact(data, **hyper):
    """Return the log evidence and the posterior means, by quadrature over both parameters."""
    posterior = brg.inference.grid_posterior(model, data, grid(), **hyper)
    return posterior.mean | {"log_evidence": posterior.log_evidence}
