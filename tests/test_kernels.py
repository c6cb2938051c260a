# SPDX-License-Identifier: Apache-2.0
import inspect
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.gaussian_process.kernels as sk
import tinygp
from oracles import central_difference

from bayesrg import _checks, kernels
from bayesrg.kernels import (
    DEQ,
    NNGP,
    NTK,
    RBF,
    Kernel,
    Linear,
    Matern12,
    Matern32,
    Matern52,
    Periodic,
    RationalQuadratic,
    White,
)

CLASSES = [c for c in (getattr(kernels, n) for n in kernels.__all__) if inspect.isclass(c)]
NAMED = [c for c in CLASSES if issubclass(c, Kernel) and not inspect.isabstract(c)]
FIRST = {"NNGP": 2, "NTK": 2}


def make(cls):
    """Every public kernel, with its first argument where it needs one."""
    parameters = list(inspect.signature(cls).parameters.values())
    needs = parameters[0].default is inspect.Parameter.empty
    return cls(FIRST.get(cls.__name__, 0.8)) if needs else cls()


def cases():
    named = {cls.__name__: make(cls) for cls in NAMED}
    derived = {
        "erf": NNGP(2, "erf", 1.5, 0.1),
        "linear network": NNGP(2, "linear"),
        "tangent": NTK(2, "leaky_relu", 1.8, 0.05),
        "tangent, residual": NTK(1, "sin", 1.2, 0.1, skip=0.6),
        "tangent, normalised": NTK(2, "relu", 1.5, 0.1, layernorm=True),
        "tangent, series": NTK(1, "tanh", 0.4, 0.05),
        "step": NNGP(2, "step", 1.2, 0.1),
        "equilibrium": DEQ("relu", 0.9, 1.0, 0.1, train="all"),
        "layers": NNGP(1, weight_var=[1.5, 0.7], bias_var=[0.1, 0.3], readout_bias=False),
        "sum": RBF(1.0) + 0.3 * Matern12(0.5),
        "product": RBF(2.0) * Linear(0.5, 0.1),
        "ARD": Matern32(np.array([0.5, 1.0, 2.0, 0.7, 1.5])),
        "columns": RBF(0.7).on([0, 2]),
        "warped": Matern52(1.0).warp(jnp.tanh),
        "number times": 2 * RationalQuadratic(1.0, alpha=0.6),
        "power": RBF(1.3) ** 3,
        "number plus": 0.3 + Linear(0.5),
    }
    return named | derived


# Generic rows, a repeated one, an antipodal one and a zero one.
GENERIC = np.random.default_rng(0).standard_normal((6, 5))
X = np.concatenate([GENERIC, GENERIC[:1], -GENERIC[1:2], np.zeros((1, 5))])
WEIGHTS = np.random.default_rng(1).standard_normal((9, 9))

CASES = cases()


def compiled(function):
    """Compile once for every structure of a kernel; without weak types, which compile again."""
    run = jax.jit(function)
    return lambda kernel, *inputs: run(jax.tree.map(np.asarray, kernel), *inputs)


gram = compiled(lambda kernel, *inputs: kernel(*inputs))


@compiled
def everything(kernel, X):
    """Loss of the Gram matrix, its gradients, and Gram matrices that must agree."""

    def loss(kernel, X):
        K = kernel(X)
        return (WEIGHTS * K).sum(), K

    (value, K), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(kernel, X)
    return value, gradients, K, kernel.diag(X), kernel(X, X), kernel(X[:4], X)


@cache
def at_X(name):
    return jax.tree.map(np.asarray, everything(CASES[name], X))


