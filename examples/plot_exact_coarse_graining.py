# SPDX-License-Identifier: Apache-2.0
"""
Exact coarse-graining
=====================

A Gaussian process can be cut at any cutoff: the low modes stay as parameters, the high modes are
marginalised. Under the exact rule evidence and predictions do not change, for any data. The other
rules put a larger noise in place of the high modes. Here are both, on 24 points and 61 modes.
"""

import arviz as az
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro

import bayesrg as brg
from bayesrg.models import gp_modes, gp_regression

numpyro.enable_x64()
i = jnp.arange(1, 25)
x, x_new, ridge = i * (jnp.sqrt(5.0) - 1) / 2 % 1, jnp.linspace(0.0, 1.0, 200, False), 0.05
y = jnp.sin(2 * jnp.pi * x) + 0.3 * jnp.cos(10 * jnp.pi * x) + 0.1 * jnp.cos(7 * i)
spectrum = brg.spectrum.fourier(lambda j: (1 + j) ** -2.0, 61)

# %%
# ``split`` separates the low modes of a distribution of observations from the rest. ``krige``
# conditions on the first points and predicts the others, with the modes that were marginalised.

at_data = brg.gp.marginal(spectrum, x, ridge)
everywhere = brg.gp.marginal(spectrum, jnp.concatenate([x, x_new]), ridge)
full = at_data.log_prob(y), *everywhere.krige(y)[:2]


def coarse(cutoff, rule):
    """Return log evidence, predictive mean and variance; low modes are integrated exactly."""
    low = brg.rg.integrate_modes(*at_data.split(cutoff, rule), y)
    root, rest = everywhere.split(cutoff, rule, n=len(x))
    mean, variance, _ = rest.shift(root @ low.mean).krige(y)
    slope = jax.jacobian(lambda modes: rest.shift(root @ modes).krige(y)[0])(low.mean)
    return low.log_evidence, mean, variance + jnp.einsum("ij,jk,ik->i", slope, low.cov, slope)


coarse = jax.jit(coarse, static_argnums=(0, 1))
for cutoff in (0, 5, 24, 61):
    change = [jnp.abs(a - b).max() for a, b in zip(coarse(cutoff, "exact"), full, strict=True)]
    print(f"cutoff {cutoff:2d}: evidence and predictive change by at most {max(change):.0e}")
    assert max(change) < 1e-10

# %%
# Read from right to left: each eliminated mode adds its variance to the universal ridge. The flow
# stops where an eigenvalue reaches the ridge over n. The eliminated modes leave a noise matrix on
# the points. The arithmetic mean of its eigenvalues is the universal ridge. Their harmonic mean is
# lower, because some of these modes are learnable; the dressed ridge is close to it.

flow = brg.io.flow_to_datatree(brg.rg.flow(spectrum, len(x), ridge, at=x, y=y))
pc = brg.plots.plot_flow(flow, backend="matplotlib")

# %%
# The exact evidence does not depend on the cutoff. The other rules are other models; their evidence
# may be above or below, and agrees if they eliminate little. (With Fourier modes the eliminated
# variance is the same at all inputs, so the local and the universal rule are equal.)

pc = brg.plots.plot_evidence(flow, backend="matplotlib")

# %%
# Far below the stop the universal rule treats modes as noise that the data could determine.

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, rule in zip(axes, ("exact", "universal"), strict=True):
    _, mean, variance = coarse(5, rule)
    ax.fill_between(x_new, *(mean + s * jnp.sqrt(variance) for s in (-2, 2)), alpha=0.3)
    ax.plot(x_new, mean, label="coarse, two sd")
    ax.plot(x_new, full[1], "k:", label="full")
    ax.plot(x, y, "k.", label="data")
    ax.set(title=f"{rule}, 5 modes kept", xlabel="x", ylim=(-2, 2))
axes[0].legend(loc="upper right")

# %%
# In a NumPyro model ``coarsen`` makes the cut. Amplitude and noise are now sampled too. Their means
# and those of the modes agree with exact results (quadrature) within four Monte Carlo errors.

cut = brg.rg.Coarse(5, eigen=spectrum.at(x).eigenpairs(5))
model, data = brg.rg.coarsen(gp_regression.model, y=cut), brg.data.Data(x[:, None], y)
dt = brg.fit(model, data, key=0, draws=300, warmup=200, progress=False, spectrum=spectrum)
exact, error = gp_modes.exact(data, cutoff=5, spectrum=spectrum), az.mcse(dt)
for name, draws in dt.posterior.data_vars.items():
    assert (abs(draws.mean(("chain", "draw")) - exact[name]) < 4 * error[name]).all()
az.summary(dt)
