# SPDX-License-Identifier: Apache-2.0
"""Networks whose weights are averaged out."""

import jax
import numpy as np
import pytest

from bayesrg import theory

VALUES = np.arange(1, 151.0) ** -0.5
COVARIANCE = np.linspace(0.2, 2.0, 150)
WIDTHS, N = (200, 250), np.array([[100.0, 200.0, 400.0]] * 2)


@jax.jit
def curve_and_slope(values, n, ridge):
    """Learning curve without weights at n and ridges (2, 3), and slopes of the error in these."""

    def total(ridge):
        curve = theory.annealed_curve(values, WIDTHS, "tanh", n, ridge, 0.1)
        return curve.test.sum(), curve

    slope, curve = jax.grad(total, has_aux=True)(ridge)
    return curve, slope


def annealed(n, ridge, values=VALUES):
    return jax.tree.map(np.asarray, curve_and_slope(values, n, ridge))


def draw(rng, widths, covariance):
    """Weights of a network whose first layer has rows of this covariance over its inputs."""
    sizes = zip(widths, (150, *widths), strict=False)
    W = [rng.standard_normal((p, q)) / np.sqrt(q) for p, q in sizes]
    return [W[0] * np.sqrt(covariance), *W[1:]]


linearised = jax.jit(lambda W: theory.linearise(W, "tanh", np.diag(VALUES))[-1].Omega)
learning_curve = jax.jit(theory.learning_curve)


@pytest.mark.slow
def test_degrees_of_freedom_reference_numbers():
    """Ridges that belong to given tau; what is left of the difference, to first order."""
    tau = np.array([[0.01, 0.05, 0.2], [1.0, 0.05 * (1 + 1e-4), 0.05 * (1 - 1e-4)]])
    printed = np.array([122.3045, 82.1123, 47.4639, 17.5354, 82.1123, 82.1123]).reshape(2, 3)
    curve, _ = annealed(np.full((2, 3), 200.0), tau * (200 - printed))
    df1 = curve.df1 + (curve.df1 - curve.df2) * np.log(curve.tau / tau)
    np.testing.assert_allclose(df1.ravel()[:4], printed.ravel()[:4], rtol=0, atol=6e-5)
    # df2 is the slope of tau df1
    (more, less), (high, low) = curve.df1[1, 1:], curve.tau[1, 1:]
    slope = (more * high - less * low) / (high - low)
    np.testing.assert_allclose(slope, curve.df2[0, 1], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("widths", [WIDTHS, (200,)])
def test_degrees_of_freedom_of_networks(widths):
    """A first layer with a covariance, against draws of the weights."""
    rng = np.random.default_rng(5)
    given = np.full((2, 3), 200.0), np.full((2, 3), 4.0)
    if widths == WIDTHS:
        curve, _ = annealed(*given, VALUES * COVARIANCE)
    else:
        curve = theory.annealed_curve(VALUES * COVARIANCE, widths, "tanh", *given)
    tau, found = float(curve.tau[0, 0]), []
    for _ in range(6):
        e = np.linalg.eigvalsh(linearised(draw(rng, widths, COVARIANCE)))
        found.append([(e / (e + tau)).sum(), (e**2 / (e + tau) ** 2).sum()])
    mean, spread = np.mean(found, 0), np.std(found, 0, ddof=1)
    ours = float(curve.df1[0, 0]), float(curve.df2[0, 0])
    # 0.3 % is the finite width
    assert (np.abs(mean - ours) < 4 * spread / np.sqrt(6) + 0.003 * mean).all()


def test_the_learning_curve_without_weights():
    curve, _ = annealed(N, np.repeat([[1e-3], [1e-10]], 3, 1))
    assert curve.test.shape == (2, 3) and (curve.residual < 1e-12).all()
    np.testing.assert_allclose(curve.df1 + curve.ridge / curve.tau, curve.n, rtol=1e-12)
    # a tiny ridge and more points than features: least squares
    np.testing.assert_allclose(curve.test[1, 2], 0.1 / (1 - 250 / 400), rtol=1e-6)
    np.testing.assert_allclose(curve.train[1, 2], 0.1 * (1 - 250 / 400), rtol=1e-6)
    # given weights, the theory of their covariance averaged over teachers
    e = np.linalg.eigvalsh(linearised(draw(np.random.default_rng(0), WIDTHS, 1.0)))[::-1]
    quenched = learning_curve(e, e, N[0], 1e-3, 0.1)
    np.testing.assert_allclose(curve.test[0], quenched.test, rtol=0.05)
    np.testing.assert_allclose(curve.train[0], quenched.train, rtol=0.1)


def test_derivatives_of_the_learning_curve():
    ridge = np.array([[1e-3], [1e-2]]) * (1 + np.array([0.0, 1e-5, -1e-5]))
    curve, slope = annealed(np.full((2, 3), 200.0), ridge)
    numeric = (curve.test[:, 1] - curve.test[:, 2]) / (ridge[:, 1] - ridge[:, 2])
    np.testing.assert_allclose(slope[:, 0], numeric, rtol=1e-6)


def test_no_layers_is_the_inputs():
    curve = theory.annealed_curve(VALUES, (), (), N[0], 0.01, 0.1)
    padded = np.r_[VALUES, np.zeros(100)]  # as many as above: one program
    same = learning_curve(padded, padded, N[0], 0.01, 0.1)
    np.testing.assert_allclose(curve.test, same.test, rtol=1e-11)
    np.testing.assert_allclose(curve.train, same.train, rtol=1e-11)


def test_an_even_activation_forgets_the_inputs():
    with pytest.warns(UserWarning, match="k1 = 0 in layer 1"):
        curve = theory.annealed_curve(VALUES, 40, "cos", N[0], 0.01)
    r = VALUES.mean()
    ks2 = (1 + np.exp(-2 * r)) / 2 - np.exp(-r)
    np.testing.assert_allclose(curve.df1, 40 * ks2 / (ks2 + curve.tau), rtol=1e-12)
    np.testing.assert_allclose(curve.df2, 40 * (ks2 / (ks2 + curve.tau)) ** 2, rtol=1e-12)
    with pytest.warns(UserWarning, match="k1 = 0 in layer 1"):
        theory.linearise([np.ones((2, 3))], "cos", np.eye(3))
