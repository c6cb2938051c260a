# SPDX-License-Identifier: Apache-2.0
"""Modified kernels at their own sample: densities by modes, and what a cut leaves to the noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import log_normal
from test_modify import GRID, LANDMARKS, NTK, circle, circular

from bayesrg import gp, rg
from bayesrg.kernels import NNGP
from bayesrg.spectrum import maps, mode_posterior, modify, nystrom, rotated_density

ANGLES = np.random.default_rng(0)
T = np.sort(ANGLES.uniform(0, 2 * np.pi, 60))
Y = np.sin(3 * T) + 0.5 * np.sin(T) + 0.2 * ANGLES.standard_normal(60)


@eqx.filter_jit
def _log_prob(prior, X, ridge, y):
    return gp.marginal(prior, X, ridge).log_prob(y)


def log_prob(prior, X, ridge, y):
    return _log_prob(prior, X, np.asarray(ridge), y)  # a float would be compiled in


terms = eqx.filter_jit(rotated_density)
coefficients = eqx.filter_jit(mode_posterior)


@eqx.filter_jit
def evidence(spectrum, X, y, kept, rule="universal"):
    """Log evidence after one step of the flow at ridge 0.1."""
    root, rest = gp.marginal(spectrum, X, 0.1).split(kept, rule)
    return rg.integrate_modes(root, rest, y).log_evidence


@pytest.fixture(scope="module")
def step():
    """Spectrum of the landmarks, inputs elsewhere, targets there, and the variance left out."""
    X = circle(np.random.default_rng(5).uniform(0, 2 * np.pi, 25))
    spectrum = nystrom(NTK, LANDMARKS)
    return spectrum, X, X[:, 0], np.asarray(spectrum.residual(X)).mean()


def removed(before, after):
    return float(np.sum(before.values) - np.sum(after.values))


def shape(lam):
    return 1.2 * lam**0.9 * jax.nn.sigmoid(jnp.log(lam / 0.02) / 0.3)


@pytest.mark.parametrize(
    "kernel, X, modes, log_density",
    [
        pytest.param(NTK, circle(T), 60, -24.5038013324, marks=pytest.mark.slow),
        (circular(0.5), T, 31, -11.8873412066),
    ],
)
def test_spectral_and_dense_densities_are_one(kernel, X, modes, log_density):
    """The first number of the second case hangs on the complement of the dropped modes."""
    prior = modify(nystrom(kernel, X), shape)
    density = terms(prior, Y, np.asarray(0.04))
    assert density.modes.shape == (modes,)
    np.testing.assert_allclose(density.total, log_density, rtol=0, atol=1e-10)
    vectors, values = map(np.asarray, prior.eigen)
    C = (vectors * values) @ vectors.T + 0.04 * np.eye(60)
    dense = log_normal(Y, np.zeros(60), C)
    np.testing.assert_allclose(density.total, dense, rtol=0, atol=1e-10)
    np.testing.assert_allclose(log_prob(prior, X, 0.04, Y), dense, rtol=0, atol=1e-9)

    @jax.jit
    def fast(y):
        law = gp.marginal(prior, X, 0.04, eigen=(vectors, values))
        return law.log_prob(y), law.loo(y)

    found, found_loo = fast(Y)
    np.testing.assert_allclose(found, dense, rtol=0, atol=1e-10)
    inverse = np.linalg.inv(C)
    variance = 1 / np.diag(inverse)
    loo = -0.5 * ((inverse @ Y * variance) ** 2 / variance + np.log(2 * np.pi * variance))
    np.testing.assert_allclose(found_loo, loo, rtol=1e-9)
    assert abs(loo.sum() - density.total) > 1  # rotated terms are no leave-one-out densities


def test_coefficients_are_those_of_the_posterior():
    X = circle(T)
    prior = modify(nystrom(NTK, X), shape)
    modes = coefficients(prior, Y, np.asarray(0.04))

    @jax.jit
    def posterior(Z):
        law = gp.condition(prior, X, Y, 0.04)
        spectrum = prior.spectrum
        return law.mean(Z), law.cov(Z), spectrum.features(Z), spectrum.residual_cov(Z)

    mean, cov, Phi, residual = map(np.asarray, posterior(GRID))
    np.testing.assert_allclose(Phi @ modes.mean, mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(Phi @ modes.cov @ Phi.T + residual, cov, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_hard_cut_with_its_variance_in_the_ridge_is_one_step(step):
    spectrum, X, y, residual = step
    cut = modify(spectrum, maps.hard_cutoff(0.5), tail=0.0)
    kept = int((cut.values > 0).sum())
    eliminated = np.asarray(NTK.diag(X)) - np.asarray(cut.diag(X))
    for rule, ridge in (
        ("universal", 0.1 + removed(spectrum, cut) + residual),
        ("local", 0.1 + eliminated),
        ("truncate", 0.1),
    ):
        found = evidence(spectrum, X, y, kept, rule)
        np.testing.assert_allclose(found, log_prob(cut, X, ridge, y), rtol=1e-9)


@pytest.mark.slow
def test_on_its_own_sample_the_tail_is_a_ridge_on_average_and_low_modes_do_not_see_it():
    X = np.random.default_rng(0).standard_normal((40, 4))
    y = X[:, 0] * X[:, 1]
    spectrum = nystrom(NNGP(2, bias_var=0.1), X)
    np.testing.assert_allclose(0.1 + spectrum.values[8:].sum(), 0.239666, rtol=0, atol=6e-7)
    cut = maps.table(np.append(np.asarray(spectrum.values)[:8], np.zeros(32)))
    deleted = coefficients(modify(spectrum, cut, 0.0), y, np.asarray(0.1))
    kept = coefficients(modify(spectrum, maps.identity()), y, np.asarray(0.1))
    np.testing.assert_allclose(deleted.mean[:8], kept.mean[:8], rtol=0, atol=1e-13)
    np.testing.assert_allclose(deleted.cov[:8, :8], kept.cov[:8, :8], rtol=0, atol=1e-13)
    np.testing.assert_allclose(deleted.cov[8:], 0.0)


@pytest.mark.parametrize("first, second", [(0.3, 0.9), (0.9, 0.3)])
def test_two_cuts_are_one_step_and_their_noises_add_up(first, second, step):
    spectrum, X, y, residual = step
    once = modify(spectrum, maps.hard_cutoff(first), 0.0)
    twice = modify(once, maps.hard_cutoff(second), 0.0)
    noise = 0.1 + residual + removed(spectrum, once) + removed(once, twice)
    found = evidence(spectrum, X, y, int((twice.values > 0).sum()))
    np.testing.assert_allclose(log_prob(twice, X, noise, y), found, rtol=1e-9)


def test_a_sharp_regulator_is_one_step(step):
    spectrum, X, y, residual = step
    cut = np.sqrt(np.prod(np.asarray(spectrum.values)[:2]))

    def distance(width):
        low = modify(spectrum, maps.soft_cutoff(cut, width), 0.0)
        found = log_prob(low, X, 0.1 + removed(spectrum, low) + residual, y)
        return abs(float(found - evidence(spectrum, X, y, 1)))

    wide, narrow, sharp = map(distance, (0.5, 0.1, 0.01))
    assert wide > 2 * narrow > 0.1 and sharp < 1e-9, (wide, narrow, sharp)


def test_targets_of_another_sample_are_refused():
    prior = modify(nystrom(NTK, LANDMARKS), maps.identity())
    with pytest.raises(ValueError, match="y has shape"):
        rotated_density(prior, Y[:9], 0.1)


def test_modes_dropped_by_hand_are_no_round_off():
    base = nystrom(NTK, circle(T), rtol=1e-2)
    with pytest.raises(
        ValueError, match="49 dropped modes hold 0.204 of the variance.* leave rtol out of nystrom"
    ):
        rotated_density(modify(base, shape), Y, 0.04)
    bare = modify(base, shape, tail=0.0)
    dense = log_prob(bare, circle(T), 0.04, Y)
    np.testing.assert_allclose(rotated_density(bare, Y, 0.04).total, dense, rtol=0, atol=1e-9)
