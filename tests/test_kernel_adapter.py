# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from oracles import central_difference, log_normal

from bayesrg import gp
from bayesrg.kernels import RBF, Linear, adapt
from bayesrg.spectrum import nystrom

X = np.random.default_rng(0).standard_normal((12, 3))
Z = np.random.default_rng(1).standard_normal((5, 3))
y = np.sin(X[:, 0])


def brownian(X, Z):
    return jnp.minimum(X, Z.T)


def tiny(scale=0.7, amplitude=1.3):
    return amplitude * tinygp.kernels.ExpSquared(scale, tinygp.kernels.distance.L2Distance())


def test_a_kernel_of_tinygp_is_the_same_kernel():
    adapted, ours = adapt(tiny()), RBF(0.7, 1.3)

    @jax.jit
    def grams(X, Z):
        both = 2.0 * adapted + Linear() * adapted.on([0])
        peer = 2.0 * ours(X, Z) + X @ Z.T * ours.on([0])(X, Z)
        return [(k(X), k(X, Z), k.diag(X)) for k in (adapted, ours)], (both(X, Z), peer)

    (theirs, own), both = grams(X, Z)
    for found, expected in (*zip(theirs[:2], own[:2], strict=True), both):
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(theirs[2], own[2], rtol=1e-15)
    assert adapt(ours) is ours


def test_plain_functions_and_modules():
    class Cosine(eqx.Module):
        rate: jax.Array

        def __call__(self, X, Z):
            return jnp.cos(self.rate * (X - Z.T))

    t = np.array([0.2, 1.0, 0.5])
    plain = adapt(brownian)
    assert jax.tree.leaves(plain) == [] and hash(jax.tree.structure(plain))
    K = jax.jit(lambda k: k(t))(plain)
    np.testing.assert_array_equal(K, np.minimum(t[:, None], t))
    np.testing.assert_array_equal(plain.diag(t), t)
    cosine = adapt(Cosine(jnp.array(2.0)))
    slope = jax.jit(jax.grad(lambda k: k(t, t)[0, 1]))(cosine).function.rate
    np.testing.assert_allclose(slope, -0.8 * np.sin(2 * 0.8), rtol=1e-14)


def test_parameters_of_tinygp_are_sampled_and_differentiated():
    @jax.jit
    @jax.value_and_grad
    def evidence(theta):
        kernel = adapt(tiny(theta[0], theta[1]))
        return gp.marginal(kernel, X, 0.1).log_prob(y)

    theta = np.array([0.7, 1.3])
    difference = central_difference(lambda theta: evidence(theta)[0], theta)
    np.testing.assert_allclose(evidence(theta)[1], difference, rtol=1e-7)
    leaves = jax.tree.leaves(adapt(tiny(jnp.array(0.7), jnp.array(1.3))))
    np.testing.assert_array_equal(sorted(map(float, leaves)), [0.7, 1.3])


def test_regression_and_spectra():
    @jax.jit
    def regressions(y):
        posterior = gp.condition(adapt(tiny()), X, y, 0.1)
        peer = tinygp.GaussianProcess(tiny(), X, diag=0.1)
        given = peer.condition(y, Z, diag=0.0).gp
        ours = posterior.log_evidence, *posterior.predict(Z)
        return ours, (peer.log_probability(y), given.loc, given.variance), tiny()(X, X)

    ours, theirs, K = regressions(y)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
    np.testing.assert_allclose(ours[0], log_normal(y, np.zeros(12), K + 0.1 * np.eye(12)))
    for found, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    spectrum, ours = nystrom(adapt(tiny()), Z, rank=3), nystrom(RBF(0.7, 1.3), Z, rank=3)
    np.testing.assert_allclose(spectrum.values, ours.values, rtol=1e-12)
    residuals = jax.jit(lambda X: (spectrum.residual(X), ours.residual(X)))(X)
    np.testing.assert_allclose(*residuals, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: adapt(lambda X, Z: X[0, 0] * Z[0, 0])(X, Z), r"kernel returned shape \(\) for"),
        (lambda: adapt(lambda X, Z: (X @ Z.T).T)(X, Z), r"returned shape \(5, 12\) for inputs of"),
    ],
)
def test_a_wrong_shape_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
