# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesrg import dynamics, kernels
from bayesrg.spectrum import maps

KERNEL = kernels.NTK(2, "relu", 2.0, 0.1)


def circle(t):
    return np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1)


@pytest.fixture(scope="module")
def irregular():
    """Random angles in order, and the tangent kernel's Gram matrix there."""
    t = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 48))
    return t, np.asarray(KERNEL(circle(t)))


class Table(kernels.Kernel):
    """Kernel of the points that one column of inputs counts."""

    K: jax.Array

    def gram(self, X, Z):
        return self.K[X[:, 0].astype(int)][:, Z[:, 0].astype(int)]

    def gram_diag(self, X):
        return jnp.diagonal(self.K)[X[:, 0].astype(int)]


def network(params, X):
    hidden = jnp.tanh(X @ params["W"] + params["b"])
    return hidden @ params["v"]


def start(outputs=()):
    rng = np.random.default_rng(2)
    return {"W": rng.standard_normal((2, 9)), "b": rng.standard_normal(9),
            "v": rng.standard_normal((9, *outputs)) / 3}  # fmt: skip


def jacobian(params, X):
    parts = jax.tree.leaves(jax.jit(jax.jacrev(network))(params, X))
    return np.concatenate([np.asarray(p).reshape(len(X), -1) for p in parts], 1)


def dense(S):
    return np.asarray(matrix_of(S))


matrix_of = jax.jit(lambda S: S.dense())
run = jax.jit(network)


def flat(params):
    return np.concatenate([np.asarray(p).ravel() for p in jax.tree.leaves(params)])


def test_modes_get_the_rates_that_the_map_gives(irregular):
    K = irregular[1]
    values, V = np.linalg.eigh(K)
    values, V = values[::-1], V[:, ::-1]
    S = dynamics.preconditioner(K, maps.power(0.5))
    expected = values[0] * (values / values[0]) ** 0.5
    np.testing.assert_allclose(S.eigenvalues, expected, rtol=1e-10)
    np.testing.assert_allclose(K @ dense(S) @ V, V * expected, rtol=0, atol=1e-10)
    low = dynamics.preconditioner(K, maps.flatten(4), 4)
    full = dynamics.preconditioner(K, maps.flatten(4))
    assert low.vectors.shape == (48, 4)
    r = np.random.default_rng(0).standard_normal((48, 2))

    @jax.jit
    def ask(low):
        return low.dense(), low.root().dense(), low @ r, low.coverage(r)

    matrix, root, product, coverage = map(np.asarray, ask(low))
    np.testing.assert_allclose(matrix, dense(full), rtol=0, atol=1e-12)
    np.testing.assert_allclose(root @ root, matrix, rtol=0, atol=1e-13)
    np.testing.assert_allclose(product, matrix @ r, rtol=0, atol=1e-13)
    share = ((V[:, :4].T @ r) ** 2).sum() / (r**2).sum()
    np.testing.assert_allclose(coverage, share, rtol=1e-12)
    kept = dynamics.preconditioner(K, maps.lift(3), ridge=5.0)
    lifted = np.sort(np.linalg.eigvals((K + 5 * np.eye(48)) @ dense(kept)).real)[::-1]
    np.testing.assert_allclose(lifted[:4], [values[0] + 5] * 3 + [values[3] + 5], rtol=1e-10)


@pytest.fixture(scope="module")
def largest(irregular):
    """Largest eigenvalue of K S by so many landmarks, and S."""
    X, table = np.arange(48), Table(jnp.asarray(irregular[1]))

    @jax.jit
    def made(landmarks):
        S = dynamics.landmark_preconditioner(table, X, landmarks, maps.flatten(8), 9)
        return dynamics.stability_limit(irregular[1], S), S

    def ask(m, seed):
        limit, S = made(X[np.random.default_rng(seed).choice(48, m, replace=False)])
        return 2 / float(limit), S

    return ask


@pytest.mark.slow
def test_fewer_landmarks_leave_a_larger_eigenvalue(irregular, largest):
    values = np.linalg.eigvalsh(irregular[1])[::-1]
    found = {m: np.array([largest(m, seed)[0] for seed in range(8)]) for m in (16, 24)}
    for m, stated in ((16, 2.499), (24, 2.463)):
        assert found[m].min() < stated < found[m].max()
        assert (found[m] >= values[8]).all() and (found[m] < 0.1 * values[0]).all()
    assert found[24].mean() < found[16].mean()


