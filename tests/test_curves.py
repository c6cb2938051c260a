# SPDX-License-Identifier: Apache-2.0
import math

import jax
import numpy as np
import pytest

from bayesrg import rg, theory

k = np.arange(1, 601.0)
values = k**-2
compiled = jax.jit(theory.learning_curve)
compiled_coarse = jax.jit(theory.coarse_learning_curve, static_argnames="rule")
dense_error = jax.jit(lambda v, n, s, power: theory.equivalent_kernel(v, n, s).error(power))


def padded(x, value=0.0):
    """One number per mode, with up to 600 modes of value zero more."""
    x = np.asarray(x, float)
    return np.r_[x, np.full(600 - len(x), value)] if len(x) < 600 else x


def asked(function, values, power, given, degeneracy=(), **named):
    """Call with modes padded to 600 and entries repeated to four: one program for all tests."""
    given = np.broadcast_arrays(*map(np.asarray, given))
    shape, modes = given[0].shape, len(values)
    n, *others = (np.resize(x, 4) for x in given)
    named["degeneracy"] = padded(degeneracy, 1.0) if modes <= 600 else None
    curve = function(padded(values), padded(power), n.astype(float), *others, **named)
    return jax.tree.map(
        lambda x: np.resize(x, shape) if x.ndim == 1 else np.resize(x[:, :modes], (*shape, modes)),
        jax.device_get(curve),
    )


def learning_curve(values, power, n, ridge, label_noise=0.0, tail=0.0, **named):
    given = n, np.asarray(ridge, float), np.asarray(label_noise, float)
    return asked(compiled, values, power, given, tail=np.asarray(tail), **named)


def coarse_learning_curve(values, power, n, ridge, cutoffs, label_noise=0.0, **named):
    given = n, np.asarray(ridge, float), cutoffs, np.asarray(label_noise, float)
    return asked(compiled_coarse, values, power, given, **named)


def test_learning_curve_reference_numbers():
    curve = learning_curve(values, values, np.array([20.0, 50.0, 100.0, 200.0]), 0.05, 0.05)
    printed = {
        "generalisation": ([0.15066, 0.07590, 0.04670, 0.02945], 6e-6),
        "train": ([0.01246, 0.01986, 0.02585, 0.03147], 6e-6),
        "log_evidence": ([-0.917, -0.653, -0.479, -0.336], 6e-4),
    }
    for name, (numbers, digits) in printed.items():
        ours = getattr(curve, name)
        ours = ours / curve.n if name == "log_evidence" else ours
        np.testing.assert_allclose(ours, numbers, rtol=0, atol=digits, err_msg=name)
    assert curve.learnability.shape == (4, 600)
    # matched: the target is a draw of the prior, so errors are posterior variances
    np.testing.assert_allclose(curve.generalisation, curve.variance, rtol=1e-12)
    np.testing.assert_allclose(curve.test, curve.effective_ridge, rtol=1e-12)


def test_misspecified_and_tailed_targets():
    power = np.where(k <= 30, 1 / k, 0.0)
    curve = learning_curve(values, power, 80, 0.2, 0.5)
    np.testing.assert_allclose(curve.generalisation, 0.5116, rtol=0, atol=6e-5)
    power = np.where(k > 300, 0.01, values)
    full = learning_curve(values, power, 60, 0.05, 0.05).generalisation
    coarse = coarse_learning_curve(values, power, 60, 0.05, 300, 0.05).generalisation
    np.testing.assert_allclose([full, coarse], [4.257, 4.281], rtol=0, atol=6e-4)


def test_coarse_regression():
    kept, printed = np.array([36, 81, 188]), [0.0529, 0.0475, 0.0468]
    dense = 0.0297, 0.0193, 0.0167
    curve = coarse_learning_curve(values, values, 100, 0.05, kept, 0.05)
    np.testing.assert_allclose(curve.generalisation, printed, rtol=0, atol=6e-5)
    for threshold, cutoff, error in zip((0.5, 0.2, 0.05), kept, dense, strict=True):
        assert rg.cutoff(values, 100, 0.05, threshold=threshold) == cutoff
        low = np.where(k <= cutoff, values, 0.0)
        ridge = 0.05 + values[cutoff:].sum()
        np.testing.assert_allclose(rg.universal_ridge(values, 0.05, cutoff), ridge, rtol=1e-12)
        np.testing.assert_allclose(dense_error(low, 100.0, ridge, values), error, atol=6e-5)


