# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import numpy as np
import numpyro
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density
from oracles import central_difference, conditional, fourier_modes, log_normal
from sampling import two_steps

import bayesrg as brg
from bayesrg import rg
from bayesrg.gp import MatrixMercerNormal, MercerNormal, eigenpairs, matrix_marginal
from bayesrg.kernels import RBF, Linear
from bayesrg.models import deep_linear_collapsed
from bayesrg.spectrum import fourier

SLOW = pytest.mark.slow
rng = np.random.default_rng(11)
A, Y, G = rng.standard_normal((5, 5)), rng.standard_normal((5, 3)), rng.standard_normal((3, 3))
K, Q, T = A @ A.T, G @ G.T, 0.2
pairs = jax.jit(eigenpairs)
EIGEN = tuple(part[..., ::-1] for part in np.linalg.eigh(K)[::-1])  # vectors, falling values
F = rng.standard_normal((7, 3))  # seven points, rank three
FQ = rng.standard_normal((2, 2))
R = (lambda B: B @ B.T / 20)(rng.standard_normal((7, 9)))
FORMS = {
    "thin": (F, np.array([2.0, 0.5, 0.1]), None),
    "diagonal residual": (F, np.array([2.0, 0.5, 0.1]), np.linspace(0.1, 0.4, 7)),
    "dense residual": (F, np.array([2.0, 0.5, 0.1]), R),
    "residual alone": (F[:, :0], np.zeros(0), np.linspace(0.1, 0.4, 7)),
}


log_prob = jax.jit(lambda fn, y: fn.log_prob(y))
krige = jax.jit(lambda fn, y: fn.krige(y))
cut = jax.jit(lambda fn, k: fn.split(k), static_argnums=1)


@jax.jit
def everything(fn, y):
    return fn.covariance_matrix, fn.variance, fn.log_prob(y), fn.solve(y), fn.loo(y)


@partial(jax.jit, static_argnums=1)
def draw(fn, size, seed):
    return fn.sample(jax.random.key(seed), (size,))


def form(name, given=False, order=FQ @ FQ.T, ridge=0.3, **kwargs):
    """A distribution of seven points and two outputs, and its kernel matrix."""
    features, values, residual = FORMS[name]
    kernel = (features * values) @ features.T
    if residual is not None:
        kernel = kernel + (np.diag(residual) if residual.ndim == 1 else residual)
    eigen = pairs(features, values, residual) if given else None
    fn = MatrixMercerNormal(
        features, values, ridge, order, residual=residual, eigen=eigen, **kwargs
    )
    return fn, kernel


def dense(kernel, order, ridge):
    return np.kron(kernel, order) + ridge * np.eye(len(kernel) * len(order))


def test_reference_density_in_three_forms():
    """Blocks, eigenvectors of Q, and the whole matrix."""
    blocks = log_prob(MatrixMercerNormal(*EIGEN, T, Q, eigen=EIGEN), Y)
    np.testing.assert_allclose(blocks, -27.359162590580, rtol=0, atol=2e-12)
    q, V = np.linalg.eigh(Q)
    C = np.asarray(EIGEN[1])[:, None] * q + T
    rotated = -0.5 * (np.log(2 * np.pi * C) + (np.asarray(EIGEN[0]).T @ Y @ V) ** 2 / C).sum()
    np.testing.assert_allclose(rotated, -27.359162590580, rtol=0, atol=2e-12)
    whole = log_normal(Y.ravel(), np.zeros(15), dense(K, Q, T))
    np.testing.assert_allclose(whole, -27.359162590580, rtol=0, atol=2e-12)
    # the other factor order of the spec: outputs outside
    outside = log_normal(Y.T.ravel(), np.zeros(15), np.kron(Q, K) + T * np.eye(15))
    np.testing.assert_allclose(outside, -27.359162590580, rtol=0, atol=2e-12)


@jax.jit
def gradients(order, ridge):
    def density(order, ridge):
        return MatrixMercerNormal(*EIGEN, ridge, order, eigen=EIGEN).log_prob(Y)

    return jax.grad(density, (0, 1))(order, ridge)


