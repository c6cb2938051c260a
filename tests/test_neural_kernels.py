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
TURN = np.linalg.qr(np.random.default_rng(2).standard_normal((5, 5)))[0]


def padded(rows):
    """Rows (n, d) in an array of the one shape (41, 5) that the kernels below are compiled for."""
    X = np.zeros((41, 5))
    X[: len(rows), : rows.shape[1]] = rows
    return X


def network(kind, activation, depth, weight=1.5, bias=0.1, columns=5, **keywords):
    """Kernel of ``padded`` rows with so many columns: the mean is over them, not over five."""
    later = depth + ("skip" in keywords)
    weights = np.array([weight * 5 / columns] + later * [weight])
    return kind(depth, activation, weights, np.full(later + 1, bias), **keywords)


def values(kernel, rows):
    """Covariance, and tangent kernel where there is one, as NumPy arrays."""
    X, n = padded(rows), len(rows)
    found = kernel.both(X) if isinstance(kernel, NTK) else [kernel(X)]
    return [np.asarray(v)[:n, :n] for v in found]


LEAKY = {"layernorm": True, "slope": jnp.zeros(())}  # traced: that of relu first, another below
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "activation, depth, weight, bias, keywords, expected",
    [
        pytest.param(
            "relu", 3, 2, 0.1, {}, (0.696539, 1.004950, 2.186155, 2.278762), marks=SLOW
        ),
        pytest.param("erf", 2, 1.5, 0.1, {}, (0.591443, 0.445888, 1.584781, 1.093887), marks=SLOW),
        ("relu", 3, 1.5, 0.1, {"skip": 0.5}, (0.572370, 0.794634, 1.248406, 1.386874)),
        ("leaky_relu", 2, 1.5, 0.1, LEAKY, (0.85, 0.671946, 2.261765, 1.289392)),
        pytest.param(
            "relu", 3, 2, 0.1, {"train_bias": False, "readout_bias": False},
            (0.596539, 0.904950, 1.786155, 2.005199), marks=SLOW,
        ),
        *(pytest.param(*case, marks=SLOW) for case in (
            ("leaky_relu", 2, 1.8, 0.05, {}, (0.374422, 0.544616, 0.976465, 1.191390)),
            ("sin", 2, 1.5, 0.1, {}, (0.548968, 0.390321, 1.416195, 0.924005)),
            ("linear", 2, 1.5, 0.1, {}, (0.975409, 1.206536, 2.576227, 3.269607)),
            ("abs", 2, 1.5, 0.1, {}, (0.975409, 1.580385, 2.576227, 2.535504)),
            ("cos", 2, 1.5, 0.1, {}, (0.912360, 0.767316, 1.846509, 1.126304)),
            ("gelu", 2, 1.5, 0.1, {}, (0.236618, 0.301074, 0.480215, 0.594164)),
            (
                "tanh", 3, 1.5, 0.1, {"skip": 0.5, "order": 160},
                (0.586581, 0.449545, 1.419723, 0.951771),
            ),
        )),
    ],
)  # fmt: skip
def test_reference_numbers(activation, depth, weight, bias, keywords, expected):
    kernel = network(NTK, activation, depth, weight, bias, **keywords)
    K, theta = values(kernel, ROWS)
    np.testing.assert_allclose([*K[0, :2], *theta[0, :2]], expected, rtol=0, atol=6e-7)
    diagonal = np.asarray(kernel.diag(padded(ROWS)))[:3]
    np.testing.assert_allclose(np.diagonal(theta), diagonal, rtol=1e-14)


@pytest.mark.parametrize(
    "train, readout",
    [
        (True, False),
        (False, True),
        pytest.param(True, True, marks=SLOW),
        pytest.param(False, False, marks=SLOW),
    ],
)
def test_a_bias_is_fixed_or_left_out(train, readout):
    """One linear layer: a sum of four products."""
    kernel = network(NTK, "linear", 1, train_bias=train, readout_bias=readout)
    inner = 0.3 * ROWS @ ROWS.T
    last = 0.1 * readout
    K = 1.5 * (inner + 0.1) + last
    slope = K + 1.5 * (inner + 0.1) if train else 2 * 1.5 * inner + 1.5 * 0.1
    np.testing.assert_allclose(values(kernel, ROWS), [K, slope], rtol=1e-13)


