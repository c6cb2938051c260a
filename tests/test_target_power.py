# SPDX-License-Identifier: Apache-2.0
"""Power of a target in modes, from few labels."""

import numpy as np
import pytest

from bayesrg import kernels, spectrum, theory
from bayesrg.theory.target_power import _falling, _remainders


def test_reference_numbers():
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(400, 10)), rng.normal(size=400)
    y = X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + 0.3 * noise
    found = _remainders(np.column_stack([np.ones(400), X]), y)
    expected = [1.348466805310, 1.351547501269, 0.348179845211, 0.346977161457, 0.347864464041]
    np.testing.assert_allclose(found[[0, 1, 2, 10, 11]], expected, rtol=1e-11)
    fallen = _falling(found, 400)
    np.testing.assert_allclose(fallen[[0, 1, 11]], [1.350005225445] * 2 + [0.346587880378])


def test_remainders_are_unbiased():
    """Mean over 2,000 samples of 40 rows, in units of its error."""
    rng = np.random.default_rng(1)
    H = rng.normal(size=(2000, 40, 6))
    power = np.array([0.5, 0.0, 0.3, 0.0, 0.1, 0.05])
    y = H @ np.sqrt(power) + 0.4 * rng.normal(size=(2000, 40))
    found = np.array([_remainders(*pair) for pair in zip(H, y, strict=True)])
    exact = 0.16 + np.append(power.sum(), power.sum() - np.cumsum(power))
    error = found.std(0) / np.sqrt(2000)
    np.testing.assert_array_less(np.abs(found.mean(0) - exact), 4 * error)


X = np.random.default_rng(2).normal(size=(120, 2))
Y = X[:, 0] + 0.1 * np.sin(40 * X[:, 1])
MODES = spectrum.nystrom(kernels.RBF(1.0), np.random.default_rng(3).normal(size=(60, 2)))


def test_power_telescopes_and_goes_on_as_a_power_law():
    found = theory.target_power(MODES, X, Y, 20)
    assert found.power.shape == (20,) and (found.power >= 0).all()
    total = found.remainder[0] - found.remainder[-1]
    np.testing.assert_allclose(found.power.sum(), total, rtol=1e-12)
    assert found.remainder_error.shape == (21,) and (found.remainder_error > 0).all()

    power, noise = found.extend(np.ones(80))
    np.testing.assert_array_equal(power[:20], found.power)
    np.testing.assert_allclose(noise, found.remainder[-1] * 4**-found.exponent, rtol=1e-12)
    np.testing.assert_allclose(power.sum() + noise, found.remainder[0], rtol=1e-12)
    few, noise = found.extend(np.ones(5))
    assert few.shape == (5,) and noise == found.remainder[5]

    # errors of ten samples of the same law spread as the jackknife says, within a factor of two
    rng, several = np.random.default_rng(4), []
    for _ in range(10):
        x = rng.normal(size=(120, 2))
        several.append(theory.target_power(MODES, x, x[:, 0], 20).remainder[0])
    assert 0.5 < found.remainder_error[0] / np.std(several) < 2.0


def test_dependent_columns_have_no_power():
    H = np.random.default_rng(5).normal(size=(30, 3))
    H = np.column_stack([H, H.sum(1), H[:, 0] ** 2])
    y = H[:, 4] + H[:, 0]
    found = _remainders(H, y)
    np.testing.assert_allclose(found[4], found[3], rtol=1e-12)
    np.testing.assert_allclose(found[5], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(modes=61), "modes must be an integer from 0 to 60, got 61"),
        (dict(y=Y[1:]), r"y has shape \(119,\)"),
    ],
)
def test_arguments_that_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        theory.target_power(**(dict(spectrum=MODES, X=X, y=Y) | wrong))


def test_a_constant_target_and_no_modes():
    found = theory.target_power(MODES, X, np.zeros(120))
    assert not found.power.any() and found.exponent == 0.0
    none = theory.target_power(MODES, X, Y, 0)
    power, noise = none.extend(np.ones(10))
    assert power.shape == (10,) and abs(power.sum() + noise - none.remainder[0]) < 1e-12
