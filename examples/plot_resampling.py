# SPDX-License-Identifier: Apache-2.0
"""
A trained network, drawn again at random
========================================

What matters in the weights of a trained network? If only their covariances do, then new random
weights with the same covariances, drawn layer by layer, work as well. This nearly holds for wide
networks, here two layers of relu units on digits. Each new layer must be rotated to match the
features below it.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import optax
import xarray as xr

import bayesrg as brg
from bayesrg import networks

numpyro.enable_x64()
WIDTHS, DRAWS, RIDGE = (50, 150, 400), 4, 1.0
KINDS = "trained", "drawn again", "drawn again, new read-out", "random, new read-out", "not turned"
data = brg.data.load("digits", n=1795, key=0)
(X, X_test), (y, y_test) = np.split(data.X, [900]), np.split(data.y, [900])
errors, wrong = np.empty((2, len(WIDTHS), DRAWS, 2)), np.empty((5, len(WIDTHS), DRAWS))


def share(weights, readout=None):
    """Return the share of wrong test images; without ``readout`` a new one is fitted."""
    F, F_test = (net.apply(weights, part) / p**0.5 for part in (X, X_test))
    w = brg.gp.readout_posterior(F, y, RIDGE).mean if readout is None else readout[0]
    return ((F_test @ w > 0) != (y_test > 0)).mean()


for i, p in enumerate(WIDTHS):
    net = networks.Rainbow((p, p), activations="relu")
    how = {"optimizer": optax.adam(1e-3), "epochs": 50, "batch": 100, "key": 1}
    start = net.init(0, X.shape[1]), jnp.zeros((1, p))
    output = lambda params, X: net.apply(params[0], X) @ params[1][0]  # noqa: E731, B023
    weights, readout = networks.train(output, start, X, y, **how).params
    more = {"activations": "relu", "readout": readout, "X_test": X_test}
    for seed in range(DRAWS):
        new = networks.resample(weights, X, key=seed, **more)
        errors[:, i, seed] = new.errors, new.held_out
        back = new.weights[0], new.weights[1] @ new.rotations[0].T  # the rotation undone
        wrong[:2, i, seed] = share(weights, readout), share(new.weights, new.readout)
        wrong[2:4, i, seed] = share(new.weights), share(net.init(seed, X.shape[1]))
        wrong[4, i, seed] = share(back, readout)

# %%
# At 400 units, networks drawn again are wrong on 4 % of the images, and on fewer with a new
# read-out. They improve with the width. Random weights are far worse. Layers that are not rotated
# do not match each other: the result is as good as guessing. Bands span four draws.

fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for name, values in zip(KINDS, wrong, strict=True):
    ax.loglog(WIDTHS, values.mean(1), "o-", label=name)
    ax.fill_between(WIDTHS, values.min(1), values.max(1), alpha=0.2)
ax.set(xlabel="width", ylabel="share of test images wrong", xticks=WIDTHS, xticklabels=WIDTHS)
ax.minorticks_off()
fig.legend(loc="outside right upper")
first, turned, new_readout, random, chance = wrong.mean(2)
assert (first < new_readout).all() and (new_readout < turned).all() and (turned < random).all()
assert (np.diff(turned) < 0).all() and turned[-1] < 0.05 and (abs(chance - 0.5) < 0.2).all()

# %%
# The wider the networks, the less their features differ. On the images from which the rotations
# were computed the difference is too small, above all if 900 images fix a rotation of 400 units.

axes, coords = ("width", "draw", "layer"), {"width": list(WIDTHS), "layer": [1, 2]}
pair = {"errors": (axes, errors[0]), "held_out": (axes, errors[1])}
dt = brg.io.label(resampling=xr.Dataset(pair, coords))
brg.plots.plot_alignment_error(dt, backend="matplotlib")
fitted, held_out = errors.mean(2)
assert (np.diff(held_out, axis=0) < 0).all() and (fitted / held_out)[2].max() < 0.9

# %%
# Eigenvalues of :math:`W^TW` in the second layer. At first they follow the law of Marchenko and
# Pastur. Training raises a few above it and hardly changes the others. A new draw spreads all.

stack = {"initial": start[0][1], "trained": weights[1], "drawn again": new.weights[1]}
found = brg.diagnostics.weights.spectra(np.array(list(stack.values())), dims=("network",))
dt = brg.io.label(weight_spectrum=found.assign_coords(network=list(stack)))
brg.plots.plot_weight_spectrum(dt, backend="matplotlib")
first, trained, _ = found["levels"].isel(layer=0).to_numpy()
assert trained[0] > 2 * first[0] and abs(trained - first)[10:].max() < 0.5
plt.show()
