# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from oracles import central_difference, conditional, fourier_problem, log_normal

from bayesrg.gp import EffectiveNormal, MercerNormal, eigenpairs, marginal
from bayesrg.kernels import RBF
from bayesrg.rg import effective_ridge

p = fourier_problem()
rng = np.random.default_rng(0)
RESIDUAL = {
    "none": None,
    "diagonal": rng.uniform(0.01, 0.2, 24),
    "dense": (lambda A: A @ A.T / 50)(rng.standard_normal((24, 30))),
}
SIZES = (0, 5, 61)
pairs = jax.jit(eigenpairs)
log_prob = jax.jit(lambda fn, y: fn.log_prob(y))
krige = jax.jit(lambda fn, y: fn.krige(y))


def law(k, residual, form="plain", scale=1.3, ridge=p.ridge, **kwargs):
    """A distribution of the first k modes in one of its algebraic forms."""
    F, v, R = p.Phi[:, :k], p.values[:k], RESIDUAL[residual]
    if form == "eigen":
        kwargs["eigen"] = pairs(F, v, R)
    if form == "gram":
        kwargs["gram"] = F.T @ F
    return MercerNormal(F, v, ridge, residual=R, scale=scale, **kwargs)


def whole(k, residual, scale=1.3, ridge=p.ridge):
    """Its covariance matrix."""
    F, R = p.Phi[:, :k], RESIDUAL[residual]
    prior = F * p.values[:k] @ F.T
    if R is not None:
        prior = prior + (np.diag(R) if R.ndim == 1 else R)
    return scale * prior + np.diag(np.broadcast_to(ridge, 24))


def build(k, residual, form="plain", **kwargs):
    covariance = {name: kwargs[name] for name in ("scale", "ridge") if name in kwargs}
    return law(k, residual, form, **kwargs), whole(k, residual, **covariance)


FORMS = [(k, residual, form) for k in SIZES for residual in RESIDUAL for form in ("plain", "eigen")]
FORMS += [(k, "none", "gram") for k in SIZES]


def slow_if(rare):
    """All forms; those of ``rare`` are slow: they do what another form does."""
    slow = pytest.mark.slow
    return [pytest.param(*form, marks=slow) if rare(*form) else form for form in FORMS]


@jax.jit
def answers(fn, theta, B):
    """All that a law is asked, in one program: density and gradient, and what has none here."""

    def evidence(theta):
        scale, ridge = jnp.exp(theta[0]), jnp.exp(theta[1])
        return fn._replace(scale=scale, ridge=ridge, loc=theta[2]).log_prob(p.y)

    return (
        fn.covariance_matrix, fn.variance, fn.log_prob(p.y), fn.solve(B), fn.loo(p.y),
        jax.grad(evidence)(theta),
    )  # fmt: skip


# Low-rank and dense algebra, and eigenpairs; without modes, the residual alone.
KINDS = {(5, "diagonal", "plain"), (61, "none", "plain"), (61, "dense", "eigen")}


@pytest.mark.parametrize(
    "k, residual, form", slow_if(lambda *form: form not in KINDS | {(0, "none", "plain")})
)
def test_density_gradient_and_leave_one_out_against_the_whole_matrix(k, residual, form):
    fn, C = build(k, residual, form, loc=0.2)
    B, theta = rng.standard_normal((24, 2)), np.array([0.3, -2.0, 0.1])
    matrix, variance, density, solved, left_out, gradient = answers(fn, theta, B)
    np.testing.assert_allclose(matrix, C, rtol=0, atol=1e-13)
    np.testing.assert_allclose(density, log_normal(p.y, np.full(24, 0.2), C), rtol=1e-11)
    np.testing.assert_allclose(variance, np.diag(C), rtol=1e-13)
    np.testing.assert_allclose(solved, np.linalg.solve(C, B), rtol=1e-9, atol=1e-10)
    loo = []
    for i in range(24):
        others = [j for j in range(24) if j != i]
        mean, cov = conditional(C, others, [i], p.y[others], np.full(24, 0.2))
        loo.append(log_normal(p.y[i], mean, cov))
    np.testing.assert_allclose(left_out, loo, rtol=1e-9)

    def plain(theta):
        C = whole(k, residual, np.exp(theta[0]), np.exp(theta[1]))
        return log_normal(p.y, np.full(24, theta[2]), C)

    np.testing.assert_allclose(gradient, central_difference(plain, theta, 1e-5), rtol=1e-6)


