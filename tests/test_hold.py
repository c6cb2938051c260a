# SPDX-License-Identifier: Apache-2.0
"""How a callable is taken apart: by value, with its arrays as leaves, and built again."""

import collections
import copy
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesrg._callables import Name, Number, hold

COUNTER = [1.0]


def global_reader(u):
    return COUNTER[0] * u


def test_a_plan_is_compared_by_value():
    """Equal code and values share a program, anything else does not, and both stay as read."""

    def plan(function):
        return hold(function).plan

    def scaled(c):
        return lambda u: c * u

    assert plan(scaled(2.0)) == plan(scaled(2.0)) and plan(scaled(2.0)) != plan(scaled(3.0))
    assert plan(scaled(jnp.ones(2))) == plan(scaled(jnp.zeros(2)))
    for a, b in ((0.0, -0.0), (1, 1.0), (1, True), (np.float32(1), 1.0), ([1], (1,)), ("1", 1)):
        assert plan(scaled(a)) != plan(scaled(b)), (a, b)
    for kind, value in ((float, "nan"), (Number, "nan"), (Number, 2.0), (Name, "relu")):
        assert plan(scaled(kind(value))) == plan(scaled(kind(value)))
    assert plan(scaled(Name("relu"))) != plan(scaled("relu"))
    assert plan(lambda u: u) != plan(lambda u: u)
    assert plan(optax.adam(optax.cosine_decay_schedule(1e-3, 5))) == plan(
        optax.adam(optax.cosine_decay_schedule(1e-3, 5))
    )
    assert plan(functools.partial(scaled, 2.0)) == plan(functools.partial(scaled, 2.0))
    weights = np.arange(3.0)
    before, held = plan(scaled(weights)), hold(scaled(weights))
    weights[0] = 5.0
    assert before != plan(scaled(weights))
    np.testing.assert_array_equal(held(1.0), [0.0, 1.0, 2.0])
    held = hold(global_reader)
    COUNTER[0] = 2.0
    assert held(1.0) == 1.0 and hold(global_reader)(1.0) == 2.0
    COUNTER[0] = 1.0
    assert hold(held) is held and repr(held) == "global_reader"


def test_functions_that_refer_to_themselves_and_wrapped_ones_are_held():
    def factorial(n, scale=1.0):
        return scale if n == 0 else n * factorial(n - 1, scale=scale)

    cycle = [1.0]
    cycle.append(cycle)
    t = jnp.asarray(2.0)
    assert hold(factorial)(5, scale=2.0) == 240.0
    assert hold(lambda u: u * cycle[1][1][0])(3.0) == 3.0
    functions = (
        jax.jit(lambda u: t * u**2),
        jax.vmap(lambda u: t * u**2),
        jax.checkpoint(lambda u: t * u**2),
        jax.grad(lambda u: t * (u**3).sum() / 3),
        functools.partial(lambda s, u: s * u**2, t),
    )
    for function in functions:
        held = hold(function)
        assert len(held.arrays) == 1
        np.testing.assert_allclose(held(jnp.arange(3.0)), 2.0 * np.arange(3.0) ** 2)
    assert not hold(jnp.tanh).arrays and hold(jnp.tanh).open() is jnp.tanh
    copied = copy.deepcopy(hold(functions[0]))
    np.testing.assert_allclose(copied(3.0), 18.0)


@dataclasses.dataclass(slots=True)
class Slotted:
    scale: float

    def __call__(self, u):
        return self.scale * u


class Kind:
    scale, entries = 1.0, [1.0]

    def __call__(self, u):
        return self.scale * self.entries[0] * u


def test_objects_with_slots_and_data_of_a_class_are_held():
    slotted, kind = Slotted(2.0), Kind()
    held = hold(slotted), hold(kind)
    slotted.scale, Kind.entries[0] = 3.0, 5.0
    try:
        assert [h(1.0) for h in held] == [2.0, 1.0]
        assert hold(slotted)(1.0) == 3.0 and hold(kind)(1.0) == 5.0
    finally:
        Kind.entries[0] = 1.0


Pair = collections.namedtuple("Pair", "left right")


def test_values_of_all_kinds_come_back():
    """Equal and of their type; containers as copies, in which what was shared is shared."""
    mixed = [1, True, -0.0, 2j, "a", b"b", None, ..., np.float32(2), np.dtype("f4"), range(3), int]
    mixed += [(1, [2, {3}]), {"k": (4,)}, Pair(1, [2]), frozenset({5}), Name("n"), Number(0.5)]
    mixed += [jnp.tanh, np.sin, math, functools.partial(divmod, 7)]
    found = hold(mixed).open()
    for given, back in zip(mixed[:-1], found[:-1], strict=True):
        assert type(back) is type(given) and back == given, given
    assert found[-1](2) == (3, 1) and found[14].right is not mixed[14].right
    box, objects = [], np.array([None, {}], object)
    first, second, array = hold([box, box, objects]).open()
    assert first is second and first is not box and array is objects
    append, read = hold([lambda v: box.append(v), lambda: list(box)]).open()
    append(3)
    assert read() == [3] and box == []
