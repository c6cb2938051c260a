# SPDX-License-Identifier: Apache-2.0
r"""
How strongly do levels repel each other?
========================================

Eigenvalues of random matrices form a gas: levels i and j repel each other by a factor
:math:`|x_i - x_j|^\beta` in their density. Real symmetric matrices have :math:`\beta = 1`,
Hermitian ones 2, and independent numbers 0. Here a model infers :math:`\beta` and the width of the
gas from levels alone, for weights in training and for a control (arXiv 2407.16427).
"""

import arviz as az
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
from numpyro.infer import NUTS

import bayesrg as brg
from bayesrg import dynamics, ensembles
from bayesrg.models import coulomb_gas

numpyro.enable_x64()
N, SPECTRA = 12, 60

# %%
# Two sources of levels
# ---------------------
# First, weights of a linear student after training by SGD. The teacher has equal levels; they are
# subtracted, and the rest is given in units of the width that theory predicts. Second, independent
# normal numbers.

how = {"noise": 0.02, "learning_rate": 0.05, "batch": 32}
rule, start, target = dynamics.teacher_student(2 * jnp.eye(N), **how)
W = dynamics.run(rule, start, 300, key=1, every=300, chains=SPECTRA).x[:, -1]
weights = (np.linalg.svd(W, compute_uv=False)[:, ::-1] ** 2 - 4) / target.sigma[0]
independent = np.sort(np.random.default_rng(0).standard_normal((SPECTRA, N)))

# %%
# Posterior
# ---------
# The likelihood depends on a few sums over the levels, which ``prepare`` computes once. Width and
# repulsion are correlated, so the sampler adapts to their covariance.

run = {"key": 0, "draws": 500, "warmup": 500, "chains": 2, "progress": False}
run["sampler"] = lambda model: NUTS(model, dense_mass=True)
found = {}
for name, y, beta in (("SGD", weights, 1), ("independent", independent, 0)):
    data = brg.data.Data(jnp.arange(float(SPECTRA))[:, None], jnp.asarray(y))
    dt = brg.fit(coulomb_gas.model, data, **run, **coulomb_gas.prepare(data))
    found[name] = draws = dt["posterior"].to_dataset()
    mean, sd = draws.mean(), draws.std()
    print(f"{name}: beta {mean['beta']:.3f} +- {sd['beta']:.3f}, width {mean['scale']:.3f}")
    assert abs(mean["beta"] - beta) < 4 * sd["beta"] and abs(mean["scale"] - 1) < 4 * sd["scale"]
    if name == "SGD":
        az.plot_pair(dt, var_names=["beta", "scale"], backend="matplotlib")
assert found["SGD"]["beta"].min() > 0.5 and found["independent"]["beta"].max() < 0.2

# %%
# The pairs of draws show it: more repulsion in a narrower potential spreads levels as much. If
# centre and repulsion are known, the posterior of the squared width has a closed form.

law = ensembles.scale_posterior(weights, 0.0, beta=1.0)
print("width if beta is 1:", law.mean**0.5, "+-", law.variance**0.5 / (2 * law.mean**0.5))
assert abs(law.mean - 1) < 4 * law.variance**0.5
plt.show()
