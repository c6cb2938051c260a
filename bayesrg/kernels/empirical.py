# SPDX-License-Identifier: Apache-2.0
"""Kernels and partial Jacobians of a given finite network, from the function that applies it."""

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
    """Return the mean over a network's c outputs of the products f(x) f(z).

    Parameters
    ----------
    apply : callable (params, X (n, d)) -> (n,) or (n, c)
        The network. It must act on each row alone.
    params : pytree
        Its parameters.
    X : (n, d)
    Z : (m, d), optional
        By default X.

    Returns
    -------
    (n, m)
        At infinite width and with independent random read-out weights, the mean over these weights
        is the `NNGP`.

    Raises
    ------
    ValueError
        If outputs have another shape, or if the outputs on two rows together differ from those on
        each row alone. Traced values are not checked.
    """
    X, Z = two_inputs(X, Z)
    _checks.function("apply", apply)
    K, found = _nngp(hold(apply), _checks.parameters("params", params), X, Z)
    check_rows_apart(found)
    return K


@jax.jit
def _nngp(apply, params, X, Z):
    """Kernel (n, m), and what `mixing` finds."""
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
    r"""Return the tangent kernel of a network, the inner products of its parameter gradients.

    With the Jacobian J(x) (c, p) of the c outputs in the p parameters it is
    :math:`\operatorname{tr} J(x) J(z)^T/c`, or :math:`J(x) J(z)^T` for ``outputs="full"``.

    Parameters
    ----------
    apply : callable (params, X (n, d)) -> (n,) or (n, c)
        The network. It must act on each row alone. Arrays that the function captured, or that its
        module holds, are constants.
    params : pytree
        The parameters that are trained, arrays of floats.
    X : (n, d)
    Z : (m, d), optional
        By default X.
    outputs : "mean" or "full"
        "mean": average over outputs. "full": the kernel of each pair of outputs.
    block_bytes : int
        Memory in bytes for Jacobians. As many rows as fit are computed at once, at least one.

    Returns
    -------
    (n, m), or with "full" (n, m, c, c)
        Entry (i, j, a, b) is the inner product of the gradients of output a at row i of X and of
        output b at row j of Z.

    Raises
    ------
    ValueError
        If parameters are not arrays of floats, if outputs have another shape, or if the outputs on
        two rows together differ from those on each row alone, as with batch normalisation in
        training mode. Traced values are not checked.

    Notes
    -----
    Each tile of the result computes the Jacobians of its rows and columns again. So the array
    (n, parameters) never exists, and with tiles of r rows the time is that of about n / r
    Jacobians of all rows.

    References
    ----------
    arXiv 1806.07572.
    """
    X, Z = two_inputs(X, Z)
    _checks.whole("block_bytes", block_bytes)
    _checks.function("apply", apply)
    full = _checks.choice("outputs", outputs, ("mean", "full")) == "full"
    apply, params = hold(apply), jax.tree.map_with_path(_trained, params)
    leaves = jax.tree.leaves(params)
    if not leaves:
        raise ValueError(f"params has no arrays, got {params!r}; give those that are trained")
    c = jax.eval_shape(lambda p, x: _outputs(apply, p, x), params, X[:1]).shape[1]
    row = (1 if full else c) * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    # Jacobians of a tile's rows and of its columns are alive, and about as much again for work
    size = max(1, block_bytes // (3 * row))
    K, found = (_full_ntk if full else _ntk)(apply, params, X, Z, size)
    check_rows_apart(found)
    return K


@partial(jax.jit, static_argnames="size")
def _ntk(apply, params, X, Z, size):
    """Kernel (n, m), averaged over outputs, in tiles of ``size`` rows; and what `mixing` finds."""

    def row(x):
        """Jacobian at one row, a pytree of (c, ...)."""
        outputs, back = jax.vjp(lambda p: _outputs(apply, p, x[None])[0], params)
        return jax.vmap(back)(jnp.eye(outputs.size, dtype=outputs.dtype))[0]

    def pairs(X, Z):
        # sum the products over leaves, outputs and entries
        left, right = (_flat(jax.vmap(row)(points), 2) for points in (X, Z))
        total = sum(jnp.einsum("icp,jcp->ij", a, b) for a, b in zip(left, right, strict=True))
        return total / left[0].shape[1]

    K = tiled(pairs, X, X if Z is None else Z, size, symmetric=Z is None)
    return K, mixing(apply, params, X)


@partial(jax.jit, static_argnames="size")
def _full_ntk(apply, params, X, Z, size):
    """Kernel (n, m, c, c) in tiles: a Gram matrix whose points are pairs of a row and an output."""
    c = jax.eval_shape(lambda p: _outputs(apply, p, X[:1]), params).shape[1]

    def gradient(x, output):
        return jax.grad(lambda p: _outputs(apply, p, x[None])[0] @ output)(params)

    def pairs(left, right):
        left, right = (_flat(jax.vmap(gradient)(*points), 1) for points in (left, right))
        return sum(a @ b.T for a, b in zip(left, right, strict=True))

    def points(X):
        return jnp.repeat(X, c, 0), jnp.tile(jnp.eye(c, dtype=X.dtype), (X.shape[0], 1))

    left = points(X)
    K = tiled(pairs, left, left if Z is None else points(Z), size, symmetric=Z is None)
    K = K.reshape(K.shape[0] // c, c, K.shape[1] // c, c).transpose(0, 2, 1, 3)
    return K, mixing(apply, params, X)


def _flat(tree, lead):
    """Leaves of a pytree, with all axes after the first ``lead`` joined into one."""
    return [v.reshape(*v.shape[:lead], -1) for v in jax.tree.leaves(tree)]


def relative_distance(K: ArrayLike, reference: ArrayLike) -> Float[Array, ""]:
    """Return the Frobenius norm of ``K - reference`` divided by that of ``reference``.

    Both are Gram matrices (n, m) at the same inputs; the result is ().
    """
    reference = _checks.finite("reference", reference, ndim=2)
    K = _checks.shaped("K", K, reference.shape, "the shape of reference: use the same inputs")
    distance = jnp.linalg.norm(K - reference) / jnp.linalg.norm(reference)
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
        Maps pre-activations of layer ``start`` (n, N_start) to those of layer ``stop``, each row
        alone. The pre-activations of layer 0 are the inputs.
    params : pytree
        Parameters of the network.
    X : (n, d)
    start, stop : int
        Layers, 0 <= start <= stop.
    key : JAX key, or int
    probes : int
        Number of vectors of random signs in Hutchinson's estimate, one backward pass each.

    Returns
    -------
    (n,)
        One unbiased estimate per row; all rows use the same random signs. The mean over rows and
        over random networks estimates J of `jacobian_flow`.

    Raises
    ------
    ValueError
        If layers are out of range, if outputs have another shape, or if the outputs on two rows
        together differ from those on each row alone.

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
        raise ValueError(f"start is {start} and stop is {stop}; give 0 <= start <= stop")
    norms, found = _apjn(hold(apply), params, X, start, stop, jax.random.split(key, probes))
    check_rows_apart(found)
    return norms


@partial(jax.jit, static_argnames=("start", "stop"))
def _apjn(apply, params, X, start, stop, keys):
    """Estimates (n,), one probe per key, and what `mixing` finds."""
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
    """Outputs of a network at X (n, d), as (n, c) also if it has only one."""
    f = _checks.returned("apply", apply(params, X))
    if f.ndim not in (1, 2) or f.shape[0] != X.shape[0]:
        raise ValueError(
            f"apply returned shape {f.shape} for inputs of shape {X.shape}; return (n,) or (n, c)"
        )
    return f[:, None] if f.ndim == 1 else f


def mixing(apply, params, X):
    """Compare outputs on two rows together with those on each row alone.

    Returns the largest difference and the largest output, (2,). The two rows are the first of
    X (n, d) and the one farthest from it.
    """
    # if all rows are equal, move one: equal rows would hide what mixing does
    far = X[jnp.argmax(((X - X[0]) ** 2).sum(-1))]
    both = jnp.stack([X[0], far + (far == X[0]).all()])
    together = _outputs(apply, params, both)
    alone = jnp.concatenate([_outputs(apply, params, x[None]) for x in both])
    return jnp.stack([jnp.abs(together - alone).max(), jnp.abs(together).max()])


def check_rows_apart(found):
    """Raise if ``found`` (2,), a result of `mixing`, shows that a function mixes rows."""
    if not _checks.known(found):
        return
    gap, size = np.asarray(found)
    eps = float(jnp.finfo(found.dtype).eps)
    # rounding differs between one row and two; mixing changes more than a quarter of the digits
    if np.isfinite(size) and not gap <= max(eps**0.25 * size, 1e3 * eps):
        raise ValueError(
            f"apply mixes rows: outputs of size {size:.3g} on two rows together differ by "
            f"{gap:.3g} from those on each row alone, but a kernel needs each row alone; "
            "evaluate batch normalisation in inference mode, with fixed statistics, and switch "
            "dropout off"
        )


def _trained(path, leaf):
    """Convert a leaf of the parameters to an array of floats, or raise with its ``path``."""
    try:
        leaf = jnp.asarray(_checks.numbers("leaf", leaf))
    except ValueError:
        leaf = None
    if leaf is None or not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise ValueError(
            f"params{jax.tree_util.keystr(path)} is not an array of floating-point numbers; give "
            "in params what is trained, and let apply capture the rest"
        )
    return leaf
