# SPDX-License-Identifier: Apache-2.0
"""Read numbers of users on the host, before JAX sees them: real arrays, or a clear error."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def known(value):
    """Say whether the numbers of ``value`` can be read: no JAX transformation traces it."""
    return not isinstance(value, jax.core.Tracer)


_WORDS = {
    "c": "is complex, its imaginary part would be lost; give {0}.real, or both parts as columns",
    "M": "holds dates; give numbers, e.g. ({0} - {0}[0]) / np.timedelta64(1, 'D')",
    "m": "holds time differences; give numbers, e.g. {0} / np.timedelta64(1, 's')",
    "U": "holds text; give numbers: {0}.astype(float), or one column for each category",
}


def shown(value):
    """Describe a value on one short line: arrays by type and shape, the rest as it prints."""
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
    """Convert to an array of real numbers: JAX arrays stay so, others become NumPy arrays.

    JAX would drop the imaginary part of complex numbers and ignore masks, and its errors on dates,
    text and objects say little. Real numbers that JAX lacks (big-endian, long double, objects such
    as `Fraction`) are converted to those that it has.
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {value!r}; write 1.0 or 0.0 if it is one")
    if isinstance(value, str | bytes):
        raise ValueError(f"{name} must be a number or an array of them, got {shown(value)}")
    if isinstance(value, float | int) and not isinstance(value, np.generic):
        return _python_number(name, value)
    if isinstance(value, list | tuple) and not all(map(known, jax.tree.leaves(value))):
        value = _stacked(name, value)

    # values that are traced are JAX arrays from here on
    if isinstance(value, jax.Array):
        return _real(name, value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(value)} masked entries; remove "
            "their rows or impute them, then give a plain array"
        )
    try:
        host = np.asarray(value)
    except Exception as error:  # each container has its own errors
        reason = f"cannot be read as an array, got {shown(value)}"
        if "inhomogeneous" in str(error):
            reason = "is ragged: its rows differ in length"
        raise ValueError(f"{name} {reason}; give one array of numbers") from None
    return _real(name, _of_objects(name, host) if host.dtype == object else host)


def _python_number(name, value):
    """Convert a Python number to a float, to which JAX gives the precision of arrays it meets."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is {shown(value)}, too large for a float; rescale it") from None


def _stacked(name, rows):
    """Stack rows, some of which are traced."""
    rows = [numbers(f"an entry of {name}", row) for row in rows]
    if len({np.shape(row) for row in rows}) > 1:
        raise ValueError(f"{name} is ragged: its rows differ in shape; give one array of numbers")
    return jnp.stack([jnp.asarray(row) for row in rows])


def _of_objects(name, host):
    """Convert an array of Python objects, each of which is a real number, to floats."""
    for index, value in np.ndenumerate(host):
        text = isinstance(value, str | bytes)  # float() would read it
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
    except Exception:  # whatever the objects' own conversion says
        raise ValueError(f"{name} must hold real numbers; give an array of them") from None


def _real(name, value):
    """Require the dtype of real numbers, in the machine's own byte order and JAX's precision."""
    dtype = value.dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        raise ValueError(f"{name} must hold real numbers, got a random key; give an array of them")
    if dtype.kind == "b" and not value.ndim:
        raise ValueError(f"{name} must be a number, got {value}; write 1.0 or 0.0 if it is one")
    narrow = dtype.kind == "V" and jnp.issubdtype(dtype, np.floating)  # bfloat16 and others
    if dtype.kind in "biuf" or narrow:
        if dtype.itemsize > 8 or not dtype.isnative:
            wide = "f8" if dtype.itemsize > 8 else dtype.newbyteorder("=")
            with np.errstate(over="ignore"):  # it becomes infinite, and is refused later
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
    """Read one integer of Python, NumPy or a 0-d array as an int; None if it is not one."""
    dtype = getattr(value, "dtype", np.dtype(int))
    if isinstance(value, bool) or not jnp.issubdtype(dtype, np.integer):
        return None
    try:
        return operator.index(value)
    except TypeError:  # floats, strings, longer arrays, traced values
        return None
