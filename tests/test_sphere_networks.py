# SPDX-License-Identifier: Apache-2.0
"""Spectra of neural kernels on the sphere: reference numbers, decay, the floor of round-off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesrg.kernels import NNGP, NTK
from bayesrg.spectrum import sphere

DEGREE = 120  # of every spectrum here: kernels of one structure then share their program


def by_degree(kernel, dim):
    spectrum = sphere(kernel, dim, DEGREE)
    values = np.zeros(len(spectrum))
    values[spectrum.degree] = spectrum.values
    assert spectrum.zeros == (values == 0).sum() and (values >= 0).all()
    return values


TABLE = {
    "relu, 3 layers, circle": (
        NTK(3, bias_var=0.1), 2,
        "3.79538561 1.43900482 0.57039564 0.19639847 0.10206571 0.05744858",
    ),
    "relu, no bias": (
        NTK(1), 3, "1.00000000 0.66666667 0.15625000 0.00000000 0.01041667 0.00000000",
    ),
    "relu, 2 layers, no bias": (
        NTK(2), 3, "1.86050386 0.74156638 0.21473514 0.03728815 0.01828627 0.00611573",
    ),
    "relu, 3 layers": (
        NTK(3, bias_var=0.1), 5,
        "3.12930518 0.480484730 0.101948971 0.0193563900 0.00608532582 0.00211720349",
    ),
    "relu, 2 layers": (
        NTK(2, bias_var=0.1), 10,
        "1.92973754 0.218448674 0.0225374169 0.00167616260 0.000322314",
    ),
    "erf, 2 layers": (
        NTK(2, "erf", 1.5, 0.1), 10,
        "0.339277218 0.148358595 0.00252708865 0.00160469962 0.000109653",
    ),
}  # fmt: skip


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "relu, 2 layers" else SLOW) for n in TABLE]
)
def test_reference_numbers_of_tangent_kernels(name):
    kernel, dim, printed = TABLE[name]
    for value, digits in zip(by_degree(kernel, dim), printed.split(), strict=False):
        last = 10.0 ** -len(digits.partition(".")[2])
        np.testing.assert_allclose(value, float(digits), rtol=0, atol=0.6 * last)


@pytest.mark.parametrize(
    "dim, slopes",
    [
        pytest.param(2, (-4.0, -2.0), marks=SLOW),
        (3, (-4.96, -2.98)),
        pytest.param(5, (-6.85, -4.9), marks=SLOW),
    ],
)
def test_relu_decays_as_a_power_of_the_dimension(dim, slopes):
    """As k^-(d + 2), tangent kernels as k^-d."""
    tangent = NTK(2 if dim == 3 else 3, bias_var=0.1)  # kernels that the table above compiled
    decay((NNGP(1, bias_var=0.1), tangent), dim, slopes)


@pytest.mark.slow
def test_depth_and_skips_change_constants_only():
    kernels = NNGP(3, bias_var=0.1), NTK(2, bias_var=0.1, skip=0.5), NTK(3, bias_var=0.1)
    decay(kernels, 3, (-4.96, -2.98, -2.98))


def decay(kernels, dim, slopes):
    for kernel, slope in zip(kernels, slopes, strict=True):
        values = by_degree(kernel, dim)
        local = np.log(values[120] / values[40]) / np.log(3)
        np.testing.assert_allclose(local, slope, rtol=0, atol=0.008)


def test_odd_degrees_vanish_with_one_layer_and_no_bias_alone():
    for cls in (NNGP, NTK):
        bare = by_degree(cls(1), 3)[:41]
        assert (bare == 0).sum() == 19 and (bare[3::2] == 0).all()
        assert (by_degree(cls(1, bias_var=0.1), 3)[3:10:2] > 1e-5).all()
    assert (by_degree(NTK(2), 3)[3:10:2] > 1e-5).all()


def test_traces_of_rough_kernels_converge_slowly():
    kernel = NTK(2, bias_var=0.1)
    spectrum = sphere(kernel, 10, DEGREE)
    total = (np.asarray(spectrum.values * spectrum.degeneracy)[spectrum.degree <= 60]).sum()
    np.testing.assert_allclose(total, 6.529, rtol=0, atol=5e-4)
    np.testing.assert_allclose(kernel.diag(np.ones((1, 10))), 6.6, rtol=1e-14)


@pytest.mark.parametrize(
    "activation", ["erf", *(pytest.param(f, marks=SLOW) for f in (jax.nn.gelu, jnp.tanh))]
)
def test_smooth_activations_decay_fast_to_the_floor(activation):
    """Degrees below round-off are zero and counted; what is above adds up to the variance."""
    kernel = NTK(2, activation, 1.5, 0.1)
    values = by_degree(kernel, 3)[:61]
    pairs = values[:40].reshape(-1, 2).sum(1)  # even and odd degrees differ in size
    pairs = pairs[pairs > 1e-12]
    assert (pairs[2:] < 0.35 * pairs[1:-1]).all()
    total = np.asarray(kernel.diag(np.ones((1, 3))))[0]
    sum_rule = 1e-8 if activation == "erf" else 1e-6  # what a series may leave out unwarned
    np.testing.assert_allclose(values @ (2 * np.arange(61) + 1), total, rtol=sum_rule)
    if activation == "erf":
        assert (values == 0).sum() == 22
