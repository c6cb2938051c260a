# SPDX-License-Identifier: Apache-2.0
"""
Learning curves
===============

How large is the error of a Gaussian process after n points, averaged over data sets? Theory
predicts it from the eigenvalues and from the power of the target in each mode. Experiments with
Gaussian features agree; on images of digits the error is a little larger.
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import rg, theory

numpyro.enable_x64()

# %%
# Gaussian features
# -----------------
# Each experiment draws 96 data sets with independent normal features, solves the regression, and
# computes the exact error of each. It agrees with theory within 3 % plus three standard errors.

k, ridge = np.arange(1, 601.0), 0.05  # the noise variance, of model and labels
values, target = k**-2, np.random.default_rng(1).choice([-1.0, 1.0], k.size) / k
points = np.unique([*np.geomspace(20, 400, 29), 50, 100, 200])


def compare(title, seen, curve):
    """Return the relative deviation of an experiment from theory, and its standard error."""
    expected = np.interp(seen.n, curve.n, curve.generalisation)
    off, error = seen.generalisation / expected - 1, seen.generalisation_error / expected
    for n, *row in zip(seen.n, expected, off, error, strict=True):
        print(title, "n = {:3.0f}: theory {:.4f}, experiment {:+.1%} +- {:.1%}".format(n, *row))
    return np.asarray(off), np.asarray(error)


features = theory.gaussian_population(values, target)
full = theory.learning_curve(values, target**2, points, ridge, ridge)
seen = theory.learning_curve_mc(features, [50, 100, 200], ridge, ridge, key=0, draws=96)
off, error = compare("Gaussian", seen, full)
assert (np.abs(off) < 0.03 + 3 * error).all()

# %%
# Two stages
# ----------
# Now keep only the modes up to the running cutoff. The variance of the others is added to the
# ridge, their part of the target to the label noise. This costs some accuracy, as theory predicts.
# The equivalent kernel uses the larger ridge, but neglects that data are finite and that the kept
# modes overfit. Its error is too small, at 100 points by a factor of 1.6.

kept = rg.cutoff(values, points, ridge)
ridges = rg.universal_ridge(values, ridge, kept)
coarse = theory.coarse_learning_curve(values, target**2, points, ridge, kept, ridge)
at = int(np.searchsorted(points, 100))
low = theory.gaussian_population(values, target, cutoff=int(kept[at]))
seen_low = theory.learning_curve_mc(low, [100], ridges[at], ridge, key=1, draws=96)
off, error = compare("Two-stage", seen_low, coarse)
assert (np.abs(off) < 0.03 + 3 * error).all()
pairs = zip(points, kept, ridges, strict=True)
alone = [theory.equivalent_kernel(values * (k <= m), n, s).error(target**2) for n, m, s in pairs]
print(f"equivalent kernel alone: {alone[at]:.4f} in place of {full.generalisation[at]:.4f}")
assert 1.5 < full.generalisation[at] / alone[at] < 1.65
kernel = xr.Dataset({"generalisation": ("n_train", alone)}, {"n_train": points})
others = {"two stages": coarse, "equivalent kernel": kernel}
dt = brg.io.label(theory=full, theory_run=seen, **others)
brg.plots.plot_learning_curve(dt, group="theory", also=list(others), backend="matplotlib")

# %%
# Digits
# ------
# The population is all images but two; the target is low against high digits. Measured errors are 2
# to 10 % above theory. Theory assumes Gaussian features and an infinite population: features of
# images are not Gaussian, and 400 points are a fifth of this population.

data = brg.data.load("digits", n=1795, task="low_high", key=0)
spectrum = brg.spectrum.nystrom(0.5 * brg.kernels.NNGP(1), data.X)
digits = theory.learning_curve(spectrum.values, spectrum.power(data.y), points, 0.01)
population = theory.finite_population(spectrum.kernel, data.X, data.y)
seen = theory.learning_curve_mc(population, [50, 400], 0.01, key=0, draws=40)
off, error = compare("Digits", seen, digits)
assert (off > 0.02).all() and (off < 0.12).all() and (off > 2 * error).all()
dt = brg.io.label(learning_curve=digits, learning_curve_run=seen)
brg.plots.plot_learning_curve(dt, backend="matplotlib")
plt.show()
