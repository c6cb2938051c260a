# SPDX-License-Identifier: Apache-2.0
"""Kernels and partial Jacobians of finite networks, from their apply function."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree

from .. import _checks
from .._checks import ArrayLike
from .base import two_inputs
from .network import BLOCK_BYTES
from .tiles import tiled

__all__ = ["empirical_apjn", "empirical_nngp", "empirical_ntk", "relative_distance"]


def empirical_nngp(
    apply: Callable, params: PyTree, X: ArrayLike, Z: ArrayLike | None = None
) -> Float[Array, "n m"]:
    """Average products of a network's outputs, f(x) f(z) over the c outputs.

    Parameters
    ----------
    apply : callable (params, X (n, d)) -> (n,) or (n, c)
    params : pytree
    X : (n, d)
    Z : (m, d), optional

    Returns
    -------
    (n, m)
        With independent random read-outs, its mean over them is the `NNGP` at infinite width.
    """
    X, Z = two_inputs(X, Z)
    _checks.function("apply", apply)
    params = _checks.parameters("params", params)
    left = _outputs(apply, params, X)
    right = left if Z is None else _outputs(apply, params, Z)
    return left @ right.T / left.shape[1]


def empirical_ntk(
    apply: Callable,
    params: PyTree,
    X: ArrayLike,
    Z: ArrayLike | None = None,
    *,
    block_bytes: int = BLOCK_BYTES,
) -> Float[Array, "n m"]:
    r"""Tangent kernel of a network, averaged over its outputs: :math:`J(x) J(z)^T/c`.

    Parameters
    ----------
    apply : callable (params, X (n, d)) -> (n,) or (n, c)
        It must act on every row alone. Define it once: a new lambda a call compiles anew.
    params : pytree
        Arrays that count as trained; close over others.
    X : (n, d)
    Z : (m, d), optional
    block_bytes : int
        Memory for Jacobians: those of as many rows as fit, at least one, are held at once.

    Returns
    -------
    (n, m)

    Notes
    -----
    A tile of rows and columns computes its Jacobians anew, so that the time is that of about
    n / block rows passes of the whole Jacobian, and no (n, parameters) array exists.
    """
    X, Z = two_inputs(X, Z)
    _checks.whole("block_bytes", block_bytes)
    _checks.function("apply", apply)
    params = jax.tree.map_with_path(_trained, params)
    outputs = jax.eval_shape(lambda p, x: _outputs(apply, p, x), params, X[:1]).shape[1]
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"params has no arrays, got {params!r}; give those that count as trained")
    row = outputs * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    return _ntk(apply, params, X, Z, max(1, block_bytes // (3 * row)))


@partial(jax.jit, static_argnames=("apply", "size"))
def _ntk(apply, params, X, Z, size):
    def row(x):
        outputs, back = jax.vjp(lambda p: _outputs(apply, p, x[None])[0], params)
        return jax.vmap(back)(jnp.eye(outputs.size, dtype=outputs.dtype))[0]

    def pairs(X, Z):
        left, right = (jax.tree.leaves(jax.vmap(row)(points)) for points in (X, Z))
        flat = [v.reshape(*v.shape[:2], -1) for v in (*left, *right)]
        half = len(left)
        total = sum(
            jnp.einsum("icp,jcp->ij", a, b) for a, b in zip(flat[:half], flat[half:], strict=True)
        )
        return total / flat[0].shape[1]

    return tiled(pairs, X, X if Z is None else Z, size, symmetric=Z is None)


def relative_distance(K: ArrayLike, reference: ArrayLike, norm: str = "fro") -> Float[Array, ""]:
    """Measure how far a kernel is from another, in units of that other's size.

    Parameters
    ----------
    K, reference : (n, m)
    norm : "fro" or "spectral"

    Returns
    -------
    ()
    """
    K, reference = _checks.finite("K", K, ndim=2), _checks.finite("reference", reference, ndim=2)
    if K.shape != reference.shape:
        raise ValueError(
            f"K has shape {K.shape} and reference {reference.shape}; evaluate both at the same "
            "inputs"
        )
    order = {"fro": "fro", "spectral": 2}[_checks.choice("norm", norm, ("fro", "spectral"))]
    return jnp.linalg.norm(K - reference, order) / jnp.linalg.norm(reference, order)


def empirical_apjn(
    apply: Callable,
    params: PyTree,
    X: ArrayLike,
    start: int,
    stop: int,
    *,
    key: Array | int,
    probes: int = 16,
) -> Float[Array, " point"]:
    r"""Estimate a network's partial Jacobian norm :math:`\|dh^{stop}/dh^{start}\|_F^2/N_{stop}`.

    Parameters
    ----------
    apply : callable (params, h, start, stop) -> pre-activations (n, N_stop)
        Takes pre-activations of layer ``start`` (n, N_start) to those of ``stop``, row by row;
        those of layer 0 are the inputs. Define it once: a new lambda a call compiles anew.
    params : pytree
    X : (n, d)
    start, stop : int
        Layers, 0 <= start <= stop.
    key : JAX key, or int
    probes : int
        Random signs that Hutchinson's estimate averages over, one backward pass each.

    Returns
    -------
    (n,)
        One unbiased estimate a row, all with the same random signs; their mean over rows and
        networks is J of `jacobian_flow`.

    References
    ----------
    arXiv 2111.12143.
    """
    X = _checks.inputs("X", X)
    _checks.whole("probes", probes)
    key = _checks.random_key(key)
    _checks.function("apply", apply)
    params = _checks.parameters("params", params)
    start, stop = (_checks.whole(n, v, least=0) for n, v in (("start", start), ("stop", stop)))
    if start > stop:
        raise ValueError(f"layers are {start} and {stop}; give 0 <= start <= stop")
    return _apjn(apply, params, X, start, stop, jax.random.split(key, probes))


@partial(jax.jit, static_argnames=("apply", "start", "stop"))
def _apjn(apply, params, X, start, stop, keys):
    h = _checks.returned("apply", apply(params, X, 0, start))
    out, back = jax.vjp(lambda h: _checks.returned("apply", apply(params, h, start, stop)), h)
    if out.ndim != 2 or out.shape[0] != X.shape[0]:
        raise ValueError(
            f"apply returned shape {out.shape} for inputs of shape {X.shape}; return (n, N_stop)"
        )

    def one(key):
        signs = jax.random.rademacher(key, out.shape, out.dtype)
        return (back(signs)[0] ** 2).sum(-1) / out.shape[1]

    return jax.lax.map(one, keys).mean(0)


def _outputs(apply, params, X):
    """Outputs as (n, c)."""
    f = _checks.returned("apply", apply(params, X))
    if f.ndim not in (1, 2) or f.shape[0] != X.shape[0]:
        raise ValueError(
            f"apply returned shape {f.shape} for inputs of shape {X.shape}; return (n,) or (n, c)"
        )
    return f[:, None] if f.ndim == 1 else f


def _trained(path, leaf):
    """Convert a leaf of the parameters to an array of floats."""
    try:
        leaf = jnp.asarray(_checks.numbers("leaf", leaf))
    except ValueError:
        leaf = None
    if leaf is None or not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise ValueError(
            f"params{jax.tree_util.keystr(path)} is no array of floating-point numbers; close over "
            "what is not trained"
        )
    return leaf
