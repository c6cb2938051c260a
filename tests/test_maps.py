# SPDX-License-Identifier: Apache-2.0
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import central_difference

from bayesrg.spectrum import maps
from bayesrg.spectrum.modify import groups

VALUES = np.array([2.0, 0.5, 0.5, 0.1, 0.02, 0.0])
CASES = {
    "identity": (maps.identity(), lambda v: v),
    "scale": (maps.scale(3), lambda v: 3 * v),
    "power": (maps.power(1.7), lambda v: 2 * (v / 2) ** 1.7),
    "flatten": (maps.flatten(3), lambda v: v if v < 0.5 else 0.1),
    "lift": (maps.lift(4), lambda v: 2.0 if v >= 0.1 else v),
    "hard": (maps.hard_cutoff(0.1), lambda v: v if v >= 0.1 else 0),
    "soft": (maps.soft_cutoff(0.1, 0.3), lambda v: v / (1 + np.exp(-np.log(v / 0.1) / 0.3))),
    "polynomial": (maps.polynomial_cutoff(0.05, 4), lambda v: v / (1 + (0.05 / v) ** 4)),
    "ridge": (maps.ridge(0.3), lambda v: v**2 / (v + 0.3)),
    "no ridge": (maps.ridge(0.0), lambda v: v),
    "combine": (
        maps.combine(maps.scale(1.2), maps.power(0.9), maps.soft_cutoff(0.02, 0.3)),
        lambda v: 1.2 * 2 * (v / 2) ** 0.9 / (1 + np.exp(-np.log(v / 0.02) / 0.3)),
    ),
}


KINDS = "power", "flatten", "hard", "soft", "no ridge", "combine"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in KINDS else pytest.mark.slow) for n in CASES]
)
def test_maps_are_their_formulas(name):
    g, formula = CASES[name]
    expected = [formula(v) if v > 0 else 0.0 for v in VALUES]
    one, half, stacked, zero = jax.jit(
        lambda v: (g(v), g(0.5 * v), g(jnp.stack([v, 0.5 * v])), g(0 * v))
    )(VALUES)
    np.testing.assert_allclose(one, expected, rtol=1e-14)
    np.testing.assert_allclose(stacked, [one, half], rtol=1e-14)
    assert not np.any(zero)


def test_a_table_goes_by_rank():
    g = maps.table([1.0, 0.0, 3.0])
    one, two = jax.jit(lambda v: (g(v), g(jnp.stack([v, v]))))(VALUES)
    np.testing.assert_array_equal(one, [1, 0, 3, 0.1, 0.02, 0])
    np.testing.assert_array_equal(two, [one, one])


