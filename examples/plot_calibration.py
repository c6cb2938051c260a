# SPDX-License-Identifier: Apache-2.0
"""
Is the posterior honest?
========================

A model is calibrated if its predictive variance equals its mean squared error. It is, if the true
weights come from the prior that it assumes; the ridge with the largest evidence then also has the
smallest error. With a wrong prior neither holds. Theory predicts by how much, for any number of
points.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg import theory

numpyro.enable_x64()

# %%
# Two targets
# -----------
# The features have variances 2/k. The model assumes that weights have variance 0.7 and noise has
# variance 0.2; the ridge is noise over weights. The weights of the first target have the variance
# assumed. Those of the second are 1/k, so they fall with k, which the model does not expect.

k, noise, prior = np.arange(1, 301.0), 0.2, 0.7
values, ridge = 2 / k, noise / prior
matched = theory.spectral_moments(values, prior * values, noise)
unmatched = theory.spectral_moments(values, values / k**2, noise)

# %%
# Calibration
# -----------
# The ratio of test error to predictive variance is 1 for the first target at every n. For the
# second, the model expects errors up to 15 times larger than they are. The ridge of largest
# evidence assumes a smaller prior variance, which repairs most of this. It still expects up to
# twice the error: one variance for all weights does not fit weights that fall with k.

n = np.geomspace(10, 1000, 60)


def at(moments, ridge):
    """Return averages over data sets, for a model with the right noise variance."""
    return theory.ridge_equivalent(moments, n, ridge, noise_variance=noise)


best = theory.optimal_ridge(unmatched, n, "evidence", noise_variance=noise)
groups = {
    "matched prior": at(matched, ridge),
    "wrong prior": at(unmatched, ridge),
    "wrong prior, best evidence": at(unmatched, best.ridge),
}
for name, found in groups.items():
    print(f"{name}: from {found.calibration.min():.3f} to {found.calibration.max():.3f}")
ratio = {name: np.asarray(found.calibration) for name, found in groups.items()}
np.testing.assert_allclose(ratio["matched prior"], 1.0, rtol=1e-9)
assert 1 / 16 < ratio["wrong prior"].min() < 1 / 15
assert 0.45 < ratio["wrong prior, best evidence"].min() < 0.5
first, *others = groups
dt = brg.io.label(**groups)
brg.plots.plot_calibration(dt, group=first, also=others, backend="matplotlib")

# %%
# Two best ridges
# ---------------
# Choose the ridge by the smallest error or by the largest evidence. For the first target both give
# noise over prior variance at every n. For the second they move apart as n grows: at 600 points the
# ridge for the error is three times the other. This costs only 5 %, as the minimum is flat.

sizes = np.array([60, 150, 300, 600])
for name, moments in (("matched", matched), ("wrong", unmatched)):
    error = theory.optimal_ridge(moments, sizes, bounds=(1e-2, 1e3))
    evidence = theory.optimal_ridge(
        moments, sizes, "evidence", bounds=(1e-2, 1e3), noise_variance=noise
    )
    print(name, "prior: best ridges for the error", np.round(error.ridge, 4))
    print(name, "prior: best ridges for evidence ", np.round(evidence.ridge, 4))
    if name == "matched":
        np.testing.assert_allclose([error.ridge, evidence.ridge], ridge, rtol=1e-6)
np.testing.assert_allclose(evidence.ridge, [3.9010, 5.676, 7.528, 10.052], rtol=1e-4)
np.testing.assert_allclose(error.ridge, [3.9330, 11.108, 19.485, 31.821], rtol=1e-4)
cost = theory.ridge_equivalent(unmatched, sizes, evidence.ridge).test / error.value - 1
print("what the ridge of greatest evidence costs in error:", np.round(cost, 4))
assert (cost < 0.06).all()
dt = brg.io.label(optimal_ridge=error, optimal_ridge_evidence=evidence)
brg.plots.plot_ridge_criteria(dt, n=300, backend="matplotlib")
plt.show()
