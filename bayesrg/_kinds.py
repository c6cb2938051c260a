# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments that are not numbers: objects, functions, flags, choices and keys."""

import difflib

import jax
import jax.numpy as jnp
import numpy as np

from ._numbers import integer, known, shown

# what a message says that an argument must be
KERNEL = "a Kernel (take one of bayesrg.kernels, or make one of a function with kernels.adapt)"
PRIOR = "a Kernel or a Spectrum (see bayesrg.kernels and bayesrg.spectrum)"
MOMENTS = "moments, made by theory.moments, population_moments or spectral_moments"
NET = "a networks.DeepLinear, made of widths and a ridge"
TREE = "a DataTree, such as bayesrg.fit returns"


def sequence(name, value, what="one entry per layer"):
    """Return ``value``; raise unless it is a list or tuple. ``what`` describes the entries."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list of {what}, got {shown(value)}")
    return value


def several(name, value, what):
    """Return ``value``; raise unless it is a list or tuple of the entries named in ``what``."""
    # ``what`` is a list of names with commas: their number is that of the entries
    if not isinstance(value, list | tuple) or len(value) != 1 + what.count(","):
        raise ValueError(f"{name} must be ({what}), got {shown(value)}")
    return value


def optimizer(name, value):
    """Return ``value``; raise unless it is an optimiser of optax (has ``init`` and ``update``)."""
    if not hasattr(value, "init") or not hasattr(value, "update"):
        raise ValueError(
            f"{name} must be an optimiser of optax, got {shown(value)}; e.g. optax.adam(1e-3)"
        )
    return value


def choice(name, value, allowed):
    """Return ``value``; raise unless it is one of ``allowed``. The message has the nearest name."""
    # types are compared as well, since 1 == True
    if not any(value is a or (isinstance(value, type(a)) and value == a) for a in allowed):
        options = ", ".join(map(repr, allowed))
        hint = near(value, allowed)
        raise ValueError(f"{name} must be one of {options}, got {shown(value)}{hint}")
    return value


def near(value, allowed):
    """Return the end of a message: a question with the name in ``allowed`` nearest to ``value``."""
    names = [a for a in allowed if isinstance(a, str)]
    found = difflib.get_close_matches(value.lower(), names, 1) if isinstance(value, str) else []
    return f"; did you mean {found[0]!r}?" if found else ""


def flag(name, value):
    """Return ``value`` as a bool; raise unless it is a boolean of Python or NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def function(name, value, what="a function"):
    """Return ``value``; raise unless it is callable. ``what`` describes the function."""
    if not callable(value):
        raise ValueError(f"{name} must be {what}, got {shown(value)}; give a callable")
    return value


def instance(name, value, kinds, what):
    """Return ``value``; raise unless it is an instance of ``kinds``.

    ``what`` describes the kinds, and how to make such an object.
    """
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value


def random_key(key):
    """Return one typed random key, from a typed key, an integer or a legacy key of JAX."""
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key holds keys of shape {key.shape}; give one, or use jax.vmap")
        return key

    # legacy keys are arrays of 32-bit words
    if isinstance(key, np.ndarray | jax.Array) and key.dtype == np.uint32 and key.ndim == 1:
        if key.shape == jax.eval_shape(jax.random.key_data, jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))

    traced = isinstance(key, jax.Array) and not known(key) and not key.ndim
    if traced and jnp.issubdtype(key.dtype, np.integer):
        return jax.random.key(key)
    seed = integer(key)
    if seed is None or not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"key must be an integer (of 64 bits) or a jax.random.key, got {shown(key)}"
        )
    return jax.random.key(seed)
