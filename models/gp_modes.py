# SPDX-License-Identifier: Apache-2.0
"""Gaussian-process regression, coarse-grained: its low modes explicit, the others marginalised.

    y_modes ~ Normal(0, 1)                                  one a kept mode
    y | y_modes, ... ~ Normal(sum of kept modes, what the others and the noise leave)

Amplitude and noise are those of gp_regression, and under the exact rule so is their posterior.
"""

import jax
import jax.numpy as jnp

import bayesrg as brg
from bayesrg.models import gp_regression


def model(X, y=None, *, cutoff=5, rule="exact", spectrum=None, eigen=None):
    """Wire the sites.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    cutoff : int, modes kept
    rule : what becomes of the others, see `bayesrg.rg.Coarse`
    spectrum : Spectrum
        The prior; by default 61 Fourier modes on [0, 1] with values (1 + j)^-2.
    eigen : from ``spectrum.at(X).eigenpairs(cutoff)``, optional, for the exact rule
    """
    spectrum = _default() if spectrum is None else spectrum
    coarse = brg.rg.Coarse(cutoff, rule, eigen=eigen)
    brg.rg.coarsen(gp_regression.model, y=coarse)(X, y, spectrum=spectrum)


def demo(key):
    """A smooth periodic function seen at 24 points."""
    inputs, errors = jax.random.split(key)
    x, noise = jax.random.uniform(inputs, (48, 1)), 0.2 * jax.random.normal(errors, (48,))
    y = jnp.sin(2 * jnp.pi * x[:, 0]) + 0.3 * jnp.cos(10 * jnp.pi * x[:, 0]) + noise
    return brg.data.Data(x[:24], y[:24], x[24:], y[24:])


def exact(data, *, cutoff=5, spectrum=None):
    """Evidence and posterior means: modes conjugate, the two parameters by quadrature."""
    spectrum = _default() if spectrum is None else spectrum
    grid = {"amplitude": jnp.geomspace(0.02, 50.0, 80), "noise": jnp.geomspace(1e-4, 10.0, 120)}
    hyper = {"spectrum": spectrum}
    posterior = brg.inference.grid_posterior(gp_regression.model, data, grid, **hyper)

    def modes(parameters):
        scale, ridge = parameters["amplitude"], parameters["noise"] ** 2
        root, rest = brg.gp.marginal(spectrum, data.X, ridge, scale=scale).split(cutoff)
        return brg.rg.integrate_modes(root, rest, data.y).mean

    means = {"y_modes": posterior.expect(modes)} | posterior.mean
    return means | {"log_evidence": posterior.log_evidence}


def _default():
    return brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)
