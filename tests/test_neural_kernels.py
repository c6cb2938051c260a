# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference

from bayesrg import _checks
from bayesrg._activations import ACTIVATIONS, Activation, Series, dual_of, gaussian_product, resolve
from bayesrg.kernels import DEQ, NNGP, NTK
from bayesrg.kernels.network import _gram

ROWS = np.random.default_rng(0).standard_normal((3, 5))


@pytest.mark.parametrize(
    "activation, depth, weight, bias, keywords, expected",
    [
        ("relu", 1, 2, 0.1, {}, (0.496539, 0.704499, 0.893077, 1.079395)),
        ("relu", 3, 2, 0.1, {}, (0.696539, 1.004950, 2.186155, 2.278762)),
        ("leaky_relu", 2, 1.8, 0.05, {}, (0.374422, 0.544616, 0.976465, 1.191390)),
        ("erf", 2, 1.5, 0.1, {}, (0.591443, 0.445888, 1.584781, 1.093887)),
        ("tanh", 2, 1.5, 0.1, {"order": 100}, (0.464005, 0.374886, 1.158684, 0.872902)),
        ("sin", 2, 1.5, 0.1, {}, (0.548968, 0.390321, 1.416195, 0.924005)),
        ("linear", 2, 1.5, 0.1, {}, (0.975409, 1.206536, 2.576227, 3.269607)),
        ("abs", 2, 1.5, 0.1, {}, (0.975409, 1.580385, 2.576227, 2.535504)),
        ("cos", 2, 1.5, 0.1, {}, (0.912360, 0.767316, 1.846509, 1.126304)),
        ("gelu", 2, 1.5, 0.1, {}, (0.236618, 0.301074, 0.480215, 0.594164)),
        ("relu", 3, 1.5, 0.1, {"skip": 0.5}, (0.572370, 0.794634, 1.248406, 1.386874)),
        (
            "tanh", 3, 1.5, 0.1, {"skip": 0.5, "order": 160},
            (0.586581, 0.449545, 1.419723, 0.951771),
        ),
        ("relu", 2, 1.5, 0.1, {"layernorm": True}, (0.85, 0.671946, 2.261765, 1.289392)),
        ("relu", 3, 2, 0.1, {"train_bias": False}, (0.696539, 1.004950, 1.786155, 2.005199)),
        (
            "relu", 3, 2, 0.1, {"train_bias": False, "readout_bias": False},
            (0.596539, 0.904950, 1.786155, 2.005199),
        ),
        ("relu", 3, 2, 0.1, {"readout_bias": False}, (0.596539, 0.904950, 2.086155, 2.178762)),
    ],
)  # fmt: skip
def test_reference_numbers(activation, depth, weight, bias, keywords, expected):
    kernel = NTK(depth, activation, weight, bias, **keywords)
    K, theta = kernel.both(ROWS)
    np.testing.assert_allclose([*K[0, :2], *theta[0, :2]], expected, rtol=0, atol=6e-7)
    np.testing.assert_allclose(jnp.diagonal(theta), kernel.diag(ROWS), rtol=1e-14)


def test_step_and_depth_zero():
    K = NNGP(2, "step", 1.5, 0.1)(ROWS)
    np.testing.assert_allclose(K[0, :2], [0.85, 0.673960], rtol=0, atol=6e-7)
    for kernel in (NTK(0, "relu", 1.5, 0.2), NNGP(0, "relu", 1.5, 0.2)):
        np.testing.assert_allclose(kernel(ROWS), 0.3 * ROWS @ ROWS.T + 0.2, rtol=1e-13)


def test_training_the_readout_alone_gives_the_covariance():
    arguments = 2, "erf", [1.5, 1.0, 0.7], [0.1, 0.2, 0.3]
    K = NNGP(*arguments)(ROWS)
    np.testing.assert_array_equal(NTK(*arguments, train="last")(ROWS), K)
    weights = NTK(*arguments, train="last", train_bias=False)(ROWS)
    np.testing.assert_allclose(weights, K - 0.3, rtol=1e-14)


