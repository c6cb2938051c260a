# SPDX-License-Identifier: Apache-2.0
"""
Is my chain hotter than the posterior?
======================================

Stochastic gradient descent (SGD) at a constant learning rate wanders around a solution, and so does
Langevin dynamics (SGLD), which adds noise. Are the weights spread as under the posterior? Their
*temperature* tells: 1 for the posterior, less if the chain is too narrow. It can be read off the
levels, the eigenvalues of :math:`W^TW`, without looking at single weights.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

import bayesrg as brg
from bayesrg import dynamics
from bayesrg.diagnostics import weights

numpyro.enable_x64()
N_DATA, N, NOISE, BATCH = 256, 3, 0.5, 16
rng = np.random.default_rng(0)

# %%
# A regression whose posterior is known
# -------------------------------------
# Linear regression with three inputs and three outputs. The inputs are whitened, so with a flat
# prior the posterior of the weights is normal around least squares, with variance noise^2 / n.

X = rng.standard_normal((N_DATA, N))
X = X @ np.linalg.inv(np.linalg.cholesky(X.T @ X / N_DATA)).T
y = 2 * X + NOISE * rng.standard_normal((N_DATA, N))
solution = y.T @ X / N_DATA
shape = (1, 2000, N, N)
posterior = solution + NOISE / np.sqrt(N_DATA) * rng.standard_normal(shape)


def loss(W, X, y):
    """Return half the mean squared error."""
    return ((y - X @ W.T) ** 2).sum(-1).mean() / 2


def model(X, y=None):
    """Sample weights with a wide prior and observe the targets."""
    W = numpyro.sample("W", dist.Normal(0.0, 100.0).expand((N, N)).to_event(2))
    numpyro.sample("y", dist.Normal(X @ W.T, NOISE).to_event(2), obs=y)


# %%
# Chains
# ------
# Numbers are learning rates. SGD with small steps is too cold. At 2 batch / n, here 1/8, it is as
# hot as the posterior. SGLD adds the noise of the posterior; that of its batches makes it too hot,
# unless steps are small. NUTS is right. Theory agrees; it needs the variance of the gradients
# over samples, which is measured at the solution.

residual = X @ solution.T - y
gradients = residual[:, :, None] * X[:, None, :]
found, settings = {}, ((0.02, 0), (0.05, 0), (0.125, 0), (0.01, 1), (0.05, 1))
for rate, langevin in settings:
    gradient = dynamics.minibatch(loss, X, y, batch=BATCH)
    added = langevin * NOISE**2 / N_DATA
    rule = dynamics.sgld(gradient, learning_rate=rate, temperature=added)
    run = dynamics.run(rule, jnp.asarray(solution), 4000, key=0, every=100, chains=40)
    W = brg.io.trajectory(run, burn_in=500)["posterior"]["x"].to_numpy()
    how = {"learning_rate": rate, "batch": BATCH, "langevin": langevin}
    how["curvature"] = 1 + (N + 1) / BATCH
    name = f"{'SGLD' if langevin else 'SGD'} {rate}"
    measured = weights.spectral_temperature(W, posterior, at=solution)
    found[name] = (*measured, weights.effective_temperature(gradients, NOISE**2, **how))
how = {"key": 0, "draws": 1000, "warmup": 500, "progress": False}
W = brg.fit(model, (X, y), **how)["posterior"]["W"].to_numpy()
found["NUTS"] = (*weights.spectral_temperature(W, posterior, at=solution), 1.0)

for name, (temperature, error, expected) in found.items():
    print(f"{name:9s} {temperature:.3f} +- {error:.3f}, expected {expected:.3f}")
    assert abs(temperature - expected) < 4 * error + 0.02 * expected
names = {"temperature": 0, "error": 1, "expected": 2}
values = np.array(list(found.values()))
group = xr.Dataset(
    {n: ("sampler", values[:, i]) for n, i in names.items()}, {"sampler": list(found)}
)
brg.plots.plot_spectral_temperature(brg.io.label(spectral_temperature=group), backend="matplotlib")
plt.show()
