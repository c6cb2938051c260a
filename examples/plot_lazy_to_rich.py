# SPDX-License-Identifier: Apache-2.0
"""
Lazy to rich
============

In the standard parametrisation an infinitely wide network learns no features: it is lazy. Divide
outputs by richness times the root of the width (mean field), and it learns them: it is rich. One
number then gives the growth of every layer. Exact results at finite width approach it.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.deep_linear import exact, saddle

numpyro.enable_x64()

# %%
# The order parameter q multiplies the kernel K: :math:`q = u^L` for L layers of infinite width. For
# richness :math:`\gamma` and no noise, :math:`u^L(u - 1) = \gamma^2 s`, :math:`s = y^TK^{-1}y = 2`.

X, y = 2.0 * np.eye(4), np.full(4, np.sqrt(0.5))


def network(richness, depth, width):
    """Return a mean-field network without noise."""
    options = {"ridge": 0.0, "parametrisation": "mean_field", "richness": richness}
    return brg.networks.DeepLinear((width,) * depth, **options)


def factor(richness, depth):
    """Return u; it does not depend on the width, here 100."""
    return saddle(network(richness, depth, 100), X, y).rho[0]


for depth, known in {1: 2.405255888, 2: 1.918407015, 3: 1.694585880}.items():
    u = factor(1.3, depth)
    np.testing.assert_allclose(u, known, rtol=0, atol=1e-8)
    np.testing.assert_allclose(u**depth * (u - 1.0), 1.3**2 * 2.0, rtol=1e-10)

# %%
# From lazy to rich
# -----------------
# A lazy network has u = 1. In a rich one u grows as :math:`(\gamma^2s)^{1/(L+1)}`: more slowly the
# deeper the network is, because more layers share the work.

gamma = np.geomspace(0.03, 100.0, 30)
curves = {depth: np.array([factor(g, depth) for g in gamma]) for depth in (1, 2, 3)}
for depth, u in curves.items():
    slope = np.log(u[-1] / u[-2]) / np.log(gamma[-1] / gamma[-2])
    print(f"{depth} layers: u grows as richness to the {slope:.3f}, limit {2 / (depth + 1):.3f}")
    assert u[0] < 1.002 and abs(slope - 2 / (depth + 1)) < 0.02

# %%
# Finite width
# ------------
# For two layers the exact mean of q differs from :math:`u^2` by a term of order 1 / width. It is
# smaller in lazy networks, with one layer by P / N.

u = factor(1.3, 2)
error = np.array([exact(network(1.3, 2, N), X, y).moment(1) - u**2 for N in (20, 200, 2000)])
np.testing.assert_allclose(error + u**2, [3.38133, 3.64850, 3.67709], rtol=0, atol=6e-6)
assert abs(exact(network(0.03, 1, 100), X, y).moment(1) - (1 - 4 / 100)) < 3e-3
np.testing.assert_allclose(error[:-1] / error[1:], 10.0, rtol=0.1)

# %%
# Layer by layer
# --------------
# The kernel of layer l grows along the target by the factor :math:`u^l`, its gain. So the last
# layers grow most. Crosses in the right panel: exact gains at width 400.

fig, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for (depth, u), colour in zip(curves.items(), ("C0", "C1", "C2"), strict=True):
    axes[0].loglog(gamma, u, color=colour, label=f"L = {depth}")
    for width, marker in ((10, "."), (100, "x")):
        q = [exact(network(g, depth, width), X, y).moment(1) for g in gamma[::5]]
        axes[0].loglog(gamma[::5], np.array(q) ** (1 / depth), marker, color=colour)
axes[0].set(xlabel="richness", ylabel="factor of a layer (dots: width 10, crosses: 100)")
axes[0].legend()
for g, colour in zip((0.3, 1.3, 3.0), ("C0", "C1", "C2"), strict=True):
    u, posterior = factor(g, 3), exact(network(g, 3, 400), X, y)
    gains = np.array([posterior.gain(level) for level in range(4)])
    np.testing.assert_allclose(gains, u ** np.arange(4), rtol=0.01)
    axes[1].semilogy(range(4), u ** np.arange(4), color=colour, label=f"richness {g}")
    axes[1].semilogy(range(4), gains, "x", color=colour)
axes[1].set(xlabel="layer", ylabel="gain along the target", xticks=range(4))
axes[1].legend()
plt.show()
