# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf
from oracles import within

from bayesrg._callables import hold
from bayesrg.kernels import (
    NNGP,
    NTK,
    empirical,
    empirical_apjn,
    empirical_nngp,
    empirical_ntk,
    jacobian_flow,
    relative_distance,
)
from bayesrg.kernels.empirical import _ntk

WEIGHT, BIAS = 1.5, 0.1


def initial(seed, widths):
    """Standard normal parameters: (weights, biases) a layer."""
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((b, a)), rng.standard_normal(b))
        for a, b in zip(widths[:-1], widths[1:], strict=True)
    ]


def layers(params, h, start, stop, activation=erf, weight=WEIGHT, bias=BIAS):
    """Pre-activations of layer ``stop`` from those of layer ``start``; layer 0 is the input."""
    for level in range(start, stop):
        W, b = params[level]
        f = h if level == 0 else activation(h)
        h = jnp.sqrt(weight / W.shape[1]) * f @ W.T + jnp.sqrt(bias) * b
    return h


def network(params, X):
    return layers(params, X, 0, len(params))


@pytest.fixture
def X():
    return np.random.default_rng(0).standard_normal((7, 3))


rows_of = jax.jit(jax.jacrev(network))


def jacobian(params, X):
    rows = rows_of(params, X)
    return np.concatenate([np.asarray(v).reshape(len(X), 2, -1) for v in jax.tree.leaves(rows)], -1)


@pytest.mark.parametrize("block_bytes", [pytest.param(1, marks=pytest.mark.slow), 2**26])
def test_tangent_kernel_is_that_of_the_whole_jacobian(X, block_bytes):
    params = initial(0, (3, 6, 5, 2))
    J = jacobian(params, X)
    K = empirical_ntk(network, params, X, block_bytes=block_bytes)
    np.testing.assert_allclose(K, np.einsum("icp,jcp->ij", J, J) / 2, rtol=1e-12)
    np.testing.assert_array_equal(K, K.T)
    if block_bytes > 1:
        cross = empirical_ntk(network, params, X[:2], X[2:])
        np.testing.assert_allclose(cross, np.asarray(K)[:2, 2:], rtol=1e-12)
        f = np.asarray(jax.jit(network)(params, X))
        np.testing.assert_allclose(empirical_nngp(network, params, X), f @ f.T / 2, rtol=1e-13)
        np.testing.assert_allclose(empirical_nngp(network, params, X, X[:1]), f @ f[:1].T / 2)


