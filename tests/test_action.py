# SPDX-License-Identifier: Apache-2.0
"""How far and how straight points move: against NumPy, closed forms, and their limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.optimize import minimize

from bayesrg import dynamics, networks
from bayesrg.dynamics import Paths

K, N, D = 3, 5, 2
NAMES = ("layer_action", "transport_cost", "kinetic_energy", "displacement", "straightness",
         "relative_displacement")  # fmt: skip


def paths_of(start, steps):
    """Paths of points (n, d) by steps (K, n, d)."""
    steps = np.asarray(steps)
    return on_device(np.concatenate([start[None], start + np.cumsum(steps, 0)]), steps)


def on_device(states, steps):
    return Paths(*(jnp.asarray(a, a.dtype) for a in (states, steps)))


def random_paths(seed, layers=K, n=N, d=D):
    rng = np.random.default_rng(seed)
    return paths_of(rng.standard_normal((n, d)), rng.standard_normal((layers, n, d)))


GRADIENTS = np.random.default_rng(9).standard_normal((K, N, D))
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 1.0])


@eqx.filter_jit
def everything(paths, weights=None, per_feature=False, gradients=None):
    given = {"weights": weights, "per_feature": per_feature}
    found = {name: getattr(dynamics, name)(paths, **given) for name in NAMES}
    if gradients is not None:
        found["alignment"] = dynamics.alignment_with_descent(paths, gradients, **given)
    return found


def by_hand(paths, weights=None, per_feature=False, gradients=None):
    """All quantities, as their definitions say."""
    x, steps = np.asarray(paths.states), np.asarray(paths.increments)
    size = steps.shape[-1] if per_feature else 1

    def mean(values):
        return np.average(values, axis=-1, weights=weights)

    def length(v):
        return np.sqrt((v**2).sum(-1))

    A = mean((steps**2).sum(-1)) / size
    T, far = A.sum(), mean(((x[-1] - x[0]) ** 2).sum(-1)) / size
    found = [
        A,
        T,
        len(steps) * T,
        far,
        far / (len(steps) * T),
        mean(length(steps) / length(x[:-1])),
    ]
    found = dict(zip(NAMES, found, strict=True))
    if gradients is not None:
        cosine = -(steps * gradients).sum(-1) / (length(steps) * length(gradients))
        found["alignment"] = mean(cosine)
    return found


def agree(found, expected, rtol=1e-12):
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("given", [{}, {"weights": WEIGHTS}, {"per_feature": True}])
def test_quantities_are_what_their_definitions_say(given):
    paths = random_paths(0)
    found = everything(paths, gradients=GRADIENTS, **given)
    agree(found, by_hand(paths, gradients=GRADIENTS, **given))
    assert 0 <= found["displacement"] <= found["kinetic_energy"]

    # several draws along a leading axis
    both = (np.asarray(a) * np.array([1, 2])[:, None, None, None] for a in jax.tree.leaves(paths))
    draws = on_device(*both)
    both = jax.jit(
        lambda p: (dynamics.kinetic_energy(p, **given), dynamics.straightness(p, **given))
    )(draws)
    E = found["kinetic_energy"]
    np.testing.assert_allclose(both[0], [E, 4 * E], rtol=1e-14)
    np.testing.assert_allclose(both[1], [found["straightness"]] * 2, rtol=1e-14)


def test_a_point_of_weight_two_counts_as_two_points():
    paths = random_paths(1)
    rows = np.array([0, 1, 1, 2, 3, 4])
    doubled = on_device(*(np.asarray(a)[:, rows] for a in (paths.states, paths.increments)))
    found = everything(paths, np.array([1, 2, 1, 1, 1]), False, GRADIENTS)
    agree(found, everything(doubled, None, False, GRADIENTS[:, rows]))


def test_limits():
    start = np.ones((N, D))
    zero, step = np.zeros((K, N, D)), np.random.default_rng(0).standard_normal((N, D))
    still = everything(paths_of(start, zero), gradients=GRADIENTS)
    assert still["kinetic_energy"] == 0 == still["displacement"]
    assert np.isnan(still["straightness"]) and np.isnan(still["alignment"]).all()
    assert not np.asarray(still["relative_displacement"]).any()

    loop = everything(paths_of(start, [step, 0 * step, -step]), gradients=GRADIENTS)
    assert loop["displacement"] == 0 < loop["kinetic_energy"] and loop["straightness"] == 0
    assert np.isnan(loop["alignment"]).tolist() == [False, True, False]

    line = everything(paths_of(start, [step, step, step]), gradients=-2e-300 * np.stack([step] * K))
    np.testing.assert_allclose(line["straightness"], 1.0, rtol=1e-14)
    np.testing.assert_allclose(line["alignment"], 1.0, rtol=1e-14)  # of tiny gradients as well
    tiny = everything(paths_of(start, 1e-200 * np.stack([step, step, step])), gradients=GRADIENTS)
    assert tiny["kinetic_energy"] == 0  # underflow
    np.testing.assert_allclose(tiny["straightness"], 1.0, rtol=1e-14)
    np.testing.assert_allclose(tiny["alignment"], line_up(step), rtol=1e-12)

    one = everything(random_paths(0, layers=1))
    assert one["straightness"] == 1
    assert one["transport_cost"] == one["kinetic_energy"] == one["displacement"]

    # points at the origin have no relative displacement, points that stay no direction
    paths = paths_of(np.array([[0.0, 0], [3, 4], [0, 0], [0, 0], [0, 0]]), zero + 1.0)
    first = dynamics.relative_displacement(paths)[0]
    np.testing.assert_allclose(first, np.sqrt(2) / 5, rtol=1e-14)
    assert np.isnan(dynamics.relative_displacement(paths_of(0 * start, zero + 1.0))[0])


def line_up(step):
    """Cosine of one step per point with the descent along GRADIENTS, layer by layer."""
    cosine = -(step * GRADIENTS).sum(-1)
    return (cosine / np.linalg.norm(step, axis=-1) / np.linalg.norm(GRADIENTS, axis=-1)).mean(-1)


@pytest.mark.slow
def test_derivatives_are_finite_where_points_stay():
    def total(steps):
        paths = Paths(jnp.zeros((K + 1, N, D)), steps)
        found = everything(paths, gradients=GRADIENTS)
        return sum(jnp.nan_to_num(value).sum() for value in found.values())

    steps = np.zeros((K, N, D))
    steps[0, 0] = 1.0
    slope = jax.jit(jax.grad(total))(steps)
    assert np.isfinite(slope).all() and np.asarray(slope)[0, 0].any()


@pytest.mark.slow
def test_sums_over_a_million_points_keep_six_digits_in_32_bits():
    rng, n = np.random.default_rng(0), 10**6
    steps = rng.standard_normal((2, n, 1), np.float32) + 1
    paths = on_device(np.ones((3, n, 1), np.float32), steps)
    weights = rng.exponential(size=n).astype(np.float32)
    wide = steps[..., 0].astype(float)
    for given in (None, weights):
        A, moved = (np.average(v, axis=-1, weights=given) for v in (wide**2, np.abs(wide)))
        far = np.average(wide.sum(0) ** 2, weights=given)
        found = everything(paths, given)
        assert {value.dtype.name for value in found.values()} == {"float32"}
        expected = (A, A.sum(), 2 * A.sum(), far, far / (2 * A.sum()), moved)
        found = {name: np.float64(value) for name, value in found.items()}
        agree(found, dict(zip(NAMES, expected, strict=True)), rtol=1e-6)


class Scale(eqx.Module):
    """Velocity a x of one number a per layer."""

    def init(self, key, width):
        return jax.random.normal(key)

    def __call__(self, params, x):
        return params * x


class Turn(eqx.Module):
    """Velocity that turns points by an angle per layer."""

    def init(self, key, width):
        return jax.random.normal(key)

    def __call__(self, params, x):
        c, s = jnp.cos(params), jnp.sin(params)
        return x @ jnp.array([[c, s], [-s, c]]) - x


@pytest.mark.slow
def test_a_scalar_flow_of_least_action_moves_in_equal_steps():
    c, K = 3.0, 4
    x = np.linspace(-1.0, 1.0, 7)[:, None]
    x /= np.sqrt((x**2).mean())  # E|x|^2 = 1
    net = networks.Residual(Scale(), K, outputs=1, head=[[1.0]])

    @jax.jit
    def actions(a):
        paths = net.paths({"velocity": a}, x)
        found = {name: getattr(dynamics, name)(paths) for name in NAMES}
        return dynamics.transport_cost(paths), found

    slope = jax.jit(jax.grad(actions, has_aux=True))
    reached = {"type": "eq", "fun": lambda a: np.prod(1 + a) - c}
    best = minimize(
        lambda a: float(actions(a)[0]), np.full(K, 0.3), jac=lambda a: np.asarray(slope(a)[0]),
        constraints=reached, method="SLSQP", options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    d = (c - 1) / K
    np.testing.assert_allclose(best.x, d / (1 + d * np.arange(K)), atol=1e-6)
    found = actions(best.x)[1]
    for name, value in (("transport_cost", 1.0), ("kinetic_energy", 4.0), ("displacement", 4.0)):
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    np.testing.assert_allclose(found["layer_action"], 0.25, rtol=1e-5)  # of first order in a
    np.testing.assert_allclose(found["straightness"], 1.0, atol=1e-6)
    assert actions(np.full(K, c**0.25 - 1))[0] > 1.05  # equal a is not the least


def test_gaussian_maps_are_geodesics():
    """A symmetric positive map is the gradient of a convex function: W2^2 = D = E."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    A, shift = 0.3 * np.eye(3) + 0.2 * root @ root.T, np.array([1.0, -2.0, 0.5])
    x = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 3)).T
    z = x @ A + shift

    def closed_form(x, z):
        S1, S2 = (np.cov(v.T, bias=True) for v in (x, z))
        half = sqrtm(S1)
        mean = ((x.mean(0) - z.mean(0)) ** 2).sum()
        return mean + np.trace(S1 + S2 - 2 * sqrtm(half @ S2 @ half).real)

    W = closed_form(x, z)
    found = dynamics.wasserstein(x, z)
    np.testing.assert_allclose([found.w2**2, found.displacement], W, rtol=1e-12)
    np.testing.assert_allclose(found.efficiency, 1.0, rtol=1e-12)
    straight = paths_of(x, np.stack([(z - x) / K] * K))
    np.testing.assert_allclose(dynamics.kinetic_energy(straight), W, rtol=1e-12)

    # x -> (1 - t) x + t z stays on the geodesic: the distance is proportional to t
    half = dynamics.wasserstein(x, (x + z) / 2)
    np.testing.assert_allclose(half.w2, np.sqrt(W) / 2, rtol=1e-12)