@pytest.mark.parametrize("order", [Q, np.eye(3)], ids=["generic", "identity"])
def test_gradients_are_finite_where_eigenvalues_coincide(order):
    gradient, by_ridge = map(np.asarray, gradients(order, T))

    def whole(x):
        S = x.reshape(3, 3)
        return log_normal(Y.ravel(), np.zeros(15), dense(K, (S + S.T) / 2, T))

    expected = central_difference(whole, order.ravel(), 1e-5).reshape(3, 3)
    symmetric = (gradient + gradient.T) / 2
    np.testing.assert_allclose(symmetric, expected, rtol=0, atol=1e-7)
    ridge = central_difference(
        lambda t: log_normal(Y.ravel(), np.zeros(15), dense(K, order, t[0])), [T], 1e-5
    )
    np.testing.assert_allclose(by_ridge, ridge[0], rtol=1e-7)


@pytest.mark.parametrize(
    "name, given",
    [("dense residual", False), ("residual alone", False), ("thin", True)]
    + [pytest.param(name, False, marks=SLOW) for name in ("thin", "diagonal residual")]
    + [pytest.param(name, True, marks=SLOW) for name in FORMS if name != "thin"],
)
def test_every_form_against_the_whole_matrix(name, given):
    fn, kernel = form(name, given, loc=0.2)
    C = dense(kernel, FQ @ FQ.T, 0.3)
    y = rng.standard_normal((7, 2))
    covariance, variance, value, solved, loo = map(np.asarray, everything(fn, y))
    np.testing.assert_allclose(covariance, C, rtol=0, atol=1e-13)
    np.testing.assert_allclose(variance.ravel(), np.diag(C), rtol=1e-13)
    mean = np.full(14, 0.2)
    np.testing.assert_allclose(value, log_normal(y.ravel(), mean, C), rtol=1e-12)
    np.testing.assert_allclose(solved.ravel(), np.linalg.solve(C, y.ravel()), rtol=0, atol=1e-11)
    rows = np.arange(14).reshape(7, 2)
    for i in range(7):
        others = np.delete(rows, i, 0).ravel()
        law = conditional(C, others, rows[i], y.ravel()[others], mean)
        np.testing.assert_allclose(loo[i], log_normal(y[i], *law), rtol=1e-10)


@pytest.mark.parametrize(
    "name",
    ["thin", "diagonal residual"]
    + [pytest.param(name, marks=SLOW) for name in ("dense residual", "residual alone")],
)
def test_kriging_against_the_joint_gaussian(name):
    fn, kernel = form(name, loc=0.2)
    y = rng.standard_normal((4, 2))
    joint = np.kron(kernel, FQ @ FQ.T)
    joint[:8, :8] += 0.3 * np.eye(8)
    mean, cov = conditional(joint, np.arange(8), np.arange(8, 14), y.ravel(), np.full(14, 0.2))
    got_mean, got_variance, ridge = map(np.asarray, krige(fn, y))
    np.testing.assert_allclose(got_mean.ravel(), mean, rtol=0, atol=1e-11)
    np.testing.assert_allclose(got_variance.ravel(), np.diag(cov), rtol=0, atol=1e-11)
    assert ridge.shape == (1, 1) and float(ridge[0, 0]) == 0.3
    features, values, residual = FORMS[name]
    if residual is None or residual.ndim == 1:
        head = residual if residual is None else residual[:4]
        own = pairs(features[:4], values, head)
        again = fn._replace(eigen=own)
        np.testing.assert_allclose(krige(again, y)[0], got_mean, rtol=0, atol=1e-11)
        with pytest.raises(ValueError, match="eigen has 4 rows but there are 7 points"):
            again.log_prob(np.zeros((7, 2)))


@pytest.mark.slow
def test_one_output_is_a_mercer_normal():
    y = rng.standard_normal((7, 1))
    fn, _ = form("thin", order=np.array([[1.7]]))
    one = MercerNormal(fn.features, fn.values, 0.3, scale=1.7)

    @jax.jit
    def both(fn, one, y):
        mine = fn.log_prob(y), fn.loo(y), *fn.krige(y[:5])[:2]
        y = y[:, 0]
        return mine, (one.log_prob(y), one.loo(y), *one.krige(y[:5])[:2])

    mine, theirs = jax.tree.map(np.asarray, both(fn, one, y))
    np.testing.assert_allclose(mine[0], theirs[0], rtol=1e-12)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-10)
    for a, b in zip(mine[2:], theirs[2:], strict=True):
        np.testing.assert_allclose(a[:, 0], b, rtol=1e-10)


