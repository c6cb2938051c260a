# SPDX-License-Identifier: Apache-2.0
"""Width, centre and repulsion of the eigenvalues of random matrices.

variance ~ InverseGamma(1/2, unit^2 / 2)   squared width of the gas
loc      ~ Normal(0, 10 unit)              centre
beta     ~ HalfNormal(2)                   1 for real symmetric matrices, 0 for independent levels
y_r | ... ~ CoulombGas(n, sqrt(variance), loc, beta), for each of m spectra of n ascending levels

Each of the three may be given as a number and is then not sampled. Width and repulsion are strongly
correlated: sample with ``sampler=lambda m: NUTS(m, dense_mass=True)``. arXiv 2407.16427.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg
from bayesrg.ensembles import CoulombGas, IndependentSpectra, gas_statistics, scale_posterior


def model(X, y=None, *, statistics=None, n=None, scale=None, loc=None, beta=None, unit=1.0):
    """Sample width, centre and repulsion, and observe m spectra.

    Parameters
    ----------
    X : (m, 1)
        Any covariate of the spectra, such as the run. Only its number of rows counts.
    y : (m, n), optional
        Ascending levels.
    statistics : GasStatistics, optional
        Of y, from `prepare`: a step of the sampler then costs the same for any m.
    n : int, optional
        Number of levels, needed without y and statistics.
    scale, loc, beta : (), optional
        Known values.
    unit : ()
        Order of magnitude of the width and of a tenth of the centre.
    """
    if scale is None:
        variance = numpyro.sample("variance", dist.InverseGamma(0.5, 0.5 * unit**2))
        scale = numpyro.deterministic("scale", jnp.sqrt(variance))
    if loc is None:
        loc = numpyro.sample("loc", dist.Normal(0.0, 10.0 * unit))
    if beta is None:
        beta = numpyro.sample("beta", dist.HalfNormal(2.0))

    if y is not None:
        n = y.shape[-1]
    elif statistics is not None:
        n = statistics.levels
    if n is None:
        raise ValueError("give statistics, which prepare(data) makes, or the number n of levels")
    spectra = len(X) if statistics is None else None
    law = CoulombGas(n, scale, loc, beta)
    numpyro.sample("y", IndependentSpectra(law, statistics, spectra=spectra), obs=y)


def demo(key):
    """Return 40 spectra of 20 levels, of width 0.3 around 0.5, and 40 for testing."""
    y = CoulombGas(20, 0.3, 0.5).sample(key, (80,))
    run = jnp.arange(40.0)[:, None]
    return brg.data.Data(run, y[:40], run, y[40:])


def prepare(data):
    """Return the statistics of the levels as a hyper-argument, made once."""
    return {"statistics": gas_statistics(data.y)}


def exact(data, *, loc=None, beta=None, unit=1.0, **hyper):
    """Return posterior means: in closed form for a known centre and repulsion, else on a grid."""
    if loc is None or beta is None:
        grid = {"variance": jnp.linspace(0.07, 0.12, 100), "loc": jnp.linspace(0.4, 0.6, 40)}
        grid |= {"beta": jnp.linspace(0.6, 1.5, 100)}
        return brg.inference.grid_posterior(model, data, grid, unit=unit, **hyper).mean
    found = scale_posterior(data.y, loc, beta=beta, shape=0.5, rate=0.5 * unit**2)
    a, b = found.concentration, found.rate
    logs = jax.scipy.special.gammaln(a - 0.5) - jax.scipy.special.gammaln(a)
    return {"variance": found.mean, "scale": jnp.sqrt(b) * jnp.exp(logs)}