@pytest.mark.parametrize("name", [n for n, e in ACTIVATIONS.items() if e.dual is not None])
def test_closed_forms_are_gaussian_integrals_and_slopes_their_derivatives(name):
    dual, entry = dual_of(name), resolve(name)
    a, b, c = (jnp.asarray(v) for v in (1.5, 0.8, 0.6))
    zero = jnp.zeros(())
    V = gaussian_product(entry, entry, a, b, c, zero, zero)
    np.testing.assert_allclose(dual.covariance(a, b, c), V, rtol=1e-10)
    same = gaussian_product(entry, entry, a, a, a, zero, zero)
    np.testing.assert_allclose(dual.diagonal(a), same, rtol=1e-7)
    if dual.slope is None:
        return
    for sign in (1, -1):  # Price's theorem, and the whole gradient by differences
        point = np.array([1.5, 0.8, sign * 0.6])
        gradient = jax.grad(lambda v: dual.covariance(*v))(jnp.asarray(point))
        np.testing.assert_allclose(gradient[2], dual.slope(*point), rtol=1e-12)
        for function in (dual.covariance, dual.slope):
            slope = jax.grad(lambda v, f=function: f(*v))(jnp.asarray(point))
            numeric = central_difference(lambda v, f=function: f(*v), point)
            np.testing.assert_allclose(slope, numeric, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(dual.slope_diagonal(a), dual.slope(a, a, a), rtol=1e-7)


def test_large_variances_do_not_overflow():
    a = jnp.asarray(2000.0)
    for name in ("sin", "cos"):
        np.testing.assert_allclose(dual_of(name).covariance(a, a, a), 0.5, rtol=1e-15)
    slope = jax.grad(dual_of("sin").covariance, 2)(jnp.ones(()), jnp.ones(()), jnp.zeros(()))
    np.testing.assert_allclose(slope, np.exp(-1), rtol=1e-15)


@partial(jax.jit, static_argnums=0)
def moments(dual, a, b, c):
    p, q = dual.prepare(a), dual.prepare(b)
    left_out = dual.left_out(p) if isinstance(dual, Series) else None
    return dual.covariance(p, q, c), dual.slope(p, q, c), left_out


def test_series():
    a, b, c = (jnp.asarray(v) for v in (1.5, 0.8, 0.6))
    for name, V, slope in (
        ("tanh", 0.210183774848, 0.364890099562),
        ("gelu", 0.269996172020, 0.351821366031),
    ):
        dual = dual_of(name)
        found = moments(dual, a, b, c)
        np.testing.assert_allclose(found[:2], [V, slope], rtol=0, atol=6e-13)
    for order, error in ((4, 2e-4), (8, 2e-6), (16, 4e-10)):
        found = moments(dual_of("tanh", order=order), a, b, c)[0]
        assert error / 3 < abs(found - 0.210183774848) < 3 * error
    for order, share in ((32, 8e-5), (64, 4e-7)):
        _, missing, jump = moments(dual_of("tanh", order=order), a, b, c)[2]
        assert share / 2 < missing < 2 * share and jump < 1e-12


@pytest.mark.slow
def test_kinks_off_the_middle():
    """Panels move with the variance, and are differentiated, too."""
    a, b, c = (jnp.asarray(v) for v in (1.5, 0.8, 0.6))
    dual = dual_of("hard_tanh")
    V = gaussian_product(resolve("hard_tanh"), resolve("hard_tanh"), a, b, c, 0 * a, 0 * a)
    np.testing.assert_allclose(moments(dual, a, b, c)[0], V, rtol=1e-9)

    def total(v):
        return sum(moments(dual, *v)[:2])

    point = np.array([1.5, 0.8, 0.6])
    numeric = central_difference(jax.jit(total), point)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(point), numeric, rtol=1e-6)