def test_batches_of_order_parameters_and_rotations_of_outputs():
    orders = np.stack([Q, np.eye(3), 2 * Q])
    fn = MatrixMercerNormal(*EIGEN, T, orders, eigen=EIGEN)
    assert fn.batch_shape == (3,) and fn.event_shape == (5, 3)

    @jax.jit
    def evaluate(orders):
        fn = MatrixMercerNormal(*EIGEN, T, orders, eigen=EIGEN)
        return fn.log_prob(Y), *fn._replace(eigen=None).krige(Y[:4])[:2]

    @jax.jit
    def expanded(order, Y):
        return MatrixMercerNormal(*EIGEN, T, order, eigen=EIGEN).expand((2,)).log_prob(Y)

    together, alone = evaluate(orders), jax.jit(jax.vmap(evaluate))(orders)
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-12)
    whole = [log_normal(Y.ravel(), np.zeros(15), dense(K, S, T)) for S in orders]
    np.testing.assert_allclose(together[0], whole, rtol=1e-12)
    for part, expected in zip(together[1:], alone[1:], strict=True):
        np.testing.assert_allclose(part, expected, rtol=0, atol=1e-11)
    turn = np.linalg.qr(G)[0]
    several = np.stack([Y, Y[::-1]])
    expected = [log_normal(y.ravel(), np.zeros(15), dense(K, Q, T)) for y in several]
    np.testing.assert_allclose(expanded(Q, several), expected, rtol=1e-12)
    turned = expanded(turn @ Q @ turn.T, several @ turn.T)
    np.testing.assert_allclose(turned, expected, rtol=1e-12)


@SLOW  # a test below draws where the order parameter is singular
@pytest.mark.parametrize("name", ["thin", "dense residual", "residual alone"])
def test_draws_have_the_covariance(name):
    fn, kernel = form(name)
    C = dense(kernel, FQ @ FQ.T, 0.3)
    draws = np.asarray(draw(fn, 40_000, 0)).reshape(-1, 14)
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / 40_000)
    assert (np.abs(np.cov(draws.T) - C) < 5 * error).all()


def test_a_singular_order_parameter():
    """A bottleneck: density from Q alone, draws and cuts from its factor."""
    low = FQ[:, :1]
    fn, kernel = form("thin", order=low @ low.T, factor=low)
    y = rng.standard_normal((7, 2))
    C = dense(kernel, low @ low.T, 0.3)
    value = log_prob(fn, y)
    np.testing.assert_allclose(value, log_normal(y.ravel(), np.zeros(14), C), rtol=1e-12)
    draws = np.asarray(draw(fn, 20_000, 1)).reshape(-1, 14)
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / 20_000)
    assert (np.abs(np.cov(draws.T) - C) < 5 * error).all()
    root, rest = jax.tree.map(np.asarray, cut(fn, 2))
    B = np.kron(root.left, root.right)
    left = dense((rest.features * rest.values) @ rest.features.T, rest.order, rest.ridge)
    np.testing.assert_allclose(B @ B.T + left, C, rtol=0, atol=1e-13)


def test_a_singular_order_parameter_in_32_bits():
    """Round-off of F F^T is no negative eigenvalue."""
    for seed in range(10):
        F = np.random.default_rng(seed).standard_normal((5, 1)).astype(np.float32)
        features = np.eye(3, 2, dtype=np.float32)
        law = MatrixMercerNormal(features, np.ones(2, np.float32), 0.3, F @ F.T, factor=F)
        assert law.event_shape == (3, 5)


def test_no_noise():
    """With the range whole it is the density of section 3; with less, that on the range."""
    sharp = MatrixMercerNormal(*EIGEN, 0.0, Q, eigen=EIGEN)
    S = Y.T @ np.linalg.solve(K, Y)
    expected = -0.5 * (
        15 * np.log(2 * np.pi) + 3 * np.linalg.slogdet(K)[1] + 5 * np.linalg.slogdet(Q)[1]
        + np.trace(np.linalg.solve(Q, S))
    )  # fmt: skip
    np.testing.assert_allclose(log_prob(sharp, Y), expected, rtol=1e-11)
    thin, kernel = form("thin", ridge=0.0)
    y = F @ rng.standard_normal((3, 2))
    U, kappa, _ = np.linalg.svd(F * np.sqrt([2.0, 0.5, 0.1]), full_matrices=False)
    inside = log_normal((U.T @ y).ravel(), np.zeros(6), dense(np.diag(kappa**2), FQ @ FQ.T, 0))
    with pytest.warns(UserWarning, match="7 points has rank 3; the targets lie in its range"):
        np.testing.assert_allclose(thin.log_prob(y), inside, rtol=1e-10)
    with pytest.raises(ValueError, match="7 points has rank 3: targets outside its range"):
        thin.log_prob(rng.standard_normal((7, 2)))
    full = MatrixMercerNormal(F[:, :0], F[0, :0], 0.0, FQ @ FQ.T, residual=kernel)
    np.testing.assert_allclose(log_prob(full, y), inside, rtol=1e-8)  # eigenvalues at round-off
    np.testing.assert_allclose(log_prob(thin, y), inside, rtol=1e-10)
    assert log_prob(thin, y + 1e-3 * rng.standard_normal((7, 2))) == -np.inf


