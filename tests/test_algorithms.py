# SPDX-License-Identifier: Apache-2.0
"""One face for all rules of motion: init, step, and what a run keeps."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesrg import dynamics, io

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((6, 2)), rng.standard_normal(6)
K = X @ X.T + np.eye(6)


def linear(w, X):
    return X @ w


def loss(w):
    return 0.5 * ((X @ w - Y) ** 2).sum()


def batch_loss(w, rows):
    return 0.5 * ((jnp.asarray(X)[rows] @ w - jnp.asarray(Y)[rows]) ** 2).sum()


def mean_loss(w, X, y):
    return 0.5 * ((X @ w - y) ** 2).mean()


class Shift:
    """A residual network whose one layer adds w (2,) to all points, and whose outputs are sums."""

    def paths(self, w, X):
        step = jnp.broadcast_to(w, X.shape)[None]
        return dynamics.Paths(jnp.stack([X, X + w]), step)

    def read_out(self, w, x):
        return x.sum(1)


def half_mean(f, y):
    return 0.5 * ((f - y) ** 2).mean()


def pairs(key):
    return jax.random.permutation(key, 6).reshape(3, 2)


# name: (from a step size to the algorithm, its start, whether it draws, time per step)
ALGORITHMS = {
    "gradient_descent": (lambda s: dynamics.gradient_descent(loss, s), np.ones(2), False, 0.01),
    "gradient_flow": (lambda s: dynamics.gradient_flow(loss, s), np.ones(2), False, 0.01),
    "preconditioned": (
        lambda s: dynamics.preconditioned(linear, X, Y, 0.5 * jnp.eye(6), step_size=s),
        np.ones(2), False, 0.01,
    ),
    "sgd": (
        lambda s: dynamics.sgd(linear, X, Y, step_size=s, batch=2), np.ones(2), True, 0.01
    ),
    "dual": (lambda s: dynamics.dual(K, Y, step_size=s), np.zeros(6), False, 0.01),
    "optax_descent": (
        lambda s: dynamics.optax_descent(batch_loss, optax.sgd(jnp.asarray(s)), pairs),
        np.ones(2), True, 1.0,
    ),
    "sgld": (
        lambda s: dynamics.sgld(
            dynamics.minibatch(mean_loss, X, Y, batch=2), learning_rate=s, temperature=0.1
        ),
        np.ones(2), True, 0.01,
    ),
    "least_action": (
        lambda s: dynamics.least_action(
            Shift(), half_mean, optax.sgd(jnp.asarray(s)), X, Y, every=2, batch=2
        ),
        np.ones(2), True, 1.0,
    ),
    "dyson": (
        lambda s: dynamics.dyson(1.0, dt=s, slope=lambda x: x**3), np.diag([1.0, 2.0]), True, 0.01
    ),
}  # fmt: skip


def test_every_algorithm_is_here():
    makers = {
        name
        for name in dynamics.__all__
        if inspect.isfunction(getattr(dynamics, name))
        and inspect.signature(getattr(dynamics, name)).return_annotation is dynamics.Algorithm
    }
    assert makers == set(ALGORITHMS)


@pytest.mark.filterwarnings("ignore:K=1", "ignore:action dominates")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm(name):
    make, start, draws, dt = ALGORITHMS[name]
    rule = make(0.01)

    # a step keeps the shapes of its state
    state = rule.init(jnp.asarray(start))
    new, info = jax.eval_shape(rule.step, state, jax.random.key(0))
    seen = "spread" if name == "dyson" else "loss"
    more = {"transport", "lambda"} if name == "least_action" else set()
    assert isinstance(info, dynamics.Info) and set(info.observables) == {seen} | more
    shapes = jax.tree.map(lambda v: (v.shape, v.dtype), (state, new))
    assert shapes[0] == shapes[1]

    # one key gives one path
    fine, again, other = (dynamics.run(rule, start, 6, key) for key in (5, jax.random.key(5), 6))
    np.testing.assert_array_equal(fine.x, again.x)
    assert draws != np.array_equal(fine.x, other.x)
    np.testing.assert_array_equal(fine.step, np.arange(7))
    assert fine.observables[seen].shape == (7,)
    np.testing.assert_array_equal(np.asarray(fine.x)[-1], fine.last.x)
    np.testing.assert_allclose(fine.time, dt * np.arange(7), rtol=1e-15)
    assert int(fine.status) == dynamics.GO and int(fine.steps) == 6

    # the records do not change it: a property of runs, so one rule that draws is enough
    if name == "sgd":
        coarse = dynamics.run(rule, start, 6, 5, every=3)
        np.testing.assert_array_equal(coarse.step, [0, 3, 6])
        np.testing.assert_allclose(coarse.x, np.asarray(fine.x)[::3], rtol=1e-14)
        np.testing.assert_allclose(coarse.observables["loss"], fine.observables["loss"], rtol=1e-14)
        np.testing.assert_allclose(coarse.time, dt * np.array([0, 3, 6]), rtol=1e-15)

    # a run that diverges says so, and stays at its last state
    message = rf"the run diverged: it stopped after \d steps at .*{seen}"
    with pytest.raises(ValueError, match=message) as raised:
        dynamics.run(make(1e200), start, 6, 5)
    lost = dynamics.run(make(1e200), start, 6, 5, allow_divergence=True)
    assert int(lost.status) == dynamics.DIVERGED and int(lost.steps) < 6
    np.testing.assert_array_equal(raised.value.trajectory.last.x, lost.last.x)
    time = np.asarray(lost.time)
    np.testing.assert_array_equal(np.asarray(lost.x)[-1], lost.last.x)
    np.testing.assert_allclose(time[-1], time[1] * int(lost.steps), rtol=1e-15)


def test_observables_are_any_pytree():
    def step(state, key):
        seen = {"place": state.x, "size": (state.x**2).sum()}
        return dynamics.State(2 * state.x), dynamics.Info(seen, jnp.where(state.x[0] < 9, 0, 1))

    found = dynamics.run(dynamics.Algorithm(dynamics.State, step, 0.5), np.ones(2), 6, 0, every=2)
    doubled = 2.0 ** np.minimum(np.arange(7), 4)
    np.testing.assert_array_equal(found.observables["place"], doubled[:, None] * np.ones(2))
    np.testing.assert_array_equal(found.observables["size"], 2 * doubled**2)
    np.testing.assert_array_equal(found.time, [0, 1, 2, 2])
    assert int(found.status) == dynamics.REACHED and int(found.steps) == 4
    dataset = io.label(dynamics=found)["dynamics"]
    sizes = {"step": 4, "position": 2, "each_step": 7, "place_axis": 2}
    assert dict(dataset.sizes) == sizes and dataset["size"].dims == ("each_step",)
    assert dataset["place"].dims == ("each_step", "place_axis")


def test_what_is_kept_replaces_positions_and_only_records_make_it():
    rule = dynamics.sgd(linear, X, Y, step_size=0.01, batch=2)
    whole = dynamics.run(rule, np.ones(2), 6, 5, every=3)
    kept = dynamics.run(rule, np.ones(2), 6, 5, every=3, keep=lambda s: {"sum": s.x.sum()})
    np.testing.assert_allclose(kept.x["sum"], np.asarray(whole.x).sum(1), rtol=1e-14)
    np.testing.assert_allclose(kept.last.x, whole.last.x, rtol=1e-14)


def test_chains_are_runs_with_split_keys():
    """From a shared start, and from one start per chain, also where both have equal lengths."""
    rule = dynamics.sgd(linear, X, Y, step_size=0.01, batch=2)
    starts = np.array([[1.0, 1.0], [0.5, -1.0]])
    for x0 in (np.ones(2), starts):
        both = dynamics.run(rule, x0, 6, 5, every=2, chains=2)
        for i, key in enumerate(jax.random.split(jax.random.key(5), 2)):
            one = dynamics.run(rule, x0 if x0.ndim == 1 else x0[i], 6, key, every=2)
            alone, chain = jax.tree.map(np.asarray, (one, both))
            np.testing.assert_array_equal(chain.step, alone.step)
            for a, b in (
                (chain.x, alone.x),
                (chain.last.x, alone.last.x),
                (chain.time, alone.time),
            ):
                np.testing.assert_allclose(a[i], b, rtol=1e-12)
            np.testing.assert_allclose(chain.observables["loss"][i], alone.observables["loss"])


def test_a_chain_that_diverges_is_named_and_the_others_are_returned():
    def step(state, key):
        bad = jnp.where(state.x > 9, dynamics.DIVERGED, dynamics.GO)
        return dynamics.State(state.x * 2), dynamics.Info({"place": state.x}, bad)

    rule = dynamics.Algorithm(dynamics.State, step)
    with pytest.warns(
        UserWarning, match="1 of 3 chains diverged, chain 1 after 1 steps at place 10"
    ) as seen:
        found = dynamics.run(rule, np.array([0.1, 5.0, 0.2]), 4, 0, chains=3)
    assert seen[0].filename == __file__
    np.testing.assert_array_equal(found.status, [0, dynamics.DIVERGED, 0])
    np.testing.assert_allclose(found.last.x, [1.6, 10.0, 3.2])
    with pytest.raises(ValueError, match="'dynamics' is a run with chains.*io.trajectory"):
        io.label(dynamics=found)
    np.testing.assert_array_equal(found.steps, [4, 1, 4])
    with pytest.raises(ValueError, match="2 of 2 chains diverged"):
        dynamics.run(rule, np.array([5.0, 6.0]), 4, 0, chains=2)


def test_optax_without_batches_observes_what_the_loss_returns():
    def both(w):
        return loss(w), (w**2).sum()

    rule = dynamics.optax_descent(both, optax.sgd(0.01))
    found = dynamics.run(rule, np.ones(2), 6, 0)
    plain = dynamics.run(dynamics.gradient_descent(loss, 0.01), np.ones(2), 6, 0)
    np.testing.assert_allclose(found.x, plain.x, rtol=1e-14)
    np.testing.assert_allclose(found.observables, (plain.x**2).sum(1), rtol=1e-14)


@pytest.mark.parametrize(
    "loss, batches, message",
    [
        (lambda w: w, None, r"loss returns shape \(2,\); return one number"),
        (lambda w, rows: w[0], lambda key: None, "batches returned no arrays with a leading axis"),
        (lambda w, rows: w[0], lambda key: (X, X[:2]), "batches returned no arrays"),
    ],
)
def test_what_optax_descends_on(loss, batches, message):
    with pytest.raises(ValueError, match=message):
        dynamics.run(dynamics.optax_descent(loss, optax.sgd(0.1), batches), np.ones(2), 1, 0)
