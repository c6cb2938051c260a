# SPDX-License-Identifier: Apache-2.0
"""
Levels of trained weights repel each other
==========================================

Stochastic gradient descent (SGD) never stops shaking the weights. Take a linear student of a linear
teacher: once trained, its weights fluctuate around those of the teacher. The eigenvalues of
:math:`W^TW`, the *levels*, then behave like those of a random matrix (arXiv 2407.16427).
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import dynamics, ensembles
from bayesrg.diagnostics import weights

numpyro.enable_x64()


def train(units, noise, learning_rate, batch, chains):
    """Return draws of W after burn-in, one per chain, and what theory says of the levels."""
    how = {"noise": noise, "learning_rate": learning_rate, "batch": batch}
    rule, start, target = dynamics.teacher_student(2 * jnp.eye(units), **how)
    steps = target.burn_in
    found = dynamics.run(rule, start, steps, key=0, every=steps, chains=chains)
    return brg.io.trajectory(found, burn_in=steps - 1), target


# %%
# Two equal levels
# ----------------
# A teacher with :math:`W = 2I` has two levels at 4. Noise splits them. Spacings depend on learning
# rate and batch size, but divided by their mean they follow one law, the Wigner surmise: zero is
# improbable. Independent levels would follow Poisson's law. Each run has 4000 chains.

spacings = {}
for learning_rate, batch in ((0.02, 16), (0.2, 16), (0.1, 4), (0.1, 64)):
    tree, target = train(2, 0.1, learning_rate, batch, 4000)
    levels = weights.spectra(tree, var_name="x")
    mean, theory = float(levels["spacings"].mean()), np.sqrt(np.pi) * target.sigma[0]
    name = f"learning rate {learning_rate}, batch {batch}"
    print(f"{name}: mean spacing {mean:.5f}, theory {theory:.5f}")
    assert abs(mean / theory - 1) < 0.05
    ascending = levels["levels"].to_numpy()[:, :, 0, ::-1]
    spacings[name] = ensembles.unfold(ascending).spacings.ravel()
group = xr.Dataset({"spacings": (("run", "i"), list(spacings.values()))}, {"run": list(spacings)})
brg.plots.plot_spacings(brg.io.label(spacings=group), backend="matplotlib")
assert (np.sort(group["spacings"])[:, 200] > 0.15).all()  # Poisson: a twentieth is below 0.05

# %%
# The density of one of the two levels is flat at the top: they keep each other from the centre.

centre, sigma = float(levels["levels"].mean()), target.sigma[0]
x = centre + sigma * np.linspace(-4, 4, 200)
law = ensembles.two_level_density.pdf(x, centre, sigma)
pair = xr.Dataset({"levels": levels["levels"], "density": ("grid", law)}, {"grid": x})
brg.plots.plot_level_density(brg.io.label(level_density=pair), backend="matplotlib")

# %%
# Many equal levels
# -----------------
# With 32 units the levels around 4 fill a semicircle. Its radius follows from learning rate, batch
# size and noise. Ratios of neighbouring spacings need no unfolding: their mean is .53, as in random
# matrices, far from the .386 of independent levels.

tree, target = train(32, 0.02, 0.05, 32, 150)
levels = weights.spectra(tree, var_name="x", degeneracies=[32])
group = weights.summary(levels, key=0).isel(layer=0, group=0)
ratio, sigma = (group[name].sel(statistic=["mean", "sd"]).to_numpy() for name in ("r", "sigma"))
print(f"ratio {ratio[0]:.4f} +- {ratio[1]:.4f}; width {sigma[0]:.5f}, theory {target.sigma[0]:.5f}")
assert abs(ratio[0] - 0.5307) < 4 * ratio[1] and abs(sigma[0] / target.sigma[0] - 1) < 0.03
assert abs(float(levels["levels"].mean()) - 4) < 2e-4
radius = np.sqrt(2 * 32) * target.sigma[0]
x = 4 + radius * np.linspace(-1.1, 1.1, 300)
law = ensembles.semicircle.pdf(x, radius, 4.0)
disc = xr.Dataset({"levels": levels["levels"], "density": ("grid", law)}, {"grid": x})
brg.plots.plot_level_density(brg.io.label(level_density=disc), backend="matplotlib")
plt.show()
