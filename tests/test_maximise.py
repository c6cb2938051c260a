# SPDX-License-Identifier: Apache-2.0
"""Greatest evidence: against scikit-learn, in any unit, and what is no maximum."""

import jax
import numpy as np
import pytest
from oracles import log_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from bayesrg.gp import maximise_evidence
from bayesrg.kernels import RBF, Matern32

rng = np.random.default_rng(0)
x = np.sort(rng.uniform(0, 5, 40))
y = np.sin(x) + 0.1 * rng.standard_normal(40)
START = {"lengthscale": 1.0, "variance": 1.0, "ridge": 0.1}


def rbf(theta):
    return RBF(theta["lengthscale"], theta["variance"])


def scikit(kernel, X, y):
    other = 1.0 * kernel + sk.WhiteKernel(0.1)
    fit = GaussianProcessRegressor(other, n_restarts_optimizer=2, random_state=0).fit(X, y)
    return fit.log_marginal_likelihood_value_


@pytest.fixture(scope="module")
def best():
    return scikit(sk.RBF(1.0), x[:, None], y)


@pytest.mark.parametrize(
    "length, size",
    [
        (1e3, 1e-9),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in ((1, 1), (1e-3, 1e6), (1e9, 1))),
    ],
)
def test_units_do_not_matter(best, length, size):
    """The default start, in any unit of inputs and targets, finds what scikit-learn finds."""
    found = maximise_evidence(rbf, START, length * x, size * y)
    assert found.converged
    evidence = found.posterior.log_evidence + 40 * np.log(size)
    np.testing.assert_allclose(evidence, best, rtol=0, atol=1e-6)
    oracle = log_normal(y, np.zeros(40), _covariance(found.theta, length, size))
    np.testing.assert_allclose(evidence, oracle, rtol=1e-9)


def _covariance(theta, length, size):
    lengthscale, v, s2 = (float(theta[name]) for name in START)
    squares = (x[:, None] - x) ** 2
    return (v * np.exp(-0.5 * squares * (length / lengthscale) ** 2) + s2 * np.eye(40)) / size**2


def test_two_columns_and_a_fixed_ridge():
    X = rng.uniform(-1, 1, (12, 2))
    y = np.sin(3 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(12)
    ridge = np.full(12, 0.05)
    fixed = maximise_evidence(lambda t: Matern32(t), 1.0, X, y, ridge=ridge, restarts=0)
    evidence, theta = float(fixed.posterior.log_evidence), float(fixed.theta)

    def exact(lengthscale):
        d = np.sqrt(3) * np.linalg.norm(X[:, None] - X, axis=-1) / lengthscale
        return log_normal(y, np.zeros(12), (1 + d) * np.exp(-d) + 0.05 * np.eye(12))

    np.testing.assert_allclose(evidence, exact(theta), rtol=1e-10)
    assert fixed.converged and evidence > max(exact(0.99 * theta), exact(1.01 * theta))
    with pytest.raises(ValueError, match="ridge has shape \\(3,\\) for 12 points"):
        maximise_evidence(RBF, 1.0, X, y, ridge=np.ones(3))


def test_what_is_no_maximum_has_not_converged():
    none = maximise_evidence(rbf, START, x, 0 * y, restarts=0)
    assert not none.converged  # the variance runs to zero
    # at a bound
    bounds = ({**START, "lengthscale": 2.0, "ridge": 1e-4}, 1e2)
    bounds = (bounds[0], dict.fromkeys(START, 1e2))
    held = maximise_evidence(rbf, {**START, "lengthscale": 3.0}, x, y, bounds=bounds, restarts=0)
    np.testing.assert_allclose(held.theta["lengthscale"], 2.0, rtol=1e-12)
    assert not held.converged


@pytest.mark.slow
def test_a_parameter_that_does_nothing_has_no_maximum():
    idle = maximise_evidence(rbf, {**START, "idle": 1.0}, x, y, restarts=0)
    assert not idle.converged


@pytest.mark.slow
def test_the_mean_is_searched_in_any_unit():
    """Of a line, against generalised least squares and the density of what is left."""

    def line(theta, X):
        return theta["mean"]["offset"] + theta["mean"]["slope"] * X[:, 0]

    start = {**START, "mean": {"offset": 0.0, "slope": 0.0}}
    found = maximise_evidence(rbf, start, 1e3 * x, 1e-6 * (y - 7 - 3 * x), mean=line)
    assert found.converged
    C = _covariance(found.theta, 1e3, 1e-6)
    design = np.stack([np.ones(40), x], 1)
    solved = np.linalg.solve(C, design)
    offset, slope = np.linalg.solve(design.T @ solved, solved.T @ (y - 7 - 3 * x))
    np.testing.assert_allclose(1e6 * found.theta["mean"]["offset"], offset, rtol=1e-6)
    np.testing.assert_allclose(1e9 * found.theta["mean"]["slope"], slope, rtol=1e-6)
    left = y - 7 - 3 * x - design @ [offset, slope]
    evidence = found.posterior.log_evidence + 40 * np.log(1e-6)
    np.testing.assert_allclose(evidence, log_normal(left, np.zeros(40), C), rtol=1e-8)
    far = found.posterior.mean(np.array([1e9]))
    np.testing.assert_allclose(1e6 * far, offset + slope * 1e6, rtol=1e-6)


def test_a_mean_of_one_number(best):
    found = maximise_evidence(rbf, START, x, y + 14, mean=14.0, restarts=0)
    np.testing.assert_allclose(found.posterior.log_evidence, best, rtol=1e-7)
    np.testing.assert_allclose(found.posterior.mean(np.array([1e9])), [14.0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: maximise_evidence(RBF, 1.0, x, y), "there is no ridge"),
        (lambda: maximise_evidence(RBF, -1.0, x, y, ridge=0.1), "theta0 must be positive"),
        (lambda: maximise_evidence(RBF, 1.0, x, y, ridge=0.1, bounds=(2, 1)), "low < high"),
        (lambda: maximise_evidence(RBF, 1.0, x, y, ridge=0.1, mean=[1, 2]), "mean must be"),
        (
            lambda: jax.grad(
                lambda v: maximise_evidence(lambda t: RBF(t, v), 1.0, x, y, ridge=0.1).theta
            )(1.0),
            "runs on the host and cannot be traced",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
