# SPDX-License-Identifier: Apache-2.0
"""Arguments pass one door: numbers of every kind come in, and what is none is told so."""

import datetime
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayesrg import _checks, gp, kernels, spectrum
from bayesrg.inference.sites import bind
from bayesrg.plots import _curves

ONE = np.array([1.0, 2.0])
TAKEN = {
    "list": [1.0, 2.0], "integers": [1, 2], "tuple": (1, 2), "big-endian": ONE.astype(">f8"),
    "big-endian integers": ONE.astype(">i4"), "long double": ONE.astype(np.longdouble),
    "objects": np.array([1, 2.0], object), "fractions": [Fraction(1), Fraction(2)],
    "huge integers": np.array([1, 2], object), "unsigned": ONE.astype(np.uint8),
    "half": ONE.astype(np.float16), "bfloat16": ONE.astype(jnp.bfloat16),
    "single": ONE.astype(np.float32), "series": pd.Series([1, 2], dtype="Int64"),
    "xarray": xr.DataArray(ONE), "unmasked": np.ma.masked_array(ONE, [False, False]),
    "scalars of JAX": [jnp.asarray(1.0), 2], "reversed": ONE[::-1][::-1],
}  # fmt: skip
REFUSED = {
    "complex": (ONE + 0j, "imaginary part would be lost"),
    "complex of JAX": (jnp.asarray(ONE + 0j), "imaginary part would be lost"),
    "a complex number": (1j, "imaginary part would be lost"),
    "masked": (np.ma.masked_array(ONE, [True, False]), "1 masked entries"),
    "dates": (np.array(["2026-01-01"], "M8[D]"), "holds dates"),
    "a date": (datetime.date(2026, 1, 1), "got a date"),
    "differences": (np.array([1], "m8[s]"), "time differences"),
    "text": (["1", "2"], "holds text"),
    "bytes": (np.array([b"1"]), "holds text"),
    "categories": (pd.Series(["a", "b"], dtype="category"), "got an object at index.*'a'"),
    "missing": (pd.Series([1, None], dtype="Int64"), "non-finite"),
    "ragged": ([[1.0], [1.0, 2.0]], "is ragged"),
    "None": (None, "got None"),
    "a dict": ({"a": 1.0}, "got a dict"),
    "a function": (np.sin, "got a ufunc"),
    "a key": (jax.random.key(0), "random key"),
    "a boolean": (True, "got True"),
    "overflow": (10**400, "too large for a float"),
    "overflow in a list": ([10**400], "too large for a float"),
    "too long a double": (np.longdouble("1e400"), "non-finite"),
    "records": (np.zeros(2, [("a", float)]), "real numbers"),
    "nan": ([1.0, np.nan], "first at index"),
}


@pytest.mark.parametrize("value", TAKEN.values(), ids=TAKEN)
def test_every_kind_of_numbers_comes_in(value):
    found = _checks.finite("X", value, ndim=1)
    assert jnp.issubdtype(found.dtype, jnp.floating)
    np.testing.assert_array_equal(np.asarray(found, float), ONE)


@pytest.mark.parametrize("value, words", REFUSED.values(), ids=REFUSED)
def test_what_is_no_real_number_is_told_so(value, words):
    with pytest.raises(ValueError, match=words) as refused:
        _checks.finite("X", value)
    assert str(refused.value).startswith("X ") and refused.value.__cause__ is None


def test_traced_numbers_are_checked_for_dtype_and_rank():
    jax.make_jaxpr(lambda x: _checks.positive("x", x))(1.0)
    jax.make_jaxpr(lambda x: _checks.inputs("X", [x, [1, 2]]))(ONE)
    with pytest.raises(ValueError, match="imaginary"):
        jax.make_jaxpr(lambda x: _checks.finite("x", x))(1j)
    with pytest.raises(ValueError, match="ragged"):
        jax.make_jaxpr(lambda x: _checks.finite("x", [x, [1.0]]))(ONE)
    with pytest.raises(ValueError, match=r"one column, y\[:, 0\].*argmax"):
        _checks.finite("y", np.eye(3), ndim=1)


@pytest.mark.parametrize("value", [3, np.int8(3), np.array(3), jnp.asarray(3), np.uint64(3)])
def test_counts_are_integers_of_any_kind(value):
    assert _checks.whole("n", value) == _checks.cutoff(value, 3) == _checks.cutoffs(value, 3) == 3
    assert _checks.whole_numbers("n", value) == _checks.whole_numbers("n", [value]) == (3,)
    assert jnp.array_equal(
        jax.random.key_data(_checks.random_key(value)), jax.random.key_data(jax.random.key(3))
    )


WRONG = [True, np.True_, 3.0, "3", None, [3], np.array([3]), 1j, {}, np.array(3.0), 10**30,
         np.array(True)]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_counts_refuse_all_else(value):
    for check in (
        lambda: _checks.whole("n", value, most=100),
        lambda: _checks.cutoff(value, 3),
        lambda: _checks.random_key(value),
        lambda: _checks.choice("n", value, ("a", None) if value is not None else ("a",)),
        lambda: _checks.threshold(value),
        lambda: _checks.instance("n", value, jax.Array, "an array"),
        lambda: _checks.function("n", value),
    ):
        with pytest.raises(ValueError, match="must|is complex"):
            check()


def test_keys_of_either_make_are_taken_one_at_a_time():
    for key in (jax.random.key(2), jax.random.PRNGKey(2), np.asarray(jax.random.PRNGKey(2))):
        assert jax.random.key_data(_checks.random_key(key)).tolist() == [0, 2]
    jax.make_jaxpr(lambda seed: jax.random.key_data(_checks.random_key(seed)))(1)
    for keys in (jax.random.split(jax.random.key(0)), np.zeros(3, np.uint32), jnp.zeros(2)):
        with pytest.raises(ValueError, match="key "):
            _checks.random_key(keys)
    assert _checks.flag("noise", np.True_) is True
    with pytest.raises(ValueError, match="noise must be True or False, got 'no'"):
        _checks.flag("noise", "no")
    with pytest.raises(ValueError, match="no modes to cut"):
        _checks.cutoff(1, 0)
    assert _checks.cutoffs([1, 2], 2).tolist() == [1, 2]


def test_common_slips_are_told_in_the_users_words(monkeypatch):
    X, K = np.linspace(0.0, 1.0, 8).reshape(4, 2), kernels.RBF(1.0)
    slips = {
        "mixes the elements of its input": lambda: kernels.NNGP(1, jax.nn.softmax),
        "no modes to cut; give a spectrum": lambda: gp.marginal(K, X, 0.1).split(1),
        r"give one column, y\[:, 0\], or the labels": lambda: spectrum.nystrom(K, X).power(
            np.eye(4), X
        ),
        "Z has 3 columns and the training inputs 2": lambda: gp.condition(K, X, X[:, 0], 0.1).mean(
            np.ones((1, 3))
        ),
        "no hyper-argument 'a'; it takes none": lambda: bind(lambda X, y=None: None, {"a": 1}),
        r"pip install 'bayesrg\[plotly\]'": lambda: _curves.backend_of("plotly"),
    }
    monkeypatch.setattr(_curves, "find_spec", lambda name: None)
    for words, slip in slips.items():
        with pytest.raises(ValueError, match=words):
            slip()
