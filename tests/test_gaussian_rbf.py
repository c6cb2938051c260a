# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import pytest
from oracles import central_difference

from bayesrg import gp
from bayesrg.kernels import RBF
from bayesrg.spectrum import gaussian_rbf

X = np.array([0.0, 0.5, 1.0, 2.0, 3.0])[:, None]


def test_reference_eigenvalues():
    spectrum = gaussian_rbf(0.5, 1.0, 4)
    expected = [0.3903882, 0.23798525, 0.14507862, 0.08844164]
    np.testing.assert_allclose(spectrum.values, expected, rtol=0, atol=6e-9)


@pytest.mark.parametrize(
    "modes, local, tail",
    [
        (4, [0.06000569, 0.0453209, 0.08155962, 0.74037874, 0.99881599], 0.13810629),
        pytest.param(
            8,
            [0.00623796, 0.00699241, 0.00946278, 0.03572802, 0.83414818],
            0.01907335,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_reference_variance_that_is_left_out(modes, local, tail):
    spectrum = gaussian_rbf(0.5, 1.0, modes)
    np.testing.assert_allclose(spectrum.residual(X), local, rtol=0, atol=6e-9)
    np.testing.assert_allclose(spectrum.tail, tail, rtol=0, atol=6e-9)
    values = np.asarray(spectrum.values)
    np.testing.assert_allclose(spectrum.tail, 1 - values.sum(), rtol=0, atol=1e-15)
    rest = np.asarray(spectrum.residual_cov(X))
    np.testing.assert_allclose(np.diag(rest), local, rtol=0, atol=6e-9)
    assert np.linalg.eigvalsh(rest)[0] > 0


@jax.jit
def ask(lengthscale, scale, x):
    spectrum = gaussian_rbf(lengthscale, scale, 30)
    K = RBF(lengthscale)(X, x)
    return spectrum.values, spectrum.features(x), spectrum.features(X), K


@pytest.mark.parametrize("lengthscale, scale", [(0.5, 1.0), (0.05, 3.0), (4.0, 0.7)])
def test_modes_are_orthonormal_and_satisfy_the_integral_equation(lengthscale, scale):
    """By a quadrature that shares nothing with the formulas: a fine equidistant sum."""
    x = np.linspace(-18 * scale, 18 * scale, 20001)
    weights = np.exp(-0.5 * (x / scale) ** 2)
    weights /= weights.sum()
    values, Phi, at_X, K = map(np.asarray, ask(lengthscale, scale, x[:, None]))
    np.testing.assert_allclose(Phi.T * weights @ Phi, np.eye(30), rtol=0, atol=1e-12)
    np.testing.assert_allclose(K * weights @ Phi, at_X * values, rtol=0, atol=1e-13)


def test_many_modes_give_the_kernel_back_and_stay_finite_far_out():
    z = np.array([0.0, 1.0, -2.5, 60.0])[:, None]

    @jax.jit
    def ask():
        spectrum = gaussian_rbf(0.5, 1.0, 200)
        return spectrum.residual_cov(X, z), spectrum.features(z)

    rest, features = map(np.asarray, ask())
    np.testing.assert_allclose(rest[:, :3], 0.0, rtol=0, atol=1e-13)
    assert np.isfinite(features).all()
    # the first functions underflow at x = 6 (the density is not small there), later ones do not
    far = np.array([[6.0]])

    @jax.jit
    def ask_far():
        fine = gaussian_rbf(0.004, 4.0, 2000)
        return fine.features(far)[0, 0], fine.residual(far)[0], fine.tail

    first, residual, tail = ask_far()
    assert first == 0.0
    assert 0 < residual < 1 - 1e-3 and tail > 0.1


def test_parameters_may_move_and_inputs_too():
    y = np.array([0.3, 0.5, -0.2, 0.1, 1.0])

    @jax.jit
    @jax.value_and_grad
    def evidence(theta):
        law = gp.marginal(gaussian_rbf(theta[0], theta[1], 3), theta[2:], 0.1)
        return law.log_prob(y) + law.split(1, "universal")[1].log_prob(y)

    theta = np.concatenate([[0.5, 1.2], X[:, 0]])
    expected = central_difference(lambda theta: evidence(theta)[0], theta)
    np.testing.assert_allclose(evidence(theta)[1], expected, rtol=1e-6, atol=1e-8)

    @jax.jit
    def matrices():
        law = gp.marginal(gaussian_rbf(0.5, 1.2, 3), X, 0.1)
        return law.covariance_matrix, RBF(0.5)(X)

    C, K = map(np.asarray, matrices())
    np.testing.assert_allclose(C, K + 0.1 * np.eye(5), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gaussian_rbf(0.0, 1.0, 3), "lengthscale must be positive, got 0.0"),
        (lambda: gaussian_rbf(1.0, -1.0, 3), "scale must be positive, got -1.0"),
        (lambda: gaussian_rbf([1.0, 2.0], 1.0, 3), "lengthscale must be an array of 0 dim"),
        (lambda: gaussian_rbf(1.0, 1.0, 0), "modes must be a positive integer, got 0"),
        (lambda: gaussian_rbf(1.0, 1.0, 3).features(np.ones((4, 2))), "take one"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
