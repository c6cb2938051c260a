# SPDX-License-Identifier: Apache-2.0
"""Convert numbers that a user gives to real arrays, with a clear message if that fails.

JAX would drop the imaginary part of complex numbers and ignore masks. Its messages for dates, text
and objects are hard to understand. So values are checked on the host before JAX converts them.
"""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def known(value):
    """Return whether numbers can be read from ``value``: True unless JAX traces it."""
    return not isinstance(value, jax.core.Tracer)


# what a message says about a kind of NumPy dtype
_WORDS = {
    "c": "is complex, its imaginary part would be lost; give {0}.real, or both parts as columns",
    "M": "holds dates; give numbers, e.g. ({0} - {0}[0]) / np.timedelta64(1, 'D')",
    "m": "holds time differences; give numbers, e.g. {0} / np.timedelta64(1, 's')",
    "U": "holds text; give numbers: {0}.astype(float), or one column for each category",
}


def shown(value):
    """Return a short text for a value: type and shape of arrays, the type of objects, else repr."""
    if isinstance(value, np.ndarray | jax.Array) and not (known(value) and value.size == 1):
        kind = f"{value.dtype} array" if known(value) else f"traced {value.dtype} array"
        return f"a {kind} of shape {value.shape}"
    plain = str | int | float | complex | Sequence | np.generic | np.ndarray | jax.Array | None
    if callable(value) or not isinstance(value, plain):
        return f"a {type(value).__name__}"
    value = value.item() if isinstance(value, np.generic) else value
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:77]}..."


def numbers(name, value):
    """Return ``value`` as real numbers: a JAX array if it was one, a float, or a NumPy array.

    Types of real numbers that JAX does not have (big-endian, long double, objects such as
    `Fraction`) are converted. Raises ValueError for all else; the message calls the value ``name``.
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {value!r}; write 1.0 or 0.0 if it is one")
    if isinstance(value, str | bytes):
        raise ValueError(f"{name} must be a number or an array of them, got {shown(value)}")
    if isinstance(value, float | int) and not isinstance(value, np.generic):
        try:
            return float(value)  # JAX gives it the precision of the array beside it
        except OverflowError:
            text = shown(value)
            raise ValueError(f"{name} is {text}, too large for a float; rescale it") from None
    if isinstance(value, list | tuple) and not all(map(known, jax.tree.leaves(value))):
        value = _stacked(name, value)

    # from here on traced values are JAX arrays
    if isinstance(value, jax.Array):
        return _real(name, value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(value)} masked entries; remove "
            "their rows or impute them, then give a plain array"
        )

    try:
        host = np.asarray(value)
    except Exception as error:  # each kind of container raises its own
        reason = f"cannot be read as an array, got {shown(value)}"
        if "inhomogeneous" in str(error):
            reason = "is ragged: its rows differ in length"
        raise ValueError(f"{name} {reason}; give one array of numbers") from None
    return _real(name, _of_objects(name, host) if host.dtype == object else host)


def _stacked(name, rows):
    """Return a list of rows, some of which are traced, as one JAX array."""
    rows = [numbers(f"an entry of {name}", row) for row in rows]
    if len({np.shape(row) for row in rows}) > 1:
        raise ValueError(f"{name} is ragged: its rows differ in shape; give one array of numbers")
    return jnp.stack([jnp.asarray(row) for row in rows])


def _of_objects(name, host):
    """Return an array of Python objects as integers or floats; raise if one is no real number."""
    for index, value in np.ndenumerate(host):
        text = isinstance(value, str | bytes)  # float() would convert it
        if text or not hasattr(value, "__float__") and not hasattr(value, "__index__"):
            where = f"an object at index {list(index)}: " if index else ""
            raise ValueError(
                f"{name} must hold real numbers, got {where}{shown(value)}; give an array of them"
            )
    try:
        if all(isinstance(value, int) and abs(value) < 2**63 for value in host.flat):
            return host.astype(np.int64)
        return np.array([float(value) for value in host.flat]).reshape(host.shape)
    except OverflowError:
        raise ValueError(f"{name} holds numbers too large for a float; rescale them") from None
    except Exception:  # whatever the conversion of the objects raises
        raise ValueError(f"{name} must hold real numbers; give an array of them") from None


def _real(name, value):
    """Return an array of real numbers in the byte order of the machine and at most 64 bits."""
    dtype = value.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        raise ValueError(f"{name} must hold real numbers, got a random key; give an array of them")
    if dtype.kind == "b" and not value.ndim:
        raise ValueError(f"{name} must be a number, got {value}; write 1.0 or 0.0 if it is one")
    narrow = dtype.kind == "V" and jnp.issubdtype(dtype, np.floating)  # bfloat16 and others
    if dtype.kind in "biuf" or narrow:
        if dtype.itemsize > 8 or not dtype.isnative:
            wide = "f8" if dtype.itemsize > 8 else dtype.newbyteorder("=")
            with np.errstate(over="ignore"):  # too large becomes infinite, and raises later
                return value.astype(wide)
        return value
    kind = {"S": "U", "T": "U"}.get(dtype.kind, dtype.kind)
    words = _WORDS.get(kind, "must hold real numbers; give an array of them").format(name)
    raise ValueError(f"{name} {words} (got {dtype} of shape {value.shape})")


def on_device(value):
    """Move numbers to JAX, in their own precision.

    JAX compiles one program for each shape of a NumPy array whose dtype it is not told.
    """
    if isinstance(value, np.ndarray):
        return jnp.asarray(value, dtype=jax.dtypes.canonicalize_dtype(value.dtype))
    return jnp.asarray(value)


def integer(value):
    """Return an integer of Python, NumPy or a 0-d array as an int; None for anything else."""
    dtype = getattr(value, "dtype", np.dtype(int))
    if isinstance(value, bool) or not jnp.issubdtype(dtype, np.integer):
        return None
    try:
        return operator.index(value)
    except TypeError:  # floats, strings, longer arrays, traced values
        return None
