# SPDX-License-Identifier: Apache-2.0
"""Gaussian process whose eigenvalues are inferred: a map of a kernel's spectrum, its modes kept.

amplitude ~ LogNormal(0, 1)           of the largest eigenvalue, relative to the base kernel's
exponent  ~ LogNormal(0, 0.5)         1 leaves the decay as it is
cutoff    ~ LogNormal(log 0.02, 2)    eigenvalue below which modes fade, a variance
noise     ~ HalfNormal(1)             standard deviation of an observation
y | ... ~ Normal(0, K_g(X, X) + noise^2 I),  g = amplitude power(exponent) soft_cutoff(cutoff, 0.3)

With the base kernel fixed a step costs O(n); with its lengthscale sampled, O(n^3).
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.spectrum import maps


def model(X, y=None, *, base=None, moving=None, landmarks=None):
    """Wire the sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    base : from `prepare`, the base kernel in its eigenfunctions at X
    moving : from a lengthscale to a kernel, such as `bayesrg.kernels.RBF`, optional
        In place of ``base``, with a further site lengthscale ~ LogNormal(0, 1).
    landmarks : (r, d), for ``moving``: the sample whose spectrum is mapped, usually X
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
    """All modes of a kernel at X (n, d), by default the tangent kernel of two relu layers."""
    kernel = brg.kernels.NTK(2, bias_var=0.1) if kernel is None else kernel
    return brg.spectrum.modify(brg.spectrum.nystrom(kernel, X), maps.identity())


def demo(key):
    """Two waves on a circle seen at 60 points."""
    angles, errors = jax.random.split(key)
    t = jax.random.uniform(angles, (120,), maxval=2 * jnp.pi)
    y = jnp.sin(3 * t) + 0.5 * jnp.sin(t) + 0.2 * jax.random.normal(errors, (120,))
    X = jnp.sqrt(2.0) * jnp.stack([jnp.cos(t), jnp.sin(t)], 1)
    return brg.data.Data(X[:60], y[:60], X[60:], y[60:])


def prepare(data):
    """Eigenfunctions of the base kernel at X, made once, outside the sampler."""
    return {"base": spectrum_of(data.X)}


def exact(data, *, base):
    """Evidence and posterior means by quadrature over the four parameters."""
    grid = {
        "amplitude": jnp.geomspace(0.003, 60.0, 28), "exponent": jnp.geomspace(0.1, 6.0, 24),
        "cutoff": jnp.geomspace(1e-6, 3.0, 32), "noise": jnp.geomspace(0.1, 0.45, 16),
    }  # fmt: skip
    posterior = brg.inference.grid_posterior(model, data, grid, base=base)
    return posterior.mean | {"log_evidence": posterior.log_evidence}
