# SPDX-License-Identifier: Apache-2.0
"""
Layers that depend on each other
================================

In a trained network layers depend on each other. In a rainbow network weights are random, and their
covariance may depend on other layers. Here the first layer contains that of a teacher, the second
equals the first, and both give the covariance of the third. Theory needs only the weights, no data.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg import theory

numpyro.enable_x64()

# %%
# Teacher and students
# --------------------
# The teacher is a layer of tanh units with a random read-out. The first layer of a student is half
# the layer of the teacher plus half a random layer, whose spectrum falls with the power gamma.

d, sizes, ridge = 200, np.array([50, 100, 200, 400]), 1e-3
index, identity = np.arange(1.0, d + 1), np.eye(d)


def layer(key, C):
    """Return a random layer whose rows have covariance C / d."""
    return brg.networks.Rainbow((d,), cov=[C]).init(key, d)[0]


def student(gamma):
    """Return three layers: the second equals the first, the third has a covariance from it."""
    W1 = 0.5 * layer(1, np.diag(index**-gamma)) + 0.5 * teacher
    return W1, W1, layer(2, np.linalg.inv(W1 @ W1.T + identity / 2))


teacher = layer(0, np.diag(index**-0.3))
rng = np.random.default_rng(0)
theta, X = rng.standard_normal(d) / np.sqrt(d), rng.standard_normal((20_000, d))
y = np.tanh(X @ teacher.T) @ theta
power = theta @ theory.linearise([teacher], "tanh", identity)[-1].Omega @ theta
net = brg.networks.Rainbow((d, d, d), activations="tanh")

# %%
# Theory without data
# -------------------
# `linearise` computes the covariance of the features of the student, `cross_linearise` that between
# student and teacher. Their rows are paired, since they share a part. Experiments draw data sets
# from 20,000 inputs, and measure errors on all of these.


def curves(gamma):
    """Return the learning curve of a student in theory and in experiment."""
    weights = student(gamma)
    features = theory.linearise(weights, "tanh", identity)[-1].Omega
    one = (teacher, None, None)  # the teacher has no more layers
    Phi = theory.cross_linearise(weights, "tanh", one, "tanh", identity, paired=(True, 0, 0))[-1]
    moments = theory.population_moments(features, Phi @ theta, power)
    population = theory.feature_population(net.apply(weights, X), y)
    seen = theory.learning_curve_mc(population, sizes, ridge, key=3, draws=12, batch=12)
    return theory.ridge_equivalent(moments, np.geomspace(30, 600, 60), ridge), seen


# %%
# More of the teacher's structure, lower error
# --------------------------------------------
# Experiments agree with theory within 5 % (15 % near the peak) plus three standard errors.

groups, tests = {}, []
for gamma in (0.01, 0.2, 0.5, 0.8):
    name = f"gamma = {gamma}"
    groups[name], seen = curves(gamma)
    expected = np.interp(sizes, groups[name].n, groups[name].test)
    off, error = seen.test / expected - 1, seen.test_error / expected
    rows = zip(sizes, expected, off, error, strict=True)
    print(name, *("| {}: {:.4f}, {:+.1%} +- {:.1%}".format(*row) for row in rows))
    assert (np.abs(off) < np.array([0.05, 0.15, 0.15, 0.05]) + 3 * np.asarray(error)).all()
    groups[f"{name}_run"], tests = seen, [*tests, expected]  # a run is drawn as points
assert (np.diff(tests, axis=0) < 0).all()

first, *others = list(groups)[::2]
dt, more = brg.io.label(**groups), {"quantity": "test", "rank": d, "backend": "matplotlib"}
brg.plots.plot_learning_curve(dt, group=first, also=others, **more)
plt.show()
