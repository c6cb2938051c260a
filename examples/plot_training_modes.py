# SPDX-License-Identifier: Apache-2.0
"""
The trap of training modes
==========================

Eliminated modes raise the ridge of the others. This holds for modes of the population. It does not
hold for modes computed from the training inputs themselves: there the ridge stays, and whoever
raises it counts the eliminated modes twice. Here is what then goes wrong, on digits, and what not.
"""

import warnings

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro

import bayesrg as brg

numpyro.enable_x64()
RIDGE, N, KEPT = 0.01, 200, 50

# %%
# Two bases
# ---------
# One kernel, with modes from the 200 training images and with modes from 799 others. The library
# warns if training modes are evaluated at the training points. Both give the observations the same
# distribution.

data = brg.data.load("digits", n=N, task="low_high", key=0)
kernel = 0.5 * brg.kernels.NNGP(1)
bases = {"training": brg.spectrum.nystrom(kernel, data.X)}
bases["reference"] = brg.spectrum.nystrom(kernel, data.X_ref)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    laws = {name: brg.gp.marginal(basis, data.X, RIDGE) for name, basis in bases.items()}
(warning,) = [str(w.message) for w in caught if "modes twice" in str(w.message)]
print(warning)
evidence, same = (law.log_prob(data.y) for law in laws.values())
assert abs(same - evidence) < 1e-8

# %%
# What the low modes see
# ----------------------
# Fifty modes are kept; the others act as noise with a covariance R. The ridge that a low mode u
# (normalised) sees is :math:`1/(u^TR^{-1}u)`. Training modes are orthogonal on the data, so high
# modes do not disturb low ones, and each low mode sees the bare ridge. Modes of the population are
# not orthogonal there; each sees a ridge several times as large, up to about the universal one.

fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for color, (name, law) in zip(("C1", "C0"), laws.items(), strict=True):
    U, noise = law.features / N**0.5, law.split(KEPT, "exact")[1]
    met = U[:, :KEPT].T @ noise.solve(U)
    ridge, cross = 1.0 / jnp.diagonal(met), RIDGE * jnp.abs(met[:, KEPT:]).max()
    universal = RIDGE + law.prior_variance(KEPT).mean()
    print(f"{name}: {ridge.min():.4f} to {ridge.max():.4f}, universal {universal:.4f}")
    if name == "training":
        assert cross < 1e-11 and jnp.abs(ridge - RIDGE).max() < 1e-11
    else:
        assert cross > 0.01 and ridge.min() > 5 * RIDGE and ridge.max() < 1.1 * universal
    ax.semilogy(range(1, KEPT + 1), ridge, color=color, label=f"seen, {name} modes")
    ax.axhline(universal, color=color, linestyle="--", label=f"universal, {name} modes")
ax.set(xlabel="mode", ylabel="ridge (variance)")
ax.legend()

# %%
# What counting twice does
# ------------------------
# With the universal ridge training modes look far less certain than they are: the posterior
# variance of mode 50 is seven times the exact one; with modes of the population it is a third too
# large. The evidence, too, is further from the exact one. The test error of the low modes hardly
# changes, so the mistake is easy to miss. With modes of the population the larger ridge lowers it.

found = {}
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for color, (name, law) in zip(("C1", "C0"), laws.items(), strict=True):
    root = bases[name].features(data.X_test)[:, :KEPT] * bases[name].values[:KEPT] ** 0.5
    for rule, style in (("exact", "-"), ("universal", "--"), ("truncate", ":")):
        low = brg.rg.integrate_modes(*law.split(KEPT, rule), data.y)
        left, error = jnp.diagonal(low.cov), ((root @ low.mean - data.y_test) ** 2).mean()
        found[name, rule] = row = float(left[-1]), float(low.log_evidence - evidence), float(error)
        print("{} {}: variance {:.3f}, evidence {:+.1f}, error {:.4f}".format(name, rule, *row))
        if rule != "truncate":
            ax.semilogy(range(1, KEPT + 1), left, style, color=color, label=f"{rule}, {name}")
exact, wrong = found["training", "exact"], found["training", "universal"]
assert 6 < wrong[0] / exact[0] < 8 and wrong[1] < -40 and abs(wrong[2] / exact[2] - 1) < 0.005
exact, right, dropped = (found["reference", rule] for rule in ("exact", "universal", "truncate"))
assert right[0] < 1.5 * exact[0] and right[1] > -35 and right[2] < 0.95 * dropped[2]
ax.set(xlabel="mode", ylabel="posterior / prior variance")
ax.legend()
plt.show()