def test_step_and_depth_zero():
    K = network(NNGP, "step", 2)(padded(ROWS))
    np.testing.assert_allclose(K[0, :2], [0.85, 0.673960], rtol=0, atol=6e-7)
    for kernel in (NTK(0, "relu", 1.5, 0.2), NNGP(0, "relu", 1.5, 0.2)):
        np.testing.assert_allclose(kernel(ROWS), 0.3 * ROWS @ ROWS.T + 0.2, rtol=1e-13)


def test_training_the_readout_alone_gives_the_covariance():
    arguments = 2, "erf", [1.5, 1.0, 0.7], [0.1, 0.2, 0.3]
    K = NNGP(*arguments)(ROWS)
    np.testing.assert_array_equal(NTK(*arguments, train="last")(ROWS), K)
    weights = NTK(*arguments, train="last", train_bias=False)(ROWS)
    np.testing.assert_allclose(weights, K - 0.3, rtol=1e-14)


KINDS = "relu", "erf", "step"  # a kink, a smooth function, and one without a slope
CLOSED = [
    pytest.param(n, marks=() if n in KINDS else SLOW)
    for n, entry in ACTIVATIONS.items()
    if entry.dual is not None
]


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_are_gaussian_integrals_and_slopes_their_derivatives(name):
    dual, entry = dual_of(name), resolve(name)
    smooth = dual.slope is not None

    @jax.jit
    def forms(point):
        """Moments by their closed forms with gradients, and those of equal variances."""
        a = point[0]
        both = (dual.covariance, dual.slope) if smooth else (dual.covariance,)
        pairs = [jax.value_and_grad(lambda v, f=f: f(*v))(point) for f in both]
        slopes = (dual.slope_diagonal(a), dual.slope(a, a, a)) if smooth else ()
        return pairs, (dual.diagonal(a), *slopes)

    @jax.jit
    def integrals(a, b, c):
        return gaussian_product(entry, entry, a, b, c, 0 * a, 0 * a)

    point = np.array([1.5, 0.8, 0.6])
    ((value, _), *_), (diagonal, *slopes) = forms(point)
    V, same = integrals(*np.array([point, 3 * [1.5]]).T)
    np.testing.assert_allclose(value, V, rtol=1e-10)
    np.testing.assert_allclose(diagonal, same, rtol=1e-7)
    if not smooth:
        return
    for sign in (1, -1):  # Price's theorem, and the whole gradient by differences
        point = np.array([1.5, 0.8, sign * 0.6])
        pairs = forms(point)[0]
        np.testing.assert_allclose(pairs[0][1][2], pairs[1][0], rtol=1e-12)
        for i, (_, slope) in enumerate(pairs):
            numeric = central_difference(lambda v, i=i: forms(v)[0][i][0], point)
            np.testing.assert_allclose(slope, numeric, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-7)


def test_large_variances_do_not_overflow():
    for name in ("sin", "cos"):
        moment = jax.jit(jax.value_and_grad(dual_of(name).covariance, 2))
        np.testing.assert_allclose(moment(2000.0, 2000.0, 2000.0), 0.5, rtol=1e-15)
        slope = moment(1.0, 1.0, 0.0)[1]
        np.testing.assert_allclose(slope, np.exp(-1) if name == "sin" else 0.0, rtol=1e-15)


@partial(jax.jit, static_argnums=0)
def moments(dual, a, b, c):
    p, q = dual.prepare(a), dual.prepare(b)
    left_out = dual.left_out(p) if isinstance(dual, Series) else None
    return dual.covariance(p, q, c), dual.slope(p, q, c), left_out


