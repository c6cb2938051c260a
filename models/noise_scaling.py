# SPDX-License-Identifier: Apache-2.0
"""How the width of weight spectra follows learning rate over batch size, with an effect per run.

intercept ~ Normal(0, 5)
exponent  ~ Normal(1, 0.5)        of learning rate / batch size; 1 is the linear scaling rule
power     ~ Normal(1, 0.5)        of the noise amplitude; 1 unless amplitudes differ
between   ~ HalfNormal(0.1)       standard deviation between runs, in log theta
log theta_r = intercept + exponent log(alpha_r / B_r) + power log A_r + between z_r
y_r | theta_r ~ Gamma(m_r, 1 / theta_r)

y_r is half the sum of m_r squared spacings of pairs of levels, theta_r = 2 sigma_r^2 with the width
sigma_r of run r, and z_r ~ Normal(0, 1). Without ``between``, spacings of one run that share data
would make errors many times too small. arXiv 2407.16427.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesrg as brg


def model(X, y=None, *, spacings=1000.0, vary_power=True, vary_runs=True):
    """Sample the exponents and the effects of runs, and observe half sums of squared spacings.

    Parameters
    ----------
    X : (r, 2)
        Learning rate over batch size, and noise amplitude, for each run; both positive.
    y : (r,), optional
    spacings : () or (r,)
        Number m_r of spacings, or their effective number if they are correlated.
    vary_power : bool
        False where all amplitudes are equal: its exponent is then 1.
    vary_runs : bool
        False leaves out the effect of runs, for comparison.
    """
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    exponent = numpyro.sample("exponent", dist.Normal(1.0, 0.5))
    power = numpyro.sample("power", dist.Normal(1.0, 0.5)) if vary_power else 1.0
    between = numpyro.sample("between", dist.HalfNormal(0.1)) if vary_runs else 0.0

    with numpyro.plate("run", len(X)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0)) if vary_runs else 0.0
        log_theta = intercept + jnp.log(X) @ jnp.stack([exponent, power]) + between * z
        numpyro.sample("y", dist.Gamma(spacings, jnp.exp(-log_theta)), obs=y)


def demo(key):
    """Return 24 runs of the linear scaling rule with an effect of 0.1 between runs, and 24 more."""
    effects, noise = jax.random.split(key)
    X = jnp.stack([jnp.geomspace(1e-3, 0.1, 24), jnp.tile(jnp.array([0.25, 1.0, 4.0]), 8)], 1)
    theta = 4.0 * X.prod(1) * jnp.exp(0.1 * jax.random.normal(effects, (2, 24)))
    y = theta * jax.random.gamma(noise, 1000.0, (2, 24))
    return brg.data.Data(X, y[0], X, y[1])
