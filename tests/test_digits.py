# SPDX-License-Identifier: Apache-2.0
"""How many digits every algebra keeps, against arithmetic of sixty, and that loss is said."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from oracles import fourier_modes

from bayesrg import gp, rg
from bayesrg.kernels import RBF, Linear

n, m, k = 10, 3, 7
rng = np.random.default_rng(3)
points = np.concatenate([np.sort(rng.uniform(size=n)), [0.07, 0.41, 0.93]])
y = np.sin(6 * points[:n]) + 0.1 * rng.normal(size=n)
F, order = fourier_modes(points, k), (np.arange(k) + 1) // 2
FORMS = ("dense", "low rank", "eigenpairs of a kernel", "eigenpairs of columns")
GRID = np.log(list(itertools.product(10.0 ** np.arange(-3, 4), 10.0 ** np.arange(-14, 4))))


def law(form, lengthscale, ridge, rows):
    """Law at the first rows: of a kernel, or of Fourier modes that fall as its spectrum."""
    X, kernel = points[:, None], RBF(lengthscale)
    if form in ("dense", "eigenpairs of a kernel"):
        eigen = kernel.at(X[:n]).eigenpairs() if "eigen" in form else None
        return gp.marginal(kernel, X[:rows], ridge, eigen=eigen)
    values = jnp.exp(-0.5 * (0.4 * np.pi * order * lengthscale) ** 2)
    eigen = gp.eigenpairs(F[:n], values) if "eigen" in form else None
    return gp.MercerNormal(F[:rows], values, ridge, eigen=eigen)


def ours(form, theta):
    """Evidence, leave-one-out densities, and mean and variance at new points."""
    lengthscale, ridge = jnp.exp(theta)
    fn = law(form, lengthscale, ridge, n)
    mean, variance, _ = law(form, lengthscale, ridge, n + m).krige(y)
    return jnp.concatenate([fn.log_prob(y)[None], fn.loo(y), mean, variance])


def sums(form, theta):
    numbers = ours(form, theta)
    parts = jnp.split(numbers, [1, 1 + n, 1 + n + m])
    return jnp.stack([part.sum() for part in parts]), numbers


def exact(form, theta):
    """The same with sixty digits, the derivatives of its four sums, and the condition number."""
    mp.mp.dps = 60
    lengthscale, ridge = (mp.exp(mp.mpf(t)) for t in theta.tolist())
    if form in ("dense", "eigenpairs of a kernel"):
        x = [mp.mpf(v) for v in points.tolist()]
        square = mp.matrix([[((a - b) / lengthscale) ** 2 for b in x] for a in x])
        K = square.apply(lambda s: mp.exp(-s / 2))
        dK = square.apply(lambda s: s * mp.exp(-s / 2))
    else:
        A = mp.matrix(F.tolist())
        square = [(mp.mpf(0.4 * np.pi) * int(o) * lengthscale) ** 2 for o in order]
        K = A * mp.diag([mp.exp(-s / 2) for s in square]) * A.T
        dK = A * mp.diag([-s * mp.exp(-s / 2) for s in square]) * A.T
    C, cross = K[:n, :n] + ridge * mp.eye(n), K[:n, n:]
    P, Y = C**-1, mp.matrix(y.tolist())
    a, gain = P * Y, P * cross
    p = [P[i, i] for i in range(n)]
    evidence = -((Y.T * a)[0] + mp.log(mp.det(C)) + n * mp.log(2 * mp.pi)) / 2
    loo = [(mp.log(p[i]) - a[i] ** 2 / p[i] - mp.log(2 * mp.pi)) / 2 for i in range(n)]
    variance = [K[n + i, n + i] - (cross.T * gain)[i, i] for i in range(m)]
    slopes = []
    for dC, d_cross, d_own in (
        (dK[:n, :n], dK[:n, n:], dK[n:, n:]),
        (ridge * mp.eye(n), mp.zeros(n, m), mp.zeros(m, m)),
    ):
        PdC = P * dC
        da, dP = -PdC * a, -PdC * P
        d_loo = [
            (dP[i, i] / p[i] - 2 * a[i] * da[i] / p[i] + a[i] ** 2 * dP[i, i] / p[i] ** 2) / 2
            for i in range(n)
        ]
        d_variance = d_own - 2 * d_cross.T * gain + gain.T * dC * gain
        slopes.append([
            ((a.T * dC * a)[0] - sum(PdC[i, i] for i in range(n))) / 2,
            sum(d_loo),
            sum(d_cross.T * a + cross.T * da),
            sum(d_variance[i, i] for i in range(m)),
        ])  # fmt: skip
    energies = mp.eigsy(C, eigvals_only=True)
    numbers = [evidence, *loo, *(cross.T * a), *variance]
    numbers = np.array([float(v) for v in numbers])
    return numbers, np.array(slopes, float).T, float(max(energies) / min(energies))


def said(function):
    """What a call warns of; a refusal counts too."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            function()
        except ValueError as refusal:
            return [str(refusal)]
    return [str(one.message) for one in told]


