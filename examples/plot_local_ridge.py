# SPDX-License-Identifier: Apache-2.0
"""
A ridge that depends on the input
=================================

Eliminated modes add their variance to the ridge. In general it is larger at some inputs than at
others, so the ridge depends on the input, and data there weigh less.
"""

import jax
import jax.numpy as jnp
import numpyro
import xarray as xr

import bayesrg as brg
from bayesrg import rg, theory

numpyro.enable_x64()

# %%
# Sparse inputs carry the large ridge
# -----------------------------------
# A smooth kernel with normal inputs has modes in closed form. The eliminated variance is small for
# most inputs. For rare, large inputs it is nearly the whole prior variance, 1: a data point there
# tells little about the low modes, so it has a small weight.

spectrum = brg.spectrum.gaussian_rbf(0.5, 1.0, 40)
for cutoff, last in ((4, 0.99881599), (8, 0.83414818)):
    eliminated = rg.local_ridge(spectrum, [0.0, 1.0, 3.0], 0.0, cutoff)
    print(f"{cutoff} modes kept, variance eliminated at 0, 1 and 3:", eliminated)
    assert abs(eliminated[2] - last) < 1e-8 and eliminated[:2].max() < 0.1
inputs = jax.scipy.special.ndtri(jnp.linspace(0.001, 0.999, 500))
ridge = rg.local_ridge(spectrum, inputs, 0.05, 4)
local = {"X": inputs, "ridge": ridge, "weight": rg.data_weights(ridge)}
local = xr.Dataset({name: ("point", column) for name, column in local.items()})
brg.plots.plot_local_ridge(brg.io.label(local_ridge=local), backend="matplotlib")

# %%
# Four theories of the mean predictor
# -----------------------------------
# Four theories of the mean prediction over data sets of 20 points without noise, against 1000 such
# sets: the equivalent kernel errs most, a scalar ridge less, the dressed local ridge least.

x, values, n, ridge = jnp.linspace(-4.0, 4.0, 401), spectrum.values, 20, 0.5
modes, density = spectrum.features(x), jax.nn.softmax(-(x**2) / 2)
target = jnp.zeros(40).at[jnp.array([0, 2, 4])].set(jnp.array([1.0, 0.7, 0.5]))
Phi = spectrum.features(jax.random.normal(jax.random.key(11), (1000 * n, 1))).reshape(1000, n, 40)
noisy = Phi * values @ Phi.mT + ridge * jnp.eye(n)
fitted = values * (Phi.mT @ jnp.linalg.solve(noisy, Phi @ target[:, None]))[..., 0]
error = jnp.linalg.norm(fitted.std(0)) / 1000**0.5
kernel = theory.equivalent_kernel(values, n, ridge)
corrected = kernel.coefficients(target) + kernel.correction(modes, target, weights=density)
scalar = theory.equivalent_kernel(values, n, rg.effective_ridge(values, n, ridge))
s = rg.dressed_local_ridge(modes, values, n, ridge, weights=density).value
dressed = rg.reweighted_modes(modes, values, n, s, modes @ target, weights=density).mean
four = jnp.stack([kernel.coefficients(target), corrected, scalar.coefficients(target), dressed])
off = jnp.linalg.norm(four - fitted.mean(0), axis=1)
print("equivalent kernel, corrected, scalar, local off by", off, f"with an error of {error:.4f}")
assert (abs(off - jnp.array([0.0938, 0.0182, 0.0443, 0.0083])) < 4 * error).all()
assert off.argmin() == 3 and off[3] < off[2] / 2 < off[0] / 4
