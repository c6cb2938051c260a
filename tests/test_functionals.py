# SPDX-License-Identifier: Apache-2.0
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from oracles import central_difference, log_normal

from bayesrg import gp, rg
from bayesrg.kernels import RBF, Matern32
from bayesrg.spectrum import fourier, functionals, gaussian_rbf, nystrom

rng = np.random.default_rng(0)
X_ref, X = rng.standard_normal((60, 2)), rng.standard_normal((25, 2))
y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(25)
SCALES = (0.1, 0.5, 1.0, 3.0, 30.0)


@pytest.fixture(scope="module", autouse=True)
def prior():
    """Compile when the tests run: every worker collects all files."""
    global reference, low
    reference = nystrom(Matern32(1.0), X_ref)
    low = functionals(reference, 10)


@jax.jit
def ask(kernel):
    """Everything about functionals under a kernel, in one program."""
    moved = low.at(kernel)
    law = gp.marginal(moved, X, 0.1)
    (root, rest), seven = law.split(4), law.split(7)
    return {
        "features": moved.features(X), "rest": moved.residual_cov(X),
        "residual": moved.residual(X), "cross": moved.residual_cov(X[:4], X[4:]),
        "whole": root @ root.T + rest.covariance_matrix, "jitter": moved.jitter,
        "kernel": kernel(jnp.concatenate([X, X_ref])),
        "evidence": rg.integrate_modes(*seven, y).log_evidence,
    }  # fmt: skip


@pytest.mark.parametrize("lengthscale", SCALES)
def test_the_split_is_exact_and_the_rest_positive_whatever_the_kernel(lengthscale):
    found = SimpleNamespace(**jax.tree.map(np.asarray, ask(Matern32(lengthscale))))
    B, rest, kernel = found.features, found.rest, found.kernel[:25, :25]
    np.testing.assert_allclose(B @ B.T + rest, kernel, rtol=0, atol=1e-13)
    # the rest is the covariance given the functionals, by a dense joint Gaussian inverted whole
    K, V = found.kernel, np.asarray(low.V)
    cross = K[:25, 25:] @ V
    expected = K[:25, :25] - cross @ np.linalg.inv(V.T @ K[25:, 25:] @ V) @ cross.T
    np.testing.assert_allclose(rest, expected, rtol=0, atol=1e-10)
    assert np.linalg.eigvalsh(rest)[0] > 0
    np.testing.assert_allclose(found.residual, np.diag(rest), rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.cross, rest[:4, 4:], rtol=0, atol=1e-13)
    assert found.jitter == 0.0
    np.testing.assert_allclose(found.whole, kernel + 0.1 * np.eye(25), rtol=0, atol=1e-12)
    dense = log_normal(y, np.zeros(25), kernel + 0.1 * np.eye(25))
    np.testing.assert_allclose(found.evidence, dense, rtol=1e-11)


@pytest.mark.slow
def test_modes_are_white_functionals():
    """Features are covariances with L^-1 V^T f, so those of the latter itself are the unit."""
    moved = low.at(Matern32(2.0))
    features = np.asarray(low.V).T @ np.asarray(moved.features(X_ref))
    white = np.linalg.solve(moved.factor, features)
    np.testing.assert_allclose(white, np.eye(10), rtol=0, atol=1e-11)
    np.testing.assert_array_equal(moved.values, np.ones(10))
    np.testing.assert_allclose(low.features(moved.kernel, X), moved.features(X), rtol=1e-15)


def test_under_the_reference_kernel_they_are_its_first_modes():
    moved = low.at(reference.kernel)
    values = np.asarray(reference.values)[:10]
    expected = np.asarray(reference.features(X))[:, :10] * np.sqrt(values)
    np.testing.assert_allclose(moved.features(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moved.factor, np.eye(10), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [Matern32, pytest.param(RBF, marks=pytest.mark.slow)])
def test_cutoffs_are_nested(kernel):
    five = functionals(reference, 5)
    both = jax.jit(lambda kernel: (five.features(kernel, X), low.features(kernel, X)))
    few, many = map(np.asarray, both(kernel(0.4 if kernel is Matern32 else 1.0)))
    np.testing.assert_allclose(many[:, :5], few, rtol=0, atol=1e-13)


def model(y=None):
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 1.0))
    numpyro.sample("y", gp.marginal(low.at(Matern32(lengthscale)), X, 0.1), obs=y)


