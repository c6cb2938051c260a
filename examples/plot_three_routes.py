# SPDX-License-Identifier: Apache-2.0
r"""
Three routes to one posterior
=============================

The posterior of a deep linear network can be computed in three ways: sample all its weights; sample
its order parameter q, with one number per layer at any width; or, with one output, integrate over q
on a grid. Here are all three, for five points and hidden layers of 3 and 4 units.
"""

import arviz as az
import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr
from numpyro.infer import NUTS

import bayesrg as brg
from bayesrg.deep_linear import exact, saddle
from bayesrg.diagnostics import feature
from bayesrg.models import deep_linear, deep_linear_collapsed

numpyro.enable_x64()
rng = np.random.default_rng(3)
X, X_new = rng.standard_normal((5, 4)), rng.standard_normal((2, 4))
y = X @ [1, -0.7, 0.4, 0.2] + np.sqrt(0.1) * rng.standard_normal(5)
data, hyper = brg.data.Data(X, y), {"widths": (3, 4), "ridge": 0.1}
net = brg.networks.DeepLinear(**hyper)

# %%
# Given q the network is a Gaussian process with kernel qK. The exact solver computes the posterior
# of q, evidence, function, and the mean kernel :math:`\Phi_l = H_lH_l^T/N_l` of each layer.

solved = exact(net, X, y)
names = ["f 1", "f 2", "log q", "trace 1", "trace 2"]
traces = [np.trace(solved.feature_kernel(layer)) for layer in (1, 2)]
expected = np.array([*solved.predict(X_new)[0], solved.mean_log_q, *traces])
np.testing.assert_allclose(solved.log_evidence, -7.7819142, rtol=0, atol=1e-8)

# %%
# All weights. Function, order parameter and layers are computed from the draws.

strict = lambda model: NUTS(model, target_accept_prob=0.9)  # noqa: E731
run = hyper | {"key": 0, "draws": 2000, "sampler": strict, "progress": False}
draws = brg.fit(deep_linear.model, data, **run).posterior.dataset
z, both = [draws[f"z{i}"].to_numpy() for i in (1, 2, 3)], np.concatenate([X, X_new])
layers = jax.vmap(jax.vmap(lambda *z: net.layers(net.weights(z, 4), both)))(*z)
traces = [(H[..., :5, :] ** 2).sum((-2, -1)) / H.shape[-1] for H in layers[1:3]]
columns = *np.moveaxis(layers[3][..., 5:, 0], -1, 0), np.log(draws["Q"][..., 0, 0]), *traces
routes = {"all weights": np.stack(columns, -1)}

# %%
# The order parameter. We use the means of function and kernels given q, which have less noise.
# `measure_deep_linear` computes those of the kernels, relative to their prior mean, the kernel K.
# It also tests the draws by an identity that holds in every layer.

model, eigen = deep_linear_collapsed.model, deep_linear_collapsed.prepare(data, **hyper)
tree = brg.fit(model, data, **run, **eigen)
f = brg.predict(tree, model, X_new, key=1, **hyper, **eigen)["predictive_moments"]["mean"]
tree = feature.measure_deep_linear(tree, net, prior=None)
assert feature.layer_identity(tree)["spread"] < 4
measured = tree["feature_learning"]
traces = measured["kernel_scale"] * np.trace(X @ X.T / 4)
columns = f[..., 0], f[..., 1], measured["log_q_eig"][..., 0], traces[..., 0], traces[..., 1]
routes["order parameter"] = np.stack(columns, -1)

# %%
# Every mean agrees with the exact one within four Monte Carlo errors.

axes = ("chain", "draw", "quantity")
sampled = [xr.DataArray(draws, {"quantity": names}, axes) for draws in routes.values()]
z = [(draws.mean(axes[:2]) - expected) / az.mcse(draws) for draws in sampled]
z = xr.concat(z, xr.Variable("route", list(routes)))
assert abs(z).max() < 4
brg.plots.plot_route_agreement(brg.io.label(routes=z.to_dataset(name="z")), backend="matplotlib")

# %%
# The data favour q above 1, the value of an infinitely wide network. The saddle point is close.
# Dotted: the exact density.

point = saddle(net, X, y).q
assert 1 < point and abs(np.log(point) - solved.mean_log_q) < 0.1
pc = brg.plots.plot_order_parameter(tree, saddle=point, backend="matplotlib")
ax = pc.get_viz("plot")
ax.plot(solved.log_q, solved.weights / np.gradient(solved.log_q), "k:")
ax.set_xlim(-4, 3)
plt.show()
