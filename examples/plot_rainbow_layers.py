# SPDX-License-Identifier: Apache-2.0
"""
Layers that depend on each other
================================

In a trained network no layer is independent of the others. A rainbow network keeps that: here the
first layer contains the teacher's, the second equals the first, and the third is drawn with a
covariance that is made of it. Given the weights, learning curves follow without any data.
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
# The teacher is a layer of hyperbolic tangents with a random read-out. Half of a student's first
# layer is the teacher's, half is noise whose spectrum falls with the power gamma.

d, sizes, ridge = 200, np.array([50, 100, 200, 400]), 1e-3
index, identity = np.arange(1.0, d + 1), np.eye(d)


def layer(key, C):
    """Draw one layer whose rows have covariance C / d."""
    return brg.networks.Rainbow((d,), cov=[C]).init(key, d)[0]


def student(gamma):
    """Draw three layers, the second tied to the first and the third whitened by it."""
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
# `linearise` follows the covariance of the student's features, `cross_linearise` their moment with
# the teacher's. Rows of teacher and student are paired, since they share a half. Experiments draw
# data sets from 20,000 inputs, on all of which they measure errors.


def curves(gamma):
    """Learning curve of a student in theory and experiment."""
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
# Experiments lie within 5 % and three standard errors of theory, around the peak within 15 %.

groups, tests = {}, []
for gamma in (0.01, 0.2, 0.5, 0.8):
    name = f"gamma = {gamma}"
    groups[name], seen = curves(gamma)
    expected = np.interp(sizes, groups[name].n, groups[name].test)
    off, error = seen.test / expected - 1, seen.test_error / expected
    rows = zip(sizes, expected, off, error, strict=True)
    print(name, *("| {}: {:.4f}, {:+.1%} +- {:.1%}".format(*row) for row in rows))
    assert (np.abs(off) < np.array([0.05, 0.15, 0.15, 0.05]) + 3 * np.asarray(error)).all()
    groups[f"{name} seen"], tests = seen, [*tests, expected]
assert (np.diff(tests, axis=0) < 0).all()

names = list(groups)[::2]
brg.plots.plot_learning_curve(
    brg.io.label(**groups), group=names[0], label=names[0], also={n: n for n in names[1:]},
    experiment={n: f"{n} seen" for n in names}, quantity="test", rank=d, backend="matplotlib",
)  # fmt: skip
plt.show()
