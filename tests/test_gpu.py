# SPDX-License-Identifier: Apache-2.0
"""The same numbers on a GPU as on the CPU: ``pytest -m gpu``, with a JAX that sees both."""

import jax
import numpy as np
import pytest

import bayesrg as brg
from bayesrg.models import gp_regression

pytestmark = pytest.mark.gpu


def evidence(device, data):
    with jax.default_device(device):
        data = jax.tree.map(lambda x: jax.device_put(x, device), data)
        hyper = gp_regression.prepare(data)

        def at(scale):
            fn = brg.gp.marginal(hyper["spectrum"], data.X, 0.1, scale=scale)
            root, rest = fn.split(20)
            return fn.log_prob(data.y), brg.rg.integrate_modes(root, rest, data.y).log_evidence

        return [*at(0.7), jax.grad(lambda s: at(s)[0])(0.7)]


def test_evidence_and_its_gradient():
    data = gp_regression.demo(jax.random.key(0))
    cpu = evidence(jax.devices("cpu")[0], data)
    gpu = evidence(jax.devices("gpu")[0], data)
    np.testing.assert_allclose(gpu, cpu, rtol=1e-9)
    np.testing.assert_allclose(cpu[0], cpu[1], rtol=1e-11)


def test_sampling():
    data = gp_regression.demo(jax.random.key(0))
    hyper = gp_regression.prepare(data)
    dt = brg.fit(gp_regression.model, data, key=1, draws=500, warmup=300, progress=False, **hyper)
    exact = gp_regression.exact(data, **hyper)
    assert abs(float(dt["posterior"]["amplitude"].mean()) - exact["amplitude"]) < 0.03
