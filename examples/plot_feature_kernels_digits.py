# SPDX-License-Identifier: Apache-2.0
r"""
Feature kernels of two digits
=============================

The kernel of a hidden layer, :math:`\Phi_l = H_lH_l^T/N_l`, measures how alike two images are for
its units H. At finite width it depends on the targets: the layer learns. Here are two layers of 20
units of a deep linear network, for images of threes and eights.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.deep_linear import exact, perturbative_kernel, saddle
from bayesrg.models import deep_linear_collapsed

numpyro.enable_x64()
found = brg.data.load("digits", n=80, task=(3, 8))
order = np.argsort(-np.asarray(found.y), kind="stable")
X, y = np.asarray(found.X)[order], np.asarray(found.y)[order]  # threes, then eights
data, hyper = brg.data.Data(X, y), {"widths": (20, 20), "ridge": 0.1}
net = brg.networks.DeepLinear(**hyper)

# %%
# The order parameter q multiplies the kernel of the inputs; it is a product of one factor per
# layer. Sample the two factors. For each draw the mean kernels have a closed form, and
# `diagnostics.feature.measure_deep_linear` averages them over the draws.

model, eigen = deep_linear_collapsed.model, deep_linear_collapsed.prepare(data, **hyper)
dt = brg.fit(model, data, key=0, draws=250, progress=False, **hyper, **eigen)
dt = brg.diagnostics.feature.measure_deep_linear(dt, net, prior=None)
means = dt["feature_kernels"]["posterior"].to_numpy()

# %%
# With one output the posterior has an exact solution (``exact``), and for wide networks it is close
# to a saddle point (``saddle``). The sampled kernels agree with the exact ones within 2 %.

solved, point = exact(net, X, y), saddle(net, X, y)
K, *known = (solved.feature_kernel(layer) for layer in range(3))
assert (abs(means - known).max((1, 2)) < 0.02 * abs(np.array(known)).max((1, 2))).all()

# %%
# Blocks
# ------
# Rows are ordered by class. From layer to layer the kernel grows within a class and falls between
# the classes, there on average from -0.01 to -0.14. Right: what the second layer has learnt.

fig, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained", sharey=True)
same, other = np.equal.outer(y, y) & ~np.eye(len(y), dtype=bool), np.not_equal.outer(y, y)
within, between = np.array([(Phi[same].mean(), Phi[other].mean()) for Phi in (K, *known)]).T
panels = {"K": K, "layer 1": known[0], "layer 2": known[1], "layer 2 minus K": known[1] - K}
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
# The vector :math:`a = (K + T)^{-1}y` is the direction that is learnt (T is the ridge). Along it
# the kernels have grown by the factor :math:`a^T\Phi_la/a^TKa`, 2.2 in the first layer and 3 in the
# second. It is 1 for infinite width. The saddle point errs by up to 4 %, the first order by 14 %.

a = np.linalg.solve(K + hyper["ridge"] * np.eye(len(y)), y)


def growth(kernels):
    """Return the growth of the kernels of both layers."""
    return a @ np.stack(kernels) @ a / (a @ K @ a)


np.testing.assert_allclose(growth(known), [2.165, 3.000], rtol=0, atol=6e-4)
nearly = growth([point.feature_kernel(1), point.feature_kernel(2)])
first = growth([perturbative_kernel(net, X, y, layer) for layer in (1, 2)])
assert abs(nearly / growth(known) - 1).max() < 0.04 and abs(first / growth(known) - 1).max() < 0.14

# %%
# The alignment is the cosine between a kernel and :math:`yy^T`. Band: means given the draws of the
# order parameter; theory: the exact mean kernel.

target = np.outer(y, y) / (y @ y)
exactly = [(Phi * target).sum() / np.linalg.norm(Phi) for Phi in known]
assert exactly[1] > exactly[0] > (K * target).sum() / np.linalg.norm(K)
brg.plots.plot_alignment(dt, theory=exactly, backend="matplotlib")
plt.show()
