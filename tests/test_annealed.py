# SPDX-License-Identifier: Apache-2.0
"""Networks whose weights are averaged out."""

import jax
import numpy as np
import pytest

from bayesrg import theory

values = np.arange(1, 151.0) ** -0.5
WIDTHS, N = (200, 250), np.array([100.0, 200.0, 400.0])


@jax.jit
def curve_and_slope(ridge):
    """Learning curve without weights at ridges (2, 1), and the ridge's derivative of its sum."""

    def total(ridge):
        curve = theory.annealed_curve(values, WIDTHS, "tanh", N, ridge, 0.1)
        return curve.test.sum(), curve

    slope, curve = jax.grad(total, has_aux=True)(ridge)
    return curve, slope


def covariance_values(W):
    """Eigenvalues of the covariance of the last layer's units, given the weights."""
    return np.linalg.eigvalsh(linearised(W)[-1].Omega)


linearised = jax.jit(lambda W: theory.linearise(W, "tanh", np.diag(values)))
learning_curve = jax.jit(theory.learning_curve)


def test_degrees_of_freedom_without_weights():
    tau = np.array([0.01, 0.05, 0.2, 1.0])

    @jax.jit
    def both(tau):
        found, pull = jax.vjp(lambda t: theory.annealed_dimension(values, WIDTHS, "tanh", t), tau)
        none, all_ = np.zeros(4), np.ones(4)
        return *found, pull((all_, none))[0], pull((none, all_))[0]

    df1, df2, slope1, slope2 = map(np.asarray, both(tau))
    np.testing.assert_allclose(df1, [122.3045, 82.1123, 47.4639, 17.5354], rtol=0, atol=6e-5)
    np.testing.assert_allclose(df1 + tau * slope1, df2, rtol=1e-12)
    more, less = (np.asarray(both(tau * (1 + step))[1]) for step in (1e-5, -1e-5))
    np.testing.assert_allclose(slope2, (more - less) / (2e-5 * tau), rtol=1e-6)


def test_degrees_of_freedom_of_networks():
    """One layer with a covariance, then two: against draws of the weights."""
    rng = np.random.default_rng(5)
    C = np.linspace(0.2, 2.0, 150)
    omega = values * C

    def draws(covariance, widths):
        found = []
        for _ in range(6):
            W = [rng.standard_normal((widths[0], 150)) * np.sqrt(covariance / 150)]
            for below, width in zip(widths[:-1], widths[1:], strict=True):
                W.append(rng.standard_normal((width, below)) / np.sqrt(below))
            e = covariance_values(W)
            found.append([(e / (e + 0.05)).sum(), (e**2 / (e + 0.05) ** 2).sum()])
        return np.mean(found, 0), np.std(found, 0, ddof=1)

    for covariance, spectrum, widths in ((C, omega, (200,)), (np.ones(150), values, WIDTHS)):
        mean, spread = draws(covariance, widths)
        ours = jax.jit(lambda v, w=widths: theory.annealed_dimension(v, w, "tanh", 0.05))(spectrum)
        # 0.3 % is the finite width
        assert (np.abs(mean - ours) < 4 * spread / np.sqrt(6) + 0.003 * mean).all()


def test_the_learning_curve_without_weights():
    curve, _ = jax.tree.map(np.asarray, curve_and_slope(np.array([[1e-3], [1e-10]])))
    assert curve.test.shape == (2, 3) and (curve.residual < 1e-12).all()
    np.testing.assert_allclose(curve.df1 + curve.ridge / curve.tau, curve.n, rtol=1e-12)
    # a tiny ridge and more points than features: least squares
    np.testing.assert_allclose(curve.test[1, 2], 0.1 / (1 - 250 / 400), rtol=1e-6)
    np.testing.assert_allclose(curve.train[1, 2], 0.1 * (1 - 250 / 400), rtol=1e-6)
    # given weights, the theory of their covariance averaged over teachers
    rng = np.random.default_rng(0)
    W = [rng.standard_normal(s) / np.sqrt(s[1]) for s in ((200, 150), (250, 200))]
    e = covariance_values(W)[::-1]
    quenched = learning_curve(e, e, N, 1e-3, 0.1)
    np.testing.assert_allclose(curve.test[0], quenched.test, rtol=0.05)
    np.testing.assert_allclose(curve.train[0], quenched.train, rtol=0.1)


def test_derivatives_of_the_learning_curve():
    ridge = np.array([[1e-3], [1e-2]])
    _, slope = curve_and_slope(ridge)
    more, less = (
        np.asarray(curve_and_slope(ridge * (1 + step))[0].test).sum(1, keepdims=True)
        for step in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(slope, (more - less) / (2e-5 * ridge), rtol=1e-6)


def test_no_layers_is_the_inputs():
    curve = jax.jit(lambda n: theory.annealed_curve(values, (), (), n, 0.01, 0.1))(N)
    same = learning_curve(values, values, N, 0.01, 0.1)
    np.testing.assert_allclose(curve.test, same.test, rtol=1e-11)
    np.testing.assert_allclose(curve.train, same.train, rtol=1e-11)


def test_an_even_activation_forgets_the_inputs():
    with pytest.warns(UserWarning, match="k1 = 0 in layer 1"):
        df1, df2 = theory.annealed_dimension(values, 40, "cos", 0.01)
    r = values.mean()
    ks2 = (1 + np.exp(-2 * r)) / 2 - np.exp(-r)
    np.testing.assert_allclose(df1, 40 * ks2 / (ks2 + 0.01), rtol=1e-12)
    np.testing.assert_allclose(df2, 40 * (ks2 / (ks2 + 0.01)) ** 2, rtol=1e-12)
    with pytest.warns(UserWarning, match="k1 = 0 in layer 1"):
        theory.linearise([np.ones((2, 3))], "cos", np.eye(3))
