# SPDX-License-Identifier: Apache-2.0
import inspect

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
        "linear network": NNGP(1, "linear"),
        "tangent": NTK(2, "leaky_relu", 1.8, 0.05),
        "tangent, residual": NTK(2, "sin", 1.2, 0.1, skip=0.6),
        "tangent, normalised": NTK(2, "relu", 1.5, 0.1, layernorm=True),
        "tangent, series": NTK(1, "tanh", 0.4, 0.05),
        "step": NNGP(2, "step", 1.2, 0.1),
        "equilibrium": DEQ("relu", 0.9, 1.0, 0.1, train="all"),
        "layers": NNGP(1, weight_var=[1.5, 0.7], bias_var=[0.1, 0.3], readout_bias=False),
        "sum": RBF(1.0) + 0.3 * Matern12(0.5),
        "product": RBF(2.0) * Linear(0.5, 0.1),
        "ARD": Matern32(jnp.array([0.5, 1.0, 2.0])),
        "columns": RBF(0.7).on([0, 2]),
        "warped": Matern52(1.0).warp(jnp.tanh),
        "number times": 2 * RationalQuadratic(1.0, alpha=0.6),
        "power": RBF(1.3) ** 3,
        "number plus": 0.3 + Linear(0.5),
    }
    return named | derived


@pytest.fixture
def X():
    """Generic rows, a repeated one, an antipodal one and a zero one."""
    X = np.random.default_rng(0).standard_normal((6, 3))
    return jnp.asarray(np.concatenate([X, X[:1], -X[1:2], np.zeros((1, 3))]))


