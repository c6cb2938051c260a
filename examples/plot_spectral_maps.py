# SPDX-License-Identifier: Apache-2.0
"""
What a spectral map does to a kernel
====================================

A map replaces the eigenvalues of a kernel and keeps its eigenfunctions. Seen over the angle between
two inputs that is another kernel; seen by a target it is another order in which modes are learnt.
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
# The tangent kernel of two relu layers on a circle. At equispaced points its eigenfunctions are
# waves, and all but the first come in pairs, so a hard cutoff belongs between two pairs.

n, kept = 128, 9


def circle(angle):
    """Points of length sqrt(2)."""
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
# The cusp at angle zero is the slow decay of the eigenvalues: every one of these maps rounds it
# off. A cut changes little else, since it takes little variance. With equal eigenvalues its sharp
# edge rings: the kernel is that of Dirichlet.

angle = t[: n // 2 + 1]
profile = np.stack([k(circle(angle[:1]), circle(angle))[0] for k in kernels.values()])
group = xr.Dataset({"profile": (("kernel", "angle"), profile)},
                   {"kernel": list(kernels), "angle": angle})  # fmt: skip
brg.plots.plot_kernel_profile(brg.io.label(kernel_profile=group), backend="matplotlib")
waves = base.values[0] + 2 * sum(base.values[2 * k] * jnp.cos(k * angle) for k in range(1, 5))
np.testing.assert_allclose(profile[2], waves, rtol=0, atol=1e-10)
dirichlet = 1 + 2 * sum(jnp.cos(k * angle) for k in range(1, 5))
np.testing.assert_allclose(profile[3], base.values[kept - 1] * dirichlet, rtol=0, atol=1e-10)
slope = (profile[:, 1] - profile[:, 0]) / (profile[:, 0] * float(angle[1]))
assert slope[0] < -0.3 and np.abs(slope[1:]).max() < 0.3

# %%
# What a target asks for. A sum of three waves lies within the first nine modes but for its fastest;
# a step, whose power falls with the square of the frequency, is never complete.

targets = {
    "three waves": jnp.sin(t) + 0.5 * jnp.cos(3 * t) + 0.3 * jnp.sin(7 * t),
    "step": jnp.sign(jnp.sin(t).round(12)),
}
power = {name: base.power(y) for name, y in targets.items()}
total = {name: (y**2).mean() for name, y in targets.items()}
group = xr.Dataset({"power": (("target", "mode"), np.stack(list(power.values()))),
                    "total": ("target", list(total.values()))},
                   {"target": list(targets), "mode": np.arange(n)})  # fmt: skip
brg.plots.plot_target_power(brg.io.label(target_power=group), backend="matplotlib")

# %%
# The coverage is what a fit by these modes can reach. With the cut kernel and next to no ridge the
# error on the training points is the power outside of the nine modes, 6.7 % and 8.6 % of the total.

for name, y in targets.items():
    fit = brg.gp.condition(kernels["hard cutoff"], circle(t), y, 1e-5)
    left = float(((fit.mean(circle(t)) - y) ** 2).mean() / total[name])
    coverage = float(power[name][:kept].sum() / total[name])
    print(f"{name}: {left:.4f} left, coverage {coverage:.4f}")
    assert abs(left - (1 - coverage)) < 1e-6
plt.show()
