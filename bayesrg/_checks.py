# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments: what was got, what is allowed, what to do.

Values are checked only where they are known, on the host; those that a JAX transformation traces
are checked for shape alone.
"""

import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

ArrayLike = jax.typing.ArrayLike | Sequence
_warned: set[str] = set()


def known(value):
    """Say whether the numbers of ``value`` can be read, that is, no JAX transformation runs."""
    return not isinstance(value, jax.core.Tracer)


def on_host(what, *arguments):
    """Raise where a JAX transformation traces one of ``arguments``; ``what`` names the caller."""
    if not all(known(leaf) for leaf in jax.tree.leaves(arguments)):
        raise ValueError(
            f"{what} runs on the host and cannot be traced, but an argument is traced by jit, grad "
            "or vmap; call it outside the transformed function and pass in what it returns"
        )


def require_x64(what):
    """Raise unless 64-bit floats are on; ``what`` names the caller."""
    if not jax.config.jax_enable_x64:
        raise RuntimeError(
            f"{what} factorises matrices and needs 64-bit floats, which are off; call "
            "numpyro.enable_x64() before the first array is made"
        )


def warn_32_bits(what):
    """Warn once a process that ``what`` runs with 64-bit floats off."""
    if not jax.config.jax_enable_x64 and what not in _warned:
        _warned.add(what)
        warnings.warn(
            f"{what} runs in 32-bit floats and keeps about six digits; call "
            "numpyro.enable_x64() before the first array is made for fifteen",
            RuntimeWarning,
            stacklevel=3,
        )


def finite(name, value, *, ndim=None):
    """Convert ``value`` to a floating-point array; reject NaN, infinities and wrong ranks."""
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and value.ndim not in allowed:
        ranks = " or ".join(str(r) for r in allowed)
        raise ValueError(
            f"{name} must be an array of {ranks} dimension(s), got shape {value.shape}; reshape it"
        )
    if known(value) and not np.isfinite(np.asarray(value)).all():
        bad = np.argwhere(~np.isfinite(np.asarray(value)))[0].tolist()
        raise ValueError(
            f"{name} contains non-finite values, the first at index {bad}; remove or impute them"
        )
    return value


def positive(name, value, *, ndim=None):
    """Convert to an array and require every entry > 0."""
    value = finite(name, value, ndim=ndim)
    if known(value) and not (np.asarray(value) > 0).all():
        raise ValueError(
            f"{name} must be positive, got {np.asarray(value).min()}; give a value above zero"
        )
    return value


def nonnegative(name, value, *, ndim=None):
    """Convert to an array and require every entry >= 0."""
    value = finite(name, value, ndim=ndim)
    if known(value) and not (np.asarray(value) >= 0).all():
        raise ValueError(
            f"{name} must be non-negative, got {np.asarray(value).min()}; give zero or more"
        )
    return value


def inputs(name, X, *, wide=False):
    """Convert inputs to a finite array of shape (n, d); a vector becomes one column.

    With ``wide`` those in 32 bits are widened to 64 where these are on: for what factorises.
    """
    X = finite(name, X, ndim=(1, 2))
    X = X.astype(float) if wide else X
    if X.shape[0] == 0:
        raise ValueError(f"{name} has no rows, shape {X.shape}; give at least one point")
    return X[:, None] if X.ndim == 1 else X


def targets(name, y, n):
    """Convert targets to a finite array of shape (n,) or (n, c)."""
    y = finite(name, y, ndim=(1, 2))
    if y.shape[0] != n:
        raise ValueError(
            f"{name} has shape {y.shape} but the inputs have {n} rows; give one target a row"
        )
    return y


def one_target(X, y):
    """Require inputs X (n, d) and, unless y is None, one target (n,)."""
    X = inputs("X", X)
    if y is not None and targets("y", y, X.shape[0]).ndim != 1:
        raise ValueError(f"y has shape {np.shape(y)}; the model has one output, give ({len(X)},)")


def whole(name, value, *, least=1, most=None):
    """Require an integer from ``least`` to ``most``; NumPy integers count, booleans do not."""
    wrong = isinstance(value, bool) or not isinstance(value, int | np.integer)
    if wrong or value < least or (most is not None and value > most):
        allowed = "a positive integer" if least == 1 else f"an integer of at least {least}"
        allowed = allowed if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name} must be {allowed}, got {value!r}; give a whole number")
    return int(value)


def whole_numbers(name, value):
    """Convert one positive integer, or several, to a tuple of them."""
    one = isinstance(value, bool | int | np.integer)
    if not one and not isinstance(value, tuple | list | np.ndarray):
        raise ValueError(f"{name} must be positive integers, got {value!r}; give a tuple")
    return tuple(whole(f"an entry of {name}", v) for v in ((value,) if one else value))


def choice(name, value, allowed):
    """Require ``value`` to be one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def symmetric(name, K):
    """Convert to a matrix (n, n) in 64 bits, symmetric to 1e-8 of its largest entry or rejected."""
    K = finite(name, K, ndim=2).astype(float)
    if K.shape[0] != K.shape[1] or not K.size:
        raise ValueError(f"{name} has shape {K.shape}; give a square matrix, one row a point")
    if known(K):
        host = np.asarray(K)
        gap = np.abs(host - host.T).max() / max(np.abs(host).max(), np.finfo(host.dtype).tiny)
        if gap > 1e-8:
            raise ValueError(
                f"{name} is not symmetric: entries differ by {gap:.2g} of the largest from those "
                f"across the diagonal; find out why, or give 0.5 * ({name} + {name}.T)"
            )
    return 0.5 * (K + K.T)