def test_density_reference_number():
    fn = MercerNormal(p.Phi, p.values, p.ridge)
    np.testing.assert_allclose(fn.log_prob(p.y), -14.377037219646, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "k, residual, form",
    [(61, "none", "plain")]
    + [
        pytest.param(*rare, marks=pytest.mark.slow)
        for rare in (
            (5, "diagonal", "plain"),
            (5, "none", "plain"),
            (5, "none", "eigen"),
            (61, "dense", "eigen"),
        )
    ],
)
def test_draws_have_the_covariance(k, residual, form):
    fn, C = build(k, residual, form)
    draws = np.asarray(jax.jit(lambda fn: fn.sample(jax.random.key(0), (40_000,)))(fn))
    assert draws.shape == (40_000, 24)
    error = np.sqrt((np.outer(np.diag(C), np.diag(C)) + C**2) / 40_000)
    assert (np.abs(np.cov(draws.T) - C) < 5 * error).all()
    assert (np.abs(draws.mean(0)) < 5 * np.sqrt(np.diag(C) / 40_000)).all()


def test_targets_in_batches_share_or_own_their_covariance():
    Y = np.stack([p.y, 2 * p.y, p.y**2])
    zero = np.zeros(24)

    @jax.jit
    def ways(fn):
        batch = fn.expand((3,))
        return fn.log_prob(Y), batch.log_prob(Y), batch.to_event(1).log_prob(Y)

    fn, C = build(5, "diagonal")
    one_by_one = log_normal(Y, zero, C)
    shared, expanded, joint = ways(fn)
    np.testing.assert_allclose(shared, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(expanded, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(joint, one_by_one.sum())
    ridges = np.array([0.05, 0.1, 0.3])
    grid = law(5, "diagonal", ridge=ridges[:2, None, None])  # two ridges, three targets each
    assert grid.batch_shape == (2, 1)
    expected = [log_normal(Y, zero, whole(5, "diagonal", ridge=r)) for r in ridges[:2]]
    np.testing.assert_allclose(log_prob(grid, Y), expected, rtol=1e-11)
    moved = log_prob(MercerNormal(p.Phi[:, :5], p.values[:5], 0.1, loc=Y), Y)
    np.testing.assert_allclose(moved[0], moved[1])


@pytest.mark.parametrize(
    "k, residual",
    [
        (5, "diagonal"),
        *(pytest.param(*c, marks=pytest.mark.slow) for c in ((61, "none"), (5, "dense"))),
    ],
)
def test_targets_in_batches_with_ridges_of_their_own(k, residual):
    Y, ridges = np.stack([p.y, 2 * p.y, p.y**2]), np.array([0.05, 0.1, 0.3])
    own = law(k, residual, ridge=ridges[:, None], scale=np.array([1.0, 2.0, 0.5]))
    assert own.batch_shape == (3,)
    expected = [
        log_normal(y, np.zeros(24), whole(k, residual, s, r))
        for y, r, s in zip(Y, ridges, (1.0, 2.0, 0.5), strict=True)
    ]
    np.testing.assert_allclose(log_prob(own, Y), expected, rtol=1e-11)
    np.testing.assert_allclose(log_prob(own, np.stack([Y, Y])), [expected] * 2, rtol=1e-11)
    draw, loo = jax.eval_shape(
        lambda fn: (fn.sample(jax.random.key(0), (2,)), fn.loo(Y)), own
    )  # the shapes alone: nothing is compiled
    assert draw.shape == (2, 3, 24) and loo.shape == (3, 24)


@pytest.mark.parametrize(
    "k, residual",
    [(5, "none"), (5, "dense")]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in ((61, "none"), (5, "diagonal"))],
)
def test_a_ridge_for_each_point(k, residual):
    fn, C = build(k, residual, ridge=np.random.default_rng(1).uniform(0.05, 0.5, 24))
    np.testing.assert_allclose(log_prob(fn, p.y), log_normal(p.y, np.zeros(24), C), rtol=1e-11)


def test_it_is_a_pytree_and_works_under_vmap():
    fn, C = build(61, "none")
    leaves, structure = jax.tree.flatten(fn)
    again = jax.tree.unflatten(structure, leaves)
    density = log_normal(p.y, np.zeros(24), C)
    np.testing.assert_allclose(again.log_prob(p.y), density)  # outside of jit
    np.testing.assert_allclose(log_prob(fn, p.y), density)
    many = jax.jit(jax.vmap(lambda r: law(61, "none", ridge=r).log_prob(p.y)))(
        np.array([0.05, 0.2])
    )
    np.testing.assert_allclose(many[0], density)
    assert isinstance(fn, dist.Distribution)


# Where the modes are fewer than the points, kriging leaves eigenpairs aside.
@pytest.mark.parametrize("k, residual, form", slow_if(lambda *form: form not in KINDS))
def test_kriging_is_conditioning_of_the_joint(k, residual, form):
    fn, C = build(k, residual)
    if form == "eigen":  # eigenpairs of the observed points only, as a sampler has them
        R = RESIDUAL[residual]
        R = R if R is None else (R[:20] if R.ndim == 1 else R[:20, :20])
        vectors = pairs(p.Phi[:20, :k], p.values[:k], R)
        fn = fn._replace(eigen=vectors)
        with pytest.raises(ValueError, match="eigen has 20 rows but there are 24 points"):
            fn.log_prob(p.y)
    given, wanted = np.arange(20), np.arange(20, 24)
    mean, cov = conditional(C, given, wanted, p.y[:20])
    ours, variance, ridge = map(np.asarray, krige(fn, p.y[:20]))
    np.testing.assert_allclose(ours, mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(variance + ridge, np.diag(cov), rtol=1e-9)


def test_noise_that_each_rule_leaves():
    v, residual, scale, ridge, c = p.values, RESIDUAL["diagonal"], 1.3, 0.05, 7
    fn = MercerNormal(p.Phi, v, ridge, residual=residual, scale=scale)
    columns = fn._replace(orthonormal=False)
    diagonal = scale * (p.Phi[:, c:] ** 2 @ v[c:] + residual)
    tail = scale * residual.mean()
    expected = {
        "local": ridge + diagonal,
        "universal": ridge + scale * v[c:].sum() + tail,
        "dressed": effective_ridge(scale * v[c:], 24, ridge + tail),
        "truncate": ridge,
    }

    @jax.jit
    def every(fn, columns):
        laws = {rule: fn.split(c, rule) for rule in expected}
        own_tail = fn._replace(tail=0.01).split(c, "universal")[1].noise_variance
        mean, half = (columns.split(c, "universal", n=n)[1].noise_variance for n in (None, 12))
        return laws, {rule: law[1].variance for rule, law in laws.items()}, own_tail, mean, half

    laws, variances, own_tail, mean, half = every(fn, columns)
    for rule, noise in expected.items():
        root, rest = laws[rule]
        assert isinstance(rest, EffectiveNormal)
        np.testing.assert_allclose(variances[rule], np.broadcast_to(noise, 24), rtol=1e-12)
        np.testing.assert_allclose(rest.eliminated, diagonal, rtol=1e-12)
        np.testing.assert_allclose(root, np.sqrt(scale * v[:c]) * p.Phi[:, :c], rtol=1e-12)
    np.testing.assert_allclose(own_tail, 0.05 + 1.3 * (v[c:].sum() + 0.01))
    np.testing.assert_allclose(mean, ridge + diagonal.mean())
    np.testing.assert_allclose(half, ridge + diagonal[:12].mean())
    with pytest.raises(ValueError, match='choose rule="universal"'):
        columns.split(c, "dressed")


def test_effective_normal_is_independent_noise():
    @jax.jit
    def ask(fn):
        rest = fn.split(4, "local")[1]
        moved = rest.shift(jnp.arange(24.0)).krige(p.y[:20])
        draws = rest.sample(jax.random.key(1), (20_000,))
        return rest, rest.variance, rest.log_prob(p.y), rest.loo(p.y), draws, moved

    rest, variance, density, loo, draws, moved = jax.tree.map(np.asarray, ask(law(61, "none")))
    direct = log_normal(p.y, np.zeros(24), np.diag(variance))
    np.testing.assert_allclose(density, direct, rtol=1e-12)
    np.testing.assert_allclose(loo.sum(), density)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.06)
    mean, variance, ridge = moved
    np.testing.assert_array_equal(mean, [20, 21, 22, 23])
    np.testing.assert_array_equal(variance, rest.eliminated[20:])
    np.testing.assert_array_equal(ridge, [0.05])


def test_edges_one_point_duplicates_constant_target():
    one = MercerNormal(np.ones((1, 2)), np.array([2.0, 1.0]), 0.5)
    density, loo = jax.jit(lambda fn: (fn.log_prob(np.ones(1)), fn.loo(np.ones(1))))(one)
    np.testing.assert_allclose(density, log_normal([1.0], [0.0], [[3.5]]))
    np.testing.assert_allclose(loo, [density])
    twice = MercerNormal(np.repeat(p.Phi[:3], 2, 0), p.values, 0.1)
    assert np.isfinite(log_prob(twice, np.ones(6)))
    zero = MercerNormal(p.Phi[:, :4], np.array([1.0, 0.5, 0.0, 0.0]), 0.1)
    short = MercerNormal(p.Phi[:, :2], np.array([1.0, 0.5]), 0.1)
    density, gradient = jax.jit(
        jax.value_and_grad(lambda v: zero._replace(values=v).log_prob(p.y))
    )(zero.values)
    np.testing.assert_allclose(density, log_prob(short, p.y), rtol=1e-13)
    assert np.isfinite(gradient).all()


def test_marginal_of_a_spectrum_is_that_of_its_kernel(digits, spectrum):
    X, y = digits.X, np.asarray(digits.y)

    @jax.jit
    def ways():
        plain = marginal(spectrum.kernel, X, 0.1, scale=0.7)
        cut = marginal(spectrum, X, 0.1, scale=0.7)
        eigen = marginal(spectrum, X, 0.1, scale=0.7, eigen=spectrum.at(X).eigenpairs())
        _, rest = cut.split(10)
        _, fast = cut.split(10, eigen=spectrum.at(X).eigenpairs(10))
        return [law.log_prob(y) for law in (plain, cut, eigen, rest, fast)], spectrum.kernel(X)

    (*densities, rest, fast), K = ways()
    direct = log_normal(y, np.zeros(60), 0.7 * np.asarray(K) + 0.1 * np.eye(60))
    np.testing.assert_allclose(densities, [direct] * 3, rtol=1e-11)
    np.testing.assert_allclose(fast, rest, rtol=1e-11)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MercerNormal(p.Phi, p.values[:5], 0.1), r"values has shape \(5,\).*61 columns"),
        (lambda: MercerNormal(p.Phi, p.values, -0.1), "ridge must be non-negative, got -0.1"),
        (lambda: MercerNormal(p.Phi, -p.values, 0.1), "eigenvalues must be non-negative"),
        (lambda: MercerNormal(p.Phi * np.nan, p.values, 0.1), "features contains non-finite"),
        (lambda: MercerNormal(p.Phi, p.values, np.ones(5)), r"ridge has shape \(5,\)"),
        (lambda: MercerNormal(p.Phi, p.values, 0.1, residual=np.ones(5)), "residual has shape"),
        (lambda: MercerNormal(p.Phi, p.values, 0.1, gram=np.eye(5)), "gram has shape"),
        (
            lambda: MercerNormal(p.Phi[:, :5], p.values[:5], 0.0),
            "singular: ridge = 0 and only 5 modes for 24 points",
        ),
        (
            lambda: MercerNormal(p.Phi, p.values, np.full(24, 0.1), eigen=(np.eye(24), p.y)),
            "eigen needs one ridge for all points",
        ),
        (
            lambda: MercerNormal(p.Phi, 2 * p.values, 0.1, eigen=eigenpairs(p.Phi, p.values)),
            "eigen belongs to other modes",
        ),
        (lambda: MercerNormal(p.Phi, p.values, 0.1, gram=np.eye(61)), "gram belongs to other"),
        (lambda: law(5, "none").log_prob(p.y[:5]), r"observations have shape \(5,\) for 24"),
        (lambda: law(61, "none").split(62), "cutoff must be an integer between 0 and 61"),
        (lambda: law(61, "none").split(5, "exakt"), "rule must be one of 'exact', 'local'"),
        (
            lambda: law(61, "dense").split(5, max_dense=20),
            r'dense 24 x 24 residual.*rule="local"',
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_zero_ridge_is_fine_where_the_prior_is_definite():
    fn = MercerNormal(p.Phi, p.values, 0.0)
    np.testing.assert_allclose(
        fn.log_prob(p.y), log_normal(p.y, np.zeros(24), p.Phi * p.values @ p.Phi.T), rtol=1e-8
    )
    with pytest.raises(ValueError, match="singular"):
        fn.split(50)
    with pytest.raises(ValueError, match="singular"):
        marginal(RBF(1.0), jnp.zeros((2, 1)), 0.0)


def test_32_bits():
    with jax.enable_x64(False):
        F, v, y = (x.astype(np.float32) for x in (p.Phi[:, :8], p.values[:8], p.y))
        fn = MercerNormal(F, v, 0.05)
        assert log_prob(fn, y).dtype == jnp.float32
        with pytest.raises(RuntimeError, match="dense residual factorises"):
            MercerNormal(F, v, 0.05, residual=np.eye(24))
    C = p.Phi[:, :8] * p.values[:8] @ p.Phi[:, :8].T + 0.05 * np.eye(24)
    exact = log_normal(p.y, np.zeros(24), C)
    np.testing.assert_allclose(log_prob(fn, y), exact, rtol=1e-4)


def test_a_sampler_repeats_nothing_that_is_linear_in_points():
    """With constant noise a loop holds one factor of the modes' size, and no array of the points'.

    The features are orthogonalised, and the targets turned, once outside.
    """
    features = jnp.asarray(np.random.default_rng(1).normal(size=(503, 4)))

    def descend(theta, features, y):
        def loss(t):
            law = MercerNormal(features, jnp.exp(t[:4]), jnp.exp(t[4]), scale=jnp.exp(t[5]))
            return -law.log_prob(y)

        def body(state):
            return state[0] + 1, state[1] - 0.01 * jax.grad(loss)(state[1])

        return jax.lax.while_loop(lambda state: state[0] < 3, body, (0, theta))[1]

    program = jax.jit(descend).lower(jnp.zeros(6), features, jnp.ones(503)).compile().as_text()
    computations = program.split("\n\n")
    (loop,) = (text for text in computations if "potrf" in text)
    assert loop.count('custom_call_target="lapack_dpotrf') == 1
    assert "503" not in loop and "geqrf" not in loop
    assert any("geqrf" in text for text in computations)


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["none", "diagonal"])
def test_derivatives_in_weight_space_are_those_of_the_whole_matrix(residual):
    """In features, values, noise and targets; of densities to second order, one value zero."""
    F, v, R = jnp.asarray(p.Phi[:, :5]), jnp.asarray(p.values[:5]).at[3].set(0.0), None
    R = RESIDUAL[residual]
    tilt = jnp.asarray(rng.standard_normal((24, 5)))

    def law(t, rows=slice(None)):
        values, noise = v * jnp.exp(t[1]) ** jnp.arange(5), 0.1 * jnp.exp(t[2])
        thin = None if R is None else R[rows]
        return MercerNormal((F + t[0] * tilt)[rows], values, noise, residual=thin, loc=t[3])

    def dense(t):
        return dist.MultivariateNormal(t[3] * jnp.ones(24), law(t).covariance_matrix)

    t = jnp.array([0.1, -0.2, 0.3, 0.1])
    for derivative in (jax.grad, jax.hessian):
        ours = jax.jit(derivative(lambda t: law(t).log_prob(p.y)))(t)
        plain = jax.jit(derivative(lambda t: dense(t).log_prob(p.y)))(t)
        np.testing.assert_allclose(ours, plain, rtol=1e-8, atol=1e-8)

    def others(t):
        mean, variance, _ = law(t).krige(p.y[:20])
        solved = law(t).solve(jnp.asarray(p.y)[:, None])[:, 0]
        return jnp.concatenate([law(t).loo(p.y), mean, variance, solved])

    def plain(t):
        C = law(t).covariance_matrix
        P, r = jnp.linalg.inv(C), p.y - t[3]
        free, a = jnp.diagonal(P), P @ r
        noise = 0.1 * jnp.exp(t[2]) * jnp.ones(4)
        gain = jnp.linalg.solve(C[:20, :20], C[:20, 20:])
        mean = t[3] + gain.T @ r[:20]
        variance = jnp.diagonal(C)[20:] - noise - (C[:20, 20:] * gain).sum(0)
        loo = 0.5 * (jnp.log(free) - a**2 / free - np.log(2 * np.pi))
        return jnp.concatenate([loo, mean, variance, P @ p.y])

    np.testing.assert_allclose(others(t), plain(t), rtol=1e-9, atol=1e-10)
    ours, expected = (jax.jit(jax.jacrev(f))(t) for f in (others, plain))
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-8)
