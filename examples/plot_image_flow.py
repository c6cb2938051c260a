# SPDX-License-Identifier: Apache-2.0
"""
The flow on images
==================

The theory assumes Gaussian features; those of images are not. How well does it predict errors, and
where does the flow stop, for kernels of infinitely wide networks with one and three hidden layers?
"""

import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg

numpyro.enable_x64()
SIZES = np.array([25, 50, 100])
AXES = "mode", "mode", "normal quantile", "n", "n", "cutoff"

# %%
# Images
# ------
# MNIST and CIFAR-10 if their files are here, otherwise the digits that come with scikit-learn.
images = {}
for name in ("mnist", "cifar10"):
    try:
        images[name] = brg.data.load(name, n=200)
    except FileNotFoundError:
        print(f"no files of {name} here; going on with", ", ".join(images) or "digits")
images = images or {"digits": brg.data.load("digits", n=200)}

# %%
# Theory, experiment and evidence
# -------------------------------
# Data sets are drawn from a population of at most 1000 images. Theory receives the exact
# eigenvalues and target power of this population, so deviations have two reasons: features are not
# Gaussian, and the population is finite. The error is within 15 % of theory. The evidence is that
# of 200 images, with modes from an independent reference sample. At the running cutoff the
# universal ridge brings it far closer to the exact one (dashed) than dropping the modes does.


def curves(kernel, X, y, ridge):
    """Return spectrum, cumulants, theory, experiment and cutoffs for the population X, y."""
    spectrum = brg.spectrum.nystrom(kernel, X)
    given = spectrum.values, spectrum.power(y), SIZES, ridge
    theory, cutoffs = brg.theory.learning_curve(*given), brg.rg.cutoff(given[0], SIZES, ridge)
    coarse = brg.theory.coarse_learning_curve(*given, cutoffs)
    population = brg.theory.finite_population(kernel, X, y)
    measured = brg.theory.learning_curve_mc(population, SIZES, ridge, key=0, draws=40)
    cumulants = brg.rg.feature_cumulants(spectrum.features(X)[:, :300], 0)
    deviation = np.asarray(measured.test / theory.test - 1)
    print(name, "deviation", ", ".join(f"{d:+.1%}" for d in deviation), "at cutoffs", cutoffs)
    assert (np.abs(deviation) < 0.15).all()
    return spectrum.values, cumulants, theory, coarse, measured, cutoffs


def evidence(kernel, data, ridge):
    """Return the flow of one data set, and its log evidence under each rule."""
    spectrum = brg.spectrum.nystrom(kernel, data.X_ref[:1000], rank=400)
    levels = brg.spectrum.levels(spectrum, at=data.X_test[:1000])
    given = {"features": spectrum.features(data.X), "residual": spectrum.residual_cov(data.X)}
    flow = brg.rg.flow(levels, 200, ridge, y=data.y, **given)
    found = {rule: flow.evidence[:, i] for i, rule in enumerate(flow.rules)}
    off = {rule: abs(found[rule] - found["exact"])[flow.cutoff <= flow.stop][-1] for rule in found}
    assert off["universal"] < 0.2 * off["truncate"]
    return flow, found


titles = "eigenvalues", "excess kurtosis of modes", "quantiles of modes 3 and 250"
titles += "error; dotted: coarse theory", "running cutoff", "evidence"
captions = {"cifar10": "CIFAR-10 luma from JPEG copies: highest spatial frequencies altered"}
for name, data in images.items():
    fig, axes = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained")
    fig.suptitle(captions.get(name, name) + "\neven against odd, depth 1 (blue) and 3 (orange)")
    for depth, color in ((1, "C0"), (3, "C1")):
        kernel, X, y = brg.kernels.NNGP(depth), data.X_test[:1000], data.y_test[:1000]
        ridge = 0.01 * kernel.diag(X).mean()
        values, cumulants, theory, coarse, measured, cutoffs = curves(kernel, X, y, ridge)
        flow, found = evidence(kernel, data, ridge)
        axes[0, 0].loglog(values, color=color)
        axes[0, 1].plot(cumulants.excess_kurtosis, ".", ms=3, color=color)
        axes[0, 2].plot(cumulants.quantile, cumulants.quantiles[:, [2, 249]], color=color)
        axes[1, 0].errorbar(SIZES, measured.test, measured.test_error, fmt="o", color=color)
        axes[1, 0].loglog(SIZES, theory.test, "-", SIZES, coarse.test, ":", color=color)
        axes[1, 1].loglog(SIZES, cutoffs, "o-", color=color)
        axes[1, 2].semilogx(flow.cutoff, found["universal"], color=color)
        axes[1, 2].axhline(found["exact"][0], ls="--", color=color)
    for ax, title, axis in zip(axes.flat, titles, AXES, strict=True):
        ax.set(title=title, xlabel=axis)
plt.show()
