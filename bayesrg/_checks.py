# SPDX-License-Identifier: Apache-2.0
"""Checks of arguments. A message says which argument is wrong, its value, and what to do.

Each check returns the argument, most of them after conversion, or raises ValueError. ``name`` is
what the message calls the argument. Values that a JAX transformation traces cannot be read; of
these only shapes are checked.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ._kinds import KERNEL as KERNEL
from ._kinds import MOMENTS as MOMENTS
from ._kinds import NET as NET
from ._kinds import PRIOR as PRIOR
from ._kinds import TREE as TREE
from ._kinds import choice as choice
from ._kinds import flag as flag
from ._kinds import function as function
from ._kinds import instance as instance
from ._kinds import optimizer as optimizer
from ._kinds import random_key as random_key
from ._kinds import sequence as sequence
from ._kinds import several as several
from ._numbers import integer, known, numbers, on_device, shown
from ._warnings import warn

ArrayLike = jax.typing.ArrayLike | Sequence
_warned: set[str] = set()
_FEW = 10**6  # arrays up to this size are copied to the host for a check
_LARGEST = 2**63 - 1  # the largest integer of JAX


def on_host(what, *arguments):
    """Raise if a JAX transformation traces one of ``arguments``; ``what`` names the caller."""
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
    """Warn that ``what`` runs in 32-bit floats; only once per process and ``what``."""
    if not jax.config.jax_enable_x64 and what not in _warned:
        _warned.add(what)
        warn(
            f"{what} runs in 32-bit floats and keeps about six digits; call "
            "numpyro.enable_x64() before the first array is made for fifteen",
            RuntimeWarning,
        )


def finite(name, value, *, ndim=None):
    """Return ``value`` as a JAX array of floats; raise if it has nan, infinities or a wrong rank.

    ``ndim`` is the allowed number of axes, or a tuple of them. The value is checked on the host
    before JAX converts it, since JAX would convert some wrong values without an error.
    """
    return _converted(_finite(name, value, ndim))


def positive(name, value, *, ndim=None):
    """Return ``value`` as a JAX array of floats; raise unless all entries are > 0."""
    value = _finite(name, value, ndim)
    if known(value) and (least := np.asarray(value).min(initial=1)) <= 0:
        raise ValueError(f"{name} must be positive, got {least}; give a value above zero")
    return _converted(value)


def nonnegative(name, value, *, ndim=None):
    """Return ``value`` as a JAX array of floats; raise unless all entries are >= 0."""
    value = _finite(name, value, ndim)
    if known(value) and (least := np.asarray(value).min(initial=0)) < 0:
        raise ValueError(f"{name} must be non-negative, got {least}; give zero or more")
    return _converted(value)


def number(name, value, *, above=-np.inf, least=-np.inf, most=np.inf):
    """Return one number as a float; raise unless it is > ``above``, from ``least`` to ``most``."""
    value = _finite(name, value, (0,))
    on_host(f"the function that takes {name}", value)
    if not (value > above and least <= value <= most):
        low = f"above {above}" if above >= least else f"of at least {least}"
        high = "" if most == np.inf else f" and at most {most}"
        raise ValueError(f"{name} must be a number {low}{high}, got {value}")
    return float(value)


def _finite(name, value, ndim):
    """Return finite numbers of an allowed rank, as an array of NumPy or of JAX."""
    value = numbers(name, value)
    shape, allowed = np.shape(value), (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and len(shape) not in allowed:
        ranks = " or ".join(str(r) for r in allowed)
        advice = "give one number" if allowed == (0,) else "reshape it"
        if allowed == (1,) and len(shape) == 2:
            advice = (
                f"give one column, {name}[:, 0], or the labels {name}.argmax(1) of one-hot rows"
            )
        raise ValueError(
            f"{name} must be an array of {ranks} dimension(s), got shape {shape}; {advice}"
        )
    if known(value) and not np.isfinite(np.asarray(value)).all():
        bad = np.argwhere(~np.isfinite(np.asarray(value)))[0].tolist()
        raise ValueError(
            f"{name} contains non-finite values, the first at index {bad}; remove or impute them"
        )
    return value


def _converted(value):
    """Return numbers as a JAX array of floats; the precision of floats is kept."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        value = value.astype(float)
    return on_device(value)


def on_64_bits(name, value, check=finite, **given):
    """Return numbers as a NumPy array of 64-bit floats, whatever the setting of JAX.

    ``check(name, value, **given)`` is called on them first.
    """
    check(name, value, **given)
    return np.asarray(numbers(name, value), float)


def features(name, value):
    """Return features (n, k) as a finite JAX array; raise if products of two entries overflow."""
    return squares(name, finite(name, value, ndim=2))


