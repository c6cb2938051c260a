# SPDX-License-Identifier: Apache-2.0
"""
Depth, width and the evidence
=============================

For many points, the evidence of a wide deep linear network never falls with depth at leading order,
as if infinite depth were best. For a finite number of points the exact evidence has a maximum at
a finite depth.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg.deep_linear import exact, infinite_depth, leading_log_evidence, wide_and_deep

numpyro.enable_x64()

# %%
# Without noise the data enter by two numbers: the number of points P, and their energy per point r,
# the mean square of the whitened targets. Here r is 3; the prior expects 1. Depth L and width N
# enter only as the effective depth LP/N.

P, r = 40, 3.0
X, y = jnp.sqrt(P) * jnp.eye(P), jnp.full(P, jnp.sqrt(r))
constant = P / 2 * np.log(2 * np.pi)


def solve(depth, width):
    """Return the exact posterior of a network without noise."""
    return exact(brg.networks.DeepLinear((width,) * depth, ridge=0.0), X, y)


# %%
# Depth
# -----
# The order parameter q multiplies the kernel. Data of high energy need a larger q. The prior of a
# deep network is broad in q and allows it. When q has reached r, more depth only makes the prior
# broader, and the evidence falls. With :math:`\lambda = LP/N` log q has prior mean
# :math:`-\lambda/P` and variance :math:`2\lambda/P`. Laplace's method around the root adds the next
# order in P: :math:`-\frac12\log(1 + \lambda r/q) - \frac12\log q - \lambda/4P`.

effective = np.array([0.1, 1.0, 5.0, 20.0, 60.0, 200.0])
posts = [solve(round(d * 400 / P), 400) for d in effective]
evidence = constant + [post.log_evidence for post in posts]
known = [-57.1835, -49.3755, -45.4703, -44.7430, -45.1508, -46.4848]
np.testing.assert_allclose(evidence, known, rtol=0, atol=6e-5)
leading, q = leading_log_evidence(r, effective, P), wide_and_deep(r, effective)
corrected = leading - 0.5 * (np.log1p(effective * r / q) + np.log(q) + effective / (2 * P))
assert (np.diff(leading) > 0).all() and evidence.argmax() == 3
assert abs(corrected - evidence).max() < 0.15 and corrected.argmax() == 3
laws = {"exact, width 400": evidence, "leading order": leading, "and next order": corrected}
table = {"log_evidence": (("law", "effective_depth"), list(laws.values()))}
group = xr.Dataset(table, {"law": list(laws), "effective_depth": effective})
brg.plots.plot_evidence_by_depth(brg.io.label(depth=group), backend="matplotlib")

# %%
# For infinitely many layers of this width the posterior of q is an inverse gamma distribution
# around r. So infinite depth takes the variance of the signal from the data, like empirical Bayes.

means = [post.moment(1) for post in posts]
shape, scale = infinite_depth(400, P, r * P)
assert (np.diff(means) > 0).all() and abs(means[-1] - scale / (shape - 1)) < 0.03

# %%
# Width
# -----
# At fixed depth a narrower network has a larger effective depth. So with five layers the best width
# is finite too. The dotted line is the Gaussian process of infinite width, q = 1.

widths = np.array([2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 1024, 4096])
by_width = np.array([solve(5, int(width)).log_evidence for width in widths]) + constant
best = widths[by_width.argmax()]
print(f"five layers: best width {best}, evidence {by_width.max():.2f}")
assert widths[0] < best < widths[-1]

fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].semilogx(effective, means, "o-", label="exact mean, width 400")
axes[0].semilogx(effective, q, "--", label="many points")
axes[0].axhline(r, color="gray", linewidth=0.8)
axes[0].set(xlabel="effective depth LP / N", ylabel="order parameter q")
axes[0].legend()
axes[1].semilogx(widths, by_width, "o-")
axes[1].axhline(-P * r / 2, color="black", linestyle=":")
axes[1].set(xlabel="width of five layers", ylabel="log evidence, minus a constant")
plt.show()