def evidence(form, theta):
    lengthscale, ridge = np.exp(theta)
    return law(form, lengthscale, ridge, n).log_prob(y)


def compare(form, grid, eager):
    """Relative errors below 1e-8 or a warning, and none at condition numbers below 1e6.

    Log densities, which may be zero, are measured by one nat at least; means by the targets'
    size; variances by themselves, and their derivatives by the variances. ``eager`` is called
    outside of a program, where a warning can be given.
    """
    both = jax.jacrev(lambda t: sums(form, t), has_aux=True)
    slopes, values = (np.asarray(x) for x in jax.jit(jax.vmap(both))(grid))
    silent = 0
    for theta, value, slope in zip(grid, values, slopes, strict=True):
        right, right_slope, condition = exact(form, theta)
        size = np.maximum(np.abs(right), np.repeat([1.0, np.abs(y).max(), 0.0], [1 + n, m, m]))
        scale = np.repeat([[1.0], [1.0], [1.0], [right[1 + n + m :].sum()]], 2, 1)
        errors = np.abs(value - right) / size
        slope_errors = np.abs(slope - right_slope) / np.maximum(np.abs(right_slope), scale)
        worst = np.maximum(errors.max(), slope_errors.max())  # nan stays
        told = said(lambda theta=theta: eager(form, theta))
        assert worst < 1e-8 or told, (form, np.exp(theta), condition, errors, slope_errors)
        assert not told or condition >= 1e6, (form, np.exp(theta), condition, told)
        silent += not told
        if form in ("low rank", "eigenpairs of columns"):
            assert worst < 1e-11, (form, np.exp(theta), condition, errors, slope_errors)
    return silent


@pytest.mark.parametrize("form", [pytest.param(FORMS[0], marks=pytest.mark.slow), FORMS[1]])
def test_digits_against_sixty(form):
    grid = np.log([[0.1, 1e-14], [1.0, 1e-2], [1.0, 1e-14], [300.0, 3e-7], [1e-3, 1e3]])
    dense = form == "dense"
    assert compare(form, grid, ours if dense else evidence) == (3 if dense else 5)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_digits_over_the_whole_range(form):
    assert compare(form, GRID, ours) > len(GRID) // 2


@jax.jit
def in_weight_space(A, r, ridge):
    law = gp.MercerNormal(A, np.ones(61), ridge)
    here = law._rows(slice(None, 200))
    pairs = gp.eigenpairs(A[:200], np.ones(61))
    root, rest = here.split(20)
    found = law.krige(r), here.loo(r), here.log_prob(r), here._replace(eigen=pairs).log_prob(r)
    return found, rg.integrate_modes(root, rest, r).log_evidence


@pytest.mark.parametrize("ridge", [1e-6, 1e-8, 1e-14])
def test_kriging_in_weight_space_subtracts_nothing(ridge):
    """Posterior of 61 Fourier modes given noise-free targets, by singular values."""
    x, new = np.sort(np.random.default_rng(0).uniform(size=200)), np.linspace(0.013, 0.97, 20)
    A = fourier_modes(np.concatenate([x, new]), 61) * (1.0 + np.arange(61)) ** -1.5
    f = np.sin(2 * np.pi * np.concatenate([x, new])) + 0.5 * np.sin(6 * np.pi * np.r_[x, new])
    U, s, Vt = np.linalg.svd(A[:200], full_matrices=False)
    side = A[200:] @ Vt.T
    ((mean, variance, _), got_loo, *values), evidence = in_weight_space(A, f[:200], ridge)
    np.testing.assert_allclose(mean, side @ (s / (s**2 + ridge) * (U.T @ f[:200])), atol=1e-12)
    np.testing.assert_allclose(variance, side**2 @ (ridge / (s**2 + ridge)), rtol=1e-11)
    assert np.abs(np.asarray(mean) - f[200:]).max() < 10 * np.sqrt(ridge)
    r = f[:200]
    free = 1 - (U**2) @ (s**2 / (s**2 + ridge))
    left = r - U @ (s**2 / (s**2 + ridge) * (U.T @ r))
    loo = -0.5 * (left**2 / (free * ridge) + np.log(2 * np.pi * ridge / free))
    np.testing.assert_allclose(got_loo, loo, rtol=1e-9)
    quad = ((U.T @ r) ** 2 / (s**2 + ridge)).sum() + ((r - U @ (U.T @ r)) ** 2).sum() / ridge
    log_det = np.log(s**2 + ridge).sum() + 139 * np.log(ridge)
    expected = -0.5 * (quad + log_det + 200 * np.log(2 * np.pi))
    np.testing.assert_allclose(values, [expected, expected], rtol=1e-13)
    np.testing.assert_allclose(evidence, expected, rtol=1e-8)


