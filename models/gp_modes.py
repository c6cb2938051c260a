# SPDX-License-Identifier: Apache-2.0
"""Gaussian-process regression, coarse-grained: low modes sampled, the others marginalised.

    y_modes ~ Normal(0, 1)                                  one per kept mode
    y | y_modes, ... ~ Normal(sum of kept modes, covariance of the other modes and the noise)

Amplitude and noise are those of gp_regression. Under the exact rule they have the same posterior.
"""

import jax
import jax.numpy as jnp

import bayesrg as brg
from bayesrg.models import gp_regression


def model(X, y=None, *, cutoff=5, rule="exact", spectrum=None, eigen=None):
    """Sample amplitude, noise and the low modes y_modes, and observe y.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional
    cutoff : number of modes that are kept
    rule : how the other modes are replaced, see `bayesrg.rg.Coarse`
    spectrum : Spectrum, optional
        The prior at amplitude 1; by default 61 Fourier modes on [0, 1] with values (1 + j)^-2.
    eigen : eigenpairs, ``spectrum.at(X).eigenpairs(cutoff)``, optional
        Only for the exact rule; no step of the sampler then factorises a matrix.
    """
    spectrum = _default() if spectrum is None else spectrum
    coarse = brg.rg.Coarse(cutoff, rule, eigen=eigen)
    brg.rg.coarsen(gp_regression.model, y=coarse)(X, y, spectrum=spectrum)


def demo(key):
    """Return 24 noisy training points of a smooth periodic function."""
    inputs, errors = jax.random.split(key)
    x, noise = jax.random.uniform(inputs, (48, 1)), 0.2 * jax.random.normal(errors, (48,))
    y = jnp.sin(2 * jnp.pi * x[:, 0]) + 0.3 * jnp.cos(10 * jnp.pi * x[:, 0]) + noise
    return brg.data.Data(x[:24], y[:24], x[24:], y[24:])


def exact(data, *, cutoff=5, spectrum=None):
    """Return the log evidence and the posterior means.

    At fixed amplitude and noise the modes have a closed form; both are integrated by quadrature.
    """
    spectrum = _default() if spectrum is None else spectrum
    grid, hyper = gp_regression.grid(), {"spectrum": spectrum}
    posterior = brg.inference.grid_posterior(gp_regression.model, data, grid, **hyper)

    def modes(parameters):
        scale, ridge = parameters["amplitude"], parameters["noise"] ** 2
        root, rest = brg.gp.marginal(spectrum, data.X, ridge, scale=scale).split(cutoff)
        return brg.rg.integrate_modes(root, rest, data.y).mean

    means = {"y_modes": posterior.expect(modes)} | posterior.mean
    return means | {"log_evidence": posterior.log_evidence}


def _default():
    return brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)
