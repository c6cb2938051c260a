# SPDX-License-Identifier: Apache-2.0
"""
Gaussian-process regression on handwritten digits
=================================================

A Gaussian process is fitted to two hundred images of digits, even (+1) against odd (-1). Its kernel
is that of an infinitely wide network with one hidden layer. Amplitude (a variance) and noise (a
standard deviation) are sampled; the function is integrated out. Quadrature over the two parameters
gives the posterior too, so the sampler can be checked.
"""

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg
from bayesrg.models import gp_regression

numpyro.enable_x64()

# %%
# Data and prior
# --------------
# ``load`` returns training points, test points and a reference sample; no image is in two of them.
# The modes of the kernel are computed from the reference sample. What they leave out is kept as a
# residual, so the prior is the whole kernel. The eigenpairs of its Gram matrix are computed once;
# no step of the sampler then factorises a matrix.

data = brg.data.load("digits", n=200, key=0)
spectrum = brg.spectrum.nystrom(brg.kernels.NNGP(1), data.X_ref)
eigen = spectrum.at(data.X).eigenpairs()
hyper = {"spectrum": spectrum, "eigen": eigen}

# %%
# Posterior
# ---------
# The result is an ArviZ tree, so ArviZ summarises and plots it.

dt = brg.fit(gp_regression.model, data, key=1, draws=500, warmup=400, progress=False, **hyper)
az.summary(dt)

# %%
# Check
# -----
# ``exact`` in the file of the model integrates the joint density over a grid. Every sampled mean
# agrees with it within four Monte Carlo standard errors. The grey lines are the exact means.

exact = gp_regression.exact(data, **hyper)
mean, error = dt.posterior.dataset.mean(), az.mcse(dt)
for name in ("amplitude", "noise"):
    deviation = float((mean[name] - exact[name]) / error[name])
    print(f"{name:10s} NUTS {mean[name]:.4f}  quadrature {exact[name]:.4f}  {deviation:+.1f} s.e.")
    assert abs(deviation) < 4

pc = az.plot_dist(
    dt,
    backend="matplotlib",
    figure_kwargs={"figsize": (8, 3)},
    visuals={"point_estimate_text": False},
)
az.add_lines(pc, {name: float(exact[name]) for name in mean})

# %%
# Predictions
# -----------
# ``predict`` conditions the process on the training targets at every draw. ``f`` is the function,
# ``y`` an observation of it. Test images are sorted by their mean; where the band crosses zero, the
# model is not certain of the sign.

X_test, y_test = data.X_test[:400], np.asarray(data.y_test[:400])
predictions = brg.predict(dt, gp_regression.model, X_test, key=2, **hyper)
f = predictions["predictions"]["f"]
centre, bound = f.mean(("chain", "draw")), f.quantile([0.055, 0.945], ("chain", "draw"))
wrong = np.sign(centre.to_numpy()) != y_test
print(f"{wrong.mean():.1%} of {wrong.size} test images have the wrong sign")
assert wrong.mean() < 0.1

order = np.argsort(centre.to_numpy())
# sphinx_gallery_thumbnail_number = 2
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.fill_between(range(400), *bound.to_numpy()[:, order], alpha=0.3, label="89 % interval")
ax.plot(centre.to_numpy()[order], label="mean")
rank = np.flatnonzero(wrong[order])
ax.plot(rank, centre.to_numpy()[order][rank], "x", label="wrong sign")
ax.axhline(0.0, color="gray", linewidth=0.8)
ax.set(xlabel="test image, sorted by its mean", ylabel="f (even +1, odd -1)")
ax.legend()
plt.show()
