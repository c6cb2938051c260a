# SPDX-License-Identifier: Apache-2.0
"""
Straight, uneven, turning and crossing paths
============================================

The layers of a residual network move points in small steps. The kinetic energy E of the paths, the
displacement D and the squared distance :math:`W_2^2` between first and last points fall in this
order. All three are equal for a *geodesic*: points move on straight lines, at constant speed, and
no other pairing of first and last points is shorter. Four flows show what the gaps mean.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from scipy.optimize import minimize

import bayesrg as brg
from bayesrg.diagnostics import transport

numpyro.enable_x64()
N, K, one = 300, 8, np.eye(2)
X = np.random.default_rng(0).standard_normal((N, 2))
X = (X - X.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(X.T, bias=True))).T


class Linear:
    """A velocity is an object with these two methods: here a matrix times the state."""

    def init(self, key, width):  # noqa: D102
        return jnp.zeros((width, width))

    def __call__(self, M, x):  # noqa: D102
        return x @ M.T


# %%
# Four flows
# ----------
# Points move by matrices B(s) from time s = 0 to 1. The first two flows stretch the points, the
# last two turn them by a right angle. Colours tell on which side a point started.

stretch, quarter = np.array([[2.2, 0.6], [0.6, 0.7]]), np.array([[0.0, -1.0], [1.0, 0.0]])
flows = {
    "geodesic": lambda s: one + s * (stretch - one),
    "uneven": lambda s: 3**s * one,
    "turning": lambda s: np.cos(s * np.pi / 2) * one + np.sin(s * np.pi / 2) * quarter,
    "crossing": lambda s: one + s * (quarter - one),
}
net, groups = brg.networks.Residual(Linear(), K, outputs=1, head=np.ones((1, 2))), {}
for name, flow in flows.items():
    B = np.array([flow(k / K) for k in range(K + 1)])
    paths = net.paths({"velocity": (B[1:] - B[:-1]) @ np.linalg.inv(B[:-1])}, X)
    tree = transport.measure(paths, trajectory=True, classes=(X[:, 0] > 0).astype(int))
    groups |= {name + end: tree["transport" + end].to_dataset() for end in ("", "_distance")}
tree, how = brg.io.label(**groups), {"group": "geodesic", "also": list(flows)[1:]}
brg.plots.plot_paths(tree, max_points=60, backend="matplotlib", **how)

# %%
# The ladder
# ----------
# Only the geodesic has no gap. Uneven speed and turning raise E above D. A rotated cloud is the
# same cloud: its distance would be zero for infinitely many points, but each point has moved.

brg.plots.plot_action_ladder(tree, backend="matplotlib", **how)
E, D = ({n: tree[n][v].item() for n in flows} for v in ("kinetic_energy", "displacement"))
squared = {name: tree[f"{name}_distance"]["w2"].item() ** 2 for name in flows}
for name in flows:
    print(f"{name:9s} E {E[name]:.4f}, D {D[name]:.4f}, W2^2 {squared[name]:.4f}")
    assert squared[name] - 1e-12 <= D[name] <= E[name] + 1e-12
gaussian = np.trace((stretch - one) @ (stretch - one))  # of N(0, 1) and N(0, stretch^2)
np.testing.assert_allclose([E["geodesic"], D["geodesic"], squared["geodesic"]], gaussian)
np.testing.assert_allclose([D["turning"], D["crossing"], E["crossing"]], 4)
np.testing.assert_allclose(E["turning"], 4 * K**2 * (1 - np.cos(np.pi / 2 / K)))
assert E["uneven"] > 1.05 * D["uneven"] and squared["crossing"] < 0.05 * D["crossing"]

# %%
# Which factors :math:`1 + a_k` stretch points to 3 times their length at the least transport cost?
# Equal steps: :math:`a_k = d/(1 + kd)` with d = (3 - 1)/K, and then E is D.


def cost(a):
    """Return the transport cost of factors; the last one completes the stretch."""
    a = np.append(a, 3 / np.prod(1 + a) - 1)
    return float(brg.dynamics.transport_cost(net.paths({"velocity": a[:, None, None] * one}, X)))


found, d = minimize(cost, np.full(K - 1, 3 ** (1 / K) - 1)), 2 / K
np.testing.assert_allclose(found.x, d / (1 + d * np.arange(K - 1)), atol=1e-4)
plt.show()
