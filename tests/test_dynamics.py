# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from bayesrg import dynamics, io, kernels, spectrum
from bayesrg.spectrum import maps

N = 64
T = 2 * np.pi * np.arange(N) / N
KERNEL = kernels.NTK(2, "relu", 2.0, 0.1)


def gram(kernel, *inputs):
    return np.asarray(compiled(kernel, *inputs))


compiled = eqx.filter_jit(lambda kernel, *inputs: kernel(*inputs))


def circle(t):
    return np.sqrt(2) * np.stack([np.cos(t), np.sin(t)], 1)


@pytest.fixture(scope="module")
def K():
    return gram(KERNEL, circle(T))


@pytest.fixture(scope="module")
def values(K):
    return np.linalg.eigvalsh(K)[::-1]


def random_problem(n=12, m=5):
    """Kernel at n + m points, a preconditioner that does not commute with it, and a residual."""
    rng = np.random.default_rng(3)
    half = rng.standard_normal((n + m, 20)) / 4
    joint = half @ half.T
    root = rng.standard_normal((n, n)) / n**0.5
    S = root @ root.T + 0.2 * np.eye(n)
    return joint[:n, :n], joint[n:, :n], S, rng.standard_normal(n)


COUNTS = {  # k: eigenvalue, steps of plain descent, lifted, flattened
    1: (81.1595, 7, 7, 7),
    2: (27.7482, 26, 7, 7),
    3: (6.7386, 111, 7, 7),
    4: (3.5874, 210, 7, 7),
    6: (1.3362, 568, 7, 23),
    8: (0.7134, 1065, 7, 44),
    10: (0.4542, 1674, 7, 71),
    12: (0.3213, 2368, 7, 101),
}


@pytest.mark.slow
def test_steps_to_tolerance_of_each_frequency(K, values):
    lift = dynamics.preconditioner(K, maps.lift(25))
    flatten = dynamics.preconditioner(K, maps.flatten(7))
    eighth = values[7]
    solved = (
        dynamics.linear_dynamics(K, step_size=1 / values[0]),
        dynamics.linear_dynamics(K, lift, step_size=0.5 / values[0]),
        dynamics.linear_dynamics(K, flatten, step_size=0.5 / eighth),
    )
    products = []
    for k, (eigenvalue, *expected) in COUNTS.items():
        target = np.cos(k * T)
        rate = target @ K @ target / (target @ target)
        np.testing.assert_allclose(rate, eigenvalue, rtol=0, atol=5.1e-5)
        assert [float(d.count(-target, 1e-2)) for d in solved] == expected
        products.append((rate / values[0], 0.5, 0.5 if k <= 3 else 0.5 * rate / eighth))
    expected = [counts for _, *counts in COUNTS.values()]
    np.testing.assert_array_equal(dynamics.step_count(np.array(products), 1.0, 1e-2), expected)


def test_step_counts_at_the_ends():
    rates = np.zeros((8, 3))
    rates[:, 0] = 0.0, 1e-18, 0.5, 0.9, 1.0, 1.9, 2.0, 3.0
    found = np.asarray(dynamics.step_count(rates, 1.0, 1e-2))[:, 0]
    np.testing.assert_array_equal(found[[0, 6, 7]], np.inf)
    np.testing.assert_array_equal(found[2:6], [7, 2, 1, 44])
    np.testing.assert_allclose(found[1], np.log(100) * 1e18, rtol=1e-11)
    assert (np.asarray(dynamics.step_count(np.full((8, 3), 0.9999), 1.0, 0.5)) == 1).all()
    one = dynamics.linear_dynamics([[1.0]], step_size=0.5)
    assert [float(one.count([1.0], 0.01, most)) for most in (6, 7)] == [np.inf, 7]
    with pytest.raises(ValueError, match="tol must lie between 0 and 1, got 1"):
        dynamics.step_count(1.0, 1.0, 1)