def random_key(key):
    """Make a random key of an integer; a key, and one that is traced, is passed through."""
    if isinstance(key, int | np.integer):
        return jax.random.key(key)
    if not isinstance(key, jax.Array):
        raise ValueError(f"key must be an integer or a jax.random.key, got {key!r}")
    return key


def cutoff(value, modes):
    """Require an integer from 0 to ``modes``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(
            f"cutoff must be an integer between 0 and {modes}, got {value!r}; convert it with int()"
        )
    if not 0 <= value <= modes:
        raise ValueError(
            f"cutoff must be an integer between 0 and {modes}, got {value}; keep at most as many "
            "modes as there are"
        )
    return int(value)


def cutoffs(value, modes):
    """Require an integer from 0 to ``modes`` or an array of such; traced ones are trusted."""
    if not known(value):
        return value
    host = np.asarray(value)
    if host.ndim == 0:
        return cutoff(host.item() if isinstance(value, np.ndarray | jax.Array) else value, modes)
    if not np.issubdtype(host.dtype, np.integer):
        raise ValueError(
            f"cutoff must hold integers between 0 and {modes}, got {host.dtype}; use astype(int)"
        )
    if host.size:
        cutoff(host.min(), modes)
        cutoff(host.max(), modes)
    return host


def threshold(value):
    """Require a number strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(
            f"threshold must lie strictly between 0 and 1, got {value}; the usual choice is 0.5"
        )
    return float(value)


def eigenvalues(values, *, falling=True):
    """Check eigenvalues (..., k), non-negative and falling; clip the round-off below zero.

    Raises
    ------
    ValueError
        For an eigenvalue below ``-max(1e-10, k eps) * largest``, or values that do not fall.

    Warns
    -----
    UserWarning
        If values were clipped, or if 32-bit floats cannot resolve the smallest of them.
    """
    values = finite("values", values)
    if values.ndim == 0:
        raise ValueError("values must be an array of shape (k,), got a scalar; give one a mode")
    if not known(values) or values.size == 0:
        return values
    eps = float(jnp.finfo(values.dtype).eps)
    host = np.asarray(values)
    floor = max(1e-10, values.shape[-1] * eps) * np.abs(host).max()
    if (host < -floor).any():
        index = np.argwhere(host < -floor)[0]
        raise ValueError(
            f"values: eigenvalues must be non-negative; index {index.tolist()} is "
            f"{host[tuple(index)]}; check that the kernel is positive semi-definite"
        )
    if falling and (np.diff(host, axis=-1) > floor).any():
        raise ValueError(
            "values must be sorted in falling order; sort them together with their features, "
            "e.g. order = jnp.argsort(-values); values[order], features[:, order]"
        )
    if (host < 0).any():
        warnings.warn(
            f"values: {(host < 0).sum()} eigenvalues are negative by round-off and taken as zero",
            stacklevel=4,
        )
    resolution = values.shape[-1] * 1e-7 * np.abs(host).max()
    if values.dtype == jnp.float32 and ((host > 0) & (host < resolution)).any():
        warnings.warn(
            f"values: {((host > 0) & (host < resolution)).sum()} eigenvalues are below what 32-bit "
            "floats resolve; call numpyro.enable_x64() before the first array is made",
            stacklevel=4,
        )
    return jnp.clip(values, 0.0)
