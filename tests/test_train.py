# SPDX-License-Identifier: Apache-2.0
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesrg.networks import train

rng = np.random.default_rng(0)
X = rng.standard_normal((30, 3))
y = X @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.standard_normal(30)


def linear(w, X):
    return X @ w


def test_descent_on_all_data_is_the_closed_form():
    """Residuals shrink by powers of I - eta K / n."""
    out = train(linear, np.zeros(3), X, y, optimizer=optax.sgd(0.3), epochs=12, key=0, every=4)
    best = np.linalg.lstsq(X, y)[0]
    step = np.eye(3) - 0.3 * X.T @ X / 30
    for k, epoch in enumerate((0, 4, 8, 12)):
        expected = best - np.linalg.matrix_power(step, epoch) @ best
        np.testing.assert_allclose(out.snapshots[k], expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(out.at, [0, 4, 8, 12])
    np.testing.assert_allclose(out.params, out.snapshots[-1], rtol=0, atol=0)
    np.testing.assert_allclose(out.loss[0], 0.5 * (y**2).mean(), rtol=1e-12)
    assert out.loss.shape == (12,) and (np.diff(out.loss) < 0).all()


def test_batches_visit_every_point_once_an_epoch():
    """With a linear loss the sum of an epoch's gradients does not depend on the order."""

    def offset(b, X):
        return jnp.zeros(X.shape[0]) + b

    out = train(offset, 0.0, X, y, optimizer=optax.sgd(1e-9), epochs=1, key=3, batch=5)
    np.testing.assert_allclose(out.params, 6e-9 * y.mean(), rtol=1e-6)


def test_a_network_learns_and_its_draws_repeat():
    traced = itertools.count()  # what is compared by identity is not copied

    def apply(params, X):
        next(traced)
        return jnp.tanh(X @ params[0].T) @ params[1]

    keys = jax.random.split(jax.random.key(0))
    start = (jax.random.normal(keys[0], (20, 3)) / 3**0.5, jax.random.normal(keys[1], (20,)) / 20)
    more = {"optimizer": optax.adam(0.01), "epochs": 200, "key": 1, "batch": 10}
    out = train(apply, start, X, y, **more)
    assert float(out.loss[-1]) < 0.02 * float(out.loss[0])
    count = next(traced)
    again = train(apply, start, X, y, **more)
    assert next(traced) == count + 2  # the shape of the outputs, and nothing is compiled anew
    np.testing.assert_array_equal(out.params[0], again.params[0])
    assert out.snapshots[0].shape == (2, 20, 3)
    np.testing.assert_array_equal(out.snapshots[0][0], start[0])


@pytest.mark.slow
def test_an_ensemble_is_a_vmap_over_keys():
    """And training may be compiled, or differentiated in its step."""

    def one(rate, key):
        out = train(linear, np.ones(3), X, y, optimizer=optax.sgd(rate), epochs=2, key=key, batch=7)
        return out.loss[-1], out

    keys = jax.random.split(jax.random.key(0), 3)
    ensemble = jax.jit(jax.vmap(jax.value_and_grad(one, has_aux=True), (None, 0)))
    (_, found), slopes = jax.tree.map(np.asarray, ensemble(0.1, keys))
    own, up, down = (one(jnp.asarray(0.1 + h), keys[1])[1] for h in (0.0, 1e-5, -1e-5))
    for a, b in zip(found[:3], own[:3], strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-12)
    np.testing.assert_array_equal(found.at[1], own.at)
    np.testing.assert_allclose(slopes[1], float(up.loss[-1] - down.loss[-1]) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 31}, "batch must be an integer from 1 to 30, got 31"),
        ({"every": 3}, "every is 3 for 4 steps"),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"optimizer": optax.sgd(1e200)}, "the run diverged"),
    ],
)
def test_bad_input(change, words):
    given = {"optimizer": optax.sgd(0.1), "epochs": 4, "key": 0} | change
    with pytest.raises(ValueError, match=words):
        train(linear, np.zeros(3), X, y, **given)
    with pytest.raises(ValueError, match=r"apply returns shape \(30,\) for targets of shape"):
        train(linear, np.zeros(3), X, y[:, None], optimizer=optax.sgd(0.1), epochs=4, key=0)


def test_another_loss():
    """Logistic regression: its gradient vanishes at the maximum of the likelihood."""
    labels = (X @ np.array([1.0, -2.0, 0.5]) + rng.logistic(size=30) > 0).astype(int)

    def entropy(f, y):
        return optax.sigmoid_binary_cross_entropy(f, y).mean()

    rule = optax.sgd(1.0)
    out = train(linear, np.zeros(3), X, labels, optimizer=rule, epochs=2000, key=0, loss=entropy)
    slope = X.T @ (1 / (1 + np.exp(-X @ out.params)) - labels) / 30
    np.testing.assert_allclose(slope, 0.0, atol=1e-8)
    np.testing.assert_allclose(out.loss[0], np.log(2))
    with pytest.raises(ValueError, match="loss"):
        train(linear, np.zeros(3), X, y, optimizer=rule, epochs=1, key=0, loss=lambda f, y: f - y)
