# SPDX-License-Identifier: Apache-2.0
"""
Critical initialisation
=======================

Whether a deep network can be trained depends on its random initial weights. Each layer multiplies
squared gradients by one number, chi. If chi is below 1 they vanish with depth, above 1 they
explode. On a line in the plane of weight and bias variance chi is 1; the start is called critical.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr
from jax.scipy.special import erf

import bayesrg as brg
from bayesrg.kernels import NNGP, critical_point, empirical_apjn, jacobian_flow

numpyro.enable_x64()


def flow(weight, bias, depth, K0=1.0):
    """Return variance, chi and squared gradients of erf networks, layer by layer."""
    return jacobian_flow(NNGP(1, "erf", weight, bias), K0, depth)


# %%
# The variance of pre-activations goes to a fixed point; the map shows chi there. The dots on the
# critical line are from `critical_point`. Elsewhere squared gradients change by a factor e in
# 1 / abs(log(chi)) layers. At bias variance 0.05: 17.6 (falling) at 1.2, 4.4 (growing) at 2.5.

weight, bias = np.linspace(0.4, 3.0, 53), np.linspace(0.0, 0.5, 41)
deep = jax.jit(jax.vmap(jax.vmap(lambda w, b: flow(w, b, 1000).chi[-1], (None, 0)), (0, None)))
chi = xr.DataArray(deep(weight, bias), {"weight_var": weight, "bias_var": bias})
dt = brg.io.label(phase_diagram=chi.to_dataset(name="chi"))
pc = brg.plots.plot_phase_diagram(dt, backend="matplotlib")
line = [critical_point("erf", b) for b in bias[4::8]]
pc.get_viz("plot").plot(line, bias[4::8], "ko")
on_line = chi.interp(weight_var=xr.DataArray(line, dims="bias_var"), bias_var=bias[4::8])
assert abs(on_line - 1).max() < 2e-3 and abs(critical_point("erf", 0.05) - 1.3758390) < 1e-6
for w, length in ((1.2, 17.595), (2.5, 4.369)):
    assert abs(1 / abs(np.log(flow(w, 0.05, 1000).chi[-1])) - length) < 1e-3

# %%
# Squared gradients against depth, at three starts with bias variance 0.05. Lines: infinite width.
# Points: 20 networks of 300 units, with bars that hold 89 % of them. Over 23 layers gradients fall
# to 0.005 in the ordered start and grow to 130 in the chaotic one. In the critical one they fall to
# 0.52 while the variance goes to its fixed point; then they stay. Without biases this fixed point
# is zero, and both the variance and the critical gradients fall slowly, as 1 / depth.

width, depth, networks = 300, 24, 20
starts = {"ordered": 0.9, "critical": critical_point("erf", 0.05), "chaotic": 2.5}
x = np.random.default_rng(0).standard_normal((1, width))
x *= np.sqrt(width) / np.linalg.norm(x)


def layers(params, h, start, stop):
    """Return the pre-activations of layer ``stop``, given those of layer ``start``."""
    scale, W, b = params
    for i in range(start, stop):
        h = scale * (h if i == 0 else erf(h)) @ W[i].T / width**0.5 + 0.05**0.5 * b[i]
    return h


@jax.jit
def measure(key, weight_var):
    """Return squared gradients of one random network from layer 1 to the layers ``stops``."""
    shapes = ((depth, width, width), (depth, width))
    W, b = (jax.random.normal(jax.random.fold_in(key, i), s) for i, s in enumerate(shapes))
    params = jnp.sqrt(weight_var), W, b
    return [empirical_apjn(layers, params, x, 1, stop, key=key, probes=2)[0] for stop in stops]


stops = [2, 6, 12, 18, 24]
theory = jnp.stack([flow(w, 0.05, depth - 1, w + 0.05).J for w in starts.values()], 1)
keys = jax.random.split(jax.random.key(1), networks)
found = np.stack([[measure(key, w) for key in keys] for w in starts.values()])
lines = xr.Dataset({"J": (("layer", "batch"), theory)}, {"batch": list(starts)})
where = {"batch": list(starts), "layer": np.array(stops) - 1}
points = xr.Dataset({"J": (("batch", "draw", "layer"), found)}, where)
dt = brg.io.label(jacobian_flow=lines.assign_coords(layer=range(depth)), jacobian_flow_run=points)
brg.plots.plot_jacobian_flow(dt, backend="matplotlib")
assert (np.abs(found.mean(1) / np.asarray(theory)[np.array(stops) - 1].T - 1) < 0.12).all()
assert np.allclose(theory[-1], [0.0045, 0.516, 130.0], rtol=0.01) and theory[-9, 1] < 0.53
slow = flow(np.pi / 4, 0.0, 2000).J
assert abs(slow[2000] / slow[1000] - 0.5) < 0.002
plt.show()