@pytest.mark.parametrize(
    "name, cutoff",
    [("thin", 0), ("thin", 3), ("dense residual", 2)]
    + [
        pytest.param(*c, marks=SLOW)
        for c in (("thin", 2), ("dense residual", 0), ("dense residual", 3))
    ],
)
def test_an_exact_cut_moves_no_evidence(name, cutoff):
    fn, kernel = form(name)
    y = rng.standard_normal((7, 2))

    def model(y=None):
        numpyro.sample("y", fn, obs=y)

    coarse, sites = rg.coarsen(model, y=rg.Coarse(cutoff)), {}

    @jax.jit
    def modes():
        sites.update(handlers.trace(handlers.seed(coarse, 0)).get_trace(y))
        return sites["y_modes"]["value"] if cutoff else 0

    drawn = np.asarray(modes())
    assert ("y_modes" in sites) == (cutoff > 0)
    if cutoff:
        assert drawn.shape == (cutoff, 2) and len(np.unique(drawn)) == 2 * cutoff
        assert sites["y_modes"]["infer"] == {"event_dims": ["mode", "output"]}
    # The log joint is quadratic in the modes, so values at a few points give its Laplace integral.
    size = 2 * cutoff
    two = np.array([[i, j] for i in range(size) for j in range(i + 1)], int).reshape(-1, 2)
    unit = np.eye(size)
    points = np.concatenate([np.zeros((1, size)), unit, unit[two].sum(1)])
    joint = jax.jit(jax.vmap(
        lambda w: log_density(coarse, (y,), {}, {"y_modes": w.reshape(cutoff, 2)})[0]
    ))  # fmt: skip
    values = np.asarray(joint(points))
    evidence, single, double = values[0], values[1 : size + 1], values[size + 1 :]
    if cutoff:
        H = np.zeros((size, size))
        i, j = two.T
        H[i, j] = H[j, i] = double - single[i] - single[j] + evidence
        gradient = single - evidence - np.diag(H) / 2
        evidence += -0.5 * gradient @ np.linalg.solve(H, gradient)
        evidence += -0.5 * np.linalg.slogdet(-H)[1] + cutoff * np.log(2 * np.pi)
    expected = log_normal(y.ravel(), np.zeros(14), dense(kernel, FQ @ FQ.T, 0.3))
    np.testing.assert_allclose(evidence, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(log_prob(fn, y), expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_predictions_of_a_cut_law_average_to_those_of_the_whole():
    fn, kernel = form("dense residual")
    y = rng.standard_normal((5, 2))
    root, rest = cut(fn, 2)
    B = np.kron(root.left, root.right)[:10]
    C = dense(kernel, FQ @ FQ.T, 0.3)
    low = (B.T @ np.linalg.solve(C[:10, :10], y.ravel())).reshape(2, 2)  # posterior mean

    @jax.jit
    def both(fn, root, rest, low):
        return rest.shift(root @ low).krige(y)[0], fn.krige(y)[0]

    mean, whole = map(np.asarray, both(fn, root, rest, low))
    np.testing.assert_allclose(mean, whole, rtol=0, atol=1e-11)
    expected, _ = conditional(C, np.arange(10), np.arange(10, 14), y.ravel())
    np.testing.assert_allclose(mean.ravel(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("rule", ["local", "universal", "truncate"])
def test_other_rules_leave_no_correlations_between_points(rule):
    fn, _ = form("diagonal residual")
    rest = fn.split(1, rule, n=5)[1]
    e = F[:, 1:] ** 2 @ np.array([0.5, 0.1]) + np.linspace(0.1, 0.4, 7)
    left = {"local": e, "universal": np.full(7, e[:5].mean()), "truncate": 0 * e}[rule]
    C = dense(np.diag(left), FQ @ FQ.T, 0.3)
    y = rng.standard_normal((7, 2))
    covariance, _, value, *_ = everything(rest, y)
    np.testing.assert_allclose(covariance, C, rtol=0, atol=1e-13)
    np.testing.assert_allclose(value, log_normal(y.ravel(), np.zeros(14), C), rtol=1e-12)


def test_from_a_kernel_or_its_spectrum():
    X = rng.uniform(size=(6, 1))
    spectrum, Z = fourier(lambda j: (1 + j) ** -2.0, 9), rng.standard_normal((6, 2))

    @jax.jit
    def covariances(X, Z):
        laws = matrix_marginal(spectrum, X, 0.1, Q), matrix_marginal(Linear(0.7), Z, 0.1, Q)
        return [fn.covariance_matrix for fn in laws]

    of_spectrum, of_kernel = covariances(X, Z)
    Phi = fourier_modes(X[:, 0], 9)
    expected = dense((Phi * np.arange(1, 10.0) ** -2) @ Phi.T, Q, 0.1)
    np.testing.assert_allclose(of_spectrum, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(of_kernel, dense(0.7 * Z @ Z.T, Q, 0.1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MatrixMercerNormal(F, np.ones(2), 0.1, Q), r"values has shape \(2,\)"),
        (lambda: MatrixMercerNormal(F, np.ones(3), -0.1, Q), "ridge must be non-negative"),
        (lambda: MatrixMercerNormal(F, np.ones(3), 0.1, Q[:2]), r"order has shape \(2, 3\)"),
        (lambda: MatrixMercerNormal(F, np.ones(3), 0.1, G), "order is not symmetric"),
        (lambda: MatrixMercerNormal(F, np.ones(3), 0.1, -Q), "positive semi-definite, got an eig"),
        (
            lambda: MatrixMercerNormal(F, np.ones(3), 0.0, np.ones((2, 2))),
            "order is singular and ridge is 0",
        ),
        (lambda: MatrixMercerNormal(F, np.ones(3), 0.1, Q, factor=F), r"factor has shape \(7, 3\)"),
        (lambda: MatrixMercerNormal(F, np.ones(3), 0.1, Q, loc=Y), r"loc has shape \(5, 3\)"),
        (
            lambda: MatrixMercerNormal(F, np.ones(3), 0.1, Q, residual=np.ones(3)),
            r"residual has shape \(3,\)",
        ),
        (
            lambda: MatrixMercerNormal(F, np.ones(3), 0.1, Q, eigen=EIGEN),
            None,
        ),
        (lambda: form("thin")[0].log_prob(np.zeros((2, 7))), r"observations have shape \(2, 7\)"),
        (lambda: form("thin")[0].split(2, "dressed"), "rule of several correlated outputs must be"),
        (lambda: form("thin")[0].split(4), "between 0 and 3, got 4"),
        (lambda: form("dense residual")[0].split(2, max_dense=5), "diagonalise a 7 x 7 matrix"),
        (lambda: matrix_marginal(RBF(1.0), np.full((2, 1), np.nan), 0.1, Q), "X contains non-fin"),
    ],
)
def test_bad_input_is_named(call, message):
    if message is None:  # eigenpairs of other points are allowed until a density is asked for
        call()
        return
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_predictions_of_several_outputs():
    """Moments at each draw are those of the dense joint law given Q; points are the last axis."""
    rng = np.random.default_rng(5)
    X, X_new = rng.standard_normal((7, 3)), rng.standard_normal((4, 3))
    Y = X @ rng.standard_normal((3, 2)) + 0.3 * rng.standard_normal((7, 2))
    hyper = {"widths": (5, 4), "ridge": 0.1, "outputs": 2}
    model = deep_linear_collapsed.model
    dt = brg.fit(
        model,
        (X, Y),
        key=0,
        draws=5,
        warmup=5,
        chains=1,
        block=5,
        progress=False,
        sampler=two_steps,
        **hyper,
    )
    out = brg.predict(dt, model, X_new, key=1, **hyper)
    assert out["predictions"]["f"].dims == ("chain", "draw", "output", "point_new")
    K = np.concatenate([X, X_new]) @ np.concatenate([X, X_new]).T / 3
    Q = dt["posterior"]["Q"].to_numpy()[0, 3]
    joint = np.kron(Q, K) + 0.1 * np.eye(22)
    rows = np.arange(22).reshape(2, 11)
    seen, wanted = rows[:, :7].ravel(), rows[:, 7:].ravel()
    mean, covariance = conditional(joint, seen, wanted, Y.T.ravel())
    moments = out["predictive_moments"].isel(chain=0, draw=3)
    np.testing.assert_allclose(moments["mean"], mean.reshape(2, 4), rtol=1e-9)
    variance = np.diag(covariance).reshape(2, 4) - 0.1
    np.testing.assert_allclose(moments["variance"], variance, rtol=1e-8)