@pytest.mark.parametrize("block_bytes", [1000, pytest.param(2**26, marks=pytest.mark.slow)])
def test_the_kernel_of_every_pair_of_outputs(X, block_bytes):
    params = initial(0, (3, 6, 5, 2))
    J = jacobian(params, X)
    K = np.asarray(empirical_ntk(network, params, X, outputs="full", block_bytes=block_bytes))
    np.testing.assert_allclose(K, np.einsum("iap,jbp->ijab", J, J), rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(K, K.transpose(1, 0, 3, 2))
    cross = empirical_ntk(network, params, X[:3], X[2:], outputs="full", block_bytes=block_bytes)
    np.testing.assert_allclose(cross, K[:3, 2:], rtol=1e-11, atol=1e-13)


def normalised(params, X, statistics=None):
    """One layer with batch normalisation; in training mode without statistics."""
    h = X @ params
    mean, variance = (h.mean(0), h.var(0)) if statistics is None else statistics
    return jnp.tanh((h - mean) / jnp.sqrt(variance + 1e-3))


@pytest.mark.parametrize("equal", [False, True])
def test_a_function_that_mixes_rows_is_refused(X, equal):
    """Also where all rows are equal, and not in inference mode nor on what is traced."""
    X, W = X[:1].repeat(7, 0) if equal else X, np.ones((3, 2)) * [1.0, -0.5]
    for call in (
        lambda f: empirical_ntk(f, W, X),
        lambda f: empirical_ntk(f, W, X, X + 1.0, outputs="full"),
        lambda f: empirical_nngp(f, W, X),
        lambda f: empirical_apjn(lambda p, h, i, j: f(p, h) if j else h, W, X, 0, 1, key=0),
    ):
        with pytest.raises(ValueError, match="apply mixes rows: outputs of size .* inference mode"):
            call(normalised)
    K = empirical_nngp(lambda p, x: normalised(p, x, (0.1, 2.0)), W, X)
    assert np.isfinite(K).all()
    assert jax.jit(lambda X: empirical_nngp(normalised, W, X))(X).shape == (len(X), len(X))


def test_one_output(X):
    params = initial(0, (3, 40, 40, 1))
    single = empirical_ntk(lambda p, X: network(p, X)[:, 0], params, X)
    np.testing.assert_allclose(single, empirical_ntk(network, params, X), rtol=1e-12)


@pytest.mark.slow
def test_no_jacobian_of_all_rows():
    params = initial(0, (3, 40, 40, 1))
    many = np.zeros((300, 3))
    size = sum(v.size for v in jax.tree.leaves(params))
    memory = _ntk.lower(hold(network), params, many, None, 10).compile().memory_analysis()
    whole = 8 * 300 * size
    assert memory.temp_size_in_bytes < whole / 3


def test_jacobians_of_a_tile_fit_the_budget(X, monkeypatch):
    """Those of rows and of columns, and one copy."""
    params = initial(0, (3, 6, 2))
    row = 8 * 2 * sum(v.size for v in jax.tree.leaves(params))
    monkeypatch.setattr(
        empirical, "_ntk", lambda *arguments: (jnp.full((7, 7), 1.0 * arguments[-1]), jnp.zeros(2))
    )
    for size, block_bytes in ((1, 1), (10, 30 * row), (10, 33 * row - 1)):
        assert empirical_ntk(network, params, X, block_bytes=block_bytes)[0, 0] == size


@pytest.mark.slow
def test_wide_networks_approach_the_infinite_ones(X):
    """At the rate of a standard deviation: a root of the width."""
    theory = NTK(2, "erf", WEIGHT, BIAS)(X)
    distances = []
    for width in (32, 512):
        params = [initial(s, (3, width, width, 1)) for s in range(16)]
        kernels = [empirical_ntk(network, p, X) for p in params]
        distances.append(np.mean([relative_distance(K, theory) for K in kernels]))
    assert distances[1] < 0.12 and 2.5 < distances[0] / distances[1] < 6.5
    # covariance: many outputs of one wide network
    params = initial(3, (3, 400, 400, 4000))
    K = empirical_nngp(network, params, X)
    assert relative_distance(K, NNGP(2, "erf", WEIGHT, BIAS)(X)) < 0.15


def test_distance():
    K, reference = np.diag([3.0, 1.0]), np.diag([1.0, 1.0])
    np.testing.assert_allclose(relative_distance(K, reference), np.sqrt(2))


def test_partial_jacobians_are_those_of_the_whole_one(X):
    params = initial(0, (3, 6, 5, 4))

    @jax.jit
    def found():
        dense = jax.vmap(jax.jacrev(lambda h: layers(params, h, 1, 3)))(layers(params, X, 0, 1))
        keys = jax.random.split(jax.random.key(1), 400)
        return dense, jax.lax.map(
            lambda k: empirical_apjn(layers, params, X, 1, 3, key=k, probes=2), keys
        )

    dense, ones = (np.asarray(v) for v in found())
    exact = (dense**2).sum((1, 2)) / 4
    assert within(ones.mean(0), exact, ones.std(0) / 20)
    same = empirical_apjn(layers, params, X, 2, 2, key=0, probes=3)
    np.testing.assert_allclose(same, 1.0, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name, weight, bias", [("relu", 2.0, 0.0), ("erf", 1.2, 0.05)])
def test_partial_jacobians_follow_the_theory(name, weight, bias):
    function = {"relu": jax.nn.relu, "erf": erf}[name]
    x = np.random.default_rng(0).standard_normal((1, 400))
    x *= np.sqrt(400) / np.linalg.norm(x)

    def apply(params, h, start, stop):
        return layers(params, h, start, stop, function, weight, bias)

    def one(key):
        keys = jax.random.split(key, 9)
        params = [
            (jax.random.normal(k, (400, 400)), jax.random.normal(jax.random.fold_in(k, 1), (400,)))
            for k in keys
        ]
        return empirical_apjn(apply, params, x, 1, 9, key=jax.random.fold_in(key, 9))[0]

    found = np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(2), 20)))
    expected = jacobian_flow(NNGP(1, name, weight, bias), weight + bias, 8).J[8]
    assert within(found.mean(), expected, found.std(ddof=1) / np.sqrt(20))
    assert found.std(ddof=1) < 0.3 * expected


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda X: empirical_nngp(lambda p, X: X.sum(), {}, X),
            r"apply returned shape \(\) for inputs of shape \(7, 3\)",
        ),
        (lambda X: relative_distance(X, X[:2]), r"K has shape \(7, 3\); give \(2, 3\), the"),
        (
            lambda X: empirical_apjn(layers, [], X, 2, 1, key=jax.random.key(0)),
            "start is 2 and stop is 1; give 0 <= start <= stop",
        ),
        (
            lambda X: empirical_apjn(lambda p, h, i, j: h[:, 0] if j else h, {}, X, 0, 1, key=0),
            r"apply returned shape \(7,\) for inputs of shape \(7, 3\); return \(n, N_stop\)",
        ),
        (
            lambda X: empirical_ntk(network, [], X[:, :2], X),
            "X has 2 columns and Z 3; give both the same features",
        ),
        (
            lambda X: empirical_ntk(lambda p, X: X @ p["w"], {"w": np.arange(3)}, X),
            r"params\['w'\] is not an array of floating-point numbers; give",
        ),
        (
            lambda X: empirical_ntk(lambda p, X: X[:, 0], {"act": jax.nn.relu}, X),
            r"params\['act'\] is not an array of floating-point numbers",
        ),
        (lambda X: empirical_ntk(lambda p, X: X[:, 0], {}, X), "params has no arrays"),
    ],
)
def test_bad_input_is_named(X, call, message):
    with pytest.raises(ValueError, match=message):
        call(X)
