# SPDX-License-Identifier: Apache-2.0
"""
The tangent kernel of a finite network
======================================

Gradient descent changes the outputs of a network by its tangent kernel. At infinite width this
kernel does not depend on the random weights. At finite width it scatters around the limit, by about
one over the root of the width. Here is how much, in which directions, and what averaging does.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg.kernels import NTK, empirical_ntk, relative_distance

numpyro.enable_x64()
n, networks, widths = 24, 16, (32, 64, 128, 256, 512)
t = 2 * np.pi * np.arange(n) / n
X = np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1)


def apply(params, X):
    """Return outputs of relu layers and a linear read-out, scaled as for `NTK`."""
    for W, b in params[:-1]:
        X = jax.nn.relu(2**0.5 * X @ W.T / W.shape[1] ** 0.5 + 0.1**0.5 * b)
    W, b = params[-1]
    return 2**0.5 * X @ W.T / W.shape[1] ** 0.5 + 0.1**0.5 * b


def start(rng, *shape):
    """Return standard normal weights and biases."""
    pairs = zip(shape[:-1], shape[1:], strict=True)
    return [(rng.standard_normal((b, a)), rng.standard_normal(b)) for a, b in pairs]


# %%
# Sixteen networks at each width and depth; bars hold 89 % of them. The relative distance to the
# limit falls as a power of the width, with exponents -0.51, -0.51 and -0.56 for one, two and three
# layers. At 512 units it is still 8 to 12 %.

names, distance = ["1 layer", "2 layers", "3 layers"], np.empty((3, len(widths), networks))
rng, found = np.random.default_rng(0), {}
limits = [NTK(depth, "relu", 2.0, 0.1)(X) for depth in (1, 2, 3)]
for i, limit in enumerate(limits):
    for j, width in enumerate(widths):
        starts = [start(rng, 2, *(width,) * (i + 1), 1) for _ in range(networks)]
        found[i, width] = np.stack([empirical_ntk(apply, params, X) for params in starts])
        distance[i, j] = [relative_distance(K, limit) for K in found[i, width]]
where = {"kernel": names, "width": list(widths)}
data = xr.Dataset({"distance": (("kernel", "width", "draw"), distance)}, where)
brg.plots.plot_kernel_distance(brg.io.label(kernel_distance=data), backend="matplotlib")
slopes = [np.polyfit(np.log(widths), np.log(d.mean(1)), 1)[0] for d in distance]
print(np.round(slopes, 2), np.round(distance.mean(2), 3))
assert np.allclose(slopes, [-0.51, -0.51, -0.56], rtol=0, atol=0.006)
assert 0.07 < distance[:, -1].mean(1).min() and distance[:, -1].mean(1).max() < 0.125

# %%
# Is the distance random, or is the mean shifted? Random scatter of sixteen kernels would be 1/4 as
# large in their mean. The mean kernel is about that close to the limit, so most of it is scatter.

means = [[relative_distance(found[i, w].mean(0), K) for w in widths] for i, K in enumerate(limits)]
shrink = np.array(means) / distance.mean(2)
print(np.round(shrink, 2))
assert 0.2 < np.median(shrink) < 0.35

# %%
# In which directions? Take the eigenvalues of a kernel relative to the limit. Their extremes tell
# how well a step size or a preconditioner made from the limit fits the network. At 512 units they
# are between 1 / 1.8 and 1.8, while the eigenvalues of the limit itself span a factor of 174 to
# 384. So large and small eigenvalues fluctuate by similar factors.

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for i, limit in enumerate(limits):
    inverse = np.linalg.inv(np.linalg.cholesky(limit))
    ratio = np.stack([np.linalg.eigvalsh(inverse @ found[i, w] @ inverse.T) for w in widths])
    for extreme, label in ((0, names[i]), (-1, None)):
        ax.plot(widths, ratio[..., extreme].mean(1), "o-", color=f"C{i}", label=label)
    assert 1 / 1.8 < ratio[-1, :, 0].mean() and ratio[-1, :, -1].mean() < 1.8
    assert 170 < np.linalg.cond(limit) < 390
ax.axhline(1.0, color="gray", linestyle="--")
ax.set(xscale="log", yscale="log", xlabel="width", ylabel="eigenvalues relative to the limit's")
ax.set_xticks(widths, widths)
ax.minorticks_off()
ax.legend()
plt.show()
