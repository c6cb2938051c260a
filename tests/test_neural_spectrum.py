# SPDX-License-Identifier: Apache-2.0
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from oracles import log_normal

from bayesrg import gp, rg
from bayesrg.kernels import RBF, Linear, adapt
from bayesrg.spectrum import maps, modify, neural, nystrom

KERNEL = RBF(0.7)
rng = np.random.default_rng(0)
SAMPLE, X = rng.standard_normal((150, 1)), rng.standard_normal((20, 1))
Y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(20)


def features(spectrum, X):
    return np.asarray(_features(spectrum, X))


_features = eqx.filter_jit(lambda spectrum, X: spectrum.features(X))
gram = eqx.filter_jit(lambda kernel, X: kernel(X))


def table(params, X):
    """Free functions of 30 points: a matrix problem."""
    return params[X[:, 0].astype(int)]


def affine(params, X):
    return X @ params


def matrix():
    A = np.random.default_rng(1).standard_normal((30, 30))
    return A @ A.T / 30


@pytest.fixture(scope="module")
def learnt():
    return neural(KERNEL, SAMPLE, 4, key=0, steps=600)


def test_functions_and_values_are_those_of_nystrom(learnt):
    """On the whole sample, so that both have the same measure."""
    reference = nystrom(KERNEL, SAMPLE, rank=4)
    F, values = features(learnt, SAMPLE), np.asarray(reference.values)
    overlap = np.abs(F.T @ features(reference, SAMPLE)) / 150
    assert (np.diagonal(overlap) > 0.999).all(), np.diagonal(overlap)
    np.testing.assert_allclose(learnt.values, values, rtol=2e-3)
    np.testing.assert_allclose(F.T @ F / 150, np.eye(4), rtol=0, atol=1e-10)
    assert (np.asarray(learnt.values) <= values * (1 + 1e-12)).all()  # Ritz values
    image = np.asarray(gram(KERNEL, SAMPLE)) @ F / 150 / learnt.values
    error = np.sqrt(((image - F) ** 2).mean(0))
    np.testing.assert_allclose(learnt.error, error, rtol=1e-8)
    assert (error < 0.1).all() and learnt.objective.shape == (600,)


def test_the_functions_hold_between_the_points_they_were_learnt_from(learnt):
    new, reference = np.linspace(-1.5, 1.5, 20), nystrom(KERNEL, SAMPLE, rank=4)
    ours, theirs = features(learnt, new), features(reference, new)
    cosine = (ours * theirs).sum(0) / np.sqrt((ours**2).sum(0) * (theirs**2).sum(0))
    assert (np.abs(cosine) > 0.999).all(), cosine


def test_the_maximum_is_at_ordered_eigenvectors():
    """The network's own outputs, before anything is diagonalised."""
    K = adapt(lambda X, Z: jnp.asarray(matrix())[X[:, 0].astype(int)][:, Z[:, 0].astype(int)])
    start = np.random.default_rng(2).standard_normal((30, 4))
    found = neural(
        K, np.arange(30.0), 4, key=0, apply=table, params=start,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.05, 2000)), steps=2000,
    )  # fmt: skip
    values, vectors = np.linalg.eigh(matrix())
    Psi = np.asarray(found.params)
    Psi = Psi / np.linalg.norm(Psi, axis=0)
    np.testing.assert_allclose(np.abs(Psi.T @ vectors[:, ::-1][:, :4]), np.eye(4), atol=3e-3)
    R = Psi.T @ matrix() @ Psi
    np.testing.assert_allclose(np.diagonal(R), values[::-1][:4], rtol=1e-5)
    np.testing.assert_allclose(30 * found.values, values[::-1][:4], rtol=1e-5)
    np.testing.assert_allclose(found.objective[-1], values[-4:].sum() / 30, rtol=1e-5)


def test_the_law_keeps_its_variance_and_its_evidence_when_cut(learnt):
    @jax.jit
    def laws(y):
        law = gp.marginal(learnt, X, 0.1)
        cut = [rg.integrate_modes(*law.split(cutoff), y).log_evidence for cutoff in (2, 4)]
        return law.variance, learnt.residual(X), law.log_prob(y), cut

    variance, residual, log_prob, cut = laws(Y)
    np.testing.assert_allclose(variance, np.asarray(KERNEL.diag(X)) + 0.1, rtol=1e-3)
    F = features(learnt, X)
    C = F * learnt.values @ F.T + np.diag(residual) + 0.1 * np.eye(20)
    expected = log_normal(Y, np.zeros(20), C)
    for found in (log_prob, *cut):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)

    def model(X, y=None):
        numpyro.sample("y", gp.marginal(learnt, X, 0.1), obs=y)

    coarse = rg.coarsen(model, y=rg.Coarse(2, "local"))

    def modes():
        trace = numpyro.handlers.trace(numpyro.handlers.seed(coarse, 0)).get_trace(X, Y)
        return trace["y_modes"]["value"]

    assert jax.eval_shape(modes).shape == (2,)
    some, every = jax.jit(lambda X: (learnt.residual_cov(X, X[:3]), learnt.residual_cov(X)))(X)
    np.testing.assert_array_equal(some, np.asarray(every)[:, :3])