@pytest.mark.slow
def test_series():
    for name, V, slope in (
        ("tanh", 0.210183774848, 0.364890099562),
        ("gelu", 0.269996172020, 0.351821366031),
    ):
        dual = dual_of(name)
        found = moments(dual, 1.5, 0.8, 0.6)
        np.testing.assert_allclose(found[:2], [V, slope], rtol=0, atol=6e-13)
    for order, error, share in ((8, 2e-6, None), (32, 0.0, 8e-5), (64, 0.0, 4e-7)):
        V, _, (_, missing, jump) = moments(dual_of("tanh", order=order), 1.5, 0.8, 0.6)
        if order == 8:
            assert error / 3 < abs(float(V) - 0.210183774848) < 3 * error
        else:
            assert share / 2 < float(missing) < 2 * share and float(jump) < 1e-12


@pytest.mark.slow
def test_kinks_off_the_middle():
    """Panels move with the variance, and are differentiated, too."""
    dual, entry = dual_of("hard_tanh"), resolve("hard_tanh")

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def total(v):
        V, slope, _ = moments(dual, *v)
        return V + slope, (V, gaussian_product(entry, entry, *v, 0 * v[0], 0 * v[0]))

    point = np.array([1.5, 0.8, 0.6])
    (_, (V, expected)), gradient = total(point)
    np.testing.assert_allclose(V, expected, rtol=1e-9)
    numeric = central_difference(lambda v: total(v)[0][0], point)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6)


def test_a_function_with_a_name_has_its_closed_form():
    assert dual_of(jax.nn.relu) is dual_of("relu") and dual_of(jnp.sin) is dual_of("sin")
    assert dual_of("leaky_relu", slope=-1.0) == dual_of("abs")
    # an entry of one's own: the series is told where to put its panels
    mine = Activation(lambda x: jnp.where(x > 1, x - 1, 0.0), kinks=(1.0,))
    with pytest.warns(
        UserWarning, match="a series of 40 terms leaves out .* at layer 1; raise"
    ) as seen:
        K = np.asarray(NNGP(1, mine, order=40)(ROWS))
    assert seen[0].filename == __file__
    z = np.random.default_rng(1).standard_normal((400_000, 5))
    f = np.maximum(z @ ROWS.T * np.sqrt(2 / 5) - 1, 0)
    products = 2 * f[:, 0] * f[:, 1]
    error = products.std() / np.sqrt(len(z))
    assert abs(K[0, 1] - products.mean()) < 4 * error


@pytest.mark.slow
def test_gradient_with_duplicates_on_the_diagonal():
    X = np.random.default_rng(0).standard_normal((6, 5))
    total = jax.jit(jax.grad(lambda v: NTK(3, "relu", v[0], v[1])(X).sum()))
    np.testing.assert_allclose(
        total(np.array([1.7, 0.1])), [104.46510, 207.10933], rtol=0, atol=6e-6
    )


def test_equal_rows_have_the_diagonal_wherever_they_stand():
    X = np.random.default_rng(1).standard_normal((41, 5))
    X[7] = X[3]
    K = values(network(NTK, "relu", 3, 2.0), X)[1]
    assert K[3, 7] == K[3, 3]
    assert np.linalg.eigvalsh(K)[0] > -1e-10 * np.trace(K) / 41


def test_symmetries():
    rng = np.random.default_rng(2)
    X, order = rng.standard_normal((41, 5)), rng.permutation(41)
    kernel = network(NTK, "relu", 3)
    K = values(kernel, X)[1]
    np.testing.assert_allclose(values(kernel, X[order])[1], K[np.ix_(order, order)], rtol=1e-12)
    np.testing.assert_allclose(values(kernel, X @ TURN)[1], K, rtol=1e-11)


