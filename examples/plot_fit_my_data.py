# SPDX-License-Identifier: Apache-2.0
"""
Fit my data
===========

From measurements in their own units to a figure. The data are heights at sixty places, along two
lines across hills near Jacksboro, Tennessee. A Gaussian process fits them; its lengthscale,
amplitude and noise are sampled. A map gives the true heights in between, to check the result.
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
# Matplotlib comes with an elevation map whose 403 columns are 75 m apart. We take two of its rows,
# 13 km apart, and add a random error of 15 m to each height, about that of a barometer.

heights = cbook.get_sample_data("jacksboro_fault_dem.npz")["elevation"][[100, 244]].T.astype(float)
distance = 0.0745 * np.arange(len(heights))  # km
rng = np.random.default_rng(1)
place = np.sort(rng.choice(len(heights), 60, replace=False))
X, y = distance[place, None], heights[place] + rng.normal(0.0, 15.0, (60, 2))
centre, scale = y.mean(), y.std()

# %%
# Model
# -----
# Targets are standardised, so their amplitude is about 1. Inputs keep their unit, so the
# lengthscale is in kilometres. Both lines share it. ``y.T`` puts the axis of the plate first.


def model(X, y=None):
    """Sample lengthscale, amplitude and noise; the function itself is integrated out."""
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(jnp.log(2.0), 1.0))
    amplitude = numpyro.sample("amplitude", dist.HalfNormal(2.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    law = brg.gp.marginal(brg.kernels.Matern32(lengthscale, amplitude**2), X, noise**2)
    with numpyro.plate("line", 2):
        numpyro.sample("height", law, obs=None if y is None else y.T)


dt = brg.fit(model, (X, (y - centre) / scale), key=0, draws=300, warmup=200, progress=False)
az.summary(dt)

# %%
# Each parameter has a mean, a standard deviation and an interval. If ``r_hat`` is near 1, the four
# chains agree; ``ess_bulk`` is the number of independent draws that they are worth. In metres, the
# interval of the noise contains the 15 m that we put in.

noise = scale * dt["posterior"]["noise"]
low, high = az.eti(noise, prob=0.99).to_numpy()
print(f"noise {float(noise.mean()):.1f} m, 99 % interval {low:.1f} to {high:.1f} m")
assert low < 15 < high

# %%
# Predictions
# -----------
# ``predict`` returns the function ``f`` and a new observation ``y`` at any inputs. We add them to
# the tree of the fit; a loop brings them and the data back to metres. If the model is right, about
# 89 of 100 true heights that were not measured lie within the 89 % band.

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
# ``plot_fit`` draws data, mean and band, in one panel per line. Black curves: the true heights.

pc = brg.plots.plot_fit(dt, backend="matplotlib", col_wrap=1, figure_kwargs={"figsize": (9.0, 6.5)})
for ax, truth in zip(pc.get_viz("plot").to_numpy(), heights.T, strict=True):
    ax.plot(distance, truth, color="black", linewidth=0.8)
    ax.set(xlabel="distance (km)", ylabel="height (m)")