# One of each kind: layers, a fixed point, a kink, a sine, equality of rows, and what derives them.
KINDS = "NTK", "DEQ", "Matern12", "Periodic", "White", "product", "columns"
NAMES = [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", NAMES)
def test_gram_matrix_is_a_covariance(name):
    _, _, K, diagonal, crossed, part = at_X(name)
    assert K.shape == (9, 9)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(np.diagonal(K), diagonal)
    assert np.linalg.eigvalsh(K)[0] > -1e-12 * np.trace(K)
    np.testing.assert_allclose(crossed, K, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(part, K[:4], rtol=1e-12, atol=1e-13)
    assert K[0, 6] == K[0, 0]  # equal rows, exactly


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_right_at_coincident_inputs(name):
    leaves, structure = jax.tree.flatten(CASES[name])
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def moved(flat):
        parts = zip(np.split(flat, sizes), leaves, strict=True)
        return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in parts])

    flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
    if flat.size:
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(at_X(name)[1][0]))
        inside = np.where(flat == 0, 0.1, flat)  # a variance of zero can only grow
        slopes = jax.tree.leaves(everything(moved(inside), X)[1][0])
        difference = central_difference(lambda flat: everything(moved(flat), X)[0], inside)
        gradient = np.concatenate([np.ravel(g) for g in slopes])
        np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["RBF", "Matern32", "Matern52", "RationalQuadratic", "Linear"])
def test_gradients_in_inputs(name):
    difference = central_difference(lambda X: everything(CASES[name], X)[0], X)
    np.testing.assert_allclose(at_X(name)[1][1], difference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ["relu", pytest.param("erf", marks=pytest.mark.slow)])
def test_network_gradients_in_inputs(activation):
    slopes = compiled(jax.value_and_grad(lambda kernel, Z: kernel(Z, X[1:4]).sum(), 1))
    moved, kernel = X[:1] + 0.3, NNGP(2, activation)
    difference = central_difference(lambda Z: slopes(kernel, Z)[0], moved)
    np.testing.assert_allclose(slopes(kernel, moved)[1], difference, rtol=1e-6)
    assert np.isfinite(everything(kernel, X)[1][1]).all()


def test_gradients_at_equal_rows_by_convention():
    both = compiled(jax.grad(lambda kernel, x, z: kernel(x, z)[0, 0], (1, 2)))
    for kernel in (NNGP(2), Linear()):  # at equal rows the derivative is the same from either side
        np.testing.assert_allclose(*both(kernel, X[:1], X[:1]), rtol=1e-14)
    np.testing.assert_array_equal(both(Matern12(1.0), X[:1], X[:1])[0], 0.0)


