# SPDX-License-Identifier: Apache-2.0
"""
Spectra of features
===================

The covariance of features, estimated from a sample, has eigenvalues that are spread far wider than
those of the true covariance (of the population). If there are fewer rows than features, many of
them are zero. Theory predicts their density from the weights of the network.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import theory

numpyro.enable_x64()

# %%
# The population
# --------------
# The features are a random layer of 400 relu units on 300 normal inputs. Their means would add one
# huge eigenvalue. They are subtracted; `linearise` computes them. The linear part of 400 units has
# only 300 inputs, so the lowest 100 eigenvalues are due to the non-linear part of relu. Its
# variance at a normal argument is one of the coefficients of `hermite`.

d, p = 300, 400
net = brg.networks.Rainbow((p,), activations="relu")
weights = net.init(0, d)
layer = theory.linearise(weights, "relu", np.eye(d))[-1]
values = np.linalg.eigvalsh(layer.covariance)
rest = theory.hermite("relu", 1.0).ks2
print(f"population: eigenvalues from {values[0]:.3f} to {values[-1]:.3f}")
print(f"mean of the lowest 100: {values[:100].mean():.4f}, of the non-linear part {rest:.4f}")
np.testing.assert_allclose(values[:100].mean(), rest, rtol=0.02)


def sample(n, draws=10):
    """Return eigenvalues (draws, p) of sample covariances of n rows."""
    X = np.random.default_rng(n).standard_normal((draws, n, d))
    F = [np.asarray(net.apply(weights, x) - layer.mean) for x in X]
    return np.array([np.linalg.eigvalsh(f.T @ f / n) for f in F])


def compare(n, grid):
    """Return the largest distance of two distribution functions, and a tree to plot."""
    found, seen = theory.spectral_density(values, n, grid), sample(n)
    x, rho = np.asarray(found.grid), np.asarray(found.density)
    below = np.append(0.0, np.cumsum(np.diff(x) * (rho[1:] + rho[:-1]) / 2)) + float(found.atom)
    empirical = np.searchsorted(np.sort(seen.ravel()), x, "right") / seen.size
    distance, zeros = np.abs(below - empirical).max(), (seen < 1e-12).mean()
    print(f"n = {n}: mass {below[-1]:.4f}, zeros {zeros:.4f}, largest distance {distance:.4f}")
    np.testing.assert_allclose([below[-1], zeros], [1.0, found.atom], rtol=5e-3, atol=1e-12)
    seen = xr.Dataset({"values": (("draw", "mode"), seen)})
    return distance, brg.io.label(spectral_density=found, spectral_density_run=seen)


# %%
# More rows than features
# -----------------------
# With three rows per feature the smallest eigenvalues are a third of those of the population. The
# density is that of Marchenko and Pastur, for a population of unequal eigenvalues. The distribution
# function of ten samples is within 0.4 % of it. The plot shows the density of log eigenvalues.

distance, dt = compare(1200, np.geomspace(0.01, 6, 600))
lowest = float(dt["spectral_density_run"]["values"].min())
print(f"smallest eigenvalue {lowest:.4f}, of the population {values[0]:.4f}")
assert distance < 4e-3 and 0.25 < lowest / values[0] < 0.4
brg.plots.plot_spectral_density(dt, backend="matplotlib")

# %%
# Fewer rows than features
# ------------------------
# With 200 rows half of the eigenvalues are zero; the title states this share. The largest one is
# more than twice that of the population.

distance, dt = compare(200, np.geomspace(0.01, 6, 600))
highest = float(dt["spectral_density_run"]["values"].max())
print(f"largest eigenvalue {highest:.4f}, of the population {values[-1]:.4f}")
assert distance < 4e-3 and highest > 2 * values[-1]
brg.plots.plot_spectral_density(dt, backend="matplotlib")
plt.show()