def test_a_function_with_a_name_has_its_closed_form():
    assert dual_of(jax.nn.relu) is dual_of("relu") and dual_of(jnp.sin) is dual_of("sin")
    assert dual_of("leaky_relu", slope=-1.0) == dual_of("abs")
    K = NNGP(2, "leaky_relu", 1.5, 0.1, slope=0.0)(ROWS)
    np.testing.assert_allclose(K, NNGP(2, "relu", 1.5, 0.1)(ROWS), rtol=1e-14)
    # an entry of one's own: the series is told where to put its panels
    mine = Activation(lambda x: jnp.where(x > 1, x - 1, 0.0), kinks=(1.0,))
    with pytest.warns(UserWarning, match="a series of 40 terms leaves out .* at layer 1; raise"):
        K = NNGP(1, mine, order=40)(ROWS)
    z = np.random.default_rng(1).standard_normal((400_000, 5))
    f = np.maximum(z @ ROWS.T * np.sqrt(2 / 5) - 1, 0)
    products = 2 * f[:, 0] * f[:, 1]
    error = products.std() / np.sqrt(len(z))
    assert abs(K[0, 1] - products.mean()) < 4 * error


def test_gradient_with_duplicates_on_the_diagonal():
    X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 5)))
    gradient = jax.grad(lambda v: NTK(3, "relu", v[0], v[1])(X).sum())(jnp.array([1.7, 0.1]))
    np.testing.assert_allclose(gradient, [104.46510, 207.10933], rtol=0, atol=6e-6)


def test_equal_rows_have_the_diagonal_wherever_they_stand():
    X = np.random.default_rng(1).standard_normal((40, 20))
    X[7] = X[3]
    kernel = NTK(3, "relu", 2.0, 0.1)
    K = kernel(X)
    np.testing.assert_allclose(kernel(X, X.copy()), K, rtol=1e-12)
    assert K[3, 7] == K[3, 3]
    assert np.linalg.eigvalsh(K)[0] > -1e-10 * np.trace(K) / 40


def test_symmetries():
    rng = np.random.default_rng(2)
    X, turn = rng.standard_normal((12, 4)), np.linalg.qr(rng.standard_normal((4, 4)))[0]
    kernel, order = NTK(2, "relu", 1.5, 0.1), rng.permutation(12)
    K = kernel(X)
    np.testing.assert_allclose(kernel(X[order]), K[np.ix_(order, order)], rtol=1e-12)
    np.testing.assert_allclose(kernel(X @ turn), K, rtol=1e-11)


@pytest.mark.parametrize("name", ["relu", "abs", "step", "sign"])
def test_parallel_rows_are_parallel_in_all_layers(name):
    """One column and no bias: a function of the signs times the lengths, of rank two at most."""
    x = np.linspace(-3, 3, 41)[:, None] + 0.011
    homogeneous = name in ("relu", "abs")
    kernel = (NTK if homogeneous else NNGP)(4, name, 1.5)
    K, scale = kernel(x), np.abs(x * x.T) if homogeneous else np.ones((41, 41))
    plus, minus = (K[0, j] / scale[0, j] for j in (0, -1))
    np.testing.assert_allclose(K, np.where(x * x.T > 0, plus, minus) * scale, rtol=1e-13)
    assert np.linalg.eigvalsh(K)[0] > -1e-13 * np.trace(K)
    expected = {"abs": 5 * 1.5**5, "sign": -1.5}  # an even function, and an odd one
    np.testing.assert_allclose(minus, expected.get(name, minus), rtol=1e-14)


@pytest.mark.parametrize(
    "activation, bias, keywords, expected",
    [
        ("relu", 0.125, {}, (0.7373049138113856, 2.3164064938528175)),
        ("relu", 0.125, {"skip": 0.5}, (1.5437361778785998, 3.6093950868473446)),
        (
            "leaky_relu", 0.125, {"layernorm": True, "slope": 0.25},
            (0.921874999999837, 3.002997972520766),
        ),
        ("abs", 0.0, {}, (3.164064310491085, 12.656248021213937)),
    ],
)  # fmt: skip
def test_nearly_parallel_rows_keep_their_digits(activation, bias, keywords, expected):
    """Numbers of the recursion in decimal arithmetic with 60 digits."""
    x, z = np.array([[1.0, 0.5]]), np.array([[1 + 2.0**-20, 0.5 - 2.0**-21]])
    found = NTK(3, activation, 1.5, bias, **keywords).both(x, -z if activation == "abs" else z)
    np.testing.assert_allclose(np.ravel(found), expected, rtol=2e-15)