@pytest.mark.parametrize("name, depth", [("relu", 3), ("abs", 2), ("step", 2), ("sign", 3)])
def test_parallel_rows_are_parallel_in_all_layers(name, depth):
    """One column and no bias: a function of the signs times the lengths, of rank two at most."""
    x = np.linspace(-3, 3, 41)[:, None] + 0.011
    homogeneous = name in ("relu", "abs")
    kernel = network(NTK if homogeneous else NNGP, name, depth, bias=0.0, columns=1)
    K, scale = values(kernel, x)[-1], np.abs(x * x.T) if homogeneous else np.ones((41, 41))
    plus, minus = (K[0, j] / scale[0, j] for j in (0, -1))
    np.testing.assert_allclose(K, np.where(x * x.T > 0, plus, minus) * scale, rtol=1e-13)
    assert np.linalg.eigvalsh(K)[0] > -1e-13 * np.trace(K)
    expected = {"abs": 3 * 1.5**3, "sign": -1.5}  # an even function, and an odd one
    np.testing.assert_allclose(minus, expected.get(name, minus), rtol=1e-14)


NEARLY = np.array([[1.0, 0.5], [1 + 2.0**-20, 0.5 - 2.0**-21]])


@pytest.mark.parametrize(
    "activation, depth, bias, keywords, expected",
    [
        ("relu", 3, 0.125, {}, (0.7373049138113856, 2.3164064938528175)),
        ("relu", 3, 0.125, {"skip": 0.5}, (1.5437361778785998, 3.6093950868473446)),
        (
            "leaky_relu", 2, 0.125, LEAKY | {"slope": jnp.full((), 0.25)},
            (0.9218749999998114, 2.407573894394887),
        ),
        ("abs", 2, 0.0, {}, (2.109376206994057, 6.328125547397873)),
    ],
)  # fmt: skip
def test_nearly_parallel_rows_keep_their_digits(activation, depth, bias, keywords, expected):
    """Numbers of the recursion in decimal arithmetic with 60 digits."""
    rows = NEARLY * [[1.0], [-1.0 if activation == "abs" else 1.0]]
    kernel = network(NTK, activation, depth, bias=bias, columns=2, **keywords)
    found = [v[0, 1] for v in values(kernel, rows)]
    np.testing.assert_allclose(found, expected, rtol=2e-15)


def test_nearly_antipodal_rows_of_an_odd_function():
    kernel = network(NNGP, "sign", 3, bias=0.0, columns=2)
    K = values(kernel, np.concatenate([NEARLY, -NEARLY[1:]]))[0]
    np.testing.assert_allclose(K[0, 2], -K[0, 1], rtol=1e-14)


def test_normalised_layers_at_a_zero_row_beside_parallel_ones():
    """No angle is known of a zero row, so it is a right one: E f(u) E f(v)."""
    x = np.array([[1.0, 0.5, -0.2]])
    K = NNGP(1, layernorm=True)(np.concatenate([x, 0 * x, 1.001 * x]))
    np.testing.assert_allclose(np.asarray(K)[1, ::2], 2 / (2 * np.pi), rtol=1e-14)


def test_small_angles_keep_their_digits():
    """One hidden layer at unit length: V' is linear in the angle."""
    angles = np.array([1e-2, 1e-4, 1e-6])
    rows = np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1)
    x = np.sqrt(2) * np.array([[1.0, 0.0]])
    K, theta = (np.asarray(v)[0] for v in NTK(1).both(x, np.concatenate([rows, -rows])))
    t = np.concatenate([angles, np.pi - angles])
    slope = 2 * 2 * np.cos(t) * (np.pi - t) / (2 * np.pi)  # weight_var Theta_1 V'
    np.testing.assert_allclose(theta - K, slope, rtol=0, atol=2e-15)


def test_32_bits():
    X = np.random.default_rng(0).standard_normal((41, 5))
    X[40] = X[0] + 1e-4 * X[1]
    exact = values(network(NTK, "relu", 3, 2.0), X)
    with jax.enable_x64(False):
        _checks._warned.add("a kernel")
        single = network(NTK, "relu", 3, 2.0).both(jnp.asarray(X, jnp.float32))
        single = [np.asarray(v) for v in single]
    errors = np.array([np.abs(a / b - 1) for a, b in zip(single, exact, strict=True)])
    assert single[1].dtype == np.float32 and errors.max() < 2e-6
    assert np.diagonal(errors[1]).max() < 1e-6 and errors[1, 0, 40] < 1e-6


