# SPDX-License-Identifier: Apache-2.0
"""
Training with least action
==========================

A residual network moves its inputs, step by step, to where a linear head separates the classes.
Plain training moves them far and along bent paths. Least action adds the transport cost T, the mean
squared length of the steps, to the loss, with a multiplier that weakens it until the task is solved
(arXiv 2009.08372). Points then move little, and straight. The head is fixed here: a trainable head
could make T as small as it likes by growing.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro
import optax
from sklearn.datasets import make_circles, make_moons

import bayesrg as brg
from bayesrg import dynamics
from bayesrg.diagnostics import transport

numpyro.enable_x64()
LAYERS, HIDDEN, STEPS = 8, 16, 1500

# %%
# Two data sets
# -------------
# Two circles and two half moons in the plane, and a third coordinate that is zero. The head reads
# the third coordinate alone, so the network must lift one class and lower the other.

head = np.array([[0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
net = brg.networks.Residual(HIDDEN, LAYERS, outputs=2, head=head)


def points(name, n, seed):
    """Return inputs (n, 3) and classes (n,)."""
    X, y = (
        make_circles(n, noise=0.08, factor=0.5, random_state=seed)
        if name == "circles"
        else make_moons(n, noise=0.15, random_state=seed)
    )
    return np.column_stack([X, np.zeros(n)]), y


def loss(f, y):
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()


# %%
# Plain and least action
# ----------------------
# Infinite ``lambda0`` means plain training. All numbers are those of 2000 test points.

groups, runs = {}, {}
for data in ("circles", "moons"):
    X, y = points(data, 200, 0)
    X_test, y_test = points(data, 2000, 1000)
    for name, lambda0 in (("plain", np.inf), ("least action", 1.0)):
        optimizer = optax.adamw(5e-3, weight_decay=1e-4)
        rule = dynamics.least_action(net, loss, optimizer, X, y, lambda0=lambda0)
        run = dynamics.run(rule, net.init(0, 3), STEPS, key=0, every=STEPS)
        params = run.last.x
        tree = transport.measure(
            net.paths(params, X_test), trajectory=True, classes=y_test, max_points=300, key=0
        )
