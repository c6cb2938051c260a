# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from bayesrg.kernels import NNGP, critical_point, jacobian_flow
from bayesrg.kernels.critical import _follow, _moments


def test_critical_points():
    for arguments, expected, atol in (
        (("relu",), 2.0, 1e-12),
        (("erf",), np.pi / 4, 1e-12),
        (("tanh",), 1.0, 1e-12),
        (("erf", 0.05), 1.3758390073, 1e-10),
        (("tanh", 0.05), 1.7609546397, 1e-10),
    ):
        np.testing.assert_allclose(critical_point(*arguments), expected, rtol=0, atol=atol)
    flow = jacobian_flow(NNGP(1, "erf", critical_point("erf", 0.05), 0.05), 1.0, 4000)
    np.testing.assert_allclose(flow.chi[-1], 1.0, rtol=0, atol=1e-10)


def test_a_sweep_compiles_once():
    sizes = []
    for v in (0.03, 0.04):
        jacobian_flow(NNGP(1, "erf", v, 0.05), 1.2, 50)
        critical_point("erf", v)
        sizes.append((_follow._cache_size(), _moments._cache_size()))
    assert sizes[0] == sizes[1]


def test_flow_of_gradients():
    flow = jacobian_flow(NNGP(1), 1.7, 9)
    np.testing.assert_allclose(flow.K, 1.7, rtol=1e-14)
    np.testing.assert_allclose(flow.J, 1.0, rtol=1e-14)
    for weight, K, chi, length in (
        (1.2, 0.403864, 0.944752, 17.595),
        (2.5, 1.352681, 1.257177, 4.369),
    ):
        flow = jacobian_flow(NNGP(1, "erf", weight, 0.05), weight + 0.05, 600)
        np.testing.assert_allclose([flow.K[-1], flow.chi[-1]], [K, chi], rtol=0, atol=6e-7)
        found = 1 / abs(np.log(flow.chi[-1]))
        np.testing.assert_allclose(found, length, rtol=0, atol=6e-4)
    assert flow.J.shape == (601,) and flow.J[0] == 1
    eighth = jacobian_flow(NNGP(1, "erf", 1.2, 0.05), 1.25, 8).J[8]
    np.testing.assert_allclose(eighth, 0.306, rtol=0, atol=6e-4)


def test_flow_of_gradients_through_connections():
    """Relu: a layer multiplies the variance by half of ``weight_var``, as it does gradients."""
    layer = np.arange(5)
    flow = jacobian_flow(NNGP(1, "relu", 1.6, 0.3, skip=0.5), 1.7, 4)
    growth = 1 + 0.25 * 0.8
    K = 1.7 * growth**layer + 0.25 * 0.3 * (growth**layer - 1) / (growth - 1)
    np.testing.assert_allclose(flow.K, K, rtol=1e-13)
    np.testing.assert_allclose(flow.J, growth**layer, rtol=1e-13)
    network = NNGP(4, "relu", 1.6, 0.3, skip=0.5)  # its read-out is one more layer
    x = np.array([[np.sqrt((1.7 - 0.3) / 1.6)]])
    np.testing.assert_allclose(network.diag(x)[0], 0.8 * flow.K[4] + 0.3, rtol=1e-13)


@pytest.mark.parametrize(
    "activation, weight, bias, layernorm, exponent",
    [
        ("erf", np.pi / 4, 0.0, False, -1.0),
        ("tanh", 1.0, 0.0, False, -1.0),
        ("relu", 2.0, 0.0, True, 1.0),
        ("erf", 3.0, 0.5, True, 0.90207),
        ("gelu", 1.0, 0.1, True, 0.86792),
    ],
)
def test_power_laws_at_criticality(activation, weight, bias, layernorm, exponent):
    skip = 1.0 if layernorm else None
    network = NNGP(1, activation, weight, bias, layernorm=layernorm, skip=skip)
    flow = jacobian_flow(network, weight + bias, 20_000)
    layers = np.arange(2000, 20_001)
    slope = np.polyfit(np.log(layers), np.log(flow.J[2000:]), 1)[0]
    np.testing.assert_allclose(slope, exponent, rtol=0, atol=2e-3)
    if not layernorm:
        np.testing.assert_allclose(flow.K[-1] * 20_000, 0.5, rtol=2e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: critical_point("relu", 0.1), r"no critical sigma_w\^2 in \[0.01, 100"),
        (lambda: jacobian_flow(NNGP(1, weight_var=[1, 2]), 1.0, 3), "all layers must be alike"),
        (lambda: jacobian_flow(NNGP(1, "step"), 1.0, 3), "step has no derivative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
