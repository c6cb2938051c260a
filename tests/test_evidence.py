# SPDX-License-Identifier: Apache-2.0
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats
from numpy.testing import assert_allclose
from oracles import log_normal
from sampling import two_steps
from scipy.special import gammaln, multigammaln, psi
from scipy.stats import chi2, genpareto, multivariate_t, norm

import bayesrg as brg
from bayesrg.deep_linear import evidence, exact
from bayesrg.deep_linear.importance import Student, tail_index
from bayesrg.deep_linear.joint import joint_of
from bayesrg.deep_linear.order import order_parameter
from bayesrg.deep_linear.problem import prepare
from bayesrg.models import deep_linear_collapsed
from bayesrg.networks import DeepLinear


def two_outputs():
    rng = np.random.default_rng(4)
    X, _ = rng.standard_normal((6, 5)), rng.standard_normal((1, 5))
    B = np.array([[1, 0.8], [-0.6, -0.9], [0.5, 0.1], [0, 0.4], [0.2, 0]])
    return X, X @ B + np.sqrt(0.15) * rng.standard_normal((6, 2))


order = jax.jit(lambda latents: order_parameter((4, 3), 2, latents).Q)


@pytest.mark.parametrize("method", ["importance_laplace", "importance_prior"])
def test_two_outputs_reference(method):
    X, Y = two_outputs()
    net = DeepLinear((4, 3), ridge=0.15, outputs=2)
    found = evidence(net, X, Y, method=method, key=0)
    assert found.standard_error < 0.02 and found.pareto_k < 0.7 and found.ess > 1000
    error = np.hypot(found.standard_error, 0.0024)
    assert abs(found.log_evidence + 17.2564) < 4 * error
    Q = np.asarray(order(found.sample.latents))
    mean, error = found.sample.expect(Q)
    expected = [[1.9252, 1.2522], [1.2522, 1.0907]]
    assert (np.abs(mean - expected) < 4 * np.hypot(error, 0.0021)).all()
    log_det, error = found.sample.expect(np.linalg.slogdet(Q)[1])
    assert abs(log_det + 1.7439) < 4 * np.hypot(error, 0.0036)


def test_the_density_is_that_of_dense_algebra():
    X, Y = two_outputs()
    net = DeepLinear((4, 3), ridge=0.15, outputs=2, weight_scales=(1.2, 0.9, 1.1))
    for mapped in (net, DeepLinear((4, 3), ridge=0.15, outputs=2, parametrisation="mean_field")):
        joint = joint_of(prepare(mapped, X, Y))
        x = np.linspace(-1.0, 1.5, joint.squared.size)

        @jax.jit
        def ask(joint=joint, mapped=mapped, x=x):
            Q = order_parameter((4, 3), 2, joint.latents(x)).Q
            return Q, mapped.kernel(X), joint.log_likelihood(x), joint.log_prior(x)

        Q, K, found, prior = map(np.asarray, ask())
        C = np.kron(Q, K) + float(mapped.noise_variance) * np.eye(12)
        expected = log_normal(Y.T.ravel(), np.zeros(12), C)
        assert_allclose(found, expected, rtol=1e-11)
        logs, normals = joint.split(x)
        logs = chi2(joint.dof).logpdf(np.exp(logs)) + logs
        assert_allclose(prior, logs.sum() + norm.logpdf(normals).sum(), rtol=1e-12)


def test_one_output_and_none_to_integrate():
    X, Y = two_outputs()
    net = DeepLinear((4, 3), ridge=0.15)
    exactly = exact(net, X, Y[:, 0]).log_evidence
    found = evidence(net, X, Y[:, 0])
    assert found.method == "exact" and found.log_evidence == exactly and found.sample is None
    found = evidence(net, X, Y[:, 0], method="importance_laplace", key=0, draws=20_000)
    assert abs(found.log_evidence - exactly) < 4 * found.standard_error < 0.05
    flat = evidence(DeepLinear((), ridge=0.15, outputs=2), X, Y)
    alone = [exact(DeepLinear((), ridge=0.15), X, y).log_evidence for y in Y.T]
    assert_allclose(flat.log_evidence, sum(alone), rtol=1e-12)
    assert flat.standard_error == 0


def test_without_noise_and_one_layer_against_the_closed_form():
    """Two outputs of one layer, Q by quadrature over its three entries."""
    rng = np.random.default_rng(3)
    X, Y = rng.standard_normal((3, 5)), rng.standard_normal((3, 2))
    K, N, P = X @ X.T / 5, 6, 3
    S = Y.T @ np.linalg.solve(K, Y)
    log_a, log_b = (np.linspace(-6.0, 5.0, 80) for _ in range(2))
    r = np.tanh(np.linspace(-9.0, 9.0, 121))
    a, b, r = np.meshgrid(np.exp(log_a), np.exp(log_b), r, indexing="ij")
    det, off = a * b * (1 - r**2), r * np.sqrt(a * b)
    trace = (b * S[0, 0] + a * S[1, 1] - 2 * off * S[0, 1]) / det
    front = -P * np.log(2 * np.pi) - np.linalg.slogdet(K)[1]
    front += N * np.log(N / 2) - multigammaln(N / 2, 2)
    log_f = (N - 3 - P) / 2 * np.log(det) - N * (a + b) / 2 - trace / 2
    log_f += np.log(a * b * np.sqrt(a * b) * (1 - r**2))  # d Q = sqrt(ab) da db dr
    steps = (log_a[1] - log_a[0]) ** 2 * 18 / 120
    exactly = front + np.log(np.exp(log_f).sum() * steps)
    found = evidence(DeepLinear((N,), ridge=0.0, outputs=2), X, Y, key=0, draws=20_000)
    assert abs(found.log_evidence - exactly) < 4 * found.standard_error < 0.1


