# SPDX-License-Identifier: Apache-2.0
"""
Learning curves of a trained network
====================================

Train a network, keep its hidden layers fixed, and fit a new read-out to n images by ridge
regression. How large is its error? Theory predicts it from second moments of features and target,
for any weights. Here: two layers of 30 relu units at three epochs, digits, even against odd.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import optax

import bayesrg as brg

numpyro.enable_x64()
P, RIDGE, EPOCHS = 30, 1.0, (0, 20, 200)
data = brg.data.load("digits", n=1795, key=0)
net = brg.networks.Rainbow((P, P), activations="relu")


def apply(params, X):
    """Return the output of the network."""
    return net.apply(params[0], X) @ params[1] / jnp.sqrt(P)


start = (net.init(0, 64), jnp.zeros(P))
how = {"optimizer": optax.adam(3e-3), "epochs": EPOCHS[-1], "batch": 50, "every": 20, "key": 1}
trained = brg.networks.train(apply, start, data.X[:300], data.y[:300], **how)

# %%
# Four parts
# ----------
# 300 images train the weights. Half of the others give the moments, about 25 rows per feature. Of
# the rest, n images fit the read-out, and what remains tests it. There are ten divisions. The 64
# pixels are features too, those of linear regression, with 12 rows per feature.

X, y = np.asarray(data.X[300:]), np.asarray(data.y[300:])
half, rng = len(y) // 2, np.random.default_rng(0)
divisions = [rng.permutation(len(y)) for _ in range(10)]
curve, sizes = np.geomspace(10, 600, 60), np.array([15, 30, 60, 120, 300, 600])


def measure(F, y, n):
    """Return the test error of ridge regression: n rows of F train, all others test."""
    fit, test = np.split(rng.permutation(len(y)), [n])
    weights = np.linalg.solve(F[fit].T @ F[fit] + RIDGE * np.eye(F.shape[1]), F[fit].T @ y[fit])
    return ((F[test] @ weights - y[test]) ** 2).mean()


def compare(F):
    """Return theory (division, n), mean measured errors (division, n), and moments."""
    moments = [brg.theory.moments(F[rows[:half]], y[rows[:half]]) for rows in divisions]
    theory = np.array([brg.theory.ridge_equivalent(m, curve, RIDGE).test for m in moments])
    rest = [(F[rows[half:]], y[rows[half:]]) for rows in divisions]
    seen = [[np.mean([measure(*part, n) for _ in range(20)]) for n in sizes] for part in rest]
    return theory, np.array(seen), moments[0]


# %%
# Theory and experiment
# ---------------------
# Training moves the target into two modes, which lowers the whole curve: at 600 images the error is
# a third of that with pixels. At epoch 0 theory errs by 3 % at most. With trained features and
# pixels, errors are up to 15 % above theory, for two reasons: these are not Gaussian, and moments
# of a finite sample are too optimistic. Bars: standard deviations over divisions.

features = {"pixels": X}
for epoch in EPOCHS:
    weights = [W[epoch // how["every"]] for W in trained.snapshots[0]]
    features[f"epoch {epoch}"] = np.asarray(net.apply(weights, X))
fig, (ax, shares) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
last = {}
for i, (name, F) in enumerate(features.items()):
    theory, seen, moments = compare(F)
    off = (seen / [np.interp(sizes, curve, row) for row in theory] - 1).mean(0)
    print(name, *(f"{d:+.0%}" for d in off), "at n =", *sizes)
    assert (off > -0.03).all() and (off < (0.03 if name == "epoch 0" else 0.15)).all()
    last[name], explained = seen[:, -1].mean(), np.cumsum(moments.power) / moments.Ey2
    ax.semilogx(curve, theory.mean(0), color=f"C{i}", label=name)
    ax.errorbar(sizes, seen.mean(0), seen.std(0), fmt="o", color=f"C{i}")
    shares.semilogx(np.arange(1, len(explained) + 1), explained, color=f"C{i}")
assert last["epoch 200"] < 0.4 * last["pixels"] and explained[1] > 0.9 * explained[-1]
ax.set(xlabel="images n", ylabel="test error", title="lines: theory; points: experiment")
shares.set(xlabel="modes, largest first", title="share of the target that they explain")
ax.legend()
plt.show()
