# SPDX-License-Identifier: Apache-2.0
"""Derivatives and draws where eigenvalues meet, and refusals where there is no derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference
from scipy.stats import multivariate_normal

from bayesrg import gp, networks, theory
from bayesrg._linalg import eigh, svd
from bayesrg.kernels import RBF, Linear

x = np.linspace(0, 1, 12, endpoint=False)
circle = np.stack([np.cos(2 * np.pi * x), np.sin(2 * np.pi * x)], 1)  # pairs of equal eigenvalues
y = np.sin(2 * np.pi * x) + 0.3 * np.cos(8 * x)
X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.stack([np.sin(X[:, 0]), X[:, 1]], 1)


def refused(function, at=1.1):
    """Trace a derivative, which must raise: nothing is compiled."""
    return jax.jit(function).trace(at)


@pytest.mark.parametrize(
    "name, given",
    [
        ("circle", True), ("modes", False),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (
            ("kernel", False), ("modes", True), ("rest", False),
            ("kernel", True), ("circle", False), ("rest", True),
        )),
    ],
)  # fmt: skip
def test_several_outputs(name, given):
    Q, order = np.array([[1.0, 0.4], [0.4, 0.7]]), np.eye(2)

    def law(v, ridge):
        if name == "kernel":
            prior, points, Q_ = Linear(v), X, order
        elif name == "circle":
            prior, points, Q_ = RBF(v), circle, Q
        else:
            F, values = circle * v, np.ones(2)
            residual = None if name == "modes" else 0.3 * v * jnp.ones(12)
            eigen = gp.eigenpairs(F, values, residual) if given else None
            return gp.MatrixMercerNormal(F, values, ridge, Q, residual=residual, eigen=eigen)
        eigen = prior.at(points).eigenpairs() if given else None
        return gp.matrix_marginal(prior, points, ridge, Q_, eigen=eigen)

    theta = np.array([1.1, 0.1])

    @jax.jit
    def ask(t):
        gradient = jax.grad(lambda t: law(t[0], t[1]).log_prob(Y))(t)
        return gradient, law(t[0], t[1]).covariance_matrix

    def entries(t):
        return multivariate_normal(np.zeros(Y.size), ask(t)[1]).logpdf(np.ravel(Y))

    gradient = ask(theta)[0]
    expected = central_difference(entries, theta, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-7)
    if name == "kernel":
        np.testing.assert_allclose(np.asarray(gradient)[0], -1.267936846, rtol=1e-9)


def test_several_outputs_refuse_what_has_no_derivative():
    def law(v):
        return gp.matrix_marginal(RBF(v), circle, 0.1, np.eye(2))

    for method in ("loo", "solve"):
        with pytest.raises(NotImplementedError, match="only log_prob and draws have a derivative"):
            refused(jax.grad(lambda v, method=method: getattr(law(v), method)(Y).sum()))
    with pytest.raises(NotImplementedError, match="only log_prob and draws"):
        refused(jax.grad(lambda v: law(v).krige(Y[:10])[0].sum()))
    with pytest.raises(NotImplementedError, match="a first one"):
        refused(jax.grad(jax.grad(lambda v: law(v).log_prob(Y))))


def test_eigenpairs_of_a_kernel_that_moves():
    """The law takes its derivatives from the kernel, wherever the eigenpairs were made."""
    made = jax.jit(lambda: RBF(1.1).at(circle).eigenpairs())()

    def law(lengthscale, eigen=None):
        return gp.marginal(RBF(lengthscale), circle, 0.1, eigen=eigen)

    def moving(v):
        return law(v, RBF(v).at(circle).eigenpairs())

    @jax.jit
    @jax.jacrev
    def slopes(v):
        laws = law(v), law(v, made), moving(v)
        return [law.log_prob(y) for law in laws], [law.loo(y) for law in laws]

    for verb in slopes(1.1):
        plain, fixed, ours = verb
        np.testing.assert_allclose(ours, plain, rtol=1e-10)
        np.testing.assert_allclose(fixed, plain, rtol=1e-10)
    np.testing.assert_allclose(slopes(1.1)[0][2], 3.434350045937, rtol=1e-11)
    with pytest.raises(NotImplementedError, match="leave eigen out"):
        refused(jax.grad(lambda v: moving(v).colour(y).sum()))

    def noise_slope(v):
        law = gp.marginal
        return jax.grad(lambda r: law(RBF(v), circle, r, eigen=made).log_prob(y))(0.1)

    with pytest.raises(NotImplementedError, match="leave eigen out"):
        refused(jax.grad(noise_slope))


@pytest.mark.slow
def test_second_derivatives_with_eigenpairs():
    made = jax.jit(lambda: RBF(1.1).at(circle).eigenpairs())()

    @jax.jit
    @jax.hessian
    def second(ridge):
        laws = (gp.marginal(RBF(1.1), circle, ridge, eigen=pairs) for pairs in (made, None))
        return [law.log_prob(y) for law in laws]

    np.testing.assert_allclose(*second(0.1), rtol=1e-9)


@pytest.mark.slow
def test_eigenvalues_may_move_alone():
    """Vectors that stay, as those of a modified spectrum do, cost no algebra of the matrix."""
    U, top = RBF(1.1).at(circle).eigenpairs()

    def one(t, given):
        pairs = (U, top**t)
        return gp.MercerNormal(*pairs, 0.1, scale=t, eigen=pairs if given else None).log_prob(y)

    def two(t, given):
        pairs = (U, top**t)
        if given:
            return gp.MatrixMercerNormal(*pairs, t, jnp.eye(2), eigen=pairs).log_prob(Y)
        return gp.MercerNormal(*pairs, t).log_prob(Y.T).sum()

    program = jax.jit(jax.grad(lambda t: one(t, True))).lower(1.2).compile()
    assert "lapack" not in program.as_text()
    for law in (one, two):
        for derivative in (jax.jacrev, jax.hessian):
            both = jax.jit(derivative(lambda t, law=law: [law(t, True), law(t, False)]))
            np.testing.assert_allclose(*both(1.2), rtol=1e-8)


def test_eigenvectors_alone_have_no_derivative():
    """It is nan and no number, for those of a kernel and of columns; eigenvalues have theirs."""
    for pairs in (
        lambda v: RBF(v).at(circle).eigenpairs(),
        lambda v: gp.eigenpairs(circle * v, np.ones(2)),
    ):

        @jax.jit
        def ask(v, pairs=pairs):
            turn = jax.grad(lambda v: pairs(v)[0][0].sum())(v)
            return turn, jax.jacrev(lambda v: pairs(v)[1])(v), pairs(v)[1]

        turn, slope, _ = ask(1.1)
        assert np.isnan(turn)
        above, below = (np.asarray(ask(1.1 + step)[2]) for step in (1e-6, -1e-6))
        expected = (above - below) / 2e-6
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.1, 0.0])
@pytest.mark.parametrize(
    "shape", [(12, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in ((2, 12), (4, 4)))]
)
def test_cross_validation_at_equal_singular_values(shape, ridge):
    columns = circle if shape == (12, 2) else circle.T if shape == (2, 12) else 2.0 * np.eye(4)
    targets = np.random.default_rng(1).normal(size=shape[0])

    def estimate(columns):
        return theory.gcv(columns, targets, ridge)

    # at ridge 0 the limit goes through the rank, which a difference must not raise
    value_and_slope = jax.jit(jax.value_and_grad(estimate))
    expected = central_difference(lambda c: value_and_slope(c)[0], columns, 1e-5)
    np.testing.assert_allclose(value_and_slope(columns)[1], expected, rtol=1e-5, atol=1e-7)
    if ridge:
        slope = jax.jit(jax.grad(lambda r: theory.gcv(columns, targets, r)))(ridge)
        turned = jax.grad(lambda c: jax.grad(lambda r: theory.gcv(c, targets, r))(ridge).sum())
        assert np.isfinite(slope)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            refused(turned, columns)


def eigen(v):
    return RBF(v).at(circle).eigenpairs()


ORDER = np.array([[1.0, 0.4], [0.4, 0.7]])
DRAWS = {
    "posterior": lambda v: gp.condition(RBF(v), circle, y, 0.1).sample(0, circle, 1),
    "law": lambda v: gp.marginal(RBF(v), circle, 0.1).sample(jax.random.key(0)),
    "eigenpairs": lambda v: gp.marginal(RBF(v), circle, 0.1, eigen=eigen(v)).sample(
        jax.random.key(0)
    ),
    "several outputs": lambda v: gp.matrix_marginal(RBF(v), circle, 0.1, ORDER).sample(
        jax.random.key(0)
    ),
    "modes": lambda v: gp.MatrixMercerNormal(circle * v, np.ones(2), 0.1, ORDER).sample(
        jax.random.key(0)
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "posterior" else pytest.mark.slow) for n in DRAWS]
)
def test_draws_of_one_key_are_continuous(name):
    """Small steps of a lengthscale make small steps of a draw, as large as its derivative says."""
    draw, moves = DRAWS[name], name != "eigenpairs"  # those have no derivative

    @jax.jit
    def ask(v):
        return jax.jvp(draw, (v,), (1.0,)) if moves else (draw(v), None)

    here, step = ask(1.1)
    here, there = np.asarray(here), np.asarray(ask(1.1 + 1e-6)[0])
    assert np.abs(there - here).max() < 1e-4
    if moves:
        np.testing.assert_allclose((there - here) / 1e-6, step, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_other_decompositions_give_no_number_where_values_meet():
    """Derivatives of eigenvectors stay where they exist, and are nan where they do not."""
    A = np.diag([1.0, 2.0, 3.0]) + 0.1
    direction = np.random.default_rng(2).normal(size=(3, 3))
    direction = direction + direction.T

    def first(t, A):
        return eigh(A + t * direction)[1][0, 0] ** 2

    expected = (first(1e-6, A) - first(-1e-6, A)) / 2e-6
    np.testing.assert_allclose(jax.grad(first)(0.0, A), expected, rtol=1e-6)
    assert np.isnan(jax.grad(first)(0.0, np.eye(3)))
    assert np.isnan(jax.grad(lambda t: svd(t * circle + 0.0)[0][0, 0])(1.0))
    rows, both = jnp.asarray(np.tile(circle, (2, 1))), np.tile(y, 2)
    moments = jax.grad(lambda F: theory.moments(F, both).power[0])(rows)
    assert np.isnan(moments).any()
    turn = jax.grad(lambda H: networks.procrustes(H, circle).rotation[0, 0])(jnp.asarray(circle))
    assert np.isnan(turn).any()
