# SPDX-License-Identifier: Apache-2.0
"""
Double descent of random features
=================================

Take the last layer of a random network as features and fit a target by ridge regression. With more
points the error first falls, then rises to a peak where there are as many points as features, and
falls again. A large ridge removes the peak. Theory gives the whole curve from the weights of the
network, without any data set.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg import theory

numpyro.enable_x64()

# %%
# The network, and the moments of its features
# --------------------------------------------
# Inputs are normal with falling variances, the target is linear with noise. The network has two
# random layers of 200 error functions. `linearise` replaces each layer by its linear part plus
# independent noise for its non-linear part. The part of the target that no read-out can explain
# acts like label noise.

d, p, noise = 50, 200, 0.05
spread = 3.0 * np.arange(1, d + 1) ** -0.3
theta = np.random.default_rng(0).standard_normal(d)
theta /= np.sqrt((theta**2 * spread**2).sum())
net = brg.networks.Rainbow((p, p), activations="erf")
weights = net.init(1, d)
Omega0 = np.diag(spread**2)
last = theory.linearise(weights, "erf", Omega0, psi0=Omega0 @ theta)[-1]
moments = theory.population_moments(last.Omega, last.psi, 1.0 + noise)
print(f"unexplained: {moments.unexplained:.3f}, of which label noise {noise}")

# %%
# Theory
# ------
# A small ridge has the peak, a large one does not. With the best ridge at every n, more points
# always lower the error, and it is never above that of a fixed ridge. How many degrees of freedom
# the features have hardly depends on the weights: the average over networks is within 0.1 %.

n = np.unique(np.geomspace(20, 2000, 80).astype(int))
ridges = {"ridge 0.01": 1e-2, "ridge 3": 3.0}
groups = {name: theory.ridge_equivalent(moments, n, ridge) for name, ridge in ridges.items()}
best = theory.optimal_ridge(moments, n)
groups["best ridge"] = theory.ridge_equivalent(moments, n, best.ridge)
small = np.asarray(groups["ridge 0.01"].test)
peak = int(n[np.argmax(small)])
print(f"{p} features, and the error peaks at {peak} points: {small.max():.2f}")
assert abs(peak - p) <= 10 and small.max() > 3 * small[n <= 100].min()
assert (np.diff(best.value) < 0).all()
assert all((best.value <= curve.test * (1 + 1e-9)).all() for curve in groups.values())
average = theory.annealed_curve(spread**2, (p, p), "erf", n, 1e-2)
np.testing.assert_allclose(average.df1, groups["ridge 0.01"].df1, rtol=1e-3)

# %%
# Experiment
# ----------
# Each point is the mean of 24 data sets, drawn from 30,000 inputs; errors are measured on all of
# these. If n is within 30 % of the peak we allow a deviation of 15 % from theory, about the
# fluctuations at 200 features; elsewhere 5 %.

rng = np.random.default_rng(2)
X = rng.standard_normal((30_000, d)) * spread
y = X @ theta + noise**0.5 * rng.standard_normal(len(X))
population = theory.feature_population(net.apply(weights, X), y)
sizes = np.array([50, 100, 200, 500])
for name, ridge in ridges.items():
    found = theory.learning_curve_mc(population, sizes, ridge, key=3, draws=24, batch=24)
    off = np.asarray(found.test) / np.interp(sizes, n, groups[name].test) - 1
    error = np.asarray(found.test_error / found.test)
    for row in zip(sizes, off, error, strict=True):
        print(name, "n = {}: experiment {:+.1%} +- {:.1%} off theory".format(*row))
    near = np.abs(sizes / p - 1) < 0.3
    assert (np.abs(off) < np.where(near, 0.15, 0.05) + 3 * error).all()
    groups[f"{name}_run"] = found  # drawn as points

dt = brg.io.label(**groups)
more = {"quantity": "test", "rank": p, "backend": "matplotlib"}
brg.plots.plot_learning_curve(dt, group="best ridge", also=list(ridges), **more)
plt.show()
