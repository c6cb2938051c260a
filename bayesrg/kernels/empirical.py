# SPDX-License-Identifier: Apache-2.0
"""Kernels and partial Jacobians of finite networks, from their apply function."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PyTree

from .. import _checks
from .._callables import hold
from .._checks import ArrayLike
from .base import two_inputs
from .tiles import BLOCK_BYTES, tiled

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

    Raises
    ------
    ValueError
        For outputs of another shape, or a network that mixes rows; see `empirical_ntk`.
    """
    X, Z = two_inputs(X, Z)
    _checks.function("apply", apply)
    K, found = _nngp(hold(apply), _checks.parameters("params", params), X, Z)
    require_rows_apart(found)
    return K


@jax.jit
def _nngp(apply, params, X, Z):
    left = _outputs(apply, params, X)
    right = left if Z is None else _outputs(apply, params, Z)
    return left @ right.T / left.shape[1], mixing(apply, params, X)


def empirical_ntk(
    apply: Callable,
    params: PyTree,
    X: ArrayLike,
    Z: ArrayLike | None = None,
    *,
    outputs: str = "mean",
    block_bytes: int = BLOCK_BYTES,
) -> Float[Array, "n m *outputs"]:
    r"""Tangent kernel of a network, by default averaged over its outputs: :math:`J(x) J(z)^T/c`.

    Parameters
    ----------
    apply : callable (params, X (n, d)) -> (n,) or (n, c)
        It must act on each row alone. Arrays that it captured, or that its module holds, are data.
    params : pytree
        Arrays that count as trained; close over others.
    X : (n, d)
    Z : (m, d), optional
    outputs : "mean" or "full"
        Whether to average over outputs, or to give the kernel of each pair of them.
    block_bytes : int
        Memory for Jacobians: those of as many rows as fit, at least one, are held at once.

    Returns
    -------
    (n, m), or with "full" (n, m, c, c)
        Entry (i, j, a, b) is the inner product of the gradients of output a at row i of X and of
        output b at row j of Z.

    Raises
    ------
    ValueError
        For parameters that are not arrays of floats, outputs of another shape, or a network that
        mixes rows, such as batch normalisation in training mode: its outputs on two rows of X
        differ from those on each row alone. Traced values are not checked.

    Notes
    -----
    A tile of rows and columns computes its Jacobians again, so that the time is that of about
    n / block rows passes of the whole Jacobian, and no (n, parameters) array exists.
    """
    X, Z = two_inputs(X, Z)
    _checks.whole("block_bytes", block_bytes)
    _checks.function("apply", apply)
    full = _checks.choice("outputs", outputs, ("mean", "full")) == "full"
    apply, params = hold(apply), jax.tree.map_with_path(_trained, params)
    c = jax.eval_shape(lambda p, x: _outputs(apply, p, x), params, X[:1]).shape[1]
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"params has no arrays, got {params!r}; give those that count as trained")
    row = (1 if full else c) * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    size = max(1, block_bytes // (3 * row))
    K, found = (_full_ntk if full else _ntk)(apply, params, X, Z, size)
    require_rows_apart(found)
    return K


@partial(jax.jit, static_argnames="size")
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

    K = tiled(pairs, X, X if Z is None else Z, size, symmetric=Z is None)
    return K, mixing(apply, params, X)


@partial(jax.jit, static_argnames="size")
def _full_ntk(apply, params, X, Z, size):
    """Kernel (n, m, c, c): a Gram matrix whose points are the pairs of a row and an output."""
    c = jax.eval_shape(lambda p: _outputs(apply, p, X[:1]), params).shape[1]

    def gradient(x, output):
        return jax.grad(lambda p: _outputs(apply, p, x[None])[0] @ output)(params)

    def pairs(left, right):
        left, right = (jax.tree.leaves(jax.vmap(gradient)(*points)) for points in (left, right))
        flat = (
            (a.reshape(len(a), -1), b.reshape(len(b), -1)) for a, b in zip(left, right, strict=True)
        )
        return sum(a @ b.T for a, b in flat)

    def points(X):
        return jnp.repeat(X, c, 0), jnp.tile(jnp.eye(c, dtype=X.dtype), (X.shape[0], 1))

    left = points(X)
    K = tiled(pairs, left, left if Z is None else points(Z), size, symmetric=Z is None)
    K = K.reshape(K.shape[0] // c, c, K.shape[1] // c, c).transpose(0, 2, 1, 3)
    return K, mixing(apply, params, X)


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
    distance = jnp.linalg.norm(K - reference, order) / jnp.linalg.norm(reference, order)
    return _checks.defined("K or reference", distance)


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
        those of layer 0 are the inputs.
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

    Raises
    ------
    ValueError
        For layers out of range, outputs of another shape, or a network that mixes rows; see
        `empirical_ntk`.

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
    norms, found = _apjn(hold(apply), params, X, start, stop, jax.random.split(key, probes))
    require_rows_apart(found)
    return norms


@partial(jax.jit, static_argnames=("start", "stop"))
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

    norms = jax.lax.map(one, keys).mean(0)
    return norms, mixing(lambda p, x: apply(p, x, 0, stop), params, X)


def _outputs(apply, params, X):
    """Outputs as (n, c)."""
    f = _checks.returned("apply", apply(params, X))
    if f.ndim not in (1, 2) or f.shape[0] != X.shape[0]:
        raise ValueError(
            f"apply returned shape {f.shape} for inputs of shape {X.shape}; return (n,) or (n, c)"
        )
    return f[:, None] if f.ndim == 1 else f


def mixing(apply, params, X):
    """Compare outputs of two rows together with those of each alone: largest change and size, (2,).

    The two are the first row of X (n, d) and the one farthest from it.
    """
    far = X[jnp.argmax(((X - X[0]) ** 2).sum(-1))]
    both = jnp.stack([X[0], far + (far == X[0]).all()])
    together = _outputs(apply, params, both)
    alone = jnp.concatenate([_outputs(apply, params, x[None]) for x in both])
    return jnp.stack([jnp.abs(together - alone).max(), jnp.abs(together).max()])


def require_rows_apart(found):
    """Raise where `mixing` found that a function does not act on every row alone."""
    if not _checks.known(found):
        return
    gap, size = np.asarray(found)
    eps = float(jnp.finfo(found.dtype).eps)
    if np.isfinite(size) and not gap <= max(eps**0.25 * size, 1e3 * eps):
        raise ValueError(
            f"apply mixes rows: outputs of size {size:.3g} on two rows together differ by "
            f"{gap:.3g} from those on each row alone, but kernels take rows one by one; "
            "evaluate batch normalisation in inference mode, its statistics fixed, and leave "
            "dropout out"
        )


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