longer = np.linspace(0, 1, n + m)  # the shapes of the laws above
line, kernel, target = longer[:n], RBF(1.0), np.sin(5 * longer[:n])
stairs = np.vander(0.8 + 0.2 * line, k)  # columns that are nearly dependent


def laplace(ridge, noise):
    """Posterior with a normal likelihood; ``noise`` is an array, so that one program serves all."""
    law = gp.marginal(kernel, line, ridge)
    return gp.LaplaceMarginal(law, lambda f: gp.laplace.dist.Normal(f, noise))


JUDGED = {
    "condition": lambda ridge: gp.condition(kernel, line, target, ridge),
    "marginal": lambda ridge: gp.marginal(kernel, line, ridge).log_prob(target),
    "draws": lambda ridge: gp.marginal(kernel, line, ridge).sample(jax.random.key(0)),
    "leave-one-out": lambda ridge: gp.marginal(kernel, line, ridge).loo(target),
    "solve": lambda ridge: gp.marginal(kernel, line, ridge).solve(target[:, None]),
    "krige": lambda ridge: gp.marginal(kernel, longer, ridge).krige(target),
    "eigenpairs": lambda ridge: gp.marginal(
        kernel, line, ridge, eigen=kernel.at(line).eigenpairs()
    ).log_prob(target),
    "low rank": lambda ridge: gp.MercerNormal(stairs, np.ones(k), ridge).log_prob(target),
    "several outputs": lambda ridge: gp.matrix_marginal(
        kernel, line, ridge, np.eye(2)
    ).log_prob(np.stack([target, target**2], 1)),
    "laplace": lambda ridge: laplace(ridge, jnp.sqrt(ridge)).log_prob(target),
    "readout": lambda ridge: gp.readout_posterior(stairs, target, ridge),
    "modes": lambda ridge: rg.integrate_modes(
        jnp.asarray(stairs), gp.MercerNormal(stairs, np.zeros(k), ridge), target
    ),
    "reweighted modes": lambda ridge: rg.reweighted_modes(
        stairs, np.ones(k), float(n), ridge, target
    ),
}  # fmt: skip


KINDS = "condition", "eigenpairs", "low rank", "several outputs", "laplace", "readout"


@pytest.mark.parametrize(
    "place", [pytest.param(p, marks=() if p in KINDS else pytest.mark.slow) for p in JUDGED]
)
def test_lost_digits_are_said_wherever_something_is_factorised(place):
    told = said(lambda: JUDGED[place](1e-13))
    assert told and any("digits are left" in one or "factoris" in one or "positive definite" in one
                        or "was added" in one for one in told), told  # fmt: skip
    assert any("larger ridge" in one for one in told)
    assert not said(lambda: JUDGED[place](1e-3))


def test_a_matrix_that_fails_is_refused_and_a_traced_one_is_nan():
    law = gp.marginal(RBF(10.0), line, 1e-18)
    with pytest.raises(ValueError, match="not positive definite in float64.*larger ridge"):
        law.log_prob(target)
    assert np.isnan(jax.jit(lambda r: gp.marginal(RBF(10.0), line, r).log_prob(target))(1e-18))


def test_units_of_rows_are_not_lost_digits():
    """Noise or variances that differ between points make no factor worse."""
    ridge = np.geomspace(1e-8, 1e4, n)
    assert not said(lambda: gp.MercerNormal(np.eye(n), np.ones(n), ridge).log_prob(np.ones(n)))
    far = np.geomspace(1e-6, 1e6, n)
    assert not said(lambda: gp.marginal(Linear(1.0), far, 1e-3 * far**2).log_prob(far))