def test_low_rank_from_landmarks(irregular, largest):
    """Largest eigenvalue of K S: the target with all points, a bit more with fewer."""
    K = irregular[1]
    values = np.linalg.eigvalsh(K)[::-1]
    np.testing.assert_allclose(values[[0, 8]], [128.60, 2.3555], rtol=0, atol=6e-3)
    assert values[8] == pytest.approx(2.3555, abs=5e-5)
    exact, S = largest(48, 0)
    assert exact == pytest.approx(values[8], rel=1e-10)
    by_K = dense(dynamics.preconditioner(K, maps.flatten(8), 9))
    np.testing.assert_allclose(dense(S), by_K, rtol=0, atol=1e-9)
    value, S = largest(24, 1)
    assert values[8] <= value < 0.1 * values[0]
    iterate = jax.jit(partial(dynamics.power_iteration, key=0), static_argnames="iterations")
    power = iterate(K, S, iterations=500)
    assert float(power.value) == pytest.approx(value, rel=1e-6)
    assert float(power.residual) < 1e-3 and float(power.value) <= value * (1 + 1e-12)
    short, again = iterate(7 * K, S, iterations=3), iterate(K, S, iterations=3)
    np.testing.assert_allclose(short, [7 * again.value, again.residual], rtol=1e-10)
    assert iterate(0 * K, S, iterations=3) == (0.0, 0.0)
    plain = jax.jit(lambda S: dynamics.power_iteration(lambda v: K @ v, S, iterations=500, key=0))(
        S
    )
    np.testing.assert_allclose(plain.value, power.value, rtol=1e-10)