def test_tiles_change_nothing():
    rng = np.random.default_rng(3)
    X, Z = rng.standard_normal((101, 6)), rng.standard_normal((37, 6))
    X[90], Z[5] = X[2], X[2]
    weights, v = rng.standard_normal((101, 101)), np.array([1.5, 0.1])

    @partial(jax.jit, static_argnums=2)
    @partial(jax.value_and_grad, has_aux=True)
    def loss(v, X, block_bytes):
        K = NTK(1, "relu", v[0], v[1], block_bytes=block_bytes)(X)
        return (weights * K[:101, :101]).sum(), K

    (_, full), slopes = loss(v, np.concatenate([X, Z]), 2**30)
    (_, K), others = loss(v, X, 30**2 * 96)
    K, full = np.asarray(K), np.asarray(full)
    np.testing.assert_array_equal(K, K.T)
    np.testing.assert_allclose(K, full[:101, :101], rtol=1e-12)
    tiles = NTK(1, "relu", 1.5, 0.1, block_bytes=30**2 * 96)
    np.testing.assert_allclose(tiles(X, Z), full[:101, 101:], rtol=1e-12)
    np.testing.assert_allclose(slopes, others, rtol=1e-9)


@pytest.mark.slow
def test_tiles_bound_the_memory():
    budget = 2**20
    kernel = NTK(1, "relu", 1.5, 0.1, block_bytes=budget)
    X = np.zeros((2000, 6))
    memory = _gram.lower(kernel, X, None, both=False).compile().memory_analysis()
    assert memory.output_size_in_bytes == 8 * 2000**2
    assert memory.temp_size_in_bytes < 2 * budget


@pytest.mark.slow
def test_vmap_and_jit_over_hyperparameters():
    """Against the recursion in plain NumPy."""
    weights, biases = np.array([1.2, 2.0]), np.array([0.0, 0.3])
    mapped = jax.jit(jax.vmap(lambda w, b: NTK(1, "relu", w, b)(ROWS)))(weights, biases)
    for w, b, theta in zip(weights, biases, mapped, strict=True):
        K = w * ROWS @ ROWS.T / 5 + b
        size = np.sqrt(np.outer(np.diagonal(K), np.diagonal(K)))
        t = np.arccos(np.clip(K / size, -1, 1))
        tangent = w * size * (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi) + b
        tangent += w * (np.pi - t) / (2 * np.pi) * K
        np.testing.assert_allclose(theta, tangent, rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["relu", "gelu"]
    + [pytest.param(n, marks=SLOW) for n in ("erf", "cos", "step", "leaky_relu", "abs", "sin")],
)
def test_zero_antipodal_and_single_inputs(name):
    x = np.array([[0.0, 0.0], [1.0, -0.5], [-1.0, 0.5]])

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def total(w):
        if name == "step":
            return w, NNGP(1, name, w)(x)
        K, theta = NTK(1, name, w).both(x)
        return theta.sum(), K

    (_, K), gradient = total(np.ones(()))
    K = np.asarray(K)
    assert np.isfinite(K).all()
    b = x[1] @ x[1] / 2
    expected = {"cos": np.exp(-b / 2), "step": 0.25}
    np.testing.assert_allclose(K[0, 1], expected.get(name, 0.0), rtol=0, atol=1e-16)
    if name == "relu":
        for one in (0.0, -0.5):
            kernel, given = NNGP(1, name), np.full((1, 1), one)
            np.testing.assert_allclose(kernel(given), [[2 * one**2]], rtol=1e-15)
            np.testing.assert_allclose(kernel.diag(given), [2 * one**2], rtol=1e-15)
    numeric = central_difference(lambda w: total(w)[0][0], 1.0)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)
    if name == "gelu":  # a series at no variance is not taken for a jump
        assert np.isfinite(values(network(NTK, name, 2, bias=0.0), x)).all()


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
        (lambda: NTK(1).both(ROWS, ROWS[:, 1:]), "X has 5 columns and Z 4; give both"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