@pytest.mark.parametrize("decay", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
def test_closed_form_is_the_iteration_of_weights(decay):
    """A linear model, its weights moved step by step."""
    K, K_new, S, r0 = random_problem()
    values, vectors = np.linalg.eigh(K)
    values, vectors = values[values > 1e-10], vectors[:, values > 1e-10]
    J = vectors * np.sqrt(values)
    J_new = K_new @ vectors / np.sqrt(values)
    eta = 0.9 * float(dynamics.stability_limit(K, S, weight_decay=decay))
    solved = dynamics.linear_dynamics(K, S, step_size=eta, weight_decay=decay)
    w = np.zeros(len(values))
    times = np.array([0, 1, 2, 7, 40])
    change = np.asarray(solved.change(r0, times, K_new))
    residual = np.asarray(solved.residual(r0, times))
    for t in range(41):
        if t in times:
            i = list(times).index(t)
            np.testing.assert_allclose(change[i], J_new @ w, rtol=0, atol=2e-13)
            np.testing.assert_allclose(residual[i], r0 + J @ w, rtol=0, atol=2e-13)
        w = w - eta * (J.T @ S @ (r0 + J @ w) + decay * w)
    one = solved.change(np.stack([r0, 2 * r0], 1), 7, K_new)
    np.testing.assert_allclose(one, np.stack([change[3], 2 * change[3]], 1), rtol=0, atol=1e-13)
    A = np.asarray(solved.smoother(times, K_new))
    np.testing.assert_allclose(-A @ r0, change, rtol=0, atol=1e-13)


def test_flow_is_the_matrix_exponential():
    K, K_new, S, r0 = random_problem()
    flow = dynamics.linear_dynamics(K, S)
    for t in (0.0, 0.3, 20.0):
        expected = expm(-t * K @ S) @ r0
        np.testing.assert_allclose(flow.residual(r0, t), expected, rtol=0, atol=1e-12)
    slow = dynamics.linear_dynamics(K, S, step_size=1e-6)
    np.testing.assert_allclose(slow.residual(r0, 3e5), flow.residual(r0, 0.3), rtol=0, atol=1e-5)
    np.testing.assert_allclose(slow.remaining(3e5), flow.remaining(0.3), rtol=0, atol=1e-5)
    rates = np.array([1.9, 0.9, 0.3] + [0.0] * 9)
    steps = dynamics.linear_dynamics(np.diag(rates), step_size=1.0)
    expected = (1 - rates) ** np.array([[0], [3], [40]])
    np.testing.assert_allclose(steps.remaining([0, 3, 40]), expected, rtol=1e-12)


def test_limits_of_descent(K, values):
    """What preconditioning leaves unchanged, and what it changes: section by section."""
    y = np.sign(np.sin(T)) + 0.3 * np.random.default_rng(0).standard_normal(N)
    K_new = gram(KERNEL, circle(2 * np.pi * np.arange(7) / 7 + 0.05), circle(T))
    limit = K_new @ np.linalg.solve(K, y)

    def far(S, step_size, t, **more):
        solved = dynamics.linear_dynamics(K, S, step_size=step_size, **more)
        change = np.asarray(solved.change(-y, t, K_new))
        return change, np.abs(change - limit).max()

    whiten = dynamics.preconditioner(K, lambda v: jnp.full_like(v, v[0]))
    top = values[0]
    assert values[0] / values[-1] == pytest.approx(1714, abs=0.5)
    assert far(whiten, 0.5 / top, 60)[1] < 1e-13
    assert far(whiten, 0.5 / top, jnp.inf)[1] < 1e-13
    assert far(None, 1 / top, 60)[1] == pytest.approx(0.27, abs=0.005)
    assert far(None, 1 / top, 20_000)[1] == pytest.approx(5e-7, abs=0.5e-7)
    kept = dynamics.preconditioner(K, lambda v: jnp.where(jnp.arange(N) < 13, v[0], 0.0))
    assert far(kept, 0.5 / top, jnp.inf)[1] == pytest.approx(0.303, abs=0.0005)
    decayed = far(whiten, 0.5 / top, jnp.inf, weight_decay=2)[0]
    modified = K_new @ np.linalg.solve(K + 2 * np.linalg.inv(whiten.dense()), y)
    np.testing.assert_allclose(decayed, modified, rtol=0, atol=1e-12)
    ridge = K_new @ np.linalg.solve(K + 2 * np.eye(N), y)
    assert np.abs(decayed - ridge).max() == pytest.approx(0.286, abs=0.0005)
    dual = far(
        dynamics.preconditioner(K, maps.lift(25), ridge=2), 0.5 / (top + 2), jnp.inf, ridge=2
    )
    np.testing.assert_allclose(dual[0], ridge, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("tail", [0.3, 0.0, 1.0])
def test_ridgeless_regression_forgets_the_map_on_its_own_landmarks(tail):
    """So it is the limit of every descent; with landmarks elsewhere it is another function."""
    rng, kernel = np.random.default_rng(0), kernels.Matern12(2.0)
    X, X_new, other = (rng.standard_normal((n, 5)) for n in (12, 5, 12))
    K, y = np.asarray(gram(kernel, X)), rng.standard_normal(12)
    flow = dynamics.linear_dynamics(K, dynamics.preconditioner(K, maps.power(0.5)))
    limit = flow.change(-y, np.inf, gram(kernel, X_new, X))

    def fit(points, rank=None):
        base = spectrum.nystrom(kernel, points, rank)
        modified = spectrum.modify(base, maps.power(0.5), tail)
        return gram(modified, X_new, X) @ np.linalg.solve(gram(modified, X), y)

    np.testing.assert_allclose(fit(X), limit, rtol=0, atol=1e-10)
    if tail:
        np.testing.assert_allclose(fit(X, 9), limit, rtol=0, atol=1e-10)
        assert np.abs(fit(other) - limit).max() > 0.1


def test_a_ridge_in_dual_coordinates(K, values):
    y = np.sign(np.sin(T)) + 0.3 * np.random.default_rng(0).standard_normal(N)

    def whiten(v):
        return jnp.full_like(v, v[0])

    S = dynamics.preconditioner(K, whiten, ridge=2.0)
    descent = dynamics.dual(K, y, S, step_size=0.5 / (values[0] + 2), ridge=2.0)
    out = dynamics.run(descent, np.zeros(N), 100, 0, every=100)
    expected = np.linalg.solve(K + 2 * np.eye(N), y)
    np.testing.assert_allclose(out.x[-1], expected, rtol=0, atol=5e-15)
    without = dynamics.preconditioner(K, whiten)
    stable = dynamics.dual(K, y, without, step_size=0.5 / values[0])
    dynamics.run(stable, np.zeros(N), 100, 0, every=100)
    with pytest.raises(ValueError, match="the run diverged: it stopped after [2-9] steps"):
        unstable = dynamics.dual(K, y, without, step_size=0.5 / values[0], ridge=2.0)
        dynamics.run(unstable, np.zeros(N), 100, 0, every=100)


def test_an_ensemble_is_the_linear_image_of_its_start():
    """Outputs at any time are f_0(x) - A (f_0(X) - y), and f_0 is one Gaussian."""
    angles = 2 * np.pi * np.arange(12) / 12
    X, X_new = circle(angles), circle(np.array([0.3, 1.0, 1.7, 4.0, 5.0]))
    tangent, prior = kernels.Matern12(2.0), kernels.RBF(1.0)
    y = np.stack([np.sin(angles), np.cos(3 * angles)], 1)
    K, K_new = gram(tangent, X), gram(tangent, X_new, X)
    joint = gram(prior, np.concatenate([X, X_new]))
    S = dynamics.preconditioner(K, maps.lift(4))
    eta = 0.8 / np.linalg.eigvalsh(K)[-1]

    @jax.jit
    def ensembles():
        early = dynamics.ensemble(tangent, prior, X, y, X_new, [0, 5], S=S, step_size=eta)
        return early, dynamics.ensemble(tangent, prior, X, y, X, jnp.inf)

    found, late = jax.tree.map(np.asarray, ensembles())
    left = np.linalg.matrix_power(np.eye(12) - eta * K @ np.asarray(S.dense()), 5)
    A = K_new @ np.linalg.solve(K, np.eye(12) - left)
    B = np.concatenate([-A, np.eye(5)], 1)
    np.testing.assert_allclose(found.mean[1], A @ y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.cov[1], B @ joint @ B.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.cov[0], joint[12:, 12:], rtol=0, atol=1e-13)
    np.testing.assert_allclose(late.mean, y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(late.cov, 0, rtol=0, atol=1e-12)


def quadratic(x):
    return 0.5 * (np.array([1.0, 4.0]) * x["a"] ** 2).sum() + 0.5 * (x["b"] - 1.0) ** 2


def test_descent_and_flow_of_a_quadratic_loss():
    start = {"a": np.array([1.0, -2.0]), "b": 3.0}
    out = dynamics.run(dynamics.gradient_descent(quadratic, 0.3), start, 6, 0, every=2)
    np.testing.assert_array_equal(out.step, [0, 2, 4, 6])
    t = np.array([0, 2, 4, 6])
    expected = np.stack([0.7**t, -2 * (-0.2) ** t], 1)
    np.testing.assert_allclose(out.x["a"], expected, rtol=1e-13)
    np.testing.assert_allclose(out.x["b"], 1 + 2 * 0.7**t, rtol=1e-13)
    a, b = np.asarray(out.x["a"]), np.asarray(out.x["b"])
    loss = [quadratic({"a": a[i], "b": b[i]}) for i in range(4)]
    np.testing.assert_allclose(out.observables["loss"][::2], loss, rtol=1e-13)
    assert int(out.steps) == 6 and int(out.status) == dynamics.GO
    np.testing.assert_array_equal(out.last.x["b"], b[-1])
    flow = dynamics.run(dynamics.gradient_flow(quadratic, 0.02), start, 50, 0, every=50)
    np.testing.assert_allclose(
        np.asarray(flow.x["a"])[-1], np.exp([-1, -4]) * start["a"], rtol=2e-6
    )
    z = np.array([-0.02, -0.08])
    expected = (1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24) ** 50 * start["a"]
    np.testing.assert_allclose(np.asarray(flow.x["a"])[-1], expected, rtol=1e-13)
    with pytest.raises(ValueError, match="the run diverged"):
        dynamics.run(dynamics.gradient_descent(quadratic, 1e200), start, 6, 0)
    with pytest.raises(ValueError, match="every is 4 for 6 steps"):
        dynamics.run(dynamics.gradient_descent(quadratic, 0.1), start, 6, 0, every=4)


def test_draws_do_not_depend_on_the_records():
    def jump(state, key):
        loss = jnp.sum(state.x**2)
        halt = jnp.where(loss > 1e4, dynamics.REACHED, dynamics.GO)
        return dynamics.State(state.x + jax.random.normal(key, (2,))), dynamics.Info(loss, halt)

    walk = dynamics.Algorithm(dynamics.State, jump)
    fine = dynamics.run(walk, jnp.zeros(2), 12, 5)
    x = np.asarray(fine.x)
    drawn = jax.random.normal(jax.random.fold_in(jax.random.key(5), 3), (2,))
    np.testing.assert_array_equal(x[4], x[3] + np.asarray(drawn))
    dataset = io.label(dynamics=fine)["dynamics"]
    assert dict(dataset.sizes) == {"step": 13, "position": 2, "each_step": 13}
    many = jax.jit(
        jax.vmap(lambda seed: dynamics.run(walk, jnp.zeros(2), 12, jax.random.key(seed), every=4))
    )
    coarse = many(np.array([3, 5, 7]))
    np.testing.assert_array_equal(np.asarray(coarse.x)[1], x[::4])
    np.testing.assert_array_equal(np.asarray(coarse.observables)[1], fine.observables)


def test_bad_input(K):
    skew = K + np.triu(K, 1)
    with pytest.raises(ValueError, match="K is not symmetric: entries differ"):
        dynamics.linear_dynamics(skew)
    skew = np.eye(12) + np.triu(np.full((12, 12), 2e-8), 1)
    with pytest.raises(ValueError, match="differ by 2e-08 of the largest"):
        dynamics.linear_dynamics(skew)
    kept = dynamics.linear_dynamics(0.25 * (skew + 3 * np.eye(12)), step_size=0.1).K
    np.testing.assert_allclose(kept, np.eye(12) * 0.75 + 0.125 * (skew + skew.T), atol=1e-16)
    with pytest.raises(ValueError, match=r"K has shape \(3, 64\); give a square matrix"):
        dynamics.linear_dynamics(K[:3])
    limit = float(dynamics.stability_limit(K))
    with pytest.raises(ValueError, match="step_size .* exceeds the stability limit 0.0120981"):
        dynamics.linear_dynamics(K, step_size=limit)
    with pytest.raises(ValueError, match="S acts on 64 points and there are 12"):
        dynamics.linear_dynamics(K[:12, :12], dynamics.preconditioner(K, maps.lift(3)))
    with pytest.raises(ValueError, match="S acts on 3 points and there are 64"):
        dynamics.linear_dynamics(K, np.eye(3))
    with pytest.raises(ValueError, match="S has a negative eigenvalue, -1"):
        dynamics.linear_dynamics(K, -np.eye(N))
    with pytest.raises(ValueError, match="S has a negative eigenvalue, -0.001"):
        dynamics.linear_dynamics(K, np.diag([-1e-3] + [1.0] * (N - 1)))
    with pytest.raises(ValueError, match="K has a negative eigenvalue, -1 with S and ridge"):
        dynamics.linear_dynamics(np.diag([2.0] * 11 + [-1.0]))
    solved = dynamics.linear_dynamics(K, step_size=0.5 * limit)
    for t in (2.5, -1, [0, np.nan]):
        with pytest.raises(ValueError, match="t must hold whole numbers of steps, zero or more"):
            solved.residual(np.ones(N), t)
    with pytest.raises(ValueError, match="t must hold times, zero or more"):
        dynamics.linear_dynamics(K).remaining(-0.5)
    with pytest.raises(ValueError, match=r"r0 has shape \(3,\) but the inputs have 64 rows"):
        solved.residual(np.ones(3), 1)
    with pytest.raises(ValueError, match=r"K_new must be an array of 2 dimension.*shape \(64,\)"):
        solved.change(np.ones(N), 1, np.ones(N))
    with pytest.raises(ValueError, match="tol must lie between 0 and 1, got 0"):
        solved.count(np.ones(N), 0)
    with pytest.raises(ValueError, match="a flow has no steps"):
        dynamics.linear_dynamics(K).count(np.ones(N), 0.1)
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="needs 64-bit floats"):
        dynamics.linear_dynamics(np.eye(2, dtype="float32"))


@pytest.mark.slow
def test_compiles_maps_and_differentiates(K):
    """The sharpest gradient in the step size is that of central differences."""
    r0 = np.cos(T) + np.cos(4 * T)

    def size(step_size):
        return (dynamics.linear_dynamics(K, step_size=step_size).residual(r0, 20) ** 2).sum()

    h, both = 1e-7, jax.jit(jax.vmap(jax.value_and_grad(size)))
    sizes, slopes = map(np.asarray, both(np.array([0.004, 0.005, 0.004 + h, 0.004 - h])))
    np.testing.assert_allclose(slopes[0], (sizes[2] - sizes[3]) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(sizes[:2], [size(0.004), size(0.005)], rtol=1e-12)


@pytest.mark.slow
def test_one_point():
    K = np.array([[1.5]])
    solved = dynamics.linear_dynamics(K, dynamics.preconditioner(K, maps.lift(1)), step_size=0.1)
    np.testing.assert_allclose(solved.residual(np.ones(1), 3), [0.85**3], rtol=1e-13)
    none = dynamics.linear_dynamics(0 * K, step_size=0.1)
    np.testing.assert_array_equal(none.residual(np.ones(1), np.inf), 1.0)
