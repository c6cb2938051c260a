# SPDX-License-Identifier: Apache-2.0
"""
Is the sampler right?
=====================

Draw all weights of a network from the prior and simulate data with them. Sample the posterior of
these data, and count how many draws lie below the true value: its rank. If model and sampler are
right, all ranks are equally likely. This is simulation-based calibration; no answer need be known.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.models import deep_linear, deep_linear_collapsed

numpyro.enable_x64()
rng = np.random.default_rng(0)
X, x_new = rng.standard_normal((8, 5)), rng.standard_normal((1, 5))

# %%
# Weights simulate, the order parameter is sampled
# ------------------------------------------------
# Data come from the model of all weights, with hidden layers of 3 and 5 units. The posterior is
# sampled with the collapsed model, which has only the order parameter Q. So one test checks both
# models and the sampler. Ranks are computed of log Q and of the function f at a new point. Its true
# value comes from the weights, a draw of it from the Gaussian process that f is given Q.

widths, ridge = (3, 5), 0.2
net = brg.networks.DeepLinear(widths, ridge=ridge)
K, cross, variance = X @ X.T / 5, X @ x_new[0] / 5, float(x_new[0] @ x_new[0] / 5)


def log_q(sites, y, key):
    """Return the logarithm of the order parameter."""
    return jnp.log(sites["Q"][0, 0])


def true_f(sites, y, key):
    """Return f at the new point, from all weights."""
    white = [sites[f"z{layer}"] for layer in (1, 2, 3)]
    return net.apply(net.weights(white, 5), x_new)[0, 0]


def drawn_f(sites, y, key):
    """Return a draw of f at the new point, given the order parameter."""
    q = sites["Q"][0, 0]
    gain = q * jnp.linalg.solve(q * K + ridge * jnp.eye(8), cross)
    return gain @ y + jnp.sqrt(q * (variance - gain @ cross)) * jax.random.normal(key)


def calibrate(assumed):
    """Return ranks of 200 simulations, if the fit assumes these widths."""
    truth = {"truth": deep_linear.model, "truth_hyper": {"widths": widths, "ridge": ridge}}
    given = {"widths": assumed, "ridge": ridge}
    eigen = deep_linear_collapsed.prepare(brg.data.Data(X, np.zeros(8)), **given)
    quantities = {"log q": log_q, "f": (true_f, drawn_f)}
    model = deep_linear_collapsed.model
    return brg.inference.sbc(model, X, quantities, key=0, **truth, **given, **eigen)


# %%
# Right widths
# ------------
# The counts of both quantities stay in the envelope of uniform ranks, but for chance.

right = calibrate(widths)
p_values = right["sbc"]["p_value"]
print("right widths:", p_values.to_series().round(3).to_dict())
assert p_values.min() > 0.01 and abs(right["sbc"]["autocorrelation"]).max() < 0.1
brg.plots.plot_sbc_ranks(right, backend="matplotlib")

# %%
# Wrong widths
# ------------
# Now the fit assumes 30 and 50 units. The order parameter tells: its true value often lies outside
# of all draws. The function hardly does, so choose the quantities of such a test with care.

wrong = calibrate((30, 50))
p_values = wrong["sbc"]["p_value"]
print("wrong widths:", p_values.to_series().to_dict())
assert p_values.sel(quantity="log q") < 1e-10 and p_values.sel(quantity="f") > 0.01
brg.plots.plot_sbc_ranks(wrong, backend="matplotlib")
plt.show()
