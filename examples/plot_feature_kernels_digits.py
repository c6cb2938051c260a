# SPDX-License-Identifier: Apache-2.0
r"""
Feature kernels of two digits
=============================

At finite width every hidden layer has a kernel of its own, :math:`\Phi_l = H_lH_l^T/N_l`, that
learns from the targets. Here are two layers of 20 units, for threes and eights.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.deep_linear import exact, saddle
from bayesrg.models import deep_linear_collapsed

numpyro.enable_x64()
found = brg.data.load("digits", n=80, task=(3, 8))
order = np.argsort(-np.asarray(found.y), kind="stable")
X, y = np.asarray(found.X)[order], np.asarray(found.y)[order]  # threes, then eights
data, hyper = brg.data.Data(X, y), {"widths": (20, 20), "ridge": 0.1}
net = brg.networks.DeepLinear(**hyper)

# %%
# Sample the two factors of the order parameter. For each draw of them the mean kernels are known;
# `diagnostics.feature.measure_deep_linear` averages these over the draws.

model, eigen = deep_linear_collapsed.model, deep_linear_collapsed.prepare(data, **hyper)
dt = brg.fit(model, data, key=0, draws=250, progress=False, **hyper, **eigen)
dt = brg.diagnostics.feature.measure_deep_linear(dt, net, prior=None)
means = dt["feature_kernels"]["posterior"].to_numpy()

# %%
# One output has an exact solution, and wide networks a saddle point. Every entry of the sampled
# kernels is the exact one to 2 %.

solved, point = exact(net, X, y), saddle(net, X, y)
K, *known = (solved.feature_kernel(layer) for layer in range(3))
for Phi, mean in zip(known, means, strict=True):
    assert abs(mean - Phi).max() < 0.02 * abs(Phi).max()

# %%
# Blocks
# ------
# Rows are ordered by class. Likeness grows within a class and falls between the classes, on
# average from -0.01 to -0.14. Right: what the second layer has learnt.

fig, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained", sharey=True)
same, other = np.equal.outer(y, y) & ~np.eye(len(y), dtype=bool), np.not_equal.outer(y, y)
within, between = np.array([(Phi[same].mean(), Phi[other].mean()) for Phi in (K, *known)]).T
panels = {"K": K, "layer 1": known[0], "layer 2": known[1], "layer 2 less K": known[1] - K}
for ax, (title, Phi) in zip(axes, panels.items(), strict=True):
    image = ax.imshow(Phi, cmap="RdBu_r", vmin=-0.8, vmax=0.8)
    ax.set(title=title, xlabel="image")
axes[0].set_ylabel("image: threes, then eights")
fig.colorbar(image, ax=axes, label="kernel", extend="both")
assert (np.diff(within) > 0).all() and (np.diff(between) < 0).all()
np.testing.assert_allclose(between[[0, 2]], [-0.01, -0.14], rtol=0, atol=0.005)

# %%
# Growth
# ------
# Along :math:`a = (K + T)^{-1}y`, what is learnt of the targets, the kernels have grown by
# :math:`a^T\Phi_la/a^TKa`, to twice and three times the Gaussian process's; the saddle errs by
# up to 4 %.

a = np.linalg.solve(K + hyper["ridge"] * np.eye(len(y)), y)


def growth(Phi):
    """Measure kernels (..., n, n)."""
    return np.einsum("i,...ij,j->...", a, Phi, a, optimize=True) / (a @ K @ a)


exactly, nearly = (
    growth(np.stack([of.feature_kernel(layer) for layer in range(3)])) for of in (solved, point)
)
np.testing.assert_allclose(exactly, [1, 2.165, 3.000], rtol=0, atol=6e-4)
assert abs(nearly / exactly - 1).max() < 0.04
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(range(3), nearly, "C3--", label="posterior mean, saddle")
ax.plot(range(3), exactly, "k-", label="posterior mean, exact")
ax.plot([1, 2], growth(means), "kx", markersize=9, label="posterior mean, sampled")
ax.set(xlabel="layer", ylabel="growth along what is learnt", xticks=range(3))
ax.legend()
plt.show()
