# SPDX-License-Identifier: Apache-2.0
"""
A posterior that prefers short paths
====================================

Multiply the prior of the weights of a residual network by exp(-lam T), where T is the transport
cost of the data: the mean squared length of all steps that its layers make. How does the strength
lam change the posterior? Two half moons, three layers of four hidden units.
"""

from functools import partial

import arviz as az
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro
from numpyro.infer import HMC
from sklearn.datasets import make_moons

import bayesrg as brg
from bayesrg.diagnostics import transport
from bayesrg.models import residual_action

numpyro.enable_x64()

# %%
# Three strengths
# ---------------
# The factor is not normalised, so its strength must be a number: a prior on it would need the
# normaliser as a function of lam. Hidden units can be permuted without changing the network, so
# chains need not agree about weights. They agree about what the network does: T, the action of
# each layer, and the predictions f. Only these are looked at.

X, y = make_moons(60, noise=0.15, random_state=0)
net = residual_action.network(2, hidden=4, depth=3)
how = {"net": net, "sampler": partial(HMC, trajectory_length=1.0), "progress": False}
how |= {"draws": 200, "warmup": 100, "chains": 2}
runs, groups = {}, {}
for lam in (0.0, 1.0, 5.0):
    dt = brg.fit(residual_action.model, (X, y), key=0, lam=jnp.asarray(lam), **how)
    functionals = dt["posterior"].to_dataset()[["transport_cost", "layer_action", "f"]]
    worst = max(float(v.max()) for v in az.rhat(functionals).data_vars.values())
    runs[lam] = transport.measure(dt, net, draws=0)
    groups[f"lam {lam:g}"] = group = runs[lam]["transport"].to_dataset()
    T, straight = group["transport_cost"], float(group["straightness"].mean())
    right = float(((functionals["f"].mean(("chain", "draw")) > 0) == y).mean())
    print(f"lam {lam:g}: T {float(T.mean()):.2f} +- {float(T.std()):.2f}", end=", ")
    print(f"straightness {straight:.2f}, accuracy {right:.2f}, R-hat at most {worst:.3f}")
    assert worst < 1.05 and right > 0.9
tree, several = brg.io.label(**groups), list(groups)[1:]
brg.plots.plot_action_posterior(tree, group="lam 0", also=several, backend="matplotlib")

# %%
# Layers
# ------
# The mean of T falls with lam for any data: its derivative is minus the variance of T. So ``judge``
# tells whether chains are long enough. It also gives the probability that all layers act equally,
# within a quarter of their mean. In a geodesic they do. These strengths are far from that: T is
# small, but single draws do not share it equally between the layers.

brg.plots.plot_layer_action(tree, group="lam 0", also=several, backend="matplotlib")
judged = transport.judge(runs)
print(judged[["transport_cost", "transport_cost_mcse", "constant", "growing"]].to_dataframe())
print(f"T falls: probability {float(judged['decreasing']):.4f}")
assert judged["decreasing"] > 0.999
plt.show()
