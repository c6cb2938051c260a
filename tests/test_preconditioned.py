# SPDX-License-Identifier: Apache-2.0
"""Runs of preconditioned descent: when they stop, what they measure, what they warn of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import dynamics, kernels
from bayesrg.spectrum import maps


def linear(w, X):
    return X @ w


def problem(n=8):
    """Features, a Gram matrix of known eigenvectors, and these, falling."""
    rng = np.random.default_rng(1)
    V = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = 10.0 ** -np.arange(n)
    return V * values**0.5, (V * values) @ V.T, V


@pytest.mark.parametrize("factor, steps", [(9.9, 2), (10.1, 1)])
def test_a_run_diverges_above_ten_times_the_first_residual(factor, steps):
    """One point, whose residual grows by the factor at every step."""
    more = {"step_size": 1.0 + factor}
    for descent in (
        dynamics.preconditioned(linear, [[1.0]], [1.0], None, **more),
        dynamics.dual([[1.0]], [1.0], **more),
    ):
        with pytest.raises(ValueError, match=f"stopped after {steps} steps at loss"):
            dynamics.run(descent, np.zeros(1), 5, 0)


def test_a_run_in_dual_coordinates_stops_at_its_tolerance():
    _, K, V = problem()
    S = dynamics.preconditioner(K, maps.lift(2))
    descent = dynamics.dual(K, V[:, 1], S, step_size=0.5, tol=0.1)
    out = dynamics.run(descent, np.zeros(8), 10, 0)
    assert int(out.status) == dynamics.REACHED and int(out.steps) == 4
    np.testing.assert_allclose(
        out.observables["loss"], 0.5 * 0.25 ** np.minimum(np.arange(11), 4), rtol=1e-9
    )
    with pytest.warns(UserWarning, match="the 1 modes that S moves hold") as seen:
        low = dynamics.preconditioner(K, lambda v: v / 2, 1)
        dynamics.dual(K, V[:, 1], low, step_size=0.5, tol=0.1).init(jnp.zeros(8))

    assert seen[0].filename == __file__


@pytest.mark.parametrize("share, warned", [(0.74, True), (0.76, False)])
def test_the_coverage_that_a_tolerance_needs(share, warned):
    """1 - tol^2 of the power, whether or not the modes that S leaves alone are written out."""
    X, K, V = problem()
    y = share**0.5 * V[:, 1] + (1 - share) ** 0.5 * V[:, 5]
    for rank in (2, None):
        S = dynamics.preconditioner(K, maps.lift(2), rank)
        rule = dynamics.preconditioned(linear, X, y, S, step_size=0.5, tol=0.5)
        if warned:
            with pytest.warns(UserWarning, match="the 2 modes that S moves hold 74% .* needs 75%"):
                rule.init(jnp.zeros(8))
        else:
            rule.init(jnp.zeros(8))


def test_maps_act_on_eigenvalues_under_the_data_measure():
    """Eigenvalues over n: a threshold means the same for any number of points."""
    _, K, _ = problem()
    S = dynamics.preconditioner(K, maps.soft_cutoff(0.01, 0.3))
    lam = 10.0 ** -np.arange(8) / 8
    expected = 8 * lam / (1 + (0.01 / lam) ** (1 / 0.3))
    np.testing.assert_allclose(S.eigenvalues, expected, rtol=1e-7)


def test_other_losses_move_by_their_own_slope():
    X, K, V = problem()
    S, w, y = dynamics.preconditioner(K, maps.lift(2)), V[0], 3 * V[:, 2]

    def slope(outputs, y):
        return jnp.tanh(outputs - y)

    rule = dynamics.preconditioned(linear, X, y, S, step_size=0.1, slope=slope)
    out = dynamics.run(rule, w, 1, 0)
    expected = w - 0.1 * X.T @ S.dense() @ np.tanh(X @ w - y)
    np.testing.assert_allclose(out.x[1], expected, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        out.observables["loss"][0], 0.5 * (np.tanh(X @ w - y) ** 2).sum(), rtol=1e-12
    )


def test_steps_on_batches():
    """Their mean over every batch of three points is the gradient at all eight, from one point."""
    X, K, V = problem()
    S, w, y = dynamics.preconditioner(K, maps.flatten(2)), V[0], V[:, 2]
    keys = jax.random.split(jax.random.key(7), 1200)
    r, n, b = X @ w - y, 8, 3

    def means(rule):
        """Return loss and gradient of the first step, for each of the 56 batches."""

        @jax.jit
        @jax.vmap
        def first(key):
            rows = jax.random.choice(jax.random.fold_in(key, 0), n, (b,), replace=False)
            out = dynamics.run(rule, w, 1, key)
            return jnp.sort(rows), out.observables["loss"][0], (w - out.x[1]) / 0.1

        rows, losses, slopes = map(np.asarray, first(keys))
        batches, index = np.unique(rows, axis=0, return_index=True)
        assert len(batches) == 56 and slopes[index].std(0).max() > 0.1
        return batches, losses[index], slopes[index].mean(0)

    rule = dynamics.preconditioned(linear, X, y, S, step_size=0.1, batch=b)
    _, losses, slope = means(rule)
    np.testing.assert_allclose(slope, X.T @ S.dense() @ r, rtol=0, atol=1e-13)
    np.testing.assert_allclose(losses, 0.5 * r @ r, rtol=1e-12)
    batches, losses, slope = means(dynamics.sgd(linear, X, y, step_size=0.1, batch=b))
    np.testing.assert_allclose(slope, X.T @ r, rtol=0, atol=1e-13)
    np.testing.assert_allclose(losses, 0.5 * n / b * (r[batches] ** 2).sum(1), rtol=1e-12)


def test_batches_of_preconditioners_and_tolerances():
    X, K, V = problem()

    def last(rate, tol):
        S = dynamics.preconditioner(K, maps.table(rate * jnp.ones(2)), 2)
        rule = dynamics.preconditioned(linear, X, V[:, 1], S, step_size=0.05, tol=tol)
        return dynamics.run(rule, jnp.zeros(8), 5, 0).observables["loss"][-1]

    both = jax.jit(jax.vmap(last))(np.array([1.0, 0.5]), np.array([0.5, 0.6]))
    np.testing.assert_allclose(both, [0.5 * 0.6**4, 0.5 * 0.8**6], rtol=1e-9)


ONES = np.ones(4)
EYE = np.eye(4)
BAD = {
    "S acts on 4 points and there are 3": lambda S: dynamics.pgd_loss(ONES[:3], ONES[:3], S),
    "S acts on 4 points and there are 3;": lambda S: dynamics.pgd_loss(ONES[:3], ONES[:3], EYE),
    r"S acts on 4 points and r has shape \(3,\)": lambda S: S @ ONES[:3],
    "tol must lie between 0 and 1, got 2": lambda S: dynamics.preconditioned(
        linear, EYE, ONES, S, step_size=0.1, tol=2
    ),
    "K has no positive eigenvalue, the largest is 0": lambda S: dynamics.preconditioner(
        0 * EYE, maps.identity()
    ),
    "rank is 9 and [0-9]+ of 20 modes are above rtol": lambda S: dynamics.landmark_preconditioner(
        kernels.RBF(30.0), np.arange(20.0), np.arange(20.0), maps.flatten(8), 9
    ),
    "acts on 4 points and there are 3": lambda S: dynamics.power_iteration(EYE[:3, :3], S, key=0),
    "iterations must be a positive integer": lambda S: dynamics.power_iteration(
        EYE, S, iterations=0, key=0
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    S = dynamics.preconditioner(np.diag([4.0, 3.0, 2.0, 1.0]), maps.lift(2))
    with pytest.raises(ValueError, match=message):
        BAD[message](S)


@pytest.mark.slow
def test_ensembles_of_networks_have_the_mean_and_covariance_of_theory():
    """Networks of 1024 units, trained in earnest; two kernels that are taken from their limit."""
    rng = np.random.default_rng(0)
    X, X_new = rng.standard_normal((5, 3)), rng.standard_normal((2, 3))
    y, width, draws = np.sin(2 * X[:, 0]), 1024, 2000
    tangent, prior = (k(1, "erf", 1.5, 0.1) for k in (kernels.NTK, kernels.NNGP))
    S = dynamics.preconditioner(tangent(X), maps.lift(3), 3)
    eta = 1.5 / float(np.linalg.eigvalsh(tangent(X))[-1])

    def network(params, X):
        W, b, v, c = params
        hidden = jax.scipy.special.erf((1.5 / 3) ** 0.5 * X @ W.T + 0.1**0.5 * b)
        return (1.5 / width) ** 0.5 * hidden @ v + 0.1**0.5 * c

    def trained(key):
        shapes = (width, 3), (width,), (width,), ()
        keys = jax.random.split(key, 4)
        params = [jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)]
        rule = dynamics.preconditioned(network, X, y, S, step_size=eta)
        return network(dynamics.run(rule, params, 5, 0, every=5).last.x, X_new)

    f = np.asarray(jax.lax.map(trained, jax.random.split(jax.random.key(1), draws), batch_size=50))
    found = dynamics.ensemble(tangent, prior, X, y, X_new, 5, S=S, step_size=eta)
    assert (np.abs(f.mean(0) - found.mean) < 3.5 * f.std(0) / draws**0.5).all()
    products = np.einsum("si,sj->sij", f - f.mean(0), f - f.mean(0))
    assert (np.abs(products.mean(0) - found.cov) < 3.5 * products.std(0) / draws**0.5).all()
    assert (np.diagonal(found.cov) < 0.3 * prior.diag(X_new)).all()
