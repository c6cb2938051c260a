# SPDX-License-Identifier: Apache-2.0
"""
Fit my data
===========

From measurements in their units to a figure. Heights along two lines across the hills at
Jacksboro, Tennessee, are measured at sixty places. A Gaussian process fits them; its lengthscale,
amplitude and noise are sampled. The map knows the heights in between, so the band can be judged.
"""

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from matplotlib import cbook

import bayesrg as brg

numpyro.enable_x64()

# %%
# Data
# ----
# Matplotlib ships an elevation map of 403 columns, 75 m apart. We take two of its rows, 13 km
# apart, and give each height an error of 15 m, about that of a barometer.

heights = cbook.get_sample_data("jacksboro_fault_dem.npz")["elevation"][[100, 244]].T.astype(float)
distance = 0.0745 * np.arange(len(heights))  # km
rng = np.random.default_rng(1)
place = np.sort(rng.choice(len(heights), 60, replace=False))
X, y = distance[place, None], heights[place] + rng.normal(0.0, 15.0, (60, 2))
centre, scale = y.mean(), y.std()

# %%
# Model
# -----
# Targets are standardised, so that their amplitude is about 1. Inputs keep their unit, so that the
# lengthscale is in kilometres. Both lines share it. ``y.T`` puts the plate's axis first.


def model(X, y=None):
    """Sample the kernel's parameters and the noise; the function itself is integrated out."""
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(jnp.log(2.0), 1.0))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    law = brg.gp.marginal(brg.kernels.Matern32(lengthscale, amplitude**2), X, noise**2)
    with numpyro.plate("line", 2):
        numpyro.sample("height", law, obs=None if y is None else y.T)


dt = brg.fit(model, (X, (y - centre) / scale), key=0, draws=300, warmup=200, progress=False)
az.summary(dt)

# %%
# Each parameter has a mean, a standard deviation and an interval. ``r_hat`` near 1 says that the
# four chains agree, ``ess_bulk`` how many independent draws they are worth. Back in metres, the
# interval of the noise holds the 15 m that we put in.

noise = scale * dt["posterior"]["noise"]
low, high = az.eti(noise, prob=0.99).to_numpy()
print(f"noise {float(noise.mean()):.1f} m, 99 % interval {low:.1f} to {high:.1f} m")
assert low < 15 < high

# %%
# Predictions
# -----------
# ``predict`` gives the function ``f`` and a new observation ``y`` at any inputs. They join the tree
# of the fit, where one line of code brings them and the data back to metres. If the model is right,
# about 89 of 100 true heights that were not measured lie within the 89 % band.

every = np.arange(0, len(heights), 3)
dt.update(brg.predict(dt, model, distance[every, None], key=1).children)
for group in ("observed_data", "predictions"):
    dt[group] = dt[group] * scale + centre

low, high = az.eti(dt["predictions"]["f"], prob=0.89).to_numpy().T
inside = ((low < heights[every]) & (heights[every] < high))[~np.isin(every, place)].mean()
print(f"{inside:.0%} of the heights that were not measured lie within the band")
assert 0.8 < inside < 0.97

# %%
# Figure
# ------
# ``plot_fit`` draws data, mean and band, one panel per line. The black curves are the true heights.

pc = brg.plots.plot_fit(dt, backend="matplotlib", col_wrap=1, figure_kwargs={"figsize": (9.0, 6.5)})
for ax, truth in zip(pc.get_viz("plot").to_numpy(), heights.T, strict=True):
    ax.plot(distance, truth, color="black", linewidth=0.8)
    ax.set(xlabel="distance (km)", ylabel="height (m)")