@pytest.mark.slow
def test_a_bottleneck():
    X, Y = two_outputs()
    net = DeepLinear((3, 1), ridge=0.15, outputs=2)
    a = evidence(net, X, Y, key=0, draws=20_000)
    b = evidence(net, X, Y, method="importance_prior", key=0, draws=100_000)
    error = np.hypot(a.standard_error, b.standard_error)
    assert abs(a.log_evidence - b.log_evidence) < 4 * error < 0.15


@pytest.mark.parametrize("shape", [0.9, 0.3, -0.5])
def test_the_tail_index(shape):
    log_w = np.log(genpareto(shape).rvs(3600, random_state=1))  # 180 make the tail
    assert_allclose(tail_index(log_w), array_stats.psislw(-log_w)[1], rtol=0, atol=1e-6)
    assert tail_index(np.zeros(50)) == -np.inf


def test_the_proposal():
    loc, A = np.array([1.0, -2.0]), np.array([[2.0, 0.4], [0.4, 1.0]])
    law = Student(loc, np.linalg.cholesky(A), 5.0)
    x = law.sample(np.random.default_rng(0), 50_000)
    expected = multivariate_t(loc, np.linalg.inv(A), 5).logpdf(x[:50])
    assert_allclose(law.log_prob(x[:50]), expected, rtol=1e-12)
    covariance = np.cov(x.T) * 3 / 5
    assert_allclose(covariance, np.linalg.inv(A), rtol=0, atol=0.06)


def test_bad_questions():
    X, Y = two_outputs()
    net = DeepLinear((4, 3), ridge=0.15, outputs=2)
    with pytest.raises(ValueError, match="call bayesrg.inference.path_evidence with the model"):
        evidence(net, X, Y, method="path")
    with pytest.raises(ValueError, match="method must be one of 'exact', 'importance_prior'"):
        evidence(net, X, Y, method="laplace")
    with pytest.raises(ValueError, match="key is None, and importance sampling needs"):
        evidence(net, X, Y)
    with pytest.raises(NotImplementedError, match="2 outputs"):
        evidence(net, X, Y, method="exact")
    with pytest.raises(ValueError, match="draws must be an integer of at least 100, got 5"):
        evidence(net, X, Y, key=0, draws=5)
    sharp, given = DeepLinear((4, 3), ridge=1e-6, outputs=2), {"key": 0}
    with pytest.raises(ValueError, match=r"100000 prior draws are worth .* and an evidence needs"):
        evidence(sharp, 10 * X, Y + 100 * X[:, :2], method="importance_prior", **given)
    singular = DeepLinear((3, 1), ridge=0.0, outputs=2)
    with pytest.raises(ValueError, match="Q is singular, no zero-noise density"):
        evidence(singular, X[:4], Y[:4])


@pytest.mark.slow
def test_path_of_several_outputs():
    X, Y = two_outputs()
    found = brg.inference.path_evidence(
        deep_linear_collapsed.model, (X, Y), key=0, draws=500, warmup=300, chains=2,
        widths=(4, 3), ridge=0.15, outputs=2,
    )  # fmt: skip
    assert found.r_hat.max() < 1.05 and found.standard_error < 0.15
    error = np.hypot(found.standard_error, found.quadrature_error)
    assert abs(found.log_evidence + 17.2564) < 4 * error


def test_path_of_a_conjugate_model():
    """A rate with a Gamma prior: the mean log likelihood at every power is known."""

    def model(X, y=None):
        scale = numpyro.sample("scale", dist.Gamma(3.0, 2.0))
        with numpyro.plate("point", X.shape[0]):
            numpyro.sample("y", dist.Exponential(scale), obs=y)

    y = np.array([0.4, 1.1, 0.3, 0.9, 2.0])
    found = brg.inference.path_evidence(
        model, (np.zeros((5, 1)), y), key=1, draws=500, warmup=300, chains=2, sampler=two_steps
    )
    shape, rate = 3 + 5 * found.power, 2 + y.sum() * found.power
    expected = 5 * (psi(shape) - np.log(rate)) - y.sum() * shape / rate
    assert (np.abs(found.mean - expected) < 4.5 * found.mcse).all()
    exactly = 3 * np.log(2) - gammaln(3) + gammaln(8) - 8 * np.log(2 + y.sum())
    assert abs(found.log_evidence - exactly) < 4 * found.standard_error < 0.15
    with pytest.raises(ValueError, match="crowding must be a number of at least 1"):
        brg.inference.path_evidence(model, (np.zeros((5, 1)), y), key=1, crowding=0.5)
