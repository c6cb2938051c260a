# SPDX-License-Identifier: Apache-2.0
"""
Three routes to one posterior
=============================

The posterior of a deep linear network can be computed in three ways: sample all its weights; sample
its order parameter q, with one number per layer at any width; or, with one output, integrate over q
on a grid. Here are all three, for five points and hidden layers of 3 and 4 units.
"""

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from numpyro.infer import NUTS

import bayesrg as brg
from bayesrg.deep_linear import exact, features, order_parameter, prior_density, problem, saddle
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
names = ("f 1", "f 2", "log q", "trace 1", "trace 2")
traces = [np.trace(solved.feature_kernel(layer)) for layer in (1, 2)]
expected = *solved.predict(X_new)[0], solved.mean_log_q, *traces
np.testing.assert_allclose(solved.log_evidence, -7.7819142, rtol=0, atol=1e-8)

# %%
# All weights. Function, order parameter and layers are computed from the draws.

strict = lambda model: NUTS(model, target_accept_prob=0.9)  # noqa: E731
run = hyper | {"key": 0, "draws": 2000, "sampler": strict, "progress": False}
draws = brg.fit(deep_linear.model, data, **run).posterior.dataset
z, both = [draws[f"z{i}"].to_numpy() for i in (1, 2, 3)], np.concatenate([X, X_new])
layers = jax.vmap(jax.vmap(lambda *z: net.layers(net.weights(z, 4), both)))(*z)
traces = [(H[..., :5, :] ** 2).sum((-2, -1)) / H.shape[-1] for H in layers[1:3]]
sampled = *np.moveaxis(layers[3][..., 5:, 0], -1, 0), np.log(draws["Q"][..., 0, 0]), *traces
routes = {"all weights": dict(zip(names, map(np.asarray, sampled), strict=True))}

# %%
# The order parameter. We use the means of function and kernels given q, which have less noise.

model, eigen = deep_linear_collapsed.model, deep_linear_collapsed.prepare(data, **hyper)
tree = brg.fit(model, data, **run, **eigen)
f = brg.predict(tree, model, X_new, key=1, **hyper, **eigen)["predictive_moments"]["mean"]
c = {name: tree.posterior[name].to_numpy() for name in ("c1", "c2")}
Q, chain = order_parameter(net.widths, 1, c)
means = jax.vmap(jax.vmap(features.feature_means, (None, 0)), (None, 0))
traces = jnp.trace(jax.jit(means)(problem.prepare(net, X, y).as_jax(), chain), axis1=-2, axis2=-1)
sampled = f[..., 0], f[..., 1], np.log(Q[..., 0, 0]), traces[..., 0], traces[..., 1]
routes["order parameter"] = dict(zip(names, map(np.asarray, sampled), strict=True))

# %%
# Every mean agrees with the exact one within four Monte Carlo errors.

for route, draws in routes.items():
    error = az.mcse(az.from_dict({"posterior": draws}))
    for name, value in zip(names, expected, strict=True):
        deviation = float((draws[name].mean() - value) / error[name])
        print(f"{route:15s} {name:7s} exact {value:7.3f}, sampled {deviation:+.1f} s.e. from it")
        assert abs(deviation) < 4

# %%
# The data favour q above 1, the value of an infinitely wide network. The saddle point is close.

point = saddle(net, X, y).q
assert 1 < point and abs(np.log(point) - solved.mean_log_q) < 0.1
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for route, draws in routes.items():
    ax.hist(draws["log q"].ravel(), bins=80, density=True, histtype="step", label=route)
ax.plot(solved.log_q, solved.weights / np.gradient(solved.log_q), "k", label="exact")
ax.plot(solved.log_q, prior_density(net.widths, solved.log_q), "k:", label="prior")
ax.axvline(np.log(point), color="C3", label="saddle")
ax.axvline(0.0, color="gray", linestyle="--", label="Gaussian process")
ax.set(xlabel="log q", ylabel="density", xlim=(-4, 3))
ax.legend()
plt.show()
