# SPDX-License-Identifier: Apache-2.0
"""
The universal flow
==================

Each eliminated mode adds its prior variance to the ridge. Plotted over the number of modes kept,
every kernel has its own curve. Plotted over the eliminated variance, all curves are one straight
line of slope 1. Here are five spectra, and how good the approximation behind the line is.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro

import bayesrg as brg

numpyro.enable_x64()
N, RIDGE = 50, 0.01

# %%
# Spectra
# -------
# Two power laws on Fourier modes, two network kernels on images of digits, and a network kernel on
# a sphere in eight dimensions, where many modes share each eigenvalue. The variance outside of a
# finite spectrum counts as eliminated from the start. All kernels are scaled to prior variance 1.

digits = brg.data.load("digits", n=N, key=0)
spectra, bent = {}, {}
for decay in (1.5, 2.0):
    waves = brg.spectrum.fourier(lambda j, decay=decay: (1 + j) ** -decay, 400)
    spectra[f"Fourier, decay {decay}"] = waves, jnp.zeros(1)
for depth in (1, 3):
    images = brg.spectrum.nystrom(brg.kernels.NNGP(depth), digits.X_test[:400])
    spectra[f"digits, depth {depth}"] = images, digits.X_ref
spectra["sphere, depth 1"] = brg.spectrum.sphere(brg.kernels.NNGP(1), 8, 12), jnp.eye(8) * 8**0.5

# %%
# Flows
# -----
# The universal ridge is noise plus eliminated variance, up to rounding. The dressed ridge (dotted)
# takes into account that data determine part of the eliminated modes. It falls below the line when
# learnable modes are eliminated; where this happens depends on the spectrum.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for i, (name, (spectrum, X)) in enumerate(spectra.items()):
    levels = brg.spectrum.levels(spectrum, at=X)
    total = levels.variance.sum() + levels.tail
    flow = brg.rg.flow(1 / total * levels, N, RIDGE)
    assert jnp.abs(flow.universal - RIDGE - flow.tail).max() < 1e-14
    assert (flow.dressed <= flow.universal * (1 + 1e-14)).all()
    bent[name] = np.interp(0.2, flow.tail[::-1], flow.dressed[::-1])
    print(f"{name:16s} stops at {flow.stop:2d} modes; dressed, 0.21 is {bent[name]:.3f}")
    axes[0].loglog(flow.cutoff[1:], flow.universal[1:], color=f"C{i}", label=name)
    axes[1].plot(flow.tail, flow.universal, color=f"C{i}")
    axes[1].plot(flow.tail, flow.dressed, ":", color=f"C{i}", linewidth=2)
assert bent["Fourier, decay 2.0"] < 0.05 and 0.18 < bent["digits, depth 3"] < 0.21
axes[1].plot([0, 1], [RIDGE, 1 + RIDGE], "k--", linewidth=1, label="noise + c (all five)")
axes[1].plot([], [], ":", color="gray", label="dressed")
for ax, x in zip(axes, ("modes kept", "eliminated variance c"), strict=True):
    ax.set(xlabel=x, ylabel="ridge (variance)")
    ax.legend(fontsize="small")

# %%
# Two stages
# ----------
# The effective ridge s can be computed in two stages: eliminate the high modes, then solve for the
# low modes with the universal ridge. If the learnability at the cutoff is T, the error falls as
# :math:`T^2`. Far below the stop s is too large with the universal ridge and too small with the
# dressed one. Exact is the dressed ridge as a function of the bare ridge: take the bare ridge plus
# the variance of the low modes that is not learnt, and it gives s.

values, T = jnp.arange(1, 1001.0) ** -2, np.array([0.5, 0.2, 0.1, 0.05])
s = brg.rg.effective_ridge(values, N, RIDGE)
kept = [brg.rg.cutoff(values, N, RIDGE, threshold=t) for t in T]
errors = brg.rg.two_stage_ridge(values, N, RIDGE, kept) / s - 1
print("two stages:", *(f"T {t} {error:.2e}" for t, error in zip(T, errors, strict=True)))
np.testing.assert_allclose(errors, [9.13e-2, 5.90e-3, 1.27e-3, 3.23e-4], rtol=5e-3)
assert brg.rg.two_stage_ridge(values, N, RIDGE, 20, "universal") > 1.3 * s
assert brg.rg.two_stage_ridge(values, N, RIDGE, 20, "dressed") < 0.91 * s
left = jnp.cumsum(values * (1 - brg.rg.learnability(values, N, RIDGE)))
composed = brg.rg.dressed_ridge(values, N, RIDGE + left[jnp.array([4, 19, 299])], [5, 20, 300])
np.testing.assert_allclose(composed, jnp.full(3, s), rtol=1e-14)
fig, ax = plt.subplots(figsize=(5, 4), layout="constrained")
ax.loglog(T, errors, "o-", label="two stages, universal")
ax.loglog(T, errors[-1] * (T / T[-1]) ** 2, "k--", label="slope 2")
ax.set(xlabel="threshold T", ylabel="error of s (relative)", xticks=T, xticklabels=T.astype(str))
ax.minorticks_off()
ax.legend()
plt.show()
