# SPDX-License-Identifier: Apache-2.0
"""Matrices that move under noise, against closed forms and dense simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import approx_fprime, root

from bayesrg import dynamics


def singular(state):
    return jnp.linalg.svd(state.x, compute_uv=False)


def stationary(found, chains, levels):
    """What ``levels`` makes of the states after burn-in, (chains, ...)."""
    steps = found.target.burn_in
    run = dynamics.run(found.algorithm, found.start, steps, 0, steps, keep=levels, chains=chains)
    return np.asarray(run.x)[:, -1]


def spacing(levels):
    """Mean distance of the first two levels, with its standard error."""
    S = levels[..., 0] - levels[..., 1]
    return S.mean(), S.std() / np.sqrt(S.size), S.ravel()


def teacher(rate, batch, **given):
    options = dict(noise=0.1, learning_rate=rate, batch=batch) | given
    return dynamics.teacher_student(2 * jnp.eye(2), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate, batch, theory",
    [
        (0.02, 16, 0.01783),
        (0.05, 16, 0.02845),
        (0.1, 16, 0.04087),
        (0.2, 16, 0.05971),
        (0.1, 4, 0.08298),
        (0.1, 8, 0.05808),
        (0.1, 32, 0.02882),
        (0.1, 64, 0.02036),
    ],
)
def test_spacing_within_two_per_cent(rate, batch, theory):
    """12,000 chains: a standard error of .5 %. The spacings follow the surmise."""
    found = teacher(rate, batch)
    np.testing.assert_allclose(np.sqrt(np.pi) * found.target.sigma[0], theory, rtol=1e-3)
    mean, error, S = spacing(stationary(found, 12_000, lambda s: singular(s) ** 2))
    assert error < 0.0055 * theory
    assert abs(mean - theory) < 3 * error and abs(mean / theory - 1) < 0.02
    if (rate, batch) == (0.1, 8):
        surmise = stats.kstest(S[:3000] / S.mean(), lambda s: 1 - np.exp(-np.pi * s**2 / 4))
        assert surmise.pvalue > 0.001


def test_width_of_thirty_two_levels():
    """Their variance in theory; examples/plot_weight_repulsion.py has the simulation."""
    found = dynamics.teacher_student(2 * jnp.eye(32), noise=0.02, learning_rate=0.05, batch=32)
    np.testing.assert_allclose(found.target.sigma[0] ** 2 * 33 / 2, 8.691e-5, rtol=2e-3)


def test_noise_in_the_gradient():
    """Slope of the spacing on the square root of learning rate times noise^2 over batch: 1.8185."""
    found = teacher(0.1, 16, noise=0.08, noise_in="gradient")
    theory = np.sqrt(np.pi) * found.target.sigma[0] / np.sqrt(0.1 * 0.08**2 / 16)
    np.testing.assert_allclose(theory, 1.8185, rtol=1e-4)
    mean, error, _ = spacing(stationary(found, 4000, singular))
    unit = np.sqrt(0.1 * 0.08**2 / 16)
    assert abs(mean / unit - theory) < 3 * error / unit
    steep = teacher(0.5, 16, noise=0.08, noise_in="gradient").target.sigma[0]
    np.testing.assert_allclose(
        np.sqrt(np.pi) * steep / np.sqrt(0.5 * 0.08**2 / 16), 2.047, rtol=1e-3
    )


@pytest.mark.slow
def test_drift_of_singular_values_of_a_matrix_of_noise():
    """M = 7, N = 4, D = .3: formula and 400,000 short steps of dense matrices."""
    D, M, h = 0.3, 7, 1e-3
    x = np.array([15.132, 6.985, 2.937, 1.259])
    gaps = x[:, None] - x + np.diag(np.full(4, np.inf))
    drift = D * (M + ((x[:, None] + x) / gaps).sum(1))
    np.testing.assert_allclose(drift, [3.713, 2.453, 1.671, 0.563], atol=1e-3)
    W = np.zeros((M, 4))
    W[:4] = np.diag(np.sqrt(x))
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(200_000, M, 4)) * np.sqrt(D * h)
    moved = np.concatenate([W + steps, W - steps])  # in pairs: the first order cancels
    new = np.linalg.eigvalsh(moved.swapaxes(1, 2) @ moved)[:, ::-1]
    change = (new[:200_000] + new[200_000:]) / 2 - x
    error = change.std(0) / np.sqrt(200_000) / h
    assert (abs(change.mean(0) / h - drift) < 4 * error + 0.02).all()
    np.testing.assert_allclose(new.var(0) / h, 4 * D * x, rtol=0.02)


STATIONARY = np.array([-3.26, -2.14, -1.24, -0.42, 0.42, 1.24, 2.14, 3.26])  # mean levels, n = 8


@pytest.mark.parametrize(
    "method", ["exact", *(pytest.param(m, marks=pytest.mark.slow) for m in ("euler", "implicit"))]
)
def test_dyson_settles_to_the_coulomb_gas(method):
    options = {
        "exact": dict(rate=1.0, dt=1.6),  # of any length
        "euler": dict(slope=lambda x: x, dt=0.02),
        "implicit": dict(rate=1.0, dt=0.02, method="implicit"),
    }[method]
    steps = round(3.2 / options["dt"])
    start = jnp.linspace(-1.0, 1.0, 8)
    levels = (lambda s: s.x) if method == "implicit" else lambda s: jnp.linalg.eigvalsh(s.x)
    rule = dynamics.dyson(1.0, **options)
    x0 = start if method == "implicit" else jnp.diag(start)
    x = np.asarray(dynamics.run(rule, x0, steps, 1, steps, keep=levels, chains=600).x)[:, -1]
    assert (np.diff(x) > 0).all()
    error = x.std(0) / np.sqrt(600)
    assert (abs(x.mean(0) - STATIONARY) < 4 * error + 0.06).all()
    squares = (x**2).sum(-1)
    assert abs(squares.mean() - 36) < 4 * squares.std() / np.sqrt(600) + 0.36


@pytest.mark.parametrize("beta", [pytest.param(2.0, marks=pytest.mark.slow), 0.0])
def test_a_step_of_levels_solves_its_equation(beta):
    """Against the roots of SciPy for the noise that the equation implies, also from a near tie."""
    x0 = np.array([-1.0, -1.0 + 1e-9, 0.5])
    rule = dynamics.dyson(0.7, dt=0.1, slope=lambda x: x**3, beta=beta, method="implicit")

    def step(x0):
        return dynamics.run(rule, x0, 1, 4).last.x

    z = np.asarray(step(x0))
    assert (np.diff(z) > 0).all()
    kick = (
        np.sqrt(0.2)
        * 0.7
        * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(4), 0), (3,)))
    )

    def equation(z):
        gaps = z[:, None] - z + np.diag(np.full(3, np.inf))
        return z + 0.1 * z**3 - 0.1 * beta * 0.49 * (1 / gaps).sum(1) - x0 - kick

    if beta:
        np.testing.assert_allclose(equation(z), 0.0, atol=1e-9)
        slope = np.asarray(jax.jacrev(step)(x0))
        np.testing.assert_allclose(slope @ approx_fprime(z, equation, 1e-7).T, np.eye(3), atol=1e-4)
    else:  # the levels do not see each other, and are sorted afterwards
        np.testing.assert_allclose(np.sort(root(equation, x0).x), z, atol=1e-9)


def test_why_levels_are_not_moved_by_explicit_steps():
    """They cross, and sorting does not help: the mean square grows far beyond 36."""
    rng, h = np.random.default_rng(0), 2e-3
    x = np.tile(np.linspace(-3.0, 3.0, 8), (200, 1))
    crossed = 0
    for _ in range(1500):
        gaps = x[:, :, None] - x[:, None, :]
        gaps[:, np.arange(8), np.arange(8)] = np.inf
        new = x + h * (-x + (1 / gaps).sum(2)) + np.sqrt(2 * h) * rng.normal(size=x.shape)
        crossed += (np.diff(new) < 0).any(1).sum()
        x = np.sort(new)
    assert crossed / (1500 * 200) > 0.003 and (x**2).sum(1).mean() > 60


def test_the_boltzmann_machine_learns_the_spectrum_of_the_lattice():
    """Without noise levels settle at mu^2 - kappa, the smallest kappa first."""
    K = dynamics.lattice(10, 2.0)
    found = dynamics.gaussian_rbm(K, learning_rate=0.1, batch=16, key=0)
    np.testing.assert_allclose(
        found.target.levels,
        [5, 4.618, 4.618, 3.618, 3.618, 2.382, 2.382, 1.382, 1.382, 1],
        atol=5e-4,
    )
    np.testing.assert_allclose(1 / (0.1 * found.target.rate[-1]), 320)
    few = dynamics.gaussian_rbm(K, learning_rate=0.1, batch=16, key=0, hidden=4).target.levels
    np.testing.assert_allclose(few, [5, 4.618, 4.618, 3.618] + [0] * 6, atol=5e-4)
    # <S> over sqrt(alpha x / B) is sqrt(2 pi) in the linear theory, but for finite steps
    unit = np.sqrt(0.1 * found.target.levels / 16)
    small = dynamics.gaussian_rbm(K, learning_rate=1e-6, batch=16, key=0).target.sigma
    slope = np.sqrt(np.pi) * small / np.sqrt(1e-6 / 16 * found.target.levels)
    np.testing.assert_allclose(slope, np.sqrt(2 * np.pi), rtol=1e-5)
    assert (np.sqrt(np.pi) * found.target.sigma / unit > np.sqrt(2 * np.pi)).all()


# Mean spacings over sqrt(alpha x / B), of four pairs: as printed, with errors of 2.5 %, and of
# another program in plain NumPy, with 150 to 1,500 chains and the error that follows.
SLOPES = {
    (0.1, 16, None): ([2.23, 2.31, 2.38, 2.29], [2.163, 2.329, 2.384, 2.305], 0.014),
    (0.1, 16, 3): ([2.11, 2.40, 2.36, 2.37], [2.158, 2.341, 2.369, 2.262], 0.034),
    (0.05, 16, 3): ([2.27, 2.29, 2.43, 2.49], [2.316, 2.363, 2.434, 2.414], 0.048),
    # Printed is 2.28 for the second pair, three of its errors too low: plain NumPy says 2.467, and
    # this package 2.486 +- .027 with 260 chains. It does not lie between the printed 2.31 and 2.49
    # at B = 16 and 256. What B = 16 lacks of the linear 2.522 falls as 1 / B: 2.47 here.
    (0.1, 64, None): ([2.45, 2.467, 2.41, 2.56], [2.440, 2.467, 2.462, 2.483], 0.019),
    (0.1, 256, None): ([2.48, 2.49, 2.61, 2.39], [2.539, 2.505, 2.482, 2.472], 0.035),
}
PAIRS = np.array([1, 3, 5, 7])


@pytest.mark.slow
@pytest.mark.parametrize("rate, batch, sweeps", SLOPES)
def test_slopes_of_the_boltzmann_machine(rate, batch, sweeps):
    """Within three combined errors of both references."""
    K = np.asarray(dynamics.lattice(10, 2.0))
    found = dynamics.gaussian_rbm(K, learning_rate=rate, batch=batch, key=0, sweeps=sweeps)
    kappa, modes = np.linalg.eigh(K)
    settled = modes * np.sqrt(9 - kappa) @ modes.T  # the fixed point, so that burn-in is short
    every, chains = round(20 / rate), 40
    run = dynamics.run(
        found.algorithm, settled, 14 * every, 3, every, keep=lambda s: singular(s) ** 2,
        chains=chains,
    )  # fmt: skip
    x = np.asarray(run.x)[:, 5:]  # the slowest mode takes 32 / rate steps, of a pair 21 / rate
    S = x[..., PAIRS] - x[..., PAIRS + 1]
    slope = S / np.sqrt(rate * found.target.levels[PAIRS] / batch)
    each = slope.mean(1)  # records of a chain depend on each other, chains do not
    mean, error = each.mean(0), each.std(0, ddof=1) / np.sqrt(chains)
    print(mean.round(3), error.round(3))
    printed, plain, spread = SLOPES[rate, batch, sweeps]
    assert (error < 0.04 * mean).all()
    for reference, other in ((printed, 0.025 * np.array(printed)), (plain, spread)):
        far = (mean - reference) / np.hypot(error, other)
        assert (abs(far) < 3).all() and abs(far.mean()) < 1.5  # three errors of a mean of four
    surmise = (S**2).mean((0, 1)) / S.mean((0, 1)) ** 2
    np.testing.assert_allclose(surmise.mean(), 4 / np.pi, atol=0.04)
    if (rate, batch, sweeps) == (0.1, 16, None):
        levels = [3.84, 4.27, 4.65, 5.32, 5.67, 6.58, 6.87, 7.62, 7.84, 8.14]
        np.testing.assert_allclose(9 - x.mean((0, 1)), levels, atol=0.1)
    if batch >= 64:  # little noise: the linear theory
        np.testing.assert_allclose(x.mean((0, 1)), found.target.levels, rtol=0.1)
        theory = np.sqrt(np.pi) * found.target.sigma[PAIRS]
        np.testing.assert_allclose((S.mean((0, 1)) / theory).mean(), 1.0, rtol=0.1)
    if batch == 256:
        np.testing.assert_allclose(mean.mean(), np.sqrt(2 * np.pi), rtol=0.04)


@pytest.mark.slow
def test_mean_levels_and_slopes_at_small_noise():
    """Learning rate over batch .002: levels within 10 %, slopes within 10 %."""
    found = dynamics.gaussian_rbm(dynamics.lattice(10, 2.0), learning_rate=0.2, batch=100, key=0)
    run = dynamics.run(
        found.algorithm, found.start, 2500, 3, 500, keep=lambda s: singular(s) ** 2, chains=60
    )
    x = np.asarray(run.x)[:, -2:]
    np.testing.assert_allclose(x.mean((0, 1)), found.target.levels, rtol=0.1)
    S = x[..., [1, 3, 5, 7]] - x[..., [2, 4, 6, 8]]
    theory = np.sqrt(np.pi) * found.target.sigma[[1, 3, 5, 7]]
    np.testing.assert_allclose((S.mean((0, 1)) / theory).mean(), 1.0, rtol=0.1)


def test_a_boltzmann_machine_that_cannot_be_normalised_says_so():
    K = dynamics.lattice(6, 2.0)
    with pytest.raises(ValueError, match="mu\\^2=9 <= largest x=.*not normalisable"):
        dynamics.gaussian_rbm(K, learning_rate=0.1, batch=4, key=0, start_scale=3.0)
    found = dynamics.gaussian_rbm(K, learning_rate=2.0, batch=2, key=0)
    with pytest.raises(ValueError, match="the run diverged: it stopped after"):
        dynamics.run(found.algorithm, found.start, 400, 1, 400)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: teacher(1.9, 16), "exceeds the stability limit 1.684"),
        (
            lambda: dynamics.teacher_student(
                jnp.ones((2, 3)), noise=1.0, learning_rate=0.1, batch=2
            ),
            "square",
        ),
        (
            lambda: dynamics.gaussian_rbm(-np.eye(3), learning_rate=0.1, batch=2, key=0),
            "positive definite",
        ),
        (
            lambda: dynamics.gaussian_rbm(np.eye(3) * 4, learning_rate=9.0, batch=2, key=0),
            "stability limit",
        ),
        (lambda: dynamics.dyson(1.0, dt=0.1), "give rate"),
        (lambda: dynamics.dyson(1.0, dt=0.1, rate=1.0, beta=2.0), 'use method="implicit"'),
        (lambda: dynamics.lattice(2, 1.0), "sites must be an integer of at least 3"),
        (
            lambda: dynamics.run(dynamics.dyson(1.0, dt=0.1, rate=1.0), np.ones(3), 2, 0),
            "symmetric matrix",
        ),
        (
            lambda: dynamics.run(
                dynamics.dyson(1.0, dt=0.1, rate=1.0, method="implicit"), np.ones(3), 2, 0
            ),
            "strictly ascending",
        ),
        (lambda: dynamics.dyson(1.0, dt=0.1, slope=jnp.sin, loc=1.0), "put it into slope"),
        (
            lambda: dynamics.dyson(1.0, dt=0.1, rate=1.0, beta=1e-3, method="implicit"),
            "0 or at least 0.01",
        ),
        (
            lambda: dynamics.run(dynamics.dyson(1.0, dt=0.1, slope=jnp.sum), np.eye(2), 2, 0),
            "slope must return one number per level",
        ),
        (
            lambda: dynamics.run(teacher(0.1, 4).algorithm, np.eye(3), 2, 0),
            r"x0 has shape \(3, 3\); give \(2, 2\), that of the teacher",
        ),
        (
            lambda: dynamics.run(
                dynamics.sgld(lambda x, key: x, learning_rate=0.1), np.ones(2), 2, 0
            ),
            "gradient must return a pair",
        ),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