def squares(name, value):
    """Return an array; raise if the sum of the squares of its entries could overflow."""
    if known(value):
        largest = np.sqrt(np.finfo(value.dtype).max / max(1, value.size))
        if np.abs(np.asarray(value)).max(initial=0.0) > largest:
            raise ValueError(f"{name} has entries whose squares overflow; rescale them")
    return value


def inputs(name, X, *, wide=False):
    """Return inputs as a finite JAX array (n, d); a vector (n,) becomes one column.

    With ``wide``, 32-bit floats become 64-bit floats if JAX allows these. Callers that factorise
    matrices of the inputs ask for it.
    """
    X = finite(name, X, ndim=(1, 2))
    X = X.astype(float) if wide else X
    if X.shape[0] == 0:
        raise ValueError(f"{name} has no rows, shape {X.shape}; give at least one point")
    return X[:, None] if X.ndim == 1 else X


def shaped(name, value, shape, advice):
    """Convert to a finite array of one ``shape``; ``advice`` says where that comes from."""
    value = finite(name, value)
    if value.shape != tuple(shape):
        raise ValueError(f"{name} has shape {value.shape}; give {tuple(shape)}, {advice}")
    return value


def targets(name, y, n):
    """Return targets as a finite JAX array (n,) or (n, c); raise for another number of rows."""
    y = finite(name, y, ndim=(1, 2))
    if y.shape[0] != n:
        raise ValueError(
            f"{name} has shape {y.shape} but the inputs have {n} rows; give one target per row"
        )
    return y


def parameters(name, tree):
    """Return a pytree of numbers, with NumPy arrays and integers as JAX arrays; else raise."""

    def leaf(path, value):
        if getattr(getattr(value, "dtype", None), "kind", "") == "c":
            return value  # a network may be complex
        found = numbers(name + jax.tree_util.keystr(path), value)
        return on_device(found) if isinstance(value, np.ndarray | int) else value

    return jax.tree.map_with_path(leaf, tree)


def matrices(name, value):
    """Return a list of matrices, one per layer, as finite JAX arrays.

    One array (layers, p, q) counts as a list.
    """
    value = list(value) if getattr(value, "ndim", 0) == 3 else value
    entries = enumerate(sequence(name, value, "matrices, one per layer"))
    return [finite(f"{name}[{i}]", W, ndim=2) for i, W in entries]


def columns(name, X, count, of):
    """Return X (n, d); raise unless d is ``count``, the number of columns of ``of``."""
    if X.shape[1] != count:
        raise ValueError(
            f"{name} has {X.shape[1]} columns and {of} {count}; give both the same features"
        )
    return X


def whole(name, value, *, least=1, most=None):
    """Return ``value`` as an int; raise unless it is an integer from ``least`` to ``most``.

    Integers of NumPy count as integers, booleans do not.
    """
    found = integer(value)
    if found is None or not least <= found <= (_LARGEST if most is None else most):
        allowed = "a positive integer" if least == 1 else f"an integer of at least {least}"
        allowed = allowed if most is None else f"an integer from {least} to {most}"
        allowed += " of 64 bits" if found is not None and found > _LARGEST else ""
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}; give a whole number")
    return found


def whole_numbers(name, value):
    """Return one positive integer, or several, as a tuple of int."""
    if integer(value) is not None:
        value = (value,)
    if not isinstance(value, tuple | list) and np.ndim(value) != 1:
        raise ValueError(f"{name} must be positive integers, got {shown(value)}; give a tuple")
    return tuple(whole(f"an entry of {name}", v) for v in value)


def below_limit(rate, limit):
    """Raise unless a learning rate is below the limit of stability."""
    if not rate < limit:
        raise ValueError(
            f"learning rate {rate} exceeds the stability limit {limit:.4g}; lower learning_rate, "
            "or the curvature that is given"
        )


def indices(name, value, size=None):
    """Return one integer, or several, as a tuple of int; with ``size`` from 0 to size - 1."""
    one = integer(value)
    host = np.asarray(numbers(name, value) if one is None else [one])
    if host.ndim != 1 or host.size and host.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be integer indices, got {shown(value)}; use np.flatnonzero of a mask"
        )
    if not host.size:
        raise ValueError(f"{name} is empty; give at least one index")
    if size is not None and (host.min() < 0 or host.max() >= size):
        raise ValueError(f"{name} must be integers from 0 to {size - 1}, got {host.tolist()}")
    return tuple(host.tolist())


def fit(**shapes):
    """Return the shape to which ``shapes`` broadcast; raise if they do not, or if it is empty.

    The keywords are the names in the message.
    """
    got = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    try:
        found = jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(f"shapes do not fit together: {got}; make them broadcast") from None
    if 0 in found:
        raise ValueError(f"one of these is empty: {got}; give it an entry")
    return found


