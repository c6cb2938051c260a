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
import xarray as xr

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


depths, gamma = np.array([1, 2, 3]), np.geomspace(0.03, 100.0, 30)
u = np.array([factor(1.3, depth) for depth in depths])
np.testing.assert_allclose(u, [2.405255888, 1.918407015, 1.694585880], rtol=0, atol=1e-8)
np.testing.assert_allclose(u**depths * (u - 1.0), 1.3**2 * 2.0, rtol=1e-10)

# %%
# From lazy to rich
# -----------------
# A lazy network has u = 1. In a rich one u grows as :math:`(\gamma^2s)^{1/(L+1)}`: more slowly the
# deeper the network is, because more layers share the work. Points: the exact mean of q, to the
# power 1/L, for layers of only 10 units.

few = gamma[::5]
limit = np.array([[factor(g, depth) for g in gamma] for depth in depths])
slopes = np.log(limit[:, -1] / limit[:, -2]) / np.log(gamma[-1] / gamma[-2])
print("u grows as richness to the power", slopes.round(3), "limits", (2 / (depths + 1)).round(3))
assert (limit[:, 0] < 1.002).all() and abs(slopes - 2 / (depths + 1)).max() < 0.02


def show(axis, lines, points):
    """Plot growth (axis, richness) of wide networks and of networks of finite width."""
    groups = {}
    for name, values, at in (("lazy_to_rich", lines, gamma), ("lazy_to_rich_run", points, few)):
        growth = {"growth": ((axis, "richness"), values)}
        groups[name] = xr.Dataset(growth, {axis: depths, "richness": at})
    brg.plots.plot_lazy_to_rich(brg.io.label(**groups), backend="matplotlib")


narrow = [[exact(network(g, L, 10), X, y).moment(1) ** (1 / L) for g in few] for L in depths]
show("depth", limit, narrow)

# %%
# For two layers the exact mean of q differs from :math:`u^2` by a term of order 1 / width. It is
# smaller in lazy networks, with one layer by P / N.

means = np.array([exact(network(1.3, 2, N), X, y).moment(1) for N in (20, 200, 2000)])
error = means - u[1] ** 2
np.testing.assert_allclose(means, [3.38133, 3.64850, 3.67709], rtol=0, atol=6e-6)
assert abs(exact(network(0.03, 1, 100), X, y).moment(1) - (1 - 4 / 100)) < 3e-3
np.testing.assert_allclose(error[:-1] / error[1:], 10.0, rtol=0.1)

# %%
# Layer by layer
# --------------
# The kernel of layer l grows along the target by the factor :math:`u^l`, its gain. So the last
# layers grow most. Points: exact gains of three layers of 400 units.

solved = [exact(network(g, 3, 400), X, y) for g in few]
gains = np.array([[posterior.gain(layer) for posterior in solved] for layer in (1, 2, 3)])
np.testing.assert_allclose(gains, limit[2, ::5] ** depths[:, None], rtol=0.01)
show("layer", limit[2] ** depths[:, None], gains)
plt.show()