@pytest.mark.slow
def test_exponents_of_mismatched_targets():
    modes, ns = np.arange(1, 3e5 + 1), np.array([500.0, 1000.0, 2000.0, 4000.0])
    for beta, slope in ((0.3, -0.365), (1.0, -1.012), (2.5, -2.519), (4.0, -3.045)):
        curve = learning_curve(modes**-1.5, modes ** (-1 - beta), ns, 0.0)
        fitted = np.polyfit(np.log(ns), np.log(curve.generalisation), 1)[0]
        np.testing.assert_allclose(fitted, slope, rtol=0, atol=6e-4)


def test_more_data_than_modes_is_least_squares():
    three = [1.0, 0.5, 0.25]
    curve = learning_curve(three, three, 10, 0.0, 0.3)
    np.testing.assert_allclose(curve.overfitting, 1 / 0.7, rtol=1e-14)
    np.testing.assert_allclose(curve.generalisation, 0.3 * 3 / 7, rtol=1e-13)
    np.testing.assert_allclose(curve.train, 0.21, rtol=1e-13)
    assert curve.effective_ridge == 0 and np.isnan(curve.log_evidence)
    # a mode that the prior does not have is label noise: v' = 0.3 + 0.25
    zero = learning_curve([1.0, 0.5, 0.0], three, 10, 0.0, 0.3)
    np.testing.assert_allclose(zero.test, 0.55 * 10 / 8, rtol=1e-13)
    np.testing.assert_allclose(zero.train, 0.55 * 0.8, rtol=1e-13)
    # the limit of a small ridge
    small = learning_curve([1.0, 0.5, 0.0], three, 10, 1e-12, 0.3)
    np.testing.assert_allclose([small.test, small.train], [zero.test, zero.train], rtol=1e-10)
    at = learning_curve(three, three, 3, 0.0, [0.0, 0.3])
    assert at.test[0] == 0 and np.isinf(at.test[1]) and np.isinf(at.overfitting).all()


def test_whole_levels_are_modes_counted_together():
    levels, count = np.array([1.0, 0.3, 0.05]), np.array([2, 3, 40])
    modes = np.repeat(levels, count)
    per_mode = np.linspace(1.0, 0.1, 45)
    per_level = np.add.reduceat(per_mode, [0, 2, 5])
    one = learning_curve(modes, per_mode, 12, 0.1, 0.2)
    two = learning_curve(levels, per_level, 12, 0.1, 0.2, degeneracy=count)
    for name in ("test", "train", "bias", "variance", "log_evidence", "overfitting"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-12)
    coarse = coarse_learning_curve(modes, per_mode, 12, 0.1, 5, 0.2)
    level = coarse_learning_curve(levels, per_level, 12, 0.1, 5, 0.2, degeneracy=count)
    np.testing.assert_allclose(coarse.test, level.test, rtol=1e-12)


def test_tail_joins_the_ridge_but_not_the_noise():
    one = learning_curve(values, values, 30, 0.05, 0.1, tail=0.02)
    two = learning_curve(values, values, 30, 0.07, 0.1)
    np.testing.assert_allclose(one.test, two.test, rtol=1e-13)
    np.testing.assert_allclose(one.variance, two.variance + 0.02, rtol=1e-12)


def test_coarse_curve_ends_where_it_should():
    """All modes kept is the full theory, none kept predicts zero."""
    full = learning_curve(values, values, 100, 0.05, 0.05)
    for rule in ("universal", "dressed", "truncate"):
        ends = coarse_learning_curve(values, values, 100, 0.05, [600, 0, 7], 0.05, rule=rule)
        np.testing.assert_allclose(ends.test[0], full.test, rtol=1e-12)
        np.testing.assert_allclose(ends.log_evidence[0], full.log_evidence, rtol=1e-12)
        np.testing.assert_allclose(ends.generalisation[1], values.sum(), rtol=1e-12)


def test_bias_of_a_coarse_curve_holds_what_is_eliminated():
    coarse = coarse_learning_curve(values, 1 / k, 40, 0.02, 7, 0.3)
    s = float(rg.effective_ridge(values[:7], 40, 0.02 + values[7:].sum()))
    low = ((s / (s + 40 * values[:7])) ** 2 / k[:7]).sum()
    np.testing.assert_allclose(coarse.bias, low + (1 / k[7:]).sum(), rtol=1e-12)


@pytest.mark.parametrize("ridge", [1e-9, 1e-15, 1e-40])
def test_nothing_cancels_at_a_tiny_ridge(ridge):
    """Noiseless labels and more points than modes: the bias is of second order in the ridge."""
    three = np.array([1.0, 0.5, 0.25])
    curve = learning_curve(three, three, 10, ridge)
    s = 10 * ridge / 7  # to first order
    bias = ((s / (10 * three)) ** 2 * three).sum()
    np.testing.assert_allclose(curve.bias, bias, rtol=1e-7)
    np.testing.assert_allclose(curve.generalisation, bias / 0.7, rtol=1e-7)
    wide = learning_curve(three, three, 1e12, 0.1, 0.2)
    np.testing.assert_allclose(wide.generalisation, 3 * 0.2 / 1e12, rtol=1e-6)
    dense = dense_error(padded(three), 10.0, ridge, padded(three))
    np.testing.assert_allclose(dense, 0.49 * bias, rtol=1e-7)