@pytest.mark.slow
def test_rotations_move_points_and_not_their_law():
    """A ring of points with E|x|^2 = 2, as of a standard normal law in the plane."""
    K, n = 5, 12
    angle = 2 * np.pi * np.arange(n) / n
    ring = np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], 1)
    t = 2 * np.pi / n * 3  # the ring is mapped onto itself
    net = networks.Residual(Turn(), K, outputs=2, head=np.eye(2))
    paths = net.paths({"velocity": np.full(K, t / K)}, ring)
    D, E = dynamics.displacement(paths), dynamics.kinetic_energy(paths)
    np.testing.assert_allclose(D, 4 * (1 - np.cos(t)), rtol=1e-6)
    np.testing.assert_allclose(E, 4 * K**2 * (1 - np.cos(t / K)), rtol=1e-6)
    assert E > D
    found = dynamics.wasserstein(paths.states[0], paths.states[-1])
    np.testing.assert_allclose(found.displacement, D, rtol=1e-12)
    assert found.w2 < 1e-6 and found.efficiency < 1e-12


BAD = {
    "weights below 0": (dict(weights=-WEIGHTS), "weights must be non-negative, got -2.0"),
    "weights zero": (dict(weights=0 * WEIGHTS), "weights are all zero"),
    "weights short": (dict(weights=WEIGHTS[:2]), r"weights has shape \(2,\); give \(5,\), one"),
    "weights nan": (dict(weights=np.nan * WEIGHTS), "weights contains non-finite values"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_weights_that_cannot_be(case):
    given, message = BAD[case]
    for name in (*NAMES, "alignment_with_descent"):
        more = (GRADIENTS,) if name == "alignment_with_descent" else ()
        with pytest.raises(ValueError, match=message):
            getattr(dynamics, name)(random_paths(0), *more, **given)


def test_paths_that_cannot_be():
    paths = random_paths(0)
    short = on_device(np.asarray(paths.states)[:-1], np.asarray(paths.increments))
    with pytest.raises(
        ValueError, match=r"paths has states of shape \(3, 5, 2\) and increments of"
    ):
        dynamics.layer_action(short)
    wrong = on_device(np.asarray(paths.states), np.full((K, N, D), np.nan))
    with pytest.raises(ValueError, match="paths.increments contains non-finite values"):
        dynamics.straightness(wrong)
    with pytest.raises(ValueError, match="gradients has shape .*; give .*, one gradient per step"):
        dynamics.alignment_with_descent(paths, GRADIENTS[:-1])


def test_ladder():
    """W2^2 <= D <= E for any paths, to rounding."""
    for seed in range(20):
        paths = random_paths(seed)
        D, E = dynamics.displacement(paths), dynamics.kinetic_energy(paths)
        found = dynamics.wasserstein(paths.states[0], paths.states[-1])
        assert found.w2**2 <= found.displacement * (1 + 1e-14)
        np.testing.assert_allclose(found.displacement, D, rtol=1e-12)
        assert D <= E * (1 + 1e-14)
