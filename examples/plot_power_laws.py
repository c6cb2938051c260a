# SPDX-License-Identifier: Apache-2.0
r"""
Power laws
==========

For eigenvalues :math:`k^{-(1+\alpha)}` many results have a closed form: the fixed point of the
flow, the two slopes of the error, and the threshold at which a sharp cutoff is exact.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg

numpyro.enable_x64()

# %%
# Fixed point
# -----------
# Read from right to left: the rescaled ridge, ridge / (cutoff * eigenvalue), flows to
# :math:`1/\alpha`. If few modes are left, the bare ridge no longer matters. Without a ridge the
# flow is at the fixed point from the start, except at a handful of modes (a sum, not an integral).

law = brg.rg.power_law(1.0)
np.testing.assert_allclose(law.rescaled_ridge([10, 100], 0.0), [0.951663, 0.995017], rtol=1e-6)
flows = {}
for ridge in (0.0, 1e-4, 1e-3, 1e-2):
    flow = brg.rg.flow(law.levels(2000), 100, ridge)
    flows[f"bare ridge {ridge:g}"] = brg.io.label(flow=flow)["flow"].to_dataset()
    print(f"bare ridge {ridge:g}: {flow.rescaled[2000]:.3f} at 2000, {flow.rescaled[10]:.3f} at 10")
    assert jnp.abs(flow.rescaled[10] - law.fixed_point) < 0.06
dt, (first, *others) = xr.DataTree.from_dict(flows), flows
brg.plots.plot_rescaled_ridge(dt, alpha=1.0, group=first, also=others, backend="matplotlib")

# %%
# Slopes and matching
# -------------------
# A function drawn from the prior is learnt with an error equal to the effective ridge minus the
# noise. The error falls as :math:`n^{-\alpha}` without noise, and as :math:`n^{-\alpha/(1+\alpha)}`
# if noise dominates. The slopes are fitted from 1000 to 8000 points, with a million modes. A sharp
# cutoff gives the same error if the eliminated variance equals it (ratio 1). This is so at the
# matching threshold; at one half the ratio is far from 1.

# from alpha to slope, ratio at the matching threshold, ratio at one half, for ridges 1 and 0
NOISY = {0.5: (-0.3546, 1.004, 0.815), 1: (-0.5044, 1.018, 0.630), 2: (-0.6591, 1.007, 0.473)}
CLEAN = {0.5: (-0.5233, 1.001, 0.746), 1: (-1.0023, 1.001, 0.405), 2: (-1.9994, 0.999, 0.071)}
TABLE = {(alpha, ridge): row for ridge, t in ((1, NOISY), (0, CLEAN)) for alpha, row in t.items()}
ns = np.array([1000.0, 2000.0, 4000.0, 8000.0])
for (alpha, ridge), expected in TABLE.items():
    law = brg.rg.power_law(alpha)
    values, match = np.asarray(law.values(10**6)), float(law.matching_threshold)
    error = brg.rg.effective_ridge(values, ns, ridge) - ridge
    row = [np.polyfit(np.log(ns), np.log(error), 1)[0]]
    for threshold in (match, 0.5):
        kept = brg.rg.cutoff(values, 1000, ridge, threshold=threshold)
        row.append(float(values[kept:].sum() / error[0]))
    print(f"{alpha} {ridge} {row[0]:.4f}; {row[1]:.3f} at T = {match:.4f}, {row[2]:.3f} at 0.5")
    np.testing.assert_allclose(row, expected, rtol=0, atol=6e-4)

# %%
# Crossover
# ---------
# With little noise the error first falls as without noise. The other slope takes over at about
# :math:`n = \sigma^{-2/\alpha}` points, here 1000. Right: the eliminated variance over the error
# depends on the threshold (without noise, sums replaced by integrals).

law, ridge, points = brg.rg.power_law(1.0), 1e-3, np.geomspace(10, 1e5, 41)
local = np.gradient(np.log(law.error(points, ridge)), np.log(points))  # slope
print(f"local slope {local[0]:.2f} at 10 points, {local[-1]:.2f} at 100000")
assert abs(law.crossover(ridge) - 1000) < 1e-6 and abs(local[[0, -1]] + [1, 0.5]).max() < 0.05
fig, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
axes[0].loglog(points, law.error(points, ridge), label="alpha 1, ridge 0.001")
axes[0].loglog(points, law.ridgeless_error(points), "--", label="no ridge, slope -1")
axes[0].loglog(points, law.ridge_error(points, ridge), "-.", label="ridge dominates, slope -1/2")
axes[0].axvline(law.crossover(ridge), color="gray", linestyle=":", label="crossover")
T = np.linspace(0.05, 0.95, 46)
for alpha, color in ((0.5, "C0"), (1.0, "C1"), (2.0, "C2")):
    law = brg.rg.power_law(alpha)
    ratio = law.tail(law.stop(1000, 0.0, T)) / law.error(1000, 0.0)
    axes[1].semilogy(T, ratio, color=color, label=f"alpha {alpha}")
    axes[1].plot(law.matching_threshold, 1.0, "o", color=color)
axes[1].set(xlabel="threshold T (point: matching)", ylabel="eliminated variance / error")
axes[0].set(xlabel="training points n", ylabel="generalisation error (variance)", ylim=(1e-4, 1))
for ax in axes:
    ax.legend()
plt.show()
