# SPDX-License-Identifier: Apache-2.0
"""
A report on weights from a file
===============================

Any network that was trained elsewhere leaves a file of weights. What has training done to them?
Compare each matrix with matrices of independent entries: its largest levels, its spacings, and the
law of all levels. ``bayesrg weights FILE`` prints the same report (arXiv 2411.13512).
"""

import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import optax
import xarray as xr

import bayesrg as brg
from bayesrg.diagnostics import weights

numpyro.enable_x64()
SHAPES = {"layer1": (128, 64), "layer2": (96, 128), "layer3": (64, 96)}
file = f"{tempfile.mkdtemp()}/weights.npz"
data = brg.data.load("digits", n=1200, key=0)


def network(params, X):
    """Return one output for each image."""
    for name in SHAPES:
        X = jax.numpy.tanh(X @ params[name].T)
    return X @ params["readout"]


# %%
# A network, trained and saved
# ----------------------------
# Three hidden layers learn even against odd digits. Matrices are (out, in), as in PyTorch.

keys = jax.random.split(jax.random.key(0), 3)
draws = zip(keys, SHAPES.items(), strict=True)
start = {name: jax.random.normal(k, shape) / shape[1] ** 0.5 for k, (name, shape) in draws}
start["readout"] = np.zeros(64)
how = {"optimizer": optax.adam(2e-3), "epochs": 40, "batch": 50, "key": 1}
trained = brg.networks.train(network, start, data.X, data.y, **how).params
np.savez(file, **trained)

# %%
# The report
# ----------
# Levels of a random matrix keep their distance, so small deviations count. All statements compare
# with 200 matrices of the same shape with independent entries.

loaded = brg.io.load_weights(file)
report = weights.report(loaded, key=0, initial=start)
columns = ["rows", "columns", "ratio", "above", "distance", "r", "change"]
print(report[columns].to_dataframe().round(3).to_string())
print("left out:", report.attrs["skipped"])
print(*weights.statements(report), sep="\n")
before = weights.report(start, key=0)
assert (before["beyond"] == 0).all() and (report["beyond"] >= 1).all()

# %%
# In each layer one or two levels have left the bulk: the network has a single output.

brg.plots.plot_weight_spectrum(brg.io.label(weight_spectrum=report), backend="matplotlib")

# %%
# Spacings remain close to those of random matrices, far from those of independent levels. Bars show
# 90 % of the null.

brg.plots.plot_spacing_ratios(brg.io.label(spacing_ratios=report), backend="matplotlib")

# %%
# How much of a layer is structure?
# ---------------------------------
# ``bulk`` refits the standard deviation of independent entries to the levels below the edge, since
# large levels have raised it. Green points are levels above the edge of the new law.

levels = report["levels"].sel(layer="layer2").dropna("level")
fitted = weights.bulk(levels, SHAPES["layer2"])
x = np.linspace(0, 1.1 * fitted.edge, 300)
law = brg.ensembles.marchenko_pastur.pdf(x, *SHAPES["layer2"], fitted.s)
group = xr.Dataset({"levels": levels, "density": ("grid", law), "edge": fitted.edge}, {"grid": x})
brg.plots.plot_level_density(brg.io.label(level_density=group), backend="matplotlib")
assert fitted.s < 0.95 * report["s"].sel(layer="layer2") and abs(report["r"] - 0.53).max() < 0.08
tail = weights.hill(levels, 10, key=0)
print(f"{fitted}; exponent of the tail {tail.exponent:.2f}, interval {tail.interval.round(2)}")
plt.show()
