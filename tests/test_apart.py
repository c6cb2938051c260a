# SPDX-License-Identifier: Apache-2.0
"""Cut models, whose low modes stay apart from their weights, against the dense distribution."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density

from bayesrg import gp, rg

rng = np.random.default_rng(0)
N, K, CUT = 30, 6, 2
F, Y, BY_POINT = rng.standard_normal((N, K)), rng.standard_normal(N), rng.uniform(0.5, 2, N)
VALUES = (1.0 + np.arange(K)) ** -2
PLACE = {"scale": 1.3, "ridge": 1e-3, "y_modes": rng.standard_normal(CUT)}


def model(F, noise):
    scale, ridge = (numpyro.sample(name, dist.LogNormal()) for name in ("scale", "ridge"))
    law = gp.MercerNormal(F, VALUES, ridge * noise, scale=scale, loc=0.3)
    numpyro.sample("y", law, obs=Y)


def dense(place, F, noise):
    A = F * jnp.sqrt(place["scale"] * VALUES)
    C = A[:, CUT:] @ A[:, CUT:].T + jnp.diag(jnp.broadcast_to(place["ridge"] * noise, N))
    law = dist.MultivariateNormal(0.3 + A[:, :CUT] @ place["y_modes"], C)
    prior = dist.LogNormal().log_prob(place["scale"]) + dist.LogNormal().log_prob(place["ridge"])
    return law.log_prob(Y) + prior + dist.Normal().log_prob(place["y_modes"]).sum()


def cut(place, F, noise):
    return log_density(rg.coarsen(model, y=rg.Coarse(CUT)), (F, noise), {}, place)[0]


@pytest.mark.parametrize("noise", [1.0, BY_POINT], ids=["constant", "by point"])
@pytest.mark.parametrize("moved", [0, (0, 1)], ids=["", "functions of the modes move"])
def test_cut_density_and_gradients(noise, moved):
    def both(*args):
        return [jax.value_and_grad(f, moved)(*args) for f in (cut, dense)]

    found, right = jax.jit(both)(PLACE, F, noise)
    np.testing.assert_allclose(found[0], right[0], rtol=1e-10)
    for slope, expected in zip(*map(jax.tree.leaves, (found[1], right[1])), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@pytest.mark.slow
def test_second_derivatives():
    def both(place):
        return [jax.hessian(f)(place, F, 1.0) for f in (cut, dense)]

    for found, right in zip(*map(jax.tree.leaves, jax.jit(both)(PLACE)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-7, atol=1e-7 * np.abs(right).max())


def test_nothing_linear_in_the_points_depends_on_the_modes():
    def changes(noise):
        """Derivative of the log density as a linear program, of which nothing is compiled."""
        found = []

        def record(place):
            move = jax.linearize(lambda place: cut(place, F, noise), place)[1]
            found.append(str(jax.make_jaxpr(move)(place)))

        jax.eval_shape(record, PLACE)
        return found[0]

    results = re.compile(rf":f64\[(\d+,)*{N}(,\d+)*\]\S* = ")
    assert results.search(changes(BY_POINT))
    assert not results.search(changes(1.0))
