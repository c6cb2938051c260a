# SPDX-License-Identifier: Apache-2.0
"""
How noise depends on learning rate and batch size
=================================================

By the *linear scaling rule* the noise of stochastic gradient descent (SGD) depends on learning rate
and batch size through their ratio alone. The widths of the spectra of weights show it
(arXiv 2407.16427). Here a model infers the exponent of this ratio from 18 runs. It should be one.
"""

import itertools

import arviz as az
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import dynamics
from bayesrg.diagnostics import weights
from bayesrg.models import noise_scaling

numpyro.enable_x64()
CHAINS, STEPS, NOISES = 200, 200, (0.02, 0.1)
BATCHES, RATES = (2, 8, 32), (0.03, 0.08, 0.2)


def student(rate, batch, noise):
    """Return SGD of a linear student with two equal levels, and its start at the teacher."""
    teacher = 2 * jnp.eye(2)
    return dynamics.teacher_student(teacher, noise=noise, learning_rate=rate, batch=batch)


# %%
# The exponent
# ------------
# Each run has 200 chains. The model reads half the sum of the squared spacings between two levels.
# The amplitude of the noise is that of the labels times the size of the teacher, squared. Steps of
# finite length overshoot, which widens spectra further; the learning rate is corrected for it.

cases = list(itertools.product(BATCHES, RATES, NOISES))
runs = []
for batch, rate, noise in cases:
    rule, start, target = student(rate, batch, noise)
    W = dynamics.run(rule, start, STEPS, len(runs), every=STEPS, chains=CHAINS).x[:, -1]
    assert target.burn_in < STEPS
    levels = np.linalg.svd(W, compute_uv=False)[:, None] ** 2
    runs.append({"learning_rate": rate, "batch": batch, "levels": levels})
settings = {"amplitude": [(2 * noise) ** 2 for *_, noise in cases]}
settings["curvature"] = [1 + 3 / batch for batch, *_ in cases]
data = weights.scaling_data(runs, alpha_correction="ou", **settings)
how = {"key": 1, "draws": 600, "warmup": 500, "chains": 2, "progress": False}
dt = brg.fit(noise_scaling.model, (data.X, data.y), spacings=data.spacings, **how)
print(az.summary(dt, var_names=["exponent", "power", "between"]))
draws = dt["posterior"].to_dataset()
for name in ("exponent", "power"):
    assert abs(float(draws[name].mean()) - 1) < 4 * float(draws[name].std()) < 0.15

# %%
# So widths are proportional to the square root of the noise. Theory gives the factor,
# :math:`\sqrt2`.

slope = weights.scaling_slope(dt)["slope"] / np.sqrt(np.pi)
width = np.sqrt(data.y / data.spacings / 2)
group = xr.Dataset({"width": ("run", width), "slope": slope, "noise": ("run", data.X.prod(1))})
group["error"] = "run", width / np.sqrt(4 * data.spacings)
group["kind"] = "run", [f"batch {batch}" for batch, *_ in cases]
brg.plots.plot_noise_scaling(brg.io.label(noise_scaling=group), backend="matplotlib")
assert abs(float(slope.mean()) / np.sqrt(2) - 1) < 0.03

# %%
# Two routes to the noise
# -----------------------
# The strength of the noise is the variance that it adds to a weight per unit of time. It follows
# from the stationary width, or from the changes of the weights in a few steps. If the two agree,
# noise and drift are what the theory assumes.

rule, start, _ = student(0.05, 16, 0.1)
tree = brg.io.trajectory(dynamics.run(rule, start, 1200, key=0, chains=20), burn_in=STEPS)
spectra = weights.spectra(tree, var_name="x", degeneracies=[2])
summary = weights.summary(spectra, key=0)
by_width = weights.noise_by_width(summary, learning_rate=0.05, curvature=1 + 3 / 16)
by_variation = weights.noise_by_variation(tree["posterior"]["x"], dt=0.05)
print(f"{by_width}\n{by_variation}\ntheory {0.05 / 16 * 0.1**2:.3g}")
assert abs(by_width.theta / by_variation.theta - 1) < 4 * by_width.error / by_width.theta
plt.show()
