# SPDX-License-Identifier: Apache-2.0
"""Moments of several targets: one at a time, in experiments, with names; bad moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesrg as brg
from bayesrg import theory

rng = np.random.default_rng(3)
values = np.arange(1, 41.0) ** -1.0
theta = rng.standard_normal((40, 3)) * [1.0, 0.3, 0.0]
NOISE = np.array([0.1, 0.3, 0.5])
SIZES, RIDGES = np.array([[20.0], [40.0], [80.0], [0.0]]), np.array([0.2, 0.0, np.inf])
PER_TARGET = (
    "test", "train", "excess", "weight_norm2", "data_fit", "log_evidence", "calibration",
)  # fmt: skip


def draw(n):
    F = rng.standard_normal((n, 40)) * np.sqrt(values)
    return F, F @ theta + np.sqrt(NOISE) * rng.standard_normal((n, 3))


F, Y = draw(600)


@pytest.mark.slow
@pytest.mark.parametrize("options, given", [({}, {}), ({"centre": True}, {"noise_variance": 0.3})])
def test_together_is_one_at_a_time(options, given):
    moments = jax.jit(theory.moments, static_argnames="centre")
    together = moments(F, Y, **options)
    assert together.power.shape == together.psi.shape == (40, 3)
    with pytest.warns(UserWarning, match="error diverges at n = rank = 40"):
        all_ = theory.ridge_equivalent(together, SIZES, RIDGES, **given, label_noise=NOISE)
    all_ = jax.tree.map(np.asarray, all_)
    assert all_.test.shape == (4, 3, 3) and all_.tau.shape == (4, 3)
    for c in range(3):
        alone, own = moments(F, Y[:, c], **options), {**given, "label_noise": NOISE[c]}
        with pytest.warns(UserWarning, match="error diverges at n = rank = 40"):
            one = theory.ridge_equivalent(alone, SIZES, RIDGES, **own)
        for name in PER_TARGET:
            got, expected = getattr(all_, name)[..., c], getattr(one, name)
            np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(all_.pred_var, one.pred_var, rtol=1e-12)


@pytest.mark.slow
def test_experiments_agree():
    """Errors of ridge regression on drawn data, each target's own, within the theory's 3 %."""
    n, ridge, draws = 120, 0.3, 400
    moments = theory.Moments(
        values=jnp.asarray(values), projection=jnp.asarray(values[:, None] * theta),
        power=jnp.asarray(values[:, None] * theta**2),
        Ey2=jnp.asarray((values[:, None] * theta**2).sum(0) + NOISE),
        unexplained=jnp.asarray(NOISE), vectors=None, mean=None, N=None, rank_tol=1e-14,
    )  # fmt: skip
    found = np.empty((draws, 3, 3))
    for i in range(draws):
        G, Z = draw(n)
        A = G.T @ G + ridge * np.eye(40)
        w = np.linalg.solve(A, G.T @ Z)
        test = (values[:, None] * (w - theta) ** 2).sum(0) + NOISE
        fit = ((Z - G @ w) * Z).sum(0) / ridge
        found[i] = test, ((Z - G @ w) ** 2).mean(0), fit
    e = theory.ridge_equivalent(moments, np.full((4, 1), n), np.full(3, ridge))
    e = jax.tree.map(np.asarray, e)
    mean, error = found.mean(0), found.std(0) / np.sqrt(draws)
    for seen, spread, name in zip(mean, error, ("test", "train", "data_fit"), strict=True):
        deviation = np.abs(seen - getattr(e, name)[0, 0])
        np.testing.assert_array_less(deviation, 4 * spread + 0.01 * seen, err_msg=name)


def test_targets_have_an_axis_of_their_own():
    e = theory.ridge_equivalent(theory.moments(F, Y), 2.0 * SIZES + 1, RIDGES)
    e = jax.tree.map(np.asarray, e)
    for found in (e, jax.tree.map(lambda x: x[:, 0] if x.ndim else x, e)):
        group = brg.io.label(curve=found)["curve"]
        axes = ("n_train", "n_train_bis")[: found.tau.ndim]
        assert group["tau"].dims == axes and group["test"].dims == (*axes, "target")
    with pytest.raises(ValueError, match="moments hold 3 targets"):
        theory.optimal_ridge(theory.moments(F, Y), 20.0)


TWO = np.diag([2.0, 1.0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.population_moments(np.ones((2, 3)), np.ones(2), 1.0), r"shape \(2, 3\)"),
        (lambda: theory.population_moments(TWO, np.ones(3), 1.0), r"psi has shape \(3,\)"),
        (
            lambda: theory.population_moments([[1.0, 0.1], [0, 1]], [0, 0], 1.0),
            "not symmetric: .* of the largest",
        ),
        (
            lambda: theory.population_moments(np.diag([1.0, -0.1]), [0, 0], 1.0),
            r"Omega is not positive semi-definite: its lowest eigenvalue is -0\.1",
        ),
        (lambda: theory.population_moments(TWO, [1.0, 1.0], 1.4), "moments of one distribution"),
        (lambda: theory.population_moments(TWO, [2.0, 0.0], 1.0), "not in the range of Omega"),
        (lambda: theory.population_moments(np.diag([1.0, 0]), [0, 0.1], 1.0), "range of Omega"),
        (lambda: theory.population_moments(TWO, [np.nan, 0.0], 1.0), "psi contains non-finite"),
        (lambda: theory.population_moments(TWO, [0.0, 0.0], -1.0), "Ey2 must be non-negative"),
        (lambda: theory.moments(np.full((30, 2), np.nan), np.ones(30)), "F contains non-finite"),
        (lambda: theory.moments(np.ones((30, 2)), np.ones(29)), r"y has shape \(29,\)"),
        (lambda: theory.spectral_moments([1.0, 0.5], [1.0]), "power has shape"),
        (
            lambda: theory.spectral_moments([1.0], [1.0], rank_tol=2.0),
            "rank_tol must be a number of at least 0 and at most 1",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
