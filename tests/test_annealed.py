# SPDX-License-Identifier: Apache-2.0
"""Networks whose weights are averaged out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg import theory

values = np.arange(1, 151.0) ** -0.5


def test_degrees_of_freedom_without_weights():
    tau = np.array([0.01, 0.05, 0.2, 1.0])
    df1, df2 = theory.annealed_dimension(values, (200, 250), "tanh", tau)
    np.testing.assert_allclose(df1, [122.3045, 82.1123, 47.4639, 17.5354], rtol=0, atol=6e-5)

    def both(t):
        return theory.annealed_dimension(values, (200, 250), "tanh", t)

    _, pull = jax.vjp(both, jnp.array(tau))
    none, all_ = np.zeros(4), np.ones(4)
    (slope,) = pull((all_, none))
    np.testing.assert_allclose(df1 + tau * slope, df2, rtol=1e-12)
    numeric = (both(tau * (1 + 1e-5))[1] - both(tau * (1 - 1e-5))[1]) / (2e-5 * tau)
    np.testing.assert_allclose(pull((none, all_))[0], numeric, rtol=1e-6)


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
            e = np.linalg.eigvalsh(theory.linearise(W, "tanh", np.diag(values))[-1].Omega)
            found.append([(e / (e + 0.05)).sum(), (e**2 / (e + 0.05) ** 2).sum()])
        return np.mean(found, 0), np.std(found, 0, ddof=1)

    for covariance, spectrum, widths in ((C, omega, (200,)), (np.ones(150), values, (200, 250))):
        mean, spread = draws(covariance, widths)
        ours = theory.annealed_dimension(spectrum, widths, "tanh", 0.05)
        # 0.3 % is the finite width
        assert (np.abs(mean - ours) < 4 * spread / np.sqrt(6) + 0.003 * mean).all()


def test_the_learning_curve_without_weights():
    n = np.array([100.0, 200.0, 400.0])
    curve = theory.annealed_curve(values, (200, 250), "tanh", n, [[1e-3], [1e-10]], 0.1)
    assert curve.test.shape == (2, 3) and (curve.residual < 1e-12).all()
    np.testing.assert_allclose(curve.df1 + curve.ridge / curve.tau, curve.n, rtol=1e-12)
    # a tiny ridge and more points than features: least squares
    np.testing.assert_allclose(curve.test[1, 2], 0.1 / (1 - 250 / 400), rtol=1e-6)
    np.testing.assert_allclose(curve.train[1, 2], 0.1 * (1 - 250 / 400), rtol=1e-6)
    # given weights, the theory of their covariance averaged over teachers
    rng = np.random.default_rng(0)
    W = [rng.standard_normal(s) / np.sqrt(s[1]) for s in ((200, 150), (250, 200))]
    e = np.linalg.eigvalsh(theory.linearise(W, "tanh", np.diag(values))[-1].Omega)[::-1]
    quenched = theory.learning_curve(e, e, n, 1e-3, 0.1)
    np.testing.assert_allclose(curve.test[0], quenched.test, rtol=0.05)
    np.testing.assert_allclose(curve.train[0], quenched.train, rtol=0.1)


def test_derivatives_of_the_learning_curve():
    n = np.array([100.0, 200.0, 400.0])

    def error(ridge):
        return theory.annealed_curve(values, (200, 250), "tanh", n, ridge, 0.1).test

    ridge = np.broadcast_to([[1e-3], [1e-2]], (2, 3))
    slope = jax.grad(lambda r: error(r).sum())(jnp.array(ridge))
    numeric = (error(ridge * (1 + 1e-5)) - error(ridge * (1 - 1e-5))) / (2e-5 * ridge)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_no_layers_is_the_inputs():
    curve = theory.annealed_curve(values, (), (), [100.0, 200.0], 0.01, 0.1)
    same = theory.learning_curve(values, values, [100.0, 200.0], 0.01, 0.1)
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