hard_cutoff = jax.jit(lambda cutoff, values: maps.hard_cutoff(cutoff)(values))
MAKERS = {
    "scale": maps.scale, "power": maps.power, "ridge": maps.ridge, "hard": maps.hard_cutoff,
    "soft": lambda t: maps.soft_cutoff(t, 0.5 * t), "table": lambda t: maps.table(t * jnp.ones(3)),
    "polynomial": lambda t: maps.polynomial_cutoff(t, 3 * t),
    "combine": lambda t: maps.combine(maps.power(t), maps.soft_cutoff(t, 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_parameters_and_values_are_differentiable_zero_included(name):
    weights = np.random.default_rng(0).standard_normal(6)

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(theta, values):
        return weights @ MAKERS[name](theta)(values)

    theta = np.full((), 0.7)
    slope, in_values = jax.device_get(loss(theta, VALUES)[1])
    expected = central_difference(lambda t: loss(np.asarray(t), VALUES)[0], theta)
    np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-9)
    assert np.isfinite(in_values).all()
    expected = central_difference(lambda v: loss(theta, np.append(v, 0.0))[0], VALUES[:5])
    np.testing.assert_allclose(in_values[:5], expected, rtol=1e-6, atol=1e-8)


def test_soft_cutoffs_close_in_on_the_hard_one():
    values = np.geomspace(1.0, 1e-4, 30)
    cut = np.sqrt(values[14] * values[15])
    cutoffs = [maps.hard_cutoff(cut), *(maps.soft_cutoff(cut, w) for w in (0.3, 0.03, 1e-3, 0.25))]
    cutoffs += [maps.polynomial_cutoff(cut, 4.0), maps.polynomial_cutoff(0.1, 4000.0)]
    hard, wide, narrow, sharp, soft, power, steep = jax.device_get(
        jax.jit(lambda v: [g(v) for g in cutoffs])(values)
    )
    assert np.abs(narrow - hard).max() < 0.1 * np.abs(wide - hard).max()
    np.testing.assert_allclose(sharp, hard, rtol=0, atol=1e-12)
    np.testing.assert_allclose(power, soft)
    assert (steep[-8:] == 0).all()  # no overflow


@pytest.mark.parametrize("first, second", [(0.3, 0.01), (0.01, 0.3)])
def test_two_cuts_are_the_larger_and_what_they_remove_adds_up(first, second):
    values = np.geomspace(1.0, 1e-3, 25)
    once = np.asarray(hard_cutoff(first, values))
    twice = np.asarray(hard_cutoff(second, once))
    np.testing.assert_array_equal(twice, hard_cutoff(max(first, second), values))
    removed = (values - once).sum() + (once - twice).sum()
    np.testing.assert_allclose(removed, values[values < max(first, second)].sum(), rtol=1e-14)


def test_edges_are_where_a_map_jumps():
    cut, values = maps.hard_cutoff(0.1), jnp.asarray(VALUES)
    both = maps.combine(cut, maps.scale(2.0), maps.hard_cutoff(0.3))
    assert [g.edge(values) for g in (cut, both, maps.lift(4))] == [4, 3, 4]
    smooth = maps.soft_cutoff(0.1, 0.3)
    for g in (smooth, maps.combine(smooth, maps.power(2.0)), maps.flatten(3), maps.table([1.0])):
        assert g.edge(values) is None  # the level below is where `flatten` goes


def test_ridge_of_variances_whose_squares_underflow():
    np.testing.assert_allclose(maps.ridge(1e-200)(jnp.array([1e-200])), [5e-201], rtol=1e-14)


def test_groups_are_gaps_of_sampling_errors():
    values = np.array([1.0, 0.951, 0.5, 0.45, 0.44, 0.1])
    assert list(groups(values, 3600)) == [0, 0, 1, 2, 2, 3]  # 3 / sqrt(n) = 0.05
    assert list(groups(values, 400)) == [0, 0, 1, 1, 1, 2]
    assert list(groups(np.array([1.0, 0, 0, 0, 0, 0]), 400)) == [0, 1, 1, 1, 1, 1]
    assert groups(np.zeros(0), 10).shape == (0,) and list(groups(np.full(1, 2.0), 10)) == [0]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: maps.lift(7)(jnp.asarray(VALUES)), r"lift\(7\) needs 7 modes .* has 6"),
        (lambda: maps.flatten(6)(jnp.asarray(VALUES)), r"flatten\(6\) needs 7 modes"),
        (lambda: maps.lift(0), "r must be a positive integer, got 0"),
        (lambda: maps.flatten(True), "r must be a positive integer, got True"),
        (lambda: maps.table(jnp.ones(9))(jnp.asarray(VALUES)), "9 entries and the spectrum 6"),
        (lambda: maps.table([-1.0]), "values must be non-negative, got -1.0"),
        (lambda: maps.scale(-2.0), "c must be non-negative, got -2.0"),
        (lambda: maps.power(0.0), "alpha must be positive, got 0.0"),
        (lambda: maps.soft_cutoff(0.1, 0.0), "width must be positive, got 0.0"),
        (lambda: maps.soft_cutoff(0.0, 0.1), "cutoff must be positive, got 0.0"),
        (lambda: maps.polynomial_cutoff(0.1, -1), "p must be positive, got -1"),
        (lambda: maps.ridge(-0.1), "s must be non-negative, got -0.1"),
        (lambda: maps.combine(maps.lift(2)), "one eigenvalue at a time, got _Level.*modify twice"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
