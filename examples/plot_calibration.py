# SPDX-License-Identifier: Apache-2.0
"""
Is the posterior honest?
========================

If weights are drawn from the prior that a model assumes, its predictive variance is its error, and
the ridge of greatest evidence is that of least error. With a wrong prior both part. Theory says by
how much, at any number of points.
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
# The features have variances 2/k, and the model assumes weights of variance 0.7 and noise of
# variance 0.2: the ridge is their ratio. Weights of the first target have that variance. Those of
# the second are 1/k, far smaller where the features are small.

k, noise, prior = np.arange(1, 301.0), 0.2, 0.7
values, ridge = 2 / k, noise / prior
matched = theory.spectral_moments(values, prior * values, noise)
unmatched = theory.spectral_moments(values, values / k**2, noise)

# %%
# Calibration
# -----------
# The ratio of test error to predictive variance is 1 for the matched target at every n. For the
# other one the model expects errors up to 15 times as large as they are. The ridge of greatest
# evidence repairs most of that, by a smaller prior variance, but still expects up to twice too
# much: no one variance suits weights that fall.

n = np.geomspace(10, 1000, 60)


def at(moments, ridge):
    """Averages over data sets when the model's noise variance is right."""
    return theory.ridge_equivalent(moments, n, ridge, noise_variance=noise)


best = theory.optimal_ridge(unmatched, n, "evidence", noise_variance=noise)
groups = {
    "matched prior": at(matched, ridge), "wrong prior": at(unmatched, ridge),
    "wrong prior, best evidence": at(unmatched, best.ridge),
}  # fmt: skip
for name, found in groups.items():
    print(f"{name}: from {found.calibration.min():.3f} to {found.calibration.max():.3f}")
ratio = {name: np.asarray(found.calibration) for name, found in groups.items()}
np.testing.assert_allclose(ratio["matched prior"], 1.0, rtol=1e-9)
assert 1 / 16 < ratio["wrong prior"].min() < 1 / 15
assert 0.45 < ratio["wrong prior, best evidence"].min() < 0.5
brg.plots.plot_calibration(
    brg.io.label(**groups), group="matched prior", label="matched prior",
    also={name: name for name in groups if name != "matched prior"}, backend="matplotlib",
)  # fmt: skip

# %%
# Two best ridges
# ---------------
# For the matched target both criteria choose the ratio of noise and prior variance, whatever n is.
# For the other they part as data come in: at 600 points the least error takes three times the ridge
# of greatest evidence. Yet that costs some 5 %: the error is flat around its minimum.

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