def test_the_projection_splits_the_kernel_itself(learnt):
    landmarks = np.random.default_rng(3).standard_normal((300, 1))
    exact, reference = learnt.project(landmarks), nystrom(KERNEL, landmarks, rank=4)
    F, values = features(exact, landmarks), np.asarray(reference.values)
    np.testing.assert_allclose(F.T @ F / 300, np.eye(4), rtol=0, atol=1e-10)
    assert (np.asarray(exact.values) <= values * (1 + 1e-12)).all()
    np.testing.assert_allclose(exact.values, values, rtol=0.01)

    @jax.jit
    def laws(y):
        law = gp.marginal(exact, X, 0.1)
        low = rg.integrate_modes(*law.split(3), y)
        return exact.residual_cov(X), law.log_prob(y), low.log_evidence

    residual, *found = laws(Y)
    assert np.linalg.eigvalsh(residual)[0] > -1e-12
    expected = log_normal(Y, np.zeros(20), gram(KERNEL, X) + 0.1 * np.eye(20))
    np.testing.assert_allclose(found, [expected, expected], rtol=0, atol=1e-10)


@pytest.mark.slow
def test_its_values_may_be_modified(learnt):
    prior = modify(learnt, maps.table([0.0, 0.5]))
    K = np.asarray(gram(prior, X))
    assert np.linalg.eigvalsh(K)[0] > -1e-12
    F, values = features(learnt, X), np.array([0.0, 0.5, *np.asarray(learnt.values)[2:]])
    np.testing.assert_allclose(K, F * values @ F.T + learnt.residual_cov(X), rtol=0, atol=1e-12)


def test_values_may_come_from_some_of_the_rows():
    # trained like `learnt`, by the same program
    F = features(neural(KERNEL, SAMPLE, 4, key=0, steps=600, rows=60), SAMPLE)
    moments = F.T @ F / 150
    assert 0.01 < np.abs(moments - np.eye(4)).max() < 5 / np.sqrt(60)


@pytest.mark.slow
def test_mini_batches_find_the_same_functions():
    points = jnp.asarray(np.random.default_rng(4).standard_normal((2000, 1)))
    found = neural(KERNEL, points, 4, key=1)
    reference = nystrom(KERNEL, points, rank=4)
    overlap = np.abs(found.features(points).T @ reference.features(points)) / 2000
    assert (np.diagonal(overlap) > 0.99).all(), np.diagonal(overlap)
    np.testing.assert_allclose(found.values, reference.values, rtol=0.01)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"modes": 151}, "modes must be an integer from 1 to 150, got 151"),
        ({"modes": 0}, "modes must be an integer from 1 to 150, got 0"),
        ({"apply": affine}, "apply and params belong together"),
        ({"apply": affine, "params": np.ones((1, 3))}, r"return one column per mode, \(150, 2\)"),
        ({"apply": affine, "params": np.ones((1, 2))}, "linearly dependent"),
        ({"apply": lambda p, X: (X - X.mean(0)) @ p, "params": np.ones((1, 2))}, "mixes rows"),
        pytest.param(
            {"optimizer": optax.sgd(np.inf)},
            "linearly dependent or not finite",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"modes": 2, "steps": 2} | change
    with pytest.raises(ValueError, match=message):
        neural(KERNEL, SAMPLE, key=0, **given)


def test_a_kernel_of_fewer_modes_is_told():
    with pytest.raises(ValueError, match="only 1 of 2 functions have a value above the rounding"):
        neural(Linear(), SAMPLE, 2, key=0, steps=2)


def test_it_is_made_outside_of_transformations():
    with pytest.raises(ValueError, match="runs under a JAX transformation"):
        jax.jit(lambda s: neural(RBF(s), SAMPLE, 2, key=0, steps=2).values)(1.0)


def test_it_needs_64_bits():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="spectrum.neural"):
        neural(KERNEL, SAMPLE, 2, key=0)
