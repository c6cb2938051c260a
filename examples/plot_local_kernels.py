# SPDX-License-Identifier: Apache-2.0
"""
Local kernels of a convolutional network
========================================

A network of one-dimensional convolutions compares patches of its inputs. With infinitely many
channels each patch is compared with itself, and all patches have the same weight. With few channels
it learns a matrix Q of weights: which patches matter, and which belong together.
"""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.models import deep_linear_conv

numpyro.enable_x64()

# %%
# Twelve inputs make four patches of three. The target is the sum over one patch minus the sum over
# another, plus noise; the other two patches do not matter.

rng = np.random.default_rng(0)
X = rng.standard_normal((424, 12))
patches = X.reshape(-1, 4, 3).sum(-1)
y = (patches[:, 1] - patches[:, 3]) / np.sqrt(2) + np.sqrt(0.1) * rng.standard_normal(424)
data = brg.data.Data(X[:24], y[:24], X[24:], y[24:])
hyper = {"channels": (3,), "masks": (3,), "strides": (3,), "ridge": 0.1}
net = brg.networks.ConvLinear(**hyper)

# %%
# Given Q the network is a Gaussian process with kernel :math:`\sum_{ij}Q_{ij}K_{ij}(x, x')`, where
# :math:`K_{ij}` compares patch i of x with patch j of x'. The prior mean of Q is I/4.

model = deep_linear_conv.model
run = {"key": 0, "draws": 1000, "warmup": 500, "chains": 2, "prior": 4000, "progress": False}
dt = brg.fit(model, data, **run, **hyper)
draws, before = 4 * dt.posterior["Q"], 4 * dt.prior["Q"].to_numpy().reshape(-1, 4, 4)
assert float(az.rhat(draws).max()) < 1.03
assert (abs(before.mean(0) - np.eye(4)) < 4 * before.std(0) / np.sqrt(len(before))).all()

# %%
# What is learnt
# --------------
# The posterior gives weight to the two patches of the signal, with opposite signs, as both pass
# through the same filters. Other entries between patches are zero within one standard deviation.

Q = draws.mean(("chain", "draw")).to_numpy()
spread = draws.std(("chain", "draw")).to_numpy()
assert Q[[1, 3], [1, 3]].min() > 1.5 > 0.7 > Q[[0, 2], [0, 2]].max()
assert Q[1, 3] < -2 * spread[1, 3] and (abs(Q) < spread)[[0, 0, 0, 1, 2], [1, 2, 3, 2, 3]].all()

# %%
# Two kernels
# -----------
# Test points are ordered by their target without noise. The effective kernel, with Q at its mean,
# shows the blocks of the target; the kernel of infinitely many channels does not.

clean = patches[24:104, 1] - patches[24:104, 3]
shown = X[24:104][np.argsort(clean)]
local = np.asarray(net.local_kernels(shown[:, None]))
kernels = [np.einsum("ij,ijnm->nm", weights / 4, local) for weights in (np.eye(4), Q)]
product = np.outer(np.sort(clean), np.sort(clean))
fit = [(K * product).sum() / np.linalg.norm(K) / np.linalg.norm(product) for K in kernels]
assert fit[1] > 1.5 * fit[0]

# %%
# Predictions improve: the squared error of the mean of f, with noise of 0.1, is 0.16 and not 0.19.

predicted = brg.predict(dt, model, data.X_test, key=1, **hyper)["predictive_moments"]["mean"]
infinite = np.einsum("iinm->nm", np.asarray(net.local_kernels(X[:, None]))) / 4
weights = np.linalg.solve(infinite[:24, :24] + 0.1 * np.eye(24), data.y)
means = [infinite[24:, :24] @ weights, predicted.mean(("chain", "draw")).to_numpy()]
loss = [np.mean((mean - data.y_test) ** 2) for mean in means]
np.testing.assert_allclose(loss, [0.19, 0.16], rtol=0, atol=0.01)

fig, axes = plt.subplots(1, 3, figsize=(11, 3.7), layout="constrained")
axes[0].imshow(Q, cmap="RdBu_r", vmin=-3, vmax=3)
for i, j in np.ndindex(Q.shape):
    axes[0].text(j, i, f"{Q[i, j].round(1) + 0.0:.1f}", ha="center", va="center")
axes[0].set(title="4 E[Q | y]; a priori 1 and 0", xticks=range(4), yticks=range(4), xlabel="patch")
top = np.quantile(abs(np.stack(kernels)), 0.98)
for ax, K, title in zip(axes[1:], kernels, ("infinitely many channels", "effective"), strict=True):
    image = ax.imshow(K, cmap="RdBu_r", vmin=-top, vmax=top)
    ax.set(title=title, xlabel="point, by target", xticks=[], yticks=[])
fig.colorbar(image, ax=axes[1:], label="kernel", extend="both")
plt.show()