def test_the_weighted_loss_has_the_preconditioned_gradient(irregular):
    t, K = irregular
    X, y, params = circle(t), np.sin(3 * t), start()
    S = dynamics.preconditioner(K, maps.lift(6))
    J, r = jacobian(params, X), np.asarray(run(params, X)) - y
    expected = J.T @ (dense(S) @ r)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return dynamics.pgd_loss(network(params, X), y, S)

    scale = np.abs(expected).max()
    value, gradient = loss(params)
    np.testing.assert_allclose(flat(gradient), expected, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(value, 0.5 * r @ dense(S) @ r, rtol=1e-12)

    with pytest.raises(ValueError, match=r"y has shape \(48, 1\); give \(48,\)"):
        dynamics.pgd_loss(r, y[:, None], S)


def test_all_routes_make_the_same_steps(irregular):
    """Weighted loss, optax and the algorithm; the difference is that of rounding."""
    t, K = irregular
    X, y, params = circle(t), np.sin(3 * t), start()
    S, eta = dynamics.preconditioner(K, maps.flatten(6)), 0.01
    chain = optax.chain(dynamics.scale_by_output_preconditioner(S), optax.sgd(eta))

    @jax.jit
    def both(by_optax, by_loss, state):
        outputs, pull = jax.vjp(lambda w: network(w, X), by_optax)
        zeros = jax.tree.map(jnp.zeros_like, by_optax)
        change, state = chain.update(zeros, state, by_optax, residual=outputs - y, vjp=pull)
        slope = jax.grad(lambda w: dynamics.pgd_loss(network(w, X), y, S))(by_loss)
        by_loss = jax.tree.map(lambda w, g: w - eta * g, by_loss, slope)
        return optax.apply_updates(by_optax, change), by_loss, state

    by_optax, by_loss, state = params, params, chain.init(params)
    for _ in range(5):
        by_optax, by_loss, state = both(by_optax, by_loss, state)
    np.testing.assert_allclose(flat(by_optax), flat(by_loss), rtol=0, atol=1e-15)
    out = dynamics.run(dynamics.preconditioned(network, X, y, S, step_size=eta), params, 5, 0)
    np.testing.assert_allclose(flat(out.last.x), flat(by_loss), rtol=0, atol=1e-15)
    residual = np.asarray(run(out.last.x, X)) - y
    np.testing.assert_allclose(out.observables["loss"][-1], 0.5 * (residual**2).sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="needs residual .* and vjp"):
        chain.update(params, state, params)


def linear(w, X):
    return X @ w


def test_the_bias_of_blocks(irregular):
    """Why a batch needs the residual at all points: the bias of blocks S_BB, for r = -sin 4t.

    Their mean over batches is a mixture of S and its diagonal. In the norm of gradients it differs
    from the gradient by 1.8 times the gradient itself.
    """
    t, K = irregular
    r, b, n = -np.sin(4 * t), 12, 48
    S = dense(dynamics.preconditioner(K, maps.flatten(9)))
    shift = (b - 1) / (n - 1) * S @ r + (n - b) / (n - 1) * np.diag(S) * r - S @ r
    ratio = np.sqrt(shift @ K @ shift / (S @ r @ K @ S @ r))
    assert ratio == pytest.approx(1.8, abs=0.05)


@pytest.mark.slow
def test_stochastic_descent_finds_what_fits_all_points():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((20, 3))
    w = np.array([1.0, -2.0, 0.5])
    limit = 2 / np.linalg.eigvalsh(X @ X.T)[-1]
    plain = dynamics.sgd(linear, X, X @ w, step_size=0.3 * limit, batch=5)
    out = dynamics.run(plain, np.zeros(3), 300, 1, every=100)
    np.testing.assert_allclose(out.x[-1], w, rtol=0, atol=1e-6)
    again = dynamics.sgd(linear, X, X @ w, step_size=0.3 * limit, batch=5, tol=1e-3)
    stopped = dynamics.run(again, np.zeros(3), 300, 1, every=100)
    assert int(stopped.status) == dynamics.REACHED and int(stopped.steps) < 300
    r = X @ np.asarray(stopped.last.x) - X @ w
    assert np.linalg.norm(r) <= 1e-3 * np.linalg.norm(X @ w)
    with pytest.raises(ValueError, match="the run diverged"):
        wild = dynamics.sgd(linear, X, X @ w, step_size=1e100 * limit, batch=5)
        dynamics.run(wild, np.zeros(3), 300, 0, every=100)


def test_several_outputs_share_a_preconditioner(irregular):
    t, K = irregular
    X, Y = circle(t), np.stack([np.sin(t), np.cos(2 * t)], 1)
    S, params = dynamics.preconditioner(K, maps.flatten(6)), start((2,))
    out = dynamics.run(dynamics.preconditioned(network, X, Y, S, step_size=0.005), params, 1, 0)
    slope = jax.jit(jax.grad(lambda w: dynamics.pgd_loss(network(w, X), Y, S)))(params)
    expected = jax.tree.map(lambda w, g: w - 0.005 * g, params, slope)
    np.testing.assert_allclose(flat(out.last.x), flat(expected), rtol=0, atol=1e-13)


def test_messages(irregular):
    t, K = irregular
    X, y = circle(t), np.sin(3 * t) + np.sin(t)
    with pytest.raises(ValueError, match="spectral map produced a negative eigenvalue at lam="):
        dynamics.preconditioner(K, lambda v: v - v[3])
    with pytest.raises(ValueError, match=r"g returned shape \(2,\) for 48 eigenvalues"):
        dynamics.preconditioner(K, lambda v: v[:2])
    with pytest.raises(ValueError, match="K is not symmetric"):
        dynamics.preconditioner(np.tri(4), maps.identity())
    rbf = kernels.RBF(3.0)(X)
    with pytest.raises(ValueError, match="rank is 48 and .* of 48 modes are above rtol"):
        dynamics.preconditioner(rbf, maps.identity(), 48)
    with pytest.warns(UserWarning, match="close to round-off; lifting it amplifies rounding by"):
        dynamics.preconditioner(rbf, lambda v: jnp.full_like(v, v[0]))
    kept = dynamics.preconditioner(rbf, maps.lift(5), rtol=1e-3)
    assert kept.values.min() > 1e-3 * kept.values[0]
    with pytest.raises(ValueError, match="rank must be an integer from 1 to 4, got 9"):
        dynamics.landmark_preconditioner(KERNEL, X, X[:4], maps.flatten(8), 9)

    def begin(S, tol=None):
        dynamics.preconditioned(network, X, y, S, step_size=0.01, tol=tol).init(zero)

    zero = jax.tree.map(np.zeros_like, start())
    cut = dynamics.preconditioner(K, lambda v: jnp.where(jnp.arange(48) < 4, v, 0.0))
    with pytest.warns(UserWarning, match=r"PGD will not learn .*% of the target power \(modes 4, "):
        begin(cut)
    low = dynamics.preconditioner(K, maps.lift(5), 5)
    begin(low)
    with pytest.warns(UserWarning, match="the 5 modes that S moves hold .* needs 99.75%"):
        begin(low, 0.05)
    begin(dynamics.preconditioner(K, maps.lift(48)), 0.05)
    more = {"step_size": 0.01}
    with pytest.raises(ValueError, match="S acts on 48 points and there are 10"):
        dynamics.preconditioned(network, X[:10], y[:10], low, **more)
    with pytest.raises(ValueError, match="batch must be an integer from 1 to 48, got 49"):
        dynamics.preconditioned(network, X, y, low, batch=49, **more)
    with pytest.raises(ValueError, match=r"outputs have shape \(48,\) for targets of shape"):
        dynamics.preconditioned(network, X, y[:, None], low, **more).init(zero)


def wide(params, X):
    """Two hidden layers of relu units in the parameterisation of the tangent kernel."""
    hidden = X
    for W, b in params[:2]:
        hidden = jax.nn.relu(2**0.5 * hidden @ W.T / W.shape[1] ** 0.5 + 0.1**0.5 * b)
    return 2**0.5 * hidden @ params[2] / params[2].size ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "width, distance, spread, held, late",
    [
        (512, 0.2, ((0.35, 0.7), (0.85, 1), (1.2, 2)), (0.85, 0.98), (14, 19)),
        (128, 0.35, ((0.2, 0.6), (0.7, 1), (1.3, 3.5)), (0.55, 0.85), (22, 30)),
    ],
)
def test_wide_networks_take_the_steps_that_theory_counts(width, distance, spread, held, late):
    """Small and large targets; the preconditioner is finite, of low rank, or analytic."""
    n, tol = 32, 0.05
    t = 2 * np.pi * np.arange(n) / n
    X = jnp.asarray(circle(t))
    keys = jax.random.split(jax.random.PRNGKey(0), 5)
    shapes = (width, 2), (width,), (width, width), (width,), (width,)
    W, b, V, c, v = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    params = ((W, b), (V, c), v)
    f0 = wide(params, X)
    parts = jax.tree.leaves(jax.jacrev(wide)(params, X))
    K = sum(np.asarray(p).reshape(n, -1) @ np.asarray(p).reshape(n, -1).T for p in parts)
    analytic = np.asarray(kernels.NTK(2, "relu", 2.0, 0.1, readout_bias=False)(X))
    assert np.linalg.cond(analytic) == pytest.approx(407, abs=0.5)
    assert np.linalg.norm(K - analytic, 2) < distance * np.linalg.norm(analytic, 2)
    ratios = np.linalg.eigvals(np.linalg.solve(analytic, K)).real
    for ratio, (least, most) in zip(
        (ratios.min(), np.median(ratios), ratios.max()), spread, strict=True
    ):
        assert least < ratio < most

    def centred(params, X):
        return wide(params, X) - f0

    def steps(k, S, eta, most, amplitude=0.01):
        y = amplitude * np.cos(k * t)
        descent = dynamics.preconditioned(centred, X, y, S, step_size=eta, tol=tol)
        out = dynamics.run(descent, params, most, 0, every=most)
        linear = dynamics.linear_dynamics(K, S, step_size=eta)
        left = float(jnp.linalg.norm(linear.residual(-y, most))) / np.linalg.norm(y)
        found = (2 * float(out.observables["loss"][-1])) ** 0.5 / np.linalg.norm(y)
        return int(out.steps), float(linear.count(-y, tol)), found, left

    eta = 0.3 / np.linalg.eigvalsh(K)[-1]
    finite = dynamics.preconditioner(K, maps.lift(32))
    infinite = dynamics.preconditioner(analytic, maps.lift(32))
    low = dynamics.preconditioner(K, maps.lift(19), 19)
    assert held[0] < low.coverage(np.cos(8 * t)) < held[1] < low.coverage(np.cos(4 * t))
    for k, latest in zip((4, 8), late, strict=True):
        taken, counted, *_ = steps(k, finite, eta, 80)
        assert counted == 9 and abs(taken - 9) <= 1
        taken, counted, *_ = steps(k, infinite, 0.3 / np.linalg.eigvalsh(analytic)[-1], 80)
        assert abs(taken - counted) <= 2 and 9 < counted <= latest
    with pytest.warns(UserWarning, match="the 19 modes that S moves hold [5-9][0-9.]*% of"):
        taken, _, found, left = steps(8, low, eta, 80)
    assert taken == 80 and found > 4 * tol and found == pytest.approx(left, rel=0.05)
    for k in (4, 8):
        taken, counted, *_ = steps(k, None, 1 / np.linalg.eigvalsh(K)[-1], 2000)
        assert taken == pytest.approx(counted, rel=0.05)
    taken, counted, *_ = steps(8, finite, eta, 80, amplitude=1.0)
    assert 1.5 * counted < taken < 8 * counted
    taken, *_ = steps(8, infinite, 0.3 / np.linalg.eigvalsh(analytic)[-1], 80, amplitude=1.0)
    assert 25 < taken < 60
