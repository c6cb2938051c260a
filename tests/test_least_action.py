# SPDX-License-Identifier: Apache-2.0
"""Training with least action, against NumPy on a network whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits, make_circles, make_moons

from bayesrg import dynamics
from bayesrg.dynamics import DIVERGED, GO, REACHED, least_action, run
from bayesrg.networks import Residual

rng = np.random.default_rng(0)
N, K, RATE = 7, 3, 0.03
X = rng.standard_normal((N, 2))
Y = X.sum(1) + 1.5 + 0.1 * rng.standard_normal(N)
CLASSES = np.array([0, 1, 2, 0, 1, 2, 1])
START = 0.1 * rng.standard_normal((K, 2))


class Shifts:
    """A residual network whose layer k adds w_k (2,); its output is the sum of a state."""

    def paths(self, w, X):
        steps = jnp.broadcast_to(w[:, None], (len(w), *X.shape))
        states = X + jnp.cumsum(jnp.concatenate([jnp.zeros_like(w[:1]), w]), 0)[:, None]
        return dynamics.Paths(states, steps)

    def read_out(self, w, x):
        return x.sum(1)


class Three(Shifts):
    """With three outputs."""

    def read_out(self, w, x):
        return x @ jnp.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]], x.dtype)

    def head_norm(self, w):
        return jnp.sqrt(6.25) + w[0, 0]


def half_mean(f, y):
    return 0.5 * ((f - y) ** 2).mean()


def entropy(f, y):
    return optax.softmax_cross_entropy_with_integer_labels(f, y).mean()


def shifts(y=Y, net=None, loss=half_mean, rate=RATE, **more):
    return least_action(net or Shifts(), loss, optax.sgd(jnp.asarray(rate)), X, y, **more)


def oracle(steps, lambda0=1.0, tau=1.0, eps=0.0, low=None, high=np.inf, every=5, factors=(1, 1, 1)):
    """Return weights, losses, transports and multipliers of all states, and the number of steps."""
    w, multiplier, low = START.copy(), lambda0, lambda0 if low is None else low
    ws, losses, transports, multipliers = [], [], [], []
    for t in range(steps + 1):
        residual = (X + w.sum(0)).sum(1) - Y
        L, T = 0.5 * (residual**2).mean(), (w**2).sum()
        ws, losses = [*ws, w], [*losses, L]
        transports, multipliers = [*transports, T], [*multipliers, multiplier]
        means = np.reshape(transports[: 50 * ((t + 1) // 50)], (-1, 50)).mean(1)
        if (t + 1) % 50 == 0 and np.mean(losses[-50:]) < eps and len(means) > 1:
            if abs(means[-1] - means[-2]) <= 0.01 * means[-1]:
                break
        if (t + 1) % every == 0:
            multiplier = np.clip(multiplier + tau * (L - eps), low, high)
        slope = residual.mean() + 2 * np.array(factors)[:, None] * w / multiplier
        w = w - RATE * slope
    return np.array(ws), np.array(losses), np.array(transports), np.array(multipliers), t


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"lambda0": 0.5, "eps": 0.2, "lambda_min": 0.1}, {"lambda0": 0.5, "eps": 0.2, "low": 0.1}),
        ({"lambda_max": 1.7, "tau": 3.0}, {"high": 1.7, "tau": 3.0}),
        ({"lambda0": 2.0, "tau": 0.0, "every": 0}, {"lambda0": 2.0, "tau": 0.0}),
        (
            {"modules": [((0, 2), 0.25), (range(1, 2), 1.0)], "lambda_max": 4.0, "eps": 0.1},
            {"factors": (2, 0.5, 2), "high": 4.0, "eps": 0.1},
        ),
    ],
)
def test_every_update_and_the_stop(given, expected):
    """All steps of a run that may end by itself, with bounds that bind and loss below eps."""
    found = run(shifts(**given), START, 300, 0)
    w, L, T, multiplier, steps = oracle(300, **expected)
    assert int(found.steps) == steps
    assert int(found.status) == (REACHED if steps < 300 else GO)
    kept = slice(0, steps + 1)
    np.testing.assert_allclose(found.x[kept], w, rtol=1e-11)
    np.testing.assert_allclose(found.observables["loss"][kept], L, rtol=1e-11)
    np.testing.assert_allclose(found.observables["transport"][kept], T, rtol=1e-11)
    np.testing.assert_allclose(found.observables["lambda"][kept], multiplier, rtol=1e-11)


def test_the_cases_above_are_different_ones():
    """Some stop by themselves, a bound is reached, and a multiplier falls below its start."""
    assert oracle(300)[-1] == 300
    assert oracle(300, lambda0=0.5, eps=0.2, low=0.1)[-1] < 300
    assert oracle(300, lambda0=0.5, eps=0.2, low=0.1)[3].min() < 0.5
    assert oracle(300, tau=3.0, high=1.7)[3].max() == 1.7


@pytest.mark.slow
def test_a_fixed_penalty_finds_the_geodesic():
    """The loss plus T over lambda has its minimum at K equal steps."""
    found = run(shifts(lambda0=0.4, tau=0.0), START, 300, 0)
    gap = (X.sum(1) - Y).mean()
    shift = -gap / (1 + 1 / (0.4 * K))  # the sum of all w
    np.testing.assert_allclose(found.last.x, np.full((K, 2), shift / (2 * K)), rtol=1e-9)
    paths = Shifts().paths(found.last.x, jnp.asarray(X))
    np.testing.assert_allclose(dynamics.straightness(paths), 1.0, rtol=1e-12)


@pytest.mark.slow
def test_plain_training_is_descent_on_the_loss():
    """With lambda0 infinite, which may be traced; only then the transport is computed."""
    found = run(shifts(lambda0=np.inf), START, 300, 0)
    assert set(found.observables) == {"loss"}
    plain = oracle(300, np.inf, 0.0)[0]
    np.testing.assert_allclose(found.x, plain, rtol=1e-11)

    def last(lambda0):
        return run(shifts(lambda0=lambda0, tau=0.0), START, 300, 0).last.x

    both = jax.jit(jax.vmap(last))(np.array([np.inf, 2.0]))
    np.testing.assert_allclose(both[0], plain[-1], rtol=1e-11)
    np.testing.assert_allclose(both[1], oracle(300, 2.0, 0.0)[0][-1], rtol=1e-11)


@pytest.mark.slow
def test_the_derivative_of_a_run_is_that_of_its_updates():
    """Also at the end, where warnings look at numbers that `jax.grad` traces."""

    def last(lambda0):
        return run(shifts(lambda0=lambda0, tau=0.0), START, 300, 0).observables["transport"][-1]

    ends = [oracle(300, lambda0, 0.0)[2][-1] for lambda0 in (1.0 + 1e-6, 1.0 - 1e-6)]
    np.testing.assert_allclose(jax.grad(last)(1.0), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_plain_training_stops_at_the_loss():
    found = run(shifts(lambda0=np.inf, eps=0.5), START, 300, 0)
    loss = np.asarray(found.observables["loss"])
    windows = loss[: 50 * (int(found.steps) // 50 + 1)].reshape(-1, 50).mean(1)
    assert int(found.status) == REACHED and int(found.steps) % 50 == 49
    assert windows[-1] < 0.5 and (windows[:-1] >= 0.5).all()


@pytest.mark.slow
def test_batches_and_what_is_observed_of_classes():
    """Rows are drawn with the key of the step; accuracy counts the largest output."""
    rule = shifts(CLASSES, Three(), entropy, rate=0.1, batch=4)
    found = run(rule, START, 10, 3)
    seen = {k: np.asarray(v) for k, v in found.observables.items()}
    assert set(seen) == {"loss", "transport", "lambda", "accuracy", "head_norm"}
    for t in (0, 6):
        draw = jax.random.randint(jax.random.fold_in(jax.random.key(3), t), (4,), 0, N)
        rows, w = np.asarray(draw), np.asarray(found.x)[t]
        f = (X[rows] + w.sum(0)) @ np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
        chosen = f[np.arange(4), CLASSES[rows]]
        np.testing.assert_allclose(seen["loss"][t], (np.log(np.exp(f).sum(1)) - chosen).mean())
        np.testing.assert_allclose(seen["accuracy"][t], (f.argmax(1) == CLASSES[rows]).mean())
        np.testing.assert_allclose(seen["transport"][t], (w**2).sum())
        np.testing.assert_allclose(seen["head_norm"][t], 2.5 + w[0, 0])
    whole, all_rows = (run(shifts(**m), START, 300, 0).last.x for m in ({}, {"batch": N}))
    np.testing.assert_array_equal(whole, all_rows)


@pytest.mark.parametrize("low", [0, -1])
def test_two_classes_and_one_output(low):
    """0 and 1, or -1 and 1; other integers are counts, floats are targets."""
    y = np.where(Y > 1.5, 1, low)

    def seen(rule):
        return lambda w: rule.step(rule.init(w), jax.random.key(0))[1].observables

    right = ((X + START.sum(0)).sum(1) > 0) == (y > 0)
    np.testing.assert_allclose(jax.jit(seen(shifts(y)))(START)["accuracy"], right.mean())
    for other in (y + 5, y.astype(float)):
        assert "accuracy" not in jax.eval_shape(seen(shifts(other)), START)


@pytest.mark.slow
def test_32_bits_stay_32_bits():
    """Also where 64 are allowed; the result agrees to the digits of 32 bits."""
    data = X.astype(np.float32), Y.astype(np.float32)
    rule = least_action(Shifts(), half_mean, optax.sgd(jnp.float32(RATE)), *data)
    found = run(rule, START.astype(np.float32), 60, 0, 60)
    kinds = {v.dtype for v in jax.tree.leaves((found.x, found.observables, found.last.memory))}
    assert kinds == {np.dtype(np.float32), np.dtype(int)}
    np.testing.assert_allclose(found.last.x, oracle(60)[0][-1], rtol=0, atol=3e-6)


def test_a_loss_that_is_not_finite():
    """The error names step, multiplier and transport, and has the weights before the last step."""
    words = r"stopped after \d+ steps at lambda [\d.]+, loss (inf|nan), transport"
    with pytest.raises(ValueError, match=words) as raised:
        run(shifts(rate=1e80), START, 300, 0)
    found = raised.value.trajectory
    assert int(found.status) == DIVERGED
    steps, before = int(found.steps), found.last.memory.before
    np.testing.assert_array_equal(before, found.x[steps - 1])
    assert np.isfinite(found.observables["loss"][steps - 1]) and steps > 0
    assert not np.isfinite(found.observables["loss"][steps])
    again = run(shifts(rate=1e80), START, 300, 0, allow_divergence=True)
    np.testing.assert_array_equal(again.last.memory.before, before)


class Grows(Shifts):
    def head_norm(self, w):
        return 1.0 + 10 * (w**2).sum()


@pytest.mark.parametrize(
    ("given", "start", "words"),
    [
        (
            {"lambda0": 1e-3, "tau": 0.0, "rate": 1e-4},
            0 * START,
            "action dominates: L did not decrease for 150 updates; raise lambda0",
        ),
        ({"net": Grows()}, START, r"head norm grew x\d.*: T is not comparable between runs"),
        ({}, START[:1], "K=1: straightness is 1 by construction"),
    ],
)
def test_warnings_at_the_end_of_a_run(given, start, words):
    with pytest.warns(UserWarning, match=words) as seen:
        run(shifts(**given), start, 300, 0)
    assert len(seen) == 1


@pytest.mark.slow
def test_chains_warn_once_and_of_the_worst():
    starts = np.array([0 * START, START])
    with pytest.warns(UserWarning, match="action dominates") as seen:
        run(shifts(lambda0=1e-3, tau=0.0, rate=1e-4), starts, 300, 0, 300, chains=2)
    assert len(seen) == 1


def test_a_loss_that_the_penalty_does_not_keep_high_is_silent():
    """It fell before it settled, or has a floor: the multiplier grows, the transport does not."""
    run(shifts(lambda0=2.0, tau=0.0), START, 300, 0)
    floor = X.sum(1) + rng.standard_normal(N)
    found = run(shifts(floor), START, 300, 0)
    loss, multiplier = (np.asarray(found.observables[k]) for k in ("loss", "lambda"))
    assert loss[-1] > 0.99 * loss[150] > 0.5 * loss[0] and multiplier[-1] > 1.5 * multiplier[150]


class Few(Three):
    """With another number of points by ``apply``."""

    def apply(self, w, X):
        return self.read_out(w, X)[:2]


class Many(Three):
    """With several norms."""

    def head_norm(self, w):
        return w[0]


ONES = np.ones(N, int)
CLASSIFIED = {"y": CLASSES, "loss": entropy}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lambda0": 0.0}, "lambda0 must be positive, got 0.0"),
        ({"lambda0": -np.inf}, "lambda0 contains non-finite values"),
        ({"lambda_min": 2.0, "lambda_max": 1.0}, "lambda_min, lambda0, lambda_max are 2.0, 1.0"),
        ({"lambda_min": 2.0}, "give them in rising order"),
        ({"lambda_max": 0.5}, "give them in rising order"),
        ({"tau": -1.0}, "tau must be non-negative, got -1.0"),
        ({"every": 0}, "every must be a positive integer, got 0"),
        ({"eps": -0.1}, "eps must be non-negative, got -0.1"),
        ({"batch": 8}, "batch must be an integer from 1 to 7, got 8"),
        ({"y": Y[:4]}, r"y has shape \(4,\) but the inputs have 7 rows"),
        ({"modules": [((0, 1), 1.0)]}, "modules have 2 layers and the net 3"),
        ({"modules": [((0, 1, 2, 3), 1.0)]}, "modules have 4 layers and the net 3"),
        ({"modules": [((0, 1), 1.0), ((1, 2), 1.0)]}, "modules have layer 1 twice"),
        ({"modules": [((0, 2), 1.0)]}, r"modules have the layers \[0, 2\]"),
        ({"modules": [((0, 1, 2), 0.0)]}, r"tau_m of modules\[0\] must be positive"),
        ({"modules": [(0, 1, 2)]}, r"modules\[0\] must be \(layers, tau_m\)"),
        ({"modules": []}, "give each layer from 0 on"),
        ({"net": object()}, "net has no method paths"),
        ({"y": ONES}, "y has one class only, 1"),
        (CLASSIFIED | {"net": Few(), "lambda0": np.inf}, r"net.apply returned shape \(2, 3\)"),
        (CLASSIFIED | {"net": Many()}, r"net.head_norm returned shape \(2,\); return one number"),
        ({"loss": lambda f, y: f - y}, r"loss returns shape \(7,\); return one number"),
    ],
)  # fmt: skip
def test_bad_input(change, words):
    with pytest.raises(ValueError, match=words):
        run(shifts(**change), START, 10, 0)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (CLASSES + 1, "y has classes from 1 to 3 for 3 outputs; give 0 to 2$"),
        (np.where(Y > 1.5, 1, -1), r"from -1 to 1 for 3 outputs.*\(y \+ 1\) // 2"),
        (CLASSES + 0.5, r"y has shape \(7,\) for 3 outputs.*as integers"),
        (CLASSES * 1.0, r"as integers: y.astype\(int\)"),
        (X, r"y has shape \(7, 2\) for 3 outputs"),
        (ONES, "y has one class only, 1"),
    ],
)
def test_targets_that_do_not_fit_three_outputs(y, words):
    with pytest.raises(ValueError, match=words):
        run(shifts(y, Three(), entropy), START, 10, 0)


PLANE = Residual(16, 8, outputs=2, head=[[0.0, 0.0, -3.0], [0.0, 0.0, 3.0]])
DIGITS, HELD = (Residual(32, 6, outputs=10, head=head) for head in ("trainable", "fixed"))
RULES = np.array([[np.inf, 0.0], [1.0, 1.0], [10.0, 0.0]], np.float32)  # lambda0 and tau


def plane(make, **given):
    def data(seed):
        sets = make(200, random_state=seed, **given), make(2000, random_state=seed + 1000, **given)
        return [(np.pad(x, ((0, 0), (0, 1))), y) for x, y in sets]

    return data


def digits_of(n):
    x, y = load_digits(return_X_y=True)

    def data(seed):
        order = np.random.default_rng(seed).permutation(len(x))
        return [(x[rows] / 16 - 0.3, y[rows]) for rows in (order[:n], order[n:])]

    return data


def trained(net, data, steps):
    """Accuracy, transport and straightness of test points, lambda, and the norm of the head.

    Arrays (rules, seeds), of plain training, least action and a fixed penalty 0.1, in one program.
    """
    sets = [data(seed) for seed in range(3)]
    x, y, new, new_y = (np.stack([s[i][j] for s in sets]) for i in (0, 1) for j in (0, 1))
    start = jax.vmap(lambda k: net.init(k, x.shape[2]))(jax.random.split(jax.random.key(0), 3))
    narrow = lambda tree: jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), tree)  # noqa: E731

    def one(rule, x, y, new, new_y, start):
        optimizer = optax.adamw(5e-3, weight_decay=1e-4)
        algorithm = least_action(net, entropy, optimizer, x, y, lambda0=rule[0], tau=rule[1])
        found = run(algorithm, start, steps, 0, steps)
        params = found.last.x
        paths = net.paths(params, new)
        right = (net.read_out(params, paths.states[-1]).argmax(1) == new_y).mean()
        T, straight = dynamics.transport_cost(paths), dynamics.straightness(paths)
        return right, T, straight, found.observables["lambda"][-1], net.head_norm(params)

    seeds = jax.vmap(one, (None, 0, 0, 0, 0, 0))
    rules = jax.jit(jax.vmap(seeds, (0, None, None, None, None, None)))
    return jax.tree.map(np.asarray, rules(RULES, narrow(x), y, narrow(new), new_y, narrow(start)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "data", "steps", "ends", "norms"),
    [
        (PLANE, plane(make_circles, noise=0.08, factor=0.5), 1500, 9.1, None),
        (PLANE, plane(make_moons, noise=0.15), 1500, 9.6, None),
        (DIGITS, digits_of(100), 500, 6.8, (4.2, 13.7)),
        (DIGITS, digits_of(500), 500, 8.2, (4.3, 14.0)),
    ],
    ids=["circles", "moons", "digits 100", "digits 500"],
)
def test_least_action_needs_little_transport(net, data, steps, ends, norms):
    """Three seeds; multiplier and norms of the head are those of an implementation elsewhere.

    Adam's loss may rise for some updates, at the end too, which makes paths of a seed less straight
    and its multiplier larger: so of these the median counts.
    """
    accuracy, T, straight, multiplier, norm = trained(net, data, steps)
    assert (T[1] <= T[0] / 50).all()
    assert (accuracy[1] >= accuracy[0] - 0.01).all()
    assert np.median(straight[1]) > np.median(straight[0])
    assert T[1].mean() < T[2].mean() < T[0].mean()
    np.testing.assert_allclose(np.median(multiplier[1]), ends, rtol=0, atol=1.0)
    if norms is not None:
        np.testing.assert_allclose(norm[:2].mean(1), norms, rtol=0.05)


@pytest.mark.slow
def test_the_gain_is_not_the_scale_of_the_head():
    """With a head that no optimizer moves, on digits."""
    accuracy, T, straight, _, norm = trained(HELD, digits_of(100), 500)
    np.testing.assert_allclose(norm, np.sqrt(10))
    assert (T[1] <= T[0] / 40).all() and (straight[1] > straight[0] + 0.1).all()
    assert (accuracy[1] >= accuracy[0] - 0.01).all()
