# SPDX-License-Identifier: Apache-2.0
"""Gaussian process whose eigenvalues are inferred: the modes are those of a given base kernel.

amplitude ~ LogNormal(0, 1)           factor of the largest eigenvalue
exponent  ~ LogNormal(0, 0.5)         power of the decay; 1 leaves it as it is
cutoff    ~ LogNormal(log 0.02, 2)    eigenvalue below which modes are suppressed, a variance
noise     ~ HalfNormal(1)             standard deviation of an observation
y | ... ~ Normal(0, K_g(X, X) + noise^2 I),  g = amplitude power(exponent) soft_cutoff(cutoff, 0.3)

K_g is the base kernel with each eigenvalue mapped by g. If the base kernel is fixed, a step of the
sampler costs O(n); if its lengthscale is sampled, O(n^3). arXiv 2307.14531.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.spectrum import maps


def model(X, y=None, *, base=None, moving=None, landmarks=None):
    """Sample amplitude, exponent, cutoff and noise (and a lengthscale), and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    base : spectrum of the base kernel at X, from `prepare`, optional
    moving : function from a lengthscale to a base kernel, e.g. `bayesrg.kernels.RBF`, optional
        Replaces ``base`` and adds the site lengthscale ~ LogNormal(0, 1).
    landmarks : (r, d), needed with ``moving``
        Sample of inputs, usually X; the eigenvalues that are mapped are those on this sample.
    """
    if (moving is None) != (landmarks is None):
        raise ValueError("moving and landmarks belong together; give both or neither")

    amplitude = numpyro.sample("amplitude", dist.LogNormal(0.0, 1.0))
    exponent = numpyro.sample("exponent", dist.LogNormal(0.0, 0.5))
    cutoff = numpyro.sample("cutoff", dist.LogNormal(jnp.log(0.02), 2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))

    cut = maps.soft_cutoff(cutoff, 0.3)
    g = maps.combine(maps.scale(amplitude), maps.power(exponent), cut)
    if moving is None:
        prior = brg.spectrum.modify(spectrum_of(X) if base is None else base, g)
        eigen = prior.eigen
    else:
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 1.0))
        prior = brg.spectrum.modify_kernel(moving(lengthscale), landmarks, g)
        eigen = None
    numpyro.sample("y", brg.gp.marginal(prior, X, noise**2, eigen=eigen), obs=y)


def spectrum_of(X, kernel=None):
    """Return the spectrum of a kernel with all n modes at X (n, d).

    By default the kernel is the tangent kernel of a network with two hidden relu layers.
    """
    kernel = brg.kernels.NTK(2, bias_var=0.1) if kernel is None else kernel
    return brg.spectrum.modify(brg.spectrum.nystrom(kernel, X), maps.identity())


def demo(key):
    """Return 60 noisy training points of a sum of two waves on a circle."""
    angles, errors = jax.random.split(key)
    t = jax.random.uniform(angles, (120,), maxval=2 * jnp.pi)
    y = jnp.sin(3 * t) + 0.5 * jnp.sin(t) + 0.2 * jax.random.normal(errors, (120,))
    X = jnp.sqrt(2.0) * jnp.stack([jnp.cos(t), jnp.sin(t)], 1)
    return brg.data.Data(X[:60], y[:60], X[60:], y[60:])


def prepare(data):
    """Return the spectrum of the base kernel at X as a hyper-argument, made once."""
    return {"base": spectrum_of(data.X)}


def exact(data, *, base):
    """Return the log evidence and the posterior means, by quadrature over the four parameters."""
    grid = {
        "amplitude": jnp.geomspace(0.003, 60.0, 28),
        "exponent": jnp.geomspace(0.1, 6.0, 24),
        "cutoff": jnp.geomspace(1e-6, 3.0, 32),
        "noise": jnp.geomspace(0.1, 0.45, 16),
    }
    posterior = brg.inference.grid_posterior(model, data, grid, base=base)
    return posterior.mean | {"log_evidence": posterior.log_evidence}
