# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from oracles import central_difference, log_normal

from bayesrg import gp, rg
from bayesrg.kernels import NNGP, RBF, Matern32
from bayesrg.spectrum import fourier, functionals, gaussian_rbf, nystrom

rng = np.random.default_rng(0)
X_ref, X = jnp.asarray(rng.standard_normal((60, 2))), jnp.asarray(rng.standard_normal((25, 2)))
y = jnp.asarray(np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(25))
reference = nystrom(Matern32(1.0), X_ref)
low = functionals(reference, 10)
SCALES = (0.1, 0.5, 1.0, 3.0, 30.0)


@pytest.mark.parametrize("lengthscale", SCALES)
def test_the_split_is_exact_and_the_rest_positive_whatever_the_kernel(lengthscale):
    kernel = Matern32(lengthscale)
    moved = low.at(kernel)
    B, rest = moved.features(X), moved.residual_cov(X)
    np.testing.assert_allclose(B @ B.T + rest, kernel(X), rtol=0, atol=1e-13)
    # the rest is the covariance given the functionals, by a dense joint Gaussian inverted whole
    K, V = np.asarray(kernel(jnp.concatenate([X, X_ref]))), np.asarray(low.V)
    cross = K[:25, 25:] @ V
    expected = K[:25, :25] - cross @ np.linalg.inv(V.T @ K[25:, 25:] @ V) @ cross.T
    np.testing.assert_allclose(rest, expected, rtol=0, atol=1e-10)
    assert np.linalg.eigvalsh(rest)[0] > 0
    np.testing.assert_allclose(moved.residual(X), jnp.diagonal(rest), rtol=0, atol=1e-13)
    np.testing.assert_allclose(moved.residual_cov(X[:4], X[4:]), rest[:4, 4:], rtol=0, atol=1e-13)
    assert moved.jitter == 0.0
    root, law = gp.marginal(moved, X, 0.1).split(4)
    whole = root @ root.T + law.covariance_matrix
    np.testing.assert_allclose(whole, kernel(X) + 0.1 * np.eye(25), rtol=0, atol=1e-12)


def test_modes_are_white_functionals():
    """Features are covariances with L^-1 V^T f, so those of the latter itself are the unit."""
    moved = low.at(Matern32(2.0))
    np.testing.assert_allclose(
        np.linalg.solve(moved.factor, low.V.T @ moved.features(X_ref)), np.eye(10), rtol=0,
        atol=1e-11,
    )  # fmt: skip
    np.testing.assert_array_equal(moved.values, np.ones(10))
    np.testing.assert_allclose(low.features(moved.kernel, X), moved.features(X), rtol=1e-15)


def test_under_the_reference_kernel_they_are_its_first_modes():
    moved = low.at(reference.kernel)
    expected = reference.features(X)[:, :10] * jnp.sqrt(reference.values[:10])
    np.testing.assert_allclose(moved.features(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moved.factor, np.eye(10), rtol=0, atol=1e-12)


def test_cutoffs_are_nested():
    for kernel in (Matern32(0.4), RBF(1.0) * NNGP(1)):
        few, many = functionals(reference, 5).features(kernel, X), low.features(kernel, X)
        np.testing.assert_allclose(many[:, :5], few, rtol=0, atol=1e-13)


def model(y=None):
    lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 1.0))
    numpyro.sample("y", gp.marginal(low.at(Matern32(lengthscale)), X, 0.1), obs=y)


@pytest.mark.parametrize("lengthscale", SCALES)
def test_evidence_does_not_move(lengthscale):
    kernel = Matern32(lengthscale)
    root, rest = gp.marginal(low.at(kernel), X, 0.1).split(7)
    evidence = rg.integrate_modes(root, rest, y).log_evidence
    dense = log_normal(y, np.zeros(25), kernel(X) + 0.1 * np.eye(25))
    np.testing.assert_allclose(evidence, dense, rtol=1e-11)


def test_log_joint_of_a_sampled_lengthscale():
    """Density against a dense joint normal of modes and data; its gradient against differences."""
    w = np.linspace(-1, 1, 4)

    @jax.jit
    def log_joint(theta):
        return log_density(
            rg.coarsen(model, y=rg.Coarse(4)), (y,), {},
            {"lengthscale": theta[0], "y_modes": theta[1:]},
        )[0]  # fmt: skip

    theta = np.concatenate([[0.8], w])
    K = Matern32(0.8)(X) + 0.1 * np.eye(25)
    B = low.features(Matern32(0.8), X)[:, :4]
    joint = np.block([[K, B], [B.T, np.eye(4)]])
    expected = log_normal(np.concatenate([y, w]), np.zeros(29), joint)
    expected += dist.LogNormal(0.0, 1.0).log_prob(0.8)
    np.testing.assert_allclose(log_joint(theta), expected, rtol=1e-11)
    np.testing.assert_allclose(
        jax.grad(log_joint)(jnp.asarray(theta)), central_difference(log_joint, theta), rtol=1e-6
    )


def test_approximate_rules_know_that_the_columns_are_no_eigenfunctions():
    moved = low.at(Matern32(0.7))
    law = gp.marginal(moved, X, 0.1)
    B, residual = moved.features(X), moved.residual(X)
    mean = ((B[:, 4:] ** 2).sum(1) + residual).mean()
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
    rest = moved.residual_cov(X)
    B = moved.features(X)
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
        (lambda: functionals(gaussian_rbf(1.0, 1.0, 5), 2), "from spectrum.nystrom, got Gaussian"),
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