def defined(name, result):
    """Return ``result``; raise if it contains nan, which arguments ``name`` cause by overflow."""
    if not known(result):
        return result
    large = result.size > _FEW  # it may lie on an accelerator: look for nan there
    if jnp.isnan(result).any() if large else np.isnan(np.asarray(result)).any():
        raise ValueError(
            f"{name}: the result is not a number, because an intermediate value overflows or "
            "underflows; rescale it"
        )
    return result


def rows(name, value, size):
    """Return indices (b,) of ``size`` rows as a JAX array; traced ones are not checked."""
    traced = isinstance(value, jax.Array) and not known(value)
    return value if traced else on_device(indices(name, value, size))


def interval(name, value):
    """Return a pair of numbers as two floats; raise unless the first is below the second."""
    pair = np.asarray(_finite(name, value, (1,)))
    if pair.shape != (2,) or not pair[0] < pair[1]:
        raise ValueError(f"{name} must be a pair (low, high), low first, got {shown(value)}")
    return float(pair[0]), float(pair[1])


def returned(name, value):
    """Return ``value``, the result of the user's function ``name``, as a JAX array of reals."""
    return on_device(numbers(f"what {name} returned", value))


def asymmetry(K):
    """Return by how much a matrix differs from its transpose, over its largest entry."""
    host = np.asarray(K)
    return np.abs(host - host.T).max() / max(np.abs(host).max(), np.finfo(host.dtype).tiny)


def symmetric(name, K):
    """Return K (n, n) made exactly symmetric, as a JAX array in its widest floats.

    Raises unless K is square and symmetric to 1e-8 of its largest entry.
    """
    K = finite(name, K, ndim=2).astype(float)
    if K.shape[0] != K.shape[1] or not K.size:
        raise ValueError(f"{name} has shape {K.shape}; give a square matrix, one row per point")
    if not known(K):
        return 0.5 * (K + K.T)
    K = np.asarray(K)
    gap = np.abs(K - K.T).max() / max(np.abs(K).max(), np.finfo(K.dtype).tiny)
    if gap > 1e-8:
        raise ValueError(
            f"{name} is not symmetric: entries differ by {gap:.2g} of the largest from those "
            f"across the diagonal; find out why, or give 0.5 * ({name} + {name}.T)"
        )
    return on_device(0.5 * (K + K.T))


def cutoff(value, modes, name="cutoff"):
    """Return a cutoff as an int; raise unless it is an integer from 0 to ``modes``."""
    found = integer(value)
    if found is None or not 0 <= found <= modes:
        none = "there are no modes to cut; give a spectrum, e.g. spectrum.nystrom(kernel, X_ref)"
        raise ValueError(
            f"{name} must be an integer between 0 and {modes}, got {shown(value)}; "
            f"{'give a number of modes' if modes else none}"
        )
    return found


def cutoffs(value, modes, name="cutoff"):
    """Return one cutoff or an array of them; raise unless they are integers from 0 to ``modes``.

    Traced values are not checked.
    """
    if not known(value):
        return value
    if not isinstance(value, list | tuple) and not getattr(value, "ndim", 0):
        return cutoff(value, modes, name)
    host = np.asarray(numbers(name, value))
    if host.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must hold integers between 0 and {modes}, got {host.dtype}; use astype(int)"
        )
    for extreme in (host.min(), host.max()) if host.size else ():
        cutoff(extreme, modes, name)
    return host


def threshold(value):
    """Return a threshold as a float; raise unless 0 < threshold < 1."""
    value = number("threshold", value)
    if not 0 < value < 1:
        advice = "the usual choice is 0.5"
        raise ValueError(f"threshold must lie strictly between 0 and 1, got {value}; {advice}")
    return value


def eigenvalues(values, *, falling=True):
    """Return eigenvalues (..., k) as a JAX array, with small negative ones set to zero.

    Raises
    ------
    ValueError
        If an eigenvalue is below ``-max(1e-10, k eps) * largest``, too negative for a rounding
        error; or, with ``falling``, if they are not sorted with the largest first.

    Warns
    -----
    UserWarning
        If eigenvalues were set to zero, or if 32-bit floats cannot resolve the smallest.
    """
    values = finite("values", values)
    if values.ndim == 0:
        raise ValueError("values must be an array of shape (k,), got a scalar; give one per mode")
    if not known(values) or values.size == 0:
        return values

    eps = float(jnp.finfo(values.dtype).eps)
    host, k = np.asarray(values), values.shape[-1]
    largest = np.abs(host).max()
    floor = max(1e-10, k * eps) * largest
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
    small = ((host > 0) & (host < k * 1e-7 * largest)).sum()
    if values.dtype == jnp.float32 and small:
        warn(
            f"values: {small} eigenvalues are below what 32-bit floats resolve; call "
            "numpyro.enable_x64() before the first array is made"
        )
    negative = (host < 0).sum()
    if not negative:
        return values
    warn(f"values: {negative} eigenvalues are negative by rounding and are set to zero")
    return on_device(host.clip(0.0))
