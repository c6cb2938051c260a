# SPDX-License-Identifier: Apache-2.0
"""
What a spectral map does to a kernel
====================================

A spectral map changes the eigenvalues of a kernel and keeps its eigenfunctions. The first figure
shows the kernel as a function of the angle between two inputs, before and after. The second shows
which targets the kept modes can represent.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg.spectrum import maps, modify, nystrom

numpyro.enable_x64()

# %%
# The tangent kernel of two relu layers on a circle. At equidistant points its eigenfunctions are
# waves. All but the first come in pairs of equal eigenvalue, so put a hard cutoff between two
# pairs.

n, kept = 128, 9


def circle(angle):
    """Return points of length sqrt(2) at given angles."""
    return jnp.sqrt(2.0) * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)


t = 2 * jnp.pi * jnp.arange(n) / n
base = nystrom(brg.kernels.NTK(2, bias_var=0.1), circle(t))
gap = float(jnp.sqrt(base.values[kept - 1] * base.values[kept]))
kernels = {
    "base": modify(base, maps.identity()),
    "decay to the power 1.5": modify(base, maps.power(1.5)),
    "hard cutoff": modify(base, maps.hard_cutoff(gap), tail=0.0),
}
kernels["the same, flattened"] = modify(kernels["hard cutoff"], maps.flatten(kept - 1))

# %%
# The kernel has a sharp peak at angle zero, because its eigenvalues decay slowly; each of these
# maps makes it round. The cut changes little else, since the modes that it removes have little
# variance. With equal eigenvalues the sharp cutoff makes the kernel oscillate: it is the Dirichlet
# kernel.

angle = t[: n // 2 + 1]
profile = np.stack([k(circle(angle[:1]), circle(angle))[0] for k in kernels.values()])
where = {"kernel": list(kernels), "angle": angle}
group = xr.Dataset({"profile": (("kernel", "angle"), profile)}, where)
brg.plots.plot_kernel_profile(brg.io.label(kernel_profile=group), backend="matplotlib")
waves = base.values[0] + 2 * sum(base.values[2 * k] * jnp.cos(k * angle) for k in range(1, 5))
np.testing.assert_allclose(profile[2], waves, rtol=0, atol=1e-10)
dirichlet = 1 + 2 * sum(jnp.cos(k * angle) for k in range(1, 5))
np.testing.assert_allclose(profile[3], base.values[kept - 1] * dirichlet, rtol=0, atol=1e-10)
slope = (profile[:, 1] - profile[:, 0]) / (profile[:, 0] * float(angle[1]))
assert slope[0] < -0.3 and np.abs(slope[1:]).max() < 0.3

# %%
# How much of a target do the kept modes hold? The first nine modes hold a sum of three waves,
# except the fastest. A step is never complete: its power falls only as one over the frequency
# squared.

targets = {
    "three waves": jnp.sin(t) + 0.5 * jnp.cos(3 * t) + 0.3 * jnp.sin(7 * t),
    "step": jnp.sign(jnp.sin(t).round(12)),
}
power = {name: base.power(y) for name, y in targets.items()}
total = {name: (y**2).mean() for name, y in targets.items()}
values = {"power": (("target", "mode"), np.stack(list(power.values())))}
values["total"] = "target", list(total.values())
group = xr.Dataset(values, {"target": list(targets), "mode": np.arange(n)})
brg.plots.plot_target_power(brg.io.label(target_power=group), backend="matplotlib")

# %%
# The coverage is the share of the power in the kept modes. With the cut kernel and almost no ridge,
# the error on the training points is the power outside of them, 6.7 % and 8.6 % of the total.

for name, y in targets.items():
    fit = brg.gp.condition(kernels["hard cutoff"], circle(t), y, 1e-5)
    left = float(((fit.mean(circle(t)) - y) ** 2).mean() / total[name])
    coverage = float(power[name][:kept].sum() / total[name])
    print(f"{name}: {left:.4f} left, coverage {coverage:.4f}")
    assert abs(left - (1 - coverage)) < 1e-6
plt.show()
