# SPDX-License-Identifier: Apache-2.0
"""Residual networks: their paths, heads and encoders, and weights or inputs that do not fit."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import dynamics
from bayesrg.networks import Residual

K, N, D, H, C = 4, 7, 3, 5, 2  # layers, points, features, hidden units, outputs
X = np.random.default_rng(0).standard_normal((N, D))
Y = np.random.default_rng(1).standard_normal((N, C))
NET = Residual(H, K, outputs=C)


def weights(seed=0, width=D, layers=(K,)):
    """Weights of order one, so that layers matter."""
    draw = np.random.default_rng(seed).standard_normal
    shapes = {"A": (H, width), "a": (H,), "B": (width, H), "b": (width,)}
    velocity = {name: 0.5 * draw((*layers, *shape)) for name, shape in shapes.items()}
    return {"velocity": velocity, "head": {"weight": draw((C, width)), "bias": draw(C)}}


PARAMS = weights()


def by_hand(velocity, x, dt=1.0, layers=range(K)):
    """States and increments by a loop in NumPy."""
    states, steps = [x], []
    for k in layers:
        A, a, B, b = (velocity[name][k] for name in ("A", "a", "B", "b"))
        steps.append(dt * (np.tanh(states[-1] @ A.T + a) @ B.T + b))
        states.append(states[-1] + steps[-1])
    return np.stack(states), np.stack(steps)


def half(f):
    return 0.5 * ((f - Y) ** 2).mean()


def action(params):
    """A loss with transport, as training by least action has it."""
    paths = NET.paths(params, X)
    return half(NET.read_out(params, paths.states[-1])) + dynamics.transport_cost(paths)


def directional(function, params, direction, step=1e-6):
    """Derivative along a direction by central differences."""
    ends = (
        function(jax.tree.map(lambda p, v, s=s: p + s * step * v, params, direction))
        for s in (1, -1)
    )
    return (next(ends) - next(ends)) / (2 * step)


class Lift(eqx.Module):
    """Encoder with weights."""

    def init(self, key, width):
        return jax.random.normal(key, (width, 2))

    def __call__(self, params, X):
        return X @ params


class Turn(eqx.Module):
    """Velocity of one angle per layer, times a number."""

    factor: jax.Array

    def init(self, key, width):
        return jax.random.normal(key)

    def __call__(self, params, x):
        return self.factor * params * x[:, ::-1]


@pytest.mark.parametrize("case", ["plain", "step", "tied", "function", "encoder"])
def test_paths_are_those_of_a_loop(case):
    width = 2 if case in ("function", "encoder") else D
    given = {
        "plain": {},
        "step": {"dt": 0.5},
        "tied": {"tied": True},
        "function": {"encoder": lambda X: X[:, 1:]},
        "encoder": {"encoder": Lift()},
    }[case]
    params = weights(0, width, () if case == "tied" else (K,))
    velocity, start = params["velocity"], X
    if case == "tied":
        velocity = {name: np.stack([w] * K) for name, w in velocity.items()}
    if case == "function":
        start = X[:, 1:]
    if case == "encoder":
        params["encoder"] = np.random.default_rng(2).standard_normal((D, 2))
        start = X @ params["encoder"]
    net = Residual(H, K, outputs=C, **given)
    like = jax.eval_shape(lambda: net.init(0, D))
    assert jax.tree.structure(like) == jax.tree.structure(params)

    paths, outputs, layers = jax.jit(
        lambda p: (net.paths(p, X), net.apply(p, X), net.layers(p, X))
    )(params)
    states, steps = by_hand(velocity, start, given.get("dt", 1.0))
    f = states[-1] @ params["head"]["weight"].T + params["head"]["bias"]
    for found, expected in ((paths.states, states), (paths.increments, steps), (outputs, f)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    encoded = [X] if "encoder" in given else []
    for found, expected in zip(layers, [*encoded, *states, f], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_draws_over_vmap_equal_one_by_one_and_derivatives_are_right():
    draws = [weights(seed) for seed in range(3)]

    def everything(params):
        return NET.paths(params, X), jax.value_and_grad(action)(params)

    together = jax.jit(jax.vmap(everything))(jax.tree.map(lambda *w: np.stack(w), *draws))
    alone = jax.jit(everything)
    for i, params in enumerate(draws):
        found = alone(params)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(found), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-12 * np.abs(b).max())

    def loss(params):
        states, steps = by_hand(params["velocity"], X)
        f = states[-1] @ params["head"]["weight"].T + params["head"]["bias"]
        return half(f) + (steps**2).sum((0, 2)).mean()

    _, (value, gradient) = found
    np.testing.assert_allclose(value, loss(params), rtol=1e-12)
    direction = weights(9)
    products = jax.tree.map(lambda g, v: (g * v).sum(), gradient, direction)
    along = directional(loss, params, direction)
    np.testing.assert_allclose(sum(jax.tree.leaves(products)), along, rtol=1e-6)

    # a state is moved, and the layers above follow
    states, _ = by_hand(params["velocity"], X)
    slopes = NET.state_gradients(params, X, half)
    for k in range(K):

        def after(x, k=k):
            x = by_hand(params["velocity"], x, layers=range(k, K))[0][-1]
            return half(x @ params["head"]["weight"].T + params["head"]["bias"])

        direction = np.random.default_rng(k).standard_normal((N, D))
        along = directional(after, states[k], direction)
        np.testing.assert_allclose((slopes[k] * direction).sum(), along, rtol=1e-6)


def test_programs_do_not_grow_with_the_number_of_layers(compilations):
    def size(depth):
        net = Residual(H, depth, outputs=C)
        params = jax.eval_shape(lambda: net.init(0, D))

        def loss(params):
            paths = net.paths(params, X)
            return half(net.read_out(params, paths.states[-1])) + dynamics.transport_cost(paths)

        both = jax.value_and_grad(loss)
        equations = str(jax.make_jaxpr(both)(params)).count(" = ")
        return equations, jax.jit(both).lower(params).as_text().count(" = ")

    few, many = size(4), size(64)
    assert few == many and min(few) > 20  # something was counted

    with compilations() as count:
        first = NET.apply(PARAMS, X)
        second = NET.paths(PARAMS, X).states
    assert count() == 2
    with compilations() as count:  # other numbers, and a network that is made again
        third = Residual(H, K, outputs=C).apply(weights(3), X)
    assert count() == 0 and not np.allclose(first, third)
    np.testing.assert_array_equal(second[0], X)

    def turned(factor):  # the numbers of a velocity are arguments of the program
        net = Residual(Turn(jnp.asarray(factor)), K, outputs=C, head=np.eye(C), dt=0.5)
        return net.apply({"velocity": 0.3 + 0.1 * np.arange(K)}, X[:, :2])

    found = [turned(1.0)]
    with compilations() as count:
        found.append(turned(2.0))
    assert count() == 0
    for factor, f in zip((1.0, 2.0), found, strict=True):
        x = X[:, :2]
        for angle in 0.3 + 0.1 * np.arange(K):
            x = x + 0.5 * factor * angle * x[:, ::-1]
        np.testing.assert_allclose(f, x, rtol=1e-12)


@pytest.mark.slow
def test_a_derivative_needs_little_more_memory_than_that_of_a_bare_scan():
    n, d, h, depth = 500, 64, 32, 64
    X = np.random.default_rng(0).standard_normal((n, d))
    net = Residual(h, depth, outputs=C)
    params = jax.eval_shape(lambda: net.init(0, d))

    def bare(params, transport):
        def move(x, layer):
            step = jnp.tanh(x @ layer["A"].T + layer["a"]) @ layer["B"].T + layer["b"]
            return x + step, (step**2).sum(-1).mean() if transport else None

        x, actions = jax.lax.scan(move, X, params["velocity"])
        f = x @ params["head"]["weight"].T + params["head"]["bias"]
        return (f**2).mean() + (actions.sum() if transport else 0.0)

    def ours(params, transport):
        if not transport:
            return (net.apply(params, X) ** 2).mean()
        paths = net.paths(params, X)
        f = net.read_out(params, paths.states[-1])
        return (f**2).mean() + dynamics.transport_cost(paths)

    def reserved(loss, transport):
        both = jax.jit(jax.value_and_grad(loss), static_argnums=1).lower(params, transport)
        return both.compile().memory_analysis().temp_size_in_bytes

    for transport, most in ((True, 1.2), (False, 1.0)):
        least = reserved(bare, transport)
        assert X.nbytes * depth < least and reserved(ours, transport) <= most * least


@pytest.mark.slow
def test_32_bit_inputs_and_weights_stay_so_and_one_of_64_bits_makes_64():
    narrow = jax.tree.map(np.float32, PARAMS)
    paths = NET.paths(narrow, np.float32(X))
    assert paths.states.dtype == paths.increments.dtype == np.float32
    states, steps = by_hand(PARAMS["velocity"], X)
    scale = np.abs(states).max()
    np.testing.assert_allclose(paths.states, states, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(paths.increments, steps, rtol=0, atol=1e-6 * scale)
    assert (
        NET.paths(narrow, X).states.dtype
        == NET.paths(PARAMS, np.float32(X)).states.dtype
        == X.dtype
    )

    # a fixed head is one draw, whatever the precision
    net = Residual(H, K, outputs=C, head="fixed")
    heads = [net.read_out({}, np.eye(D, dtype=kind)) for kind in (np.float32, np.float64)]
    assert heads[0].dtype == np.float32
    np.testing.assert_allclose(*heads, rtol=0, atol=1e-7)


def test_integers_are_inputs_and_weights():
    whole = np.arange(N * D).reshape(N, D) % 5 - 2
    expected = NET.apply(PARAMS, whole.astype(float))
    for given in (whole, whole.tolist()):
        np.testing.assert_array_equal(NET.apply(PARAMS, given), expected)
    integers = jax.tree.map(lambda w: np.round(w).astype(int), PARAMS)
    floats = jax.tree.map(lambda w: w.astype(float), integers)
    np.testing.assert_array_equal(NET.apply(integers, whole), NET.apply(floats, whole))


def test_heads():
    fixed, array = (Residual(H, K, outputs=C, head=h) for h in ("fixed", PARAMS["head"]["weight"]))
    assert set(fixed.init(0, D)) == set(array.init(1, D)) == {"velocity"}
    rows = np.asarray(fixed.read_out({}, np.eye(D))).T
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(fixed.head_norm({}), np.sqrt(C), rtol=1e-14)
    np.testing.assert_array_equal(array.read_out({}, np.eye(D)).T, PARAMS["head"]["weight"])
    for net in (NET, array):
        norm = np.linalg.norm(PARAMS["head"]["weight"])
        np.testing.assert_allclose(net.head_norm(PARAMS), norm, rtol=1e-14)


@pytest.mark.slow
def test_weights_start_as_described():
    wide = Residual(40, 60, outputs=50, activation="relu")
    params = jax.jit(lambda: wide.init(0, 30))()
    draws = params["velocity"] | params["head"]
    for name, variance in (("A", 1 / 30), ("B", 0.01**2 / 40), ("weight", 1 / 30)):
        w = np.asarray(draws[name])
        np.testing.assert_allclose(w.var(), variance, rtol=5 * np.sqrt(2 / w.size))
        assert abs(w.mean()) < 5 * np.sqrt(variance / w.size)
    for name in ("a", "b", "bias"):
        assert not np.asarray(draws[name]).any()
    layers = np.asarray(draws["A"])[:2].reshape(2, -1)
    assert abs(np.corrcoef(layers)[0, 1]) < 0.15  # each layer has a draw of its own


def without(part):
    return {name: w for name, w in PARAMS.items() if name != part}


def changed(**velocity):
    return PARAMS | {"velocity": PARAMS["velocity"] | velocity}


class Wrong(Turn):
    def __call__(self, params, x):
        return {"columns": x[:, :1], "text": "x", "complex": 1j * x}[self.factor]


APPLIED = {  # a network, weights, inputs, the message
    "no dict": (NET, [1.0], X, "params must be a dict, as init returns it, got [1.0]"),
    "no head": (NET, without("head"), X, "params has no 'head'"),
    "no velocity": (NET, without("velocity"), X, "params has no 'velocity'"),
    "too much": (NET, PARAMS | {"more": 1.0}, X, "params has 'more', which this network has not"),
    "head of a fixed one": (
        Residual(H, K, outputs=C, head="fixed"), PARAMS, X,
        "params has 'head', which this network has not"),
    "no bias": (
        NET, PARAMS | {"velocity": {"A": 1.0}}, X, "params holds ['head']['bias'], ['head']"),
    "text": (NET, changed(A="text"), X, "params['velocity']['A'] must be a number"),
    "other depth": (
        NET, weights(layers=(3,)), X,
        "params['velocity']['A'] has shape (3, 5, 3), but init gives (4, 5, 3) for 4 layers and X "
        "of 3 columns"),
    "tied": (
        Residual(H, K, outputs=C, tied=True), PARAMS, X, "init gives (5, 3) for 4 layers and X"),
    "draws": (
        NET, jax.tree.map(lambda w: np.stack([w, w]), PARAMS), X, "use jax.vmap over several"),
    "hidden units": (Residual(6, K, outputs=C), PARAMS, X, "init gives (4, 6, 3)"),
    "outputs": (Residual(H, K, outputs=3), PARAMS, X, "init gives (3,) for 4 layers"),
    "X of two columns": (NET, PARAMS, X[:, :2], "for 4 layers and X of 2 columns"),
    "X a vector": (NET, PARAMS, X[:, 0], "for 4 layers and X of 1 columns"),
    "X of nan": (NET, PARAMS, np.where(X > 1, np.nan, X), "X contains non-finite values"),
    "no rows": (NET, PARAMS, X[:0], "X has no rows"),
    "encoder of two columns": (
        Residual(H, K, outputs=C, encoder=lambda X: X[:, 1:]), PARAMS, X, "init gives (2, 2) for"),
    "encoder of fewer rows": (
        Residual(H, K, outputs=C, encoder=lambda X: X[:0]), PARAMS, X,
        "encoder returned shape (0, 3) for X of shape (1, 3); give (n, d)"),
    "encoder of another width": (
        Residual(H, K, outputs=C, encoder=lambda X: X @ jnp.ones((5, 2))), PARAMS, X,
        "encoder fails for X of shape (1, 3) (TypeError: dot_general requires"),
    "encoder of numbers": (
        Residual(H, K, outputs=C, encoder=lambda X: X * float(X[0, 0])), PARAMS, X,
        "encoder fails for X of shape (1, 3) (ConcretizationTypeError"),
    "encoder of text": (
        Residual(H, K, outputs=C, encoder=lambda X: "x"), PARAMS, X,
        "what encoder returned must be a number or an array of them, got 'x'"),
    "velocity of one column": (
        Residual(Wrong("columns"), K, outputs=C, head="fixed"), {"velocity": np.ones(K)}, X,
        "velocity output shape (7, 1) differs from state shape (7, 3): residual flow needs equal "
        "widths"),
    "velocity of text": (
        Residual(Wrong("text"), K, outputs=C, head="fixed"), {"velocity": np.ones(K)}, X,
        "what velocity returned must be a number or an array of them"),
    "velocity of complex numbers": (
        Residual(Wrong("complex"), K, outputs=C, head="fixed"), {"velocity": np.ones(K)}, X,
        "what velocity returned is complex"),
    "head of two features": (
        Residual(H, K, outputs=C, head=np.ones((C, 2))), without("head"), X,
        "head has shape (2, 2) for states of 3 features; give (2, 3)"),
}  # fmt: skip


@pytest.mark.parametrize("case", APPLIED)
def test_weights_or_inputs_that_do_not_fit(case):
    net, params, inputs, message = APPLIED[case]
    for call in (net.apply, net.paths, net.layers):
        with pytest.raises(ValueError, match=re.escape(message)):
            call(params, inputs)


MADE = {  # arguments, the message
    "depth 0": (dict(depth=0), "depth must be a positive integer, got 0"),
    "hidden 0": (dict(velocity=0), "velocity must be a positive integer, got 0"),
    "outputs 0": (dict(outputs=0), "outputs must be a positive integer, got 0"),
    "dt 0": (dict(dt=0), "dt must be positive, got 0"),
    "dt below 0": (dict(dt=-0.1), "dt must be positive, got -0.1"),
    "dt of each layer": (dict(dt=np.ones(K)), "dt must be an array of 0 dimension(s)"),
    "a function": (dict(velocity=np.tanh), "velocity has no method init(key, width)"),
    "head misspelt": (dict(head="fix"), "head must be one of 'trainable', 'fixed', got 'fix'"),
    "head of three rows": (dict(head=np.eye(3)), "head has shape (3, 3) for 2 outputs; give (2, d"),
    "head of nan": (dict(head=np.full((2, 3), np.nan)), "head contains non-finite values"),
    "activation": (dict(activation="tan"), "activation must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("case", MADE)
def test_networks_that_cannot_be(case):
    given, message = MADE[case]
    given = {"velocity": H, "depth": K, "outputs": C} | given
    with pytest.raises(ValueError, match=re.escape(message)):
        Residual(**given)


def test_losses_and_starts_that_cannot_be():
    with pytest.raises(ValueError, match=r"loss returned shape \(7, 2\); give one number"):
        NET.state_gradients(PARAMS, X, lambda f: f)
    with pytest.raises(ValueError, match="what loss returned must be a number"):
        NET.state_gradients(PARAMS, X, lambda f: "x")
    with pytest.raises(ValueError, match=r"head has shape \(2, 3\) for states of 4 features"):
        Residual(H, K, outputs=C, head=np.ones((C, D))).init(0, 4)
    with pytest.raises(ValueError, match="inputs must be a positive integer, got 0"):
        NET.init(0, 0)
    with pytest.raises(ValueError, match=r"head has shape \(2, 3\) for states of 2 features"):
        NET.read_out(PARAMS, X[:, :2])
    for head, message in (
        (None, r"params\['head'\] must be a dict, as init returns it, got None"),
        ({"weight": np.ones((C, D))}, r"params\['head'\] has no 'bias'"),
        ({"weight": np.ones((C, D)), "bias": np.ones(3)}, r"a bias of shape \(3,\); give \(2, d\)"),
    ):
        for call in (NET.head_norm, lambda params: NET.read_out(params, X)):
            with pytest.raises(ValueError, match=message):
                call({"head": head})