def test_stationary_kernels_agree_with_peers():
    metric = tinygp.kernels.distance.L2Distance()
    pairs = [
        (RBF(0.7, 1.3), tinygp.kernels.ExpSquared(0.7), sk.RBF(0.7)),
        (Matern12(0.7, 1.3), tinygp.kernels.Exp(0.7, metric), sk.Matern(0.7, nu=0.5)),
        (Matern32(0.7, 1.3), tinygp.kernels.Matern32(0.7, metric), sk.Matern(0.7, nu=1.5)),
        (Matern52(0.7, 1.3), tinygp.kernels.Matern52(0.7, metric), sk.Matern(0.7, nu=2.5)),
        (
            RationalQuadratic(0.7, 1.3, 0.6),
            tinygp.kernels.RationalQuadratic(0.7, metric, alpha=0.6),
            sk.RationalQuadratic(0.7, 0.6),
        ),
    ]
    wide = np.random.default_rng(3).standard_normal((7, 40))
    every = jax.jit(lambda Z: [(ours(Z), 1.3 * tiny(Z, Z)) for ours, tiny, _ in pairs])
    for Z in (X, wide, wide + 1000.0):
        # 1000 away from the origin the peers' own differences keep 13 digits
        for (K, tiny), (*_, scikit) in zip(every(Z), pairs, strict=True):
            np.testing.assert_allclose(K, tiny, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(K, 1.3 * scikit(Z), rtol=1e-9, atol=1e-9)


def test_depth_zero_is_linear_and_one_hidden_relu_layer_is_the_arc_cosine_kernel():
    X = np.random.default_rng(0).standard_normal((9, 5))
    K = gram(NNGP(0, weight_var=1.5, bias_var=0.2), X)
    np.testing.assert_allclose(K, 0.3 * X @ X.T + 0.2)
    K = gram(NNGP(1, "relu", 2.0, 0.1), X)
    np.testing.assert_allclose(K[0, :2], [0.496539, 0.704499], rtol=0, atol=6e-7)
    X *= np.sqrt(5) / np.linalg.norm(X, axis=1, keepdims=True)
    u = np.clip(X @ X.T / 5, -1, 1)
    arc = (np.sqrt(1 - u**2) + u * (np.pi - np.arccos(u))) / np.pi
    np.testing.assert_allclose(0.5 * gram(NNGP(1), X), arc, rtol=0, atol=1e-8)


def test_periodic_kernel_on_one_column_and_on_several():
    x = np.linspace(0, 3, 9)
    peer = 1.3 * sk.ExpSineSquared(0.7, 1.7)(x[:, None])
    np.testing.assert_allclose(gram(Periodic(0.7, 1.3, 1.7), x), peer, rtol=1e-13)
    lengths, periods = np.array([[0.7, 1.0, 2.0, 1.0, 0.5], [1.0, 2.0, 3.0, 1.5, 1.0]])
    columns = [gram(Periodic(lengths[i], period=periods[i]), X[:, i]) for i in range(5)]
    every = gram(Periodic(lengths, period=periods), X)
    np.testing.assert_allclose(every, np.prod(columns, 0), rtol=1e-13)


def test_white_noise_is_a_function_of_the_input():
    x = np.array([0.0, 1.0, 2.0, 1.0])
    K = gram(White(0.3), x, np.array([1.0, 5.0]))
    np.testing.assert_array_equal(K, 0.3 * np.array([[0, 0], [1, 0], [0, 0], [1, 0]]))
    np.testing.assert_array_equal(gram(White(0.3), x[:3]), 0.3 * np.eye(3))


def test_sums_and_inputs_of_one_column():
    x = np.linspace(0, 1, 9)
    line = x[:, None] * x
    np.testing.assert_allclose(gram(Linear() + 1.0, x), line + 1, rtol=1e-15)
    np.testing.assert_allclose(gram(2 + Linear() ** 3, x), line**3 + 2, rtol=1e-15)
    both = sum([Linear(), RBF(1.0)])
    K, diagonal = jax.jit(lambda x: (both(x), both.diag(x)))(x)
    np.testing.assert_allclose(diagonal, np.diagonal(K), rtol=1e-14)
    np.testing.assert_allclose(K, line + gram(RBF(1.0), x), rtol=1e-14)


def test_float32_stays_float32_and_close():
    X = np.random.default_rng(0).standard_normal((9, 5))
    exact = gram(NNGP(3), X)
    with jax.enable_x64(False):
        _checks._warned.clear()
        with pytest.warns(RuntimeWarning, match="a kernel runs in 32-bit floats"):
            single = NNGP(3)(jnp.asarray(X, jnp.float32))
        NNGP(3)(jnp.asarray(X, jnp.float32))  # says so once
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, exact, rtol=2e-6)


def test_kernels_are_pytrees_that_pass_through_jit():
    kernel = RBF(0.3) + 2.0 * Linear()
    np.testing.assert_allclose(gram(kernel, X), kernel(X), rtol=1e-14)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RBF(-1.0), "lengthscale must be positive, got -1.0"),
        (lambda: RBF(1.0, np.nan), "variance contains non-finite"),
        (lambda: NNGP(-1), "depth must be an integer of at least 0, got -1"),
        (lambda: NNGP(1, "relo"), "activation must be one of 'relu'"),
        (lambda: NNGP(2, weight_var=[1.0, 2.0]), r"weight_var has shape \(2,\)"),
        (lambda: RBF(jnp.ones(2))(jnp.ones((3, 3))), r"lengthscale has shape \(2,\)"),
        (lambda: RBF(1.0)(jnp.ones((3, 3)), jnp.ones((3, 2))), "X has 3 columns and Z 2"),
        (lambda: RBF(1.0)(jnp.full((3, 3), jnp.nan)), "X contains non-finite values"),
        (lambda: RBF(1.0).on([]), "columns is empty"),
        (lambda: RBF(1.0).on([False, True]), "columns must be integer indices"),
        (lambda: RBF(1.0).on([3])(jnp.ones((2, 3))), "out of range"),
        (lambda: -1.0 * RBF(1.0), "factor must be non-negative"),
        (lambda: RBF(1.0) + -1.0, "the other term must be non-negative"),
        (lambda: RBF(1.0) ** 0.5, "exponent must be a positive integer, got 0.5"),
        (lambda: Periodic(1.0, period=[1.0, 2.0])(jnp.ones((3, 3))), r"period has shape \(2,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
