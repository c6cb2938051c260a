# SPDX-License-Identifier: Apache-2.0
"""
Heavy tails
===========

Modes of high index are heavy-tailed on images. Then the ridge that they leave depends on the input.
How much of this do the low modes know? And when is it better to use a ridge for each input?
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpyro

import bayesrg as brg
from bayesrg import rg

numpyro.enable_x64()
KEPT, RIDGE = 30, 0.01

# %%
# One ridge per factor
# --------------------
# A simple model of heavy tails: normal features times a factor per point, whose square is 0.4 or
# 1.6. The dressed ridge has one value per factor. Noise matrices of 150 data sets with 60 points
# agree: one over the diagonal of their inverse.

for_factors, for_features, for_data = jax.random.split(jax.random.key(7), 3)
squares, values = jnp.array([0.4, 1.6]), 0.3 * jnp.arange(1, 401.0) ** -1.2
square = jax.random.choice(for_factors, squares, (150, 60))
heavy = square[..., None] ** 0.5 * jax.random.normal(for_features, (150, 60, 400))
eliminated = heavy[..., KEPT:] * values[KEPT:] @ heavy[..., KEPT:].mT
precision = jnp.linalg.inv(eliminated + RIDGE * jnp.eye(60)).diagonal(axis1=1, axis2=2)
seen = jnp.stack([1 / precision[square == s].mean() for s in squares])
dressed = rg.scale_mixture_ridge(values, 60, RIDGE, KEPT, squares).value
print("dressed ridge of each factor", dressed, "in noise matrices", seen)
assert (abs(seen / dressed - 1) < 0.02).all()

# %%
# What low modes know
# -------------------
# All modes at a point have the same factor, so low modes tell part of the ridge there. With ten low
# modes known, the mean of the local ridge is about twice as large at the points with large factor.

known = rg.conditional_ridge(heavy.reshape(-1, 400), values, RIDGE, KEPT, modes=range(10))
fig, ax = plt.subplots(layout="constrained")
for s, color in zip(squares, ("C0", "C1"), strict=True):
    ax.hist(known[square.ravel() == s], 60, density=True, alpha=0.6, label=f"squared factor {s}")
    ax.axvline(RIDGE + s * values[KEPT:].sum(), color=color, linestyle="--")
ax.set(xlabel="ridge (variance); dashed: if the factor is known", ylabel="density")
ax.legend()
means = [known[square.ravel() == s].mean() for s in squares]
print("mean of the local ridge, ten low modes known:", *means)
assert 1.8 < means[1] / means[0] < 4

# %%
# Where it helps, and where it harms
# ----------------------------------
# Functions come from the prior. With heavy tails the local rule has smaller errors and more
# evidence than the universal one. On a smooth kernel with only 3 modes kept, which eliminates modes
# that 40 points could learn, it has more evidence but larger errors.


def gain(features, key, values, ridge, cutoff):
    """Return squared error of the low modes and log evidence, local minus universal rule."""
    drawn, rows = jax.random.normal(key, (sum(features.shape),)), []
    w, noise = drawn[: values.size], drawn[values.size :] * ridge**0.5
    for rule in ("local", "universal"):
        law = brg.gp.MercerNormal(features, values, ridge)
        low = rg.integrate_modes(*law.split(cutoff, rule), features @ (values**0.5 * w) + noise)
        rows.append([(values[:cutoff] * (low.mean - w[:cutoff]) ** 2).sum(), low.log_evidence])
    return jnp.array(rows[0]) - jnp.array(rows[1])


spectrum = brg.spectrum.gaussian_rbf(0.5, 1.0, 40)
inputs = jax.random.normal(jax.random.key(11), (500 * 40, 1))
smooth = spectrum.features(inputs).reshape(500, 40, 40)
keys, many = jax.random.split(for_data, 500), jax.vmap(gain, (0, 0, None, None, None))
cases = (-1, heavy, values, RIDGE, KEPT), (1, smooth, spectrum.values, 0.05, 3)
for sign, *case in cases:
    found = jax.jit(many, static_argnums=4)(case[0], keys[: len(case[0])], *case[1:])
    mean, error = found.mean(0), found.std(0) / len(found) ** 0.5
    print("heavy tails:" if sign < 0 else "smooth kernel:", mean, "+-", error)
    assert sign * mean[0] > 3 * error[0] and mean[1] > 3 * error[1]
plt.show()
