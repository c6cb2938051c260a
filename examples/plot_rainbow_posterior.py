# SPDX-License-Identifier: Apache-2.0
r"""
Posterior of a rainbow network
==============================

In a rainbow network the covariance of the weights of a layer may depend on the layers below. Here
are two layers of five units. The second avoids directions in which the first has large weights:
:math:`C_2 = (W_1W_1^T + I/2)^{-1}`. Both are sampled; the read-out is integrated out.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.util import log_density

import bayesrg as brg
from bayesrg.diagnostics import feature, layers
from bayesrg.models import rainbow, rainbow_collapsed

numpyro.enable_x64()


def avoiding(weights):
    """Return the covariance of the second layer, given the weights of the first."""
    W = weights[0]
    return jnp.linalg.inv(W @ W.T + 0.5 * jnp.eye(len(W)))


model, data = rainbow_collapsed.model, rainbow.demo(jax.random.key(0))
net = brg.networks.Rainbow((5, 5), (None, avoiding))
how = {"draws": 150, "warmup": 150, "chains": 2, "block": 150, "prior": 300, "progress": False}
dt = brg.fit(model, data, key=1, **how, net=net)

# %%
# The data are 25 noisy values of a sine of the first of three inputs. In the posterior the kernels
# of both layers are aligned with the targets, in the second far more than in any prior draw. Units
# can be swapped without effect, so chains of weights do not agree (``fit`` warns). Look at kernels.

dt = feature.measure(layers.add_kernels(dt, net))
grown, error = feature.compare(dt)["target_alignment"][2:].to_numpy()  # difference and its MCSE
assert (grown > 5 * error).all() and grown[1] > 2 * grown[0]
brg.plots.plot_alignment(dt, backend="matplotlib")
brg.plots.plot_kernel_change(dt, backend="matplotlib")

# %%
# The kernel changes with the weights, and so do its modes. Fixed linear functionals of the function
# mean the same at all weights; they are made from a reference kernel, that of wide networks.
# `rg.Coarse` makes three of them sites. Check: at fixed weights, the density of the cut model is
# that of the whole model times the density of these modes given the data.

wide = brg.spectrum.nystrom(brg.kernels.NNGP(2, "erf"), data.X_test)
cut = {"net": net, "functionals": brg.spectrum.functionals(wide, 3)}
coarse = brg.rg.coarsen(model, y=brg.rg.Coarse(3))


@jax.jit
@jax.vmap
def difference(weights, modes):
    """Return the log density of the cut model minus those of the whole one and of the modes."""
    known = numpyro.handlers.substitute(numpyro.handlers.seed(model, 0), weights)
    law = numpyro.handlers.trace(known).get_trace(data.X, **cut)["y"]["fn"]
    low = brg.rg.integrate_modes(*law.split(3), data.y)
    joint = log_density(coarse, (data.X, data.y), cut, weights | {"y_modes": modes})[0]
    whole = log_density(model, (data.X, data.y), {"net": net}, weights)[0]
    return joint - whole - dist.MultivariateNormal(low.mean, low.cov).log_prob(modes)


weights = {z: dt["posterior"][z].to_numpy()[0] for z in ("z1", "z2")}
change = difference(weights, np.random.default_rng(0).normal(size=(150, 3)))
assert abs(change).max() < 1e-8

# %%
# Predictions. The prior favours small functions, so the mean stays below the peaks of the truth.
x = np.linspace(-2.5, 2.5, 80)
X_new = np.concatenate([np.outer(x, [1, 0, 0]), data.X_test])
found = brg.predict(dt, model, X_new, key=2, net=net)["predictions"].to_dataset()
bands = found.quantile([0.055, 0.945], ("chain", "draw"))
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, alpha in (("y", 0.2), ("f", 0.5)):
    ax.fill_between(x, *bands[name].to_numpy()[:, :80], color="C0", alpha=alpha, label=name)
ax.plot(x, np.sin(1.5 * x), "k--", label="truth")
ax.plot(data.X[:, 0], data.y, "k.", label="data")
ax.set(xlabel="first input, the others at 0", title="functions f and observations y, 89 %")
ax.legend()
low, high = bands["y"].to_numpy()[:, 80:] - np.asarray(data.y_test)
assert ((low < 0) & (high > 0)).mean() > 0.8
plt.show()