@pytest.mark.parametrize("name", cases())
def test_gram_matrix_is_a_covariance(name, X):
    kernel = cases()[name]
    K = kernel(X)
    assert K.shape == (9, 9)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_array_equal(jnp.diagonal(K), kernel.diag(X))
    assert np.linalg.eigvalsh(K)[0] > -1e-12 * np.trace(K)
    np.testing.assert_allclose(kernel(X, X), K, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(kernel(X[:4], X[4:]), K[:4, 4:], rtol=1e-12, atol=1e-13)
    assert K[0, 6] == K[0, 0]  # equal rows, exactly


@pytest.mark.parametrize("name", cases())
def test_gradients_are_finite_and_right_at_coincident_inputs(name, X):
    kernel = cases()[name]
    leaves, structure = jax.tree.flatten(kernel)
    weights = np.random.default_rng(1).standard_normal((9, 9))
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def loss(flat):
        parts = jnp.split(jnp.asarray(flat), sizes)
        moved = [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
        return (weights * jax.tree.unflatten(structure, moved)(X)).sum()

    flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
    if flat.size:
        at_zero = jax.jit(jax.grad(loss))(jnp.asarray(flat))
        assert np.isfinite(at_zero).all()
        inside = np.where(flat == 0, 0.1, flat)  # a variance of zero can only grow
        gradient = jax.jit(jax.grad(loss))(jnp.asarray(inside))
        difference = central_difference(jax.jit(loss), inside)
        np.testing.assert_allclose(gradient, difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["RBF", "Matern32", "Matern52", "RationalQuadratic", "Linear"])
def test_gradients_in_inputs(name, X):
    kernel = cases()[name]
    weights = np.random.default_rng(1).standard_normal((9, 9))

    def loss(X):
        return (weights * kernel(X)).sum()

    np.testing.assert_allclose(
        jax.grad(loss)(X), central_difference(jax.jit(loss), X), rtol=1e-6, atol=1e-6
    )


def test_network_gradients_in_inputs_and_matern12_by_convention(X):
    distinct = X[:6]
    for kernel in (NNGP(2), NNGP(2, "erf")):

        def loss(Z, kernel=kernel):
            return kernel(Z, X[1:4]).sum()

        moved = distinct[:1] + 0.3
        np.testing.assert_allclose(
            jax.grad(loss)(moved), central_difference(loss, moved), rtol=1e-6
        )
        assert np.isfinite(jax.grad(lambda Z: kernel(Z).sum())(X)).all()  # noqa: B023
    for kernel in (NNGP(2), Linear()):  # at equal rows the derivative is the same from either side
        slopes = jax.grad(lambda x, z: kernel(x, z)[0, 0], (0, 1))(X[:1], X[:1])  # noqa: B023
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-14)
    at_itself = jax.grad(lambda x: Matern12(1.0)(x[None], X[:1])[0, 0])(X[0])
    np.testing.assert_array_equal(at_itself, 0.0)


def test_stationary_kernels_agree_with_peers(X):
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
    for ours, tiny, scikit in pairs:
        for Z in (X, jnp.asarray(wide), jnp.asarray(wide + 1000.0)):
            # 1000 away from the origin the peers' own differences keep 13 digits
            np.testing.assert_allclose(ours(Z), 1.3 * tiny(Z, Z), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(ours(Z), 1.3 * scikit(Z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((1, "relu", 2, 0.1), (0.496539, 0.704499)),
        ((3, "relu", 2, 0.1), (0.696539, 1.004950)),
        ((2, "erf", 1.5, 0.1), (0.591443, 0.445888)),
        ((2, "linear", 1.5, 0.1), (0.975409, 1.206536)),
    ],
)
def test_network_kernels_give_the_reference_numbers(arguments, expected):
    X = np.random.default_rng(0).standard_normal((3, 5))
    np.testing.assert_allclose(NNGP(*arguments)(X)[0, :2], expected, rtol=0, atol=6e-7)


def test_depth_zero_is_linear_and_one_hidden_relu_layer_is_the_arc_cosine_kernel():
    X = np.random.default_rng(0).standard_normal((4, 3))
    np.testing.assert_allclose(NNGP(0, weight_var=1.5, bias_var=0.2)(X), 0.5 * X @ X.T + 0.2)
    X *= np.sqrt(3) / np.linalg.norm(X, axis=1, keepdims=True)
    u = np.clip(X @ X.T / 3, -1, 1)
    arc = (np.sqrt(1 - u**2) + u * (np.pi - np.arccos(u))) / np.pi
    np.testing.assert_allclose(0.5 * NNGP(1)(X), arc, rtol=0, atol=1e-8)


def test_periodic_kernel_on_one_column_and_on_several(X):
    x = np.linspace(0, 3, 7)
    peer = 1.3 * sk.ExpSineSquared(0.7, 1.7)(x[:, None])
    np.testing.assert_allclose(Periodic(0.7, 1.3, 1.7)(x), peer, rtol=1e-13)
    columns = [
        Periodic(e, period=p)(X[:, i]) for i, (e, p) in enumerate([(0.7, 1), (1, 2), (2, 3)])
    ]
    every = Periodic([0.7, 1.0, 2.0], period=[1.0, 2.0, 3.0])(X)
    np.testing.assert_allclose(every, np.prod(columns, 0), rtol=1e-13)


def test_white_noise_is_a_function_of_the_input():
    x = np.array([0.0, 1.0, 2.0, 1.0])
    K = White(0.3)(x, np.array([1.0, 5.0]))
    np.testing.assert_array_equal(K, 0.3 * np.array([[0, 0], [1, 0], [0, 0], [1, 0]]))
    np.testing.assert_array_equal(White(0.3)(x[:3]), 0.3 * np.eye(3))


def test_sums_and_inputs_of_one_column():
    x = np.linspace(0, 1, 5)
    np.testing.assert_allclose((Linear() + 1.0)(x), x[:, None] * x + 1, rtol=1e-15)
    np.testing.assert_allclose((2 + Linear() ** 3)(x), (x[:, None] * x) ** 3 + 2, rtol=1e-15)
    both = sum([Linear(), RBF(1.0)])
    np.testing.assert_allclose(both.diag(x), jnp.diagonal(both(x)), rtol=1e-14)
    np.testing.assert_allclose(both(x), x[:, None] * x + RBF(1.0)(x), rtol=1e-14)


def test_float32_stays_float32_and_close():
    X = np.random.default_rng(0).standard_normal((30, 8))
    exact = NNGP(3)(X)
    with jax.enable_x64(False):
        _checks._warned.clear()
        with pytest.warns(RuntimeWarning, match="a kernel runs in 32-bit floats"):
            single = NNGP(3)(jnp.asarray(X, jnp.float32))
        NNGP(3)(jnp.asarray(X, jnp.float32))  # says so once
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, exact, rtol=2e-6)


def test_kernels_are_pytrees_that_pass_through_jit():
    X = jnp.linspace(0, 1, 4)[:, None]
    kernel = RBF(0.3) + 2.0 * NNGP(1)
    np.testing.assert_allclose(jax.jit(lambda k: k(X))(kernel), kernel(X), rtol=1e-14)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: RBF(-1.0), "lengthscale must be positive, got -1.0"),
        (lambda: RBF(1.0, np.nan), "variance contains non-finite"),
        (lambda: NNGP(-1), "depth must be an integer of at least 0, got -1"),
        (lambda: NNGP(1, "relo"), "activation must be one of 'relu'"),
        (lambda: NNGP(2, weight_var=[1.0, 2.0]), r"weight_var has shape \(2,\)"),
        (lambda: RBF(jnp.ones(2))(jnp.ones((3, 3))), r"lengthscale has shape \(2,\)"),
        (lambda: RBF(1.0)(jnp.ones((3, 3)), jnp.ones((3, 2))), "X has 3 columns and Z has 2"),
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