def test_nearly_antipodal_rows_of_an_odd_function():
    x, z = np.array([[1.0, 0.5]]), np.array([[1 + 2.0**-20, 0.5 - 2.0**-21]])
    K = NNGP(3, "sign", 1.5)(x, np.concatenate([z, -z]))[0]
    np.testing.assert_allclose(K[1], -K[0], rtol=1e-14)


def test_normalised_layers_at_a_zero_row_beside_parallel_ones():
    """No angle is known of a zero row, so it is a right one: E f(u) E f(v)."""
    x = np.array([[1.0, 0.5, -0.2]])
    K = NNGP(1, layernorm=True)(np.concatenate([x, 0 * x, 1.001 * x]))
    np.testing.assert_allclose(K[1, ::2], 2 / (2 * np.pi), rtol=1e-14)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6])
def test_small_angles_keep_their_digits(angle):
    """One hidden layer at unit length: V' is linear in the angle."""
    x = np.sqrt(2) * np.array([[1.0, 0.0]])
    z = np.sqrt(2) * np.array([[np.cos(angle), np.sin(angle)]])
    for sign in (1, -1):
        K, theta = NTK(1).both(x, sign * z)
        t = angle if sign == 1 else np.pi - angle
        slope = 2 * 2 * np.cos(t) * (np.pi - t) / (2 * np.pi)  # weight_var Theta_1 V'
        np.testing.assert_allclose(theta - K, [[slope]], rtol=0, atol=2e-15)


def test_32_bits():
    X = np.random.default_rng(0).standard_normal((200, 20))
    exact = np.asarray(NTK(3, "relu", 2.0, 0.1)(X))
    with jax.enable_x64(False):
        _checks._warned.add("a kernel")
        single = np.asarray(NTK(3, "relu", 2.0, 0.1)(jnp.asarray(X, jnp.float32)))
        near = X[:1] + 1e-4 * X[1:2]
        pair = NTK(3)(jnp.asarray(X[:1], jnp.float32), jnp.asarray(near, jnp.float32))
    error = np.abs(single / exact - 1)
    assert single.dtype == np.float32 and error.max() < 2e-6
    assert np.diagonal(error).max() < 1e-6
    np.testing.assert_allclose(pair, NTK(3)(X[:1], near), rtol=1e-6)


def test_tiles_change_nothing_and_bound_the_memory():
    rng = np.random.default_rng(3)
    X, Z = jnp.asarray(rng.standard_normal((101, 6))), jnp.asarray(rng.standard_normal((37, 6)))
    X = X.at[90].set(X[2])
    whole, tiles = (NTK(1, "relu", 1.5, 0.1, block_bytes=b) for b in (2**30, 30**2 * 96))
    K, full = tiles(X), whole(jnp.concatenate([X, Z]))
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(K, full[:101, :101], rtol=1e-12)
    np.testing.assert_allclose(tiles(X, Z), full[:101, 101:], rtol=1e-12)
    weights = rng.standard_normal((101, 101))

    def loss(v, block_bytes):
        return (weights * NTK(1, "relu", v[0], v[1], block_bytes=block_bytes)(X)).sum()

    v = jnp.array([1.5, 0.1])
    slopes = [jax.grad(loss)(v, b) for b in (2**30, 30**2 * 96)]
    np.testing.assert_allclose(*slopes, rtol=1e-9)

    budget = 2**20
    kernel = NTK(2, "relu", 1.5, 0.1, block_bytes=budget)
    X = jnp.zeros((2000, 5))
    memory = _gram.lower(kernel, X, None, both=False).compile().memory_analysis()
    assert memory.output_size_in_bytes == 8 * 2000**2
    assert memory.temp_size_in_bytes < 2 * budget


def test_vmap_and_jit_over_hyperparameters():
    weights, biases = jnp.array([1.2, 2.0]), jnp.array([0.0, 0.3])

    def sums(w, b):
        return NTK(1, "relu", w, b)(ROWS), DEQ("erf", w / 4)(ROWS)

    mapped, single = jax.jit(jax.vmap(sums))(weights, biases), jax.jit(sums)
    for i in range(2):
        for all_of_them, one in zip(mapped, single(weights[i], biases[i]), strict=True):
            np.testing.assert_allclose(all_of_them[i], one, rtol=1e-12)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "erf", "sin", "cos", "step", "gelu"])
