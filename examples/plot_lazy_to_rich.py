# SPDX-License-Identifier: Apache-2.0
"""
Lazy to rich
============

In the mean-field parametrisation outputs are divided by richness times the root of the width, so
that features go on being learnt at infinite width. The order parameter is then fixed by the data:
one root says how much every layer grows along the target. Exact finite widths approach it.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.deep_linear import exact, saddle

numpyro.enable_x64()

# %%
# Four points without noise, of energy :math:`s = y^TK^{-1}y = 2`. At infinite width L layers have
# one factor u, the root of :math:`u^L(u - 1) = \gamma^2 s`, and the order parameter is u to the L.

X, y = 2.0 * np.eye(4), np.full(4, np.sqrt(0.5))


def network(richness, depth, width):
    """Make a mean-field network without noise."""
    options = {"ridge": 0.0, "parametrisation": "mean_field", "richness": richness}
    return brg.networks.DeepLinear((width,) * depth, **options)


def factor(richness, depth):
    """Solve for u, into which the width given does not enter."""
    return saddle(network(richness, depth, 100), X, y).rho[0]


for depth, known in {1: 2.405255888, 2: 1.918407015, 3: 1.694585880}.items():
    u = factor(1.3, depth)
    np.testing.assert_allclose(u, known, rtol=0, atol=1e-8)
    np.testing.assert_allclose(u**depth * (u - 1.0), 1.3**2 * 2.0, rtol=1e-10)

# %%
# From lazy to rich
# -----------------
# A lazy network keeps u = 1. A rich one follows the power law :math:`(\gamma^2s)^{1/(L+1)}`, slower
# the deeper it is, as more layers share the work.

gamma = np.geomspace(0.03, 100.0, 30)
curves = {depth: np.array([factor(g, depth) for g in gamma]) for depth in (1, 2, 3)}
for depth, u in curves.items():
    slope = np.log(u[-1] / u[-2]) / np.log(gamma[-1] / gamma[-2])
    print(f"{depth} layers: u grows as richness to the {slope:.3f}, limit {2 / (depth + 1):.3f}")
    assert u[0] < 1.002 and abs(slope - 2 / (depth + 1)) < 0.02

# %%
# Finite width
# ------------
# The exact mean order parameter of two layers approaches u squared as one over the width. Lazy
# networks lie below u, one layer by P / N: without a signal, every point speaks for a smaller q.

u = factor(1.3, 2)
error = np.array([exact(network(1.3, 2, N), X, y).moment(1) - u**2 for N in (20, 200, 2000)])
np.testing.assert_allclose(error + u**2, [3.38133, 3.64850, 3.67709], rtol=0, atol=6e-6)
assert abs(exact(network(0.03, 1, 100), X, y).moment(1) - (1 - 4 / 100)) < 3e-3
np.testing.assert_allclose(error[:-1] / error[1:], 10.0, rtol=0.1)

# %%
# Layer by layer
# --------------
# The feature kernel of layer l grows along the target by u to the l: in a rich network the last
# layers grow most. The exact gains at width 400 are the crosses.

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
