# SPDX-License-Identifier: Apache-2.0
r"""
A Boltzmann machine learns a spectrum
=====================================

A Gaussian Boltzmann machine with weights W learns the fluctuations of a scalar field on a ring of
ten sites. The field has ten modes with eigenvalues :math:`\kappa`, most of them in pairs. The
levels of :math:`W^TW` should settle at :math:`\mu^2 - \kappa`, with :math:`\mu = 3` here. The
noise of training splits the pairs, by an amount that is known (arXiv 2309.15002, 2407.16427).
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import dynamics
from bayesrg.diagnostics import weights

numpyro.enable_x64()
FIELD, SIZES, RATE = dynamics.lattice(10, mass=2.0), [1, 2, 2, 2, 2, 1], 0.1


def train(batch):
    """Return the spectra of a run at a hundred times, and what theory says of the levels."""
    how = {"learning_rate": RATE, "batch": batch, "key": 0}
    rule, start, target = dynamics.gaussian_rbm(FIELD, **how)
    found = dynamics.run(rule, start, 5000, key=1, every=50, chains=10)
    path = brg.io.trajectory(found)["dynamics"]
    spectra = weights.spectra(path["x"].to_numpy(), dims=("chain", "step"), degeneracies=SIZES)
    return spectra.assign_coords(time=("step", path["time"].to_numpy())), target


# %%
# Smooth modes come first
# -----------------------
# Modes of small :math:`\kappa`, which vary slowly along the ring, are learnt first and reach the
# largest levels. Every level ends at its target. Bands hold 89 % of ten chains.

runs = {batch: train(batch) for batch in (16, 64, 256)}
spectra, target = runs[256]
levels = spectra["levels"].isel(layer=0, drop=True)
group = xr.Dataset({"levels": levels, "targets": ("target", target.levels)})
brg.plots.plot_level_paths(brg.io.label(level_paths=group), backend="matplotlib")
halfway = (levels.mean("chain") > target.levels / 2).idxmax("step")
end = levels.isel(step=slice(50, None)).mean(("chain", "step"))
assert (np.diff(halfway) >= 0).all() and abs(end - target.levels).max() < 0.15

# %%
# Spacings of pairs
# -----------------
# In the second half of a run levels are stationary. The two levels of a pair keep apart as those of
# a random matrix: their mean spacing is :math:`\sqrt\pi` times the width that the linear theory
# gives. With batches of 16 spacings are up to 15 % smaller: the pairs are then so wide that they
# press against each other.

rows = {"sigma": [], "spacing": [], "error": []}
for batch, (spectra, target) in runs.items():
    late = spectra.isel(step=slice(50, None)).rename(step="draw")
    found = weights.summary(late, key=0, gap=0.0)["spacing"].isel(layer=0, group=slice(1, 5))
    mean, error = (found.sel(statistic=name).to_numpy() for name in ("mean", "sd"))
    theory = np.sqrt(np.pi) * target.sigma[[1, 3, 5, 7]]
    print(f"batch {batch}: spacing over theory {(mean / theory).round(2)}")
    assert abs(mean / theory - 1).max() < (0.22 if batch == 16 else 0.1)
    for name, values in zip(rows, (target.sigma[[1, 3, 5, 7]], mean, error), strict=True):
        rows[name] += list(values)
group = xr.Dataset({name: ("run", values) for name, values in rows.items()})
group["kind"] = "run", np.repeat([f"batch {batch}" for batch in runs], 4)
brg.plots.plot_spacing_width(brg.io.label(spacing_width=group), backend="matplotlib")
plt.show()