@pytest.mark.slow
def test_log_joint_of_a_sampled_lengthscale():
    """Density against a dense joint normal of modes and data; its gradient against differences."""
    w = np.linspace(-1, 1, 4)

    @jax.jit
    @jax.value_and_grad
    def log_joint(theta):
        return log_density(
            rg.coarsen(model, y=rg.Coarse(4)), (y,), {},
            {"lengthscale": theta[0], "y_modes": theta[1:]},
        )[0]  # fmt: skip

    theta = np.concatenate([[0.8], w])
    K = np.asarray(Matern32(0.8)(X)) + 0.1 * np.eye(25)
    B = np.asarray(low.features(Matern32(0.8), X))[:, :4]
    joint = np.block([[K, B], [B.T, np.eye(4)]])
    expected = log_normal(np.concatenate([y, w]), np.zeros(29), joint)
    expected += dist.LogNormal(0.0, 1.0).log_prob(0.8)
    value, gradient = log_joint(theta)
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    difference = central_difference(lambda theta: log_joint(theta)[0], theta)
    np.testing.assert_allclose(gradient, difference, rtol=1e-6)


def test_approximate_rules_know_that_the_columns_are_no_eigenfunctions():
    moved = low.at(Matern32(0.7))
    law = gp.marginal(moved, X, 0.1)
    B, residual = moved.features(X), moved.residual(X)
    mean = ((np.asarray(B)[:, 4:] ** 2).sum(1) + np.asarray(residual)).mean()
    np.testing.assert_allclose(law.split(4, "universal")[1].variance, 0.1 + mean, rtol=1e-12)
    local = rg.local_ridge(moved, X, 0.1, 4)
    np.testing.assert_allclose(law.split(4, "local")[1].variance, local, rtol=1e-12)
    with pytest.raises(ValueError, match='rule "dressed" needs modes that are orthonormal'):
        law.split(4, "dressed")
    assert fourier(lambda j: 1 / (1 + j), 3).orthonormal


def test_jitter_is_reported_and_leaves_the_split_exact():
    """A kernel so smooth that round-off is all that tells the last functionals apart."""
    many, kernel = functionals(reference, 40), RBF(20.0)
    with pytest.warns(UserWarning, match="40 functionals is singular under this kernel"):
        moved = many.at(kernel)
    assert moved.jitter > 0
    rest, B = np.asarray(moved.residual_cov(X)), np.asarray(moved.features(X))
    np.testing.assert_allclose(B @ B.T + rest, kernel(X), rtol=0, atol=1e-13)
    assert np.linalg.eigvalsh(rest)[0] > -1e-12
    slope = jax.jit(jax.grad(lambda s: many.at(RBF(s)).residual(X).sum()))(20.0)
    assert np.isfinite(slope)


def test_training_inputs_as_reference_are_told():
    with pytest.warns(UserWarning, match="60 of the 60 rows of X_ref are training inputs"):
        gp.marginal(low.at(Matern32(1.0)), X_ref, 0.1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: functionals(gaussian_rbf(1.0, 1.0, 5), 2), "by spectrum.nystrom.*got a Gaussian"),
        (lambda: functionals(reference, 61), "k must be an integer from 1 to 60, got 61"),
        (lambda: functionals(reference, 0), "k must be an integer from 1 to 60, got 0"),
        (lambda: functionals(reference, True), "k must be an integer from 1 to 60, got True"),
        (lambda: low.at(-1.0 * RBF(1.0)), "factor must be non-negative"),
        (lambda: low.at(0.0 * RBF(1.0)), "10 functionals under kernel cannot be factorised"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_functionals_need_64_bits():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match=r"numpyro.enable_x64\(\)"):
        functionals(reference, 2)