def test_conservation_and_parts():
    curve = learning_curve(values, 1 / k, 40, 0.02, 0.3)
    total = curve.learnability.sum() + 40 * 0.02 / curve.effective_ridge
    np.testing.assert_allclose(total, 40, rtol=1e-12)
    spread = (1 - 1 / curve.overfitting) * curve.test
    np.testing.assert_allclose(curve.bias + spread, curve.generalisation, rtol=1e-12)
    np.testing.assert_allclose(curve.coefficient_variance.sum(), spread, rtol=1e-12)


@pytest.mark.slow
def test_derivatives_of_a_curve():
    """In the ridge, and in an eigenvalue that is zero while the target has power there."""
    power = np.array([1.0, 0.5, 0.7])

    @jax.jit
    def error_and_slopes(v, ridge):
        def error(v, ridge):
            return theory.learning_curve(v, power, 40.0, ridge, 0.3).test

        return jax.value_and_grad(error, (0, 1))(v, ridge)

    v, h = np.array([1.0, 0.3, 0.0]), 1e-7
    here, (by_value, by_ridge) = error_and_slopes(v, 0.02)
    step = [float(error_and_slopes(v, 0.02 + s)[0]) for s in (h, -h)]
    np.testing.assert_allclose(by_ridge, (step[0] - step[1]) / (2 * h), rtol=1e-6)
    up, twice = (float(error_and_slopes(v + [0, 0, s], 0.02)[0]) for s in (h, 2 * h))
    np.testing.assert_allclose(by_value[2], (4 * up - twice - 3 * float(here)) / (2 * h), rtol=1e-6)


def test_equivalent_kernel_is_the_dense_limit():
    """Coefficients against regression on a Gauss-Hermite grid that stands for n weighted points."""
    from numpy.polynomial.hermite_e import hermegauss, hermevander

    x, w = hermegauss(80)
    w = w / w.sum()
    Phi = hermevander(x, 9) / np.sqrt([float(math.factorial(j)) for j in range(10)])
    lam, target = 2.0 ** -np.arange(10), np.linspace(1, -1, 10)
    n, ridge = 200.0, 3.0

    @jax.jit
    def of_kernel(w):
        ek = theory.equivalent_kernel(lam, n, ridge)
        found = ek.coefficients(target), ek.error(target**2), ek(Phi[:3], Phi), ek.variance
        return *found, ek.correction(Phi, target, weights=w)

    coefficients, error, h, variance, correction = map(np.asarray, of_kernel(w))
    B = Phi * np.sqrt(lam)
    inner = np.eye(10) + n / ridge * (B * w[:, None]).T @ B
    dense = np.sqrt(lam) * np.linalg.solve(inner, n / ridge * B.T @ (w * (Phi @ target)))
    np.testing.assert_allclose(coefficients, dense, rtol=1e-9)
    np.testing.assert_allclose(error, ((dense - target) ** 2).sum(), rtol=1e-9)
    np.testing.assert_allclose(h @ (w * (Phi @ target)), Phi[:3] @ dense, rtol=1e-8)
    # the correction is the first-order effect of a ridge raised by the posterior variance
    extra = Phi**2 @ variance

    @jax.jit
    def slope_of(noise, extra):
        def mean(noise):
            return rg.reweighted_modes(Phi, lam, n, noise, Phi @ target, weights=w).mean

        return jax.jvp(mean, (noise,), (extra,))[1]

    slope = slope_of(np.full(80, ridge), extra)
    np.testing.assert_allclose(correction, slope, rtol=1e-8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.learning_curve([1.0, 0.5], [1.0], 3, 0.1), "power has shape"),
        (lambda: theory.learning_curve([1.0], [-1.0], 3, 0.1), "power must be non-negative"),
        (lambda: theory.learning_curve([1.0], [1.0], 3, 0.1, -1.0), "label_noise must be non-neg"),
        (lambda: theory.learning_curve([1.0], [1.0], 0, 0.1), "n must be positive"),
        (
            lambda: theory.coarse_learning_curve([1.0], [1.0], 3, 0.1, 1, rule="exact"),
            "rule must be one of 'universal', 'dressed', 'truncate', got 'exact'",
        ),
        (lambda: theory.equivalent_kernel([1.0], 3, 0.0), "ridge must be positive"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
