# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments that are not numbers: objects, functions, flags, choices and keys."""

import jax
import jax.numpy as jnp
import numpy as np

from ._numbers import integer, known, shown

KERNEL = "a Kernel; bayesrg.kernels has them, and adapt makes one from a function"
PRIOR = "a Kernel or a Spectrum; see bayesrg.kernels and bayesrg.spectrum"
MOMENTS = "moments, which theory.moments, population_moments or spectral_moments make"
NET = "a networks.DeepLinear; make one of widths and a ridge"
TREE = "a DataTree, such as bayesrg.fit returns"


def sequence(name, value, what="one entry per layer"):
    """Require a list or tuple; ``what`` says of what."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list of {what}, got {shown(value)}")
    return value


def several(name, value, what):
    """Require a tuple or list with the entries that ``what`` lists."""
    if not isinstance(value, list | tuple) or len(value) != 1 + what.count(","):
        raise ValueError(f"{name} must be ({what}), got {shown(value)}")
    return value


def optimizer(name, value):
    """Require what optax calls a gradient transformation."""
    if not hasattr(value, "init") or not hasattr(value, "update"):
        raise ValueError(f"{name} must be one of optax, got {shown(value)}; e.g. optax.adam(1e-3)")
    return value


def choice(name, value, allowed):
    """Require ``value`` to be one of ``allowed``."""
    if not any(value is a or (isinstance(value, type(a)) and value == a) for a in allowed):
        options = ", ".join(map(repr, allowed))
        raise ValueError(f"{name} must be one of {options}, got {shown(value)}")
    return value


def flag(name, value):
    """Require a boolean, of Python or NumPy."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def function(name, value, what="a function"):
    """Require a callable; ``what`` says of which kind."""
    if not callable(value):
        raise ValueError(f"{name} must be {what}, got {shown(value)}; give a callable")
    return value


def instance(name, value, kinds, what):
    """Require an object of one of ``kinds``; ``what`` says which, and how to make one."""
    if not isinstance(value, kinds):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return value


def random_key(key):
    """Make one random key of an integer or a legacy key; a typed one is passed through."""
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.ndim:
            raise ValueError(f"key holds keys of shape {key.shape}; give one, or use jax.vmap")
        return key
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