def test_zero_antipodal_and_single_inputs(name):
    x = np.array([[0.0, 0.0], [1.0, -0.5], [-1.0, 0.5]])
    K = NNGP(1, name, 1.0)(x)
    assert np.isfinite(K).all()
    b = x[1] @ x[1] / 2
    expected = {"cos": np.exp(-b / 2), "step": 0.25}
    np.testing.assert_allclose(K[0, 1], expected.get(name, 0.0), rtol=0, atol=1e-16)
    if name == "relu":
        for one in (x[:1], x[1:2, :1]):
            np.testing.assert_allclose(NNGP(1, name)(one)[0, 0], NNGP(1, name).diag(one)[0])
    if name != "step":
        total = jax.jit(lambda w: NTK(1, name, w)(x).sum())
        gradient = jax.jit(jax.grad(total))(jnp.ones(()))
        numeric = central_difference(total, 1.0)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)
    if name == "gelu":  # a series at no variance is not taken for a jump
        np.testing.assert_allclose(NTK(1, name)(x).sum(), total(2.0), rtol=1e-12)


def test_equilibrium():
    S, theta = DEQ("erf", 0.5, 1.0, 0.1).both(ROWS)
    np.testing.assert_allclose(S[0], [0.393415, 0.424734, -0.109704], rtol=0, atol=6e-7)
    np.testing.assert_allclose(theta[0], [0.652245, 0.577445, -0.140546], rtol=0, atol=6e-7)
    np.testing.assert_array_equal(DEQ("erf", 0.5, 1.0, 0.1, train="all")(ROWS), theta)
    X = np.concatenate([ROWS, ROWS[:1], -ROWS[1:2]])
    weights = np.random.default_rng(1).standard_normal((5, 5))

    def loss(v):
        return (weights * DEQ("erf", v[0], v[1], v[2], train="all")(X)).sum()

    v = np.array([0.5, 1.0, 0.1])
    gradient = jax.jit(jax.grad(loss))(v)
    np.testing.assert_allclose(gradient, central_difference(jax.jit(loss), v), rtol=1e-6)


@pytest.mark.slow
def test_equilibrium_that_contracts_slowly_and_one_of_a_series():
    for kernel in (DEQ("relu", 1.98, 1.0, 0.1), DEQ("silu", 1.0, 1.0, 0.1)):
        K = kernel(ROWS)
        a, b, c = K[0, 0], K[1, 1], K[0, 1]
        V = moments(dual_of(kernel.activation), a, b, c)[0]
        right = kernel.weight_var * V + ROWS[0] @ ROWS[1] / 5 + 0.1
        np.testing.assert_allclose(c, right, rtol=1e-12)


def test_step_like_functions_have_no_tangent_kernel():
    for name in ("step", "sign"):
        with pytest.raises(ValueError, match=f"{name} has no derivative: only NNGP is defined"):
            NTK(1, name)
    with pytest.raises(ValueError, match="jumps and has no derivative: only NNGP is defined"):
        NTK(1, lambda x: jnp.where(x > 0, 1.0, 0.0) + x)(ROWS)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: NTK(1, train="none"), "train must be one of 'all', 'last', got 'none'"),
        (lambda: NNGP(1, order=0), "order must be a positive integer"),
        (lambda: NNGP(1, block_bytes=0), "block_bytes must be a positive integer"),
        (lambda: NNGP(1, skip=-1.0), "skip must be non-negative"),
        (lambda: NNGP(1, skip=1.0, weight_var=[1, 1]), r"shape \(2,\).*one per layer: \(3,\)"),
        (lambda: DEQ("relu", 2.5)(ROWS), "chi = .* 1.25 at an input .* not below 1"),
        (lambda: DEQ("erf", 1.2)(10 * ROWS, 0 * ROWS), "chi = .* 1.528 at an input"),
        (lambda: DEQ("step"), "step has no derivative"),
        (lambda: NTK(1).both(ROWS, ROWS[:, 1:]), "X has 5 columns and Z has 4; give both"),
        (lambda: DEQ().both(ROWS, ROWS[:, 1:]), "X has 5 columns and Z has 4; give both"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
