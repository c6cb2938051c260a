# SPDX-License-Identifier: Apache-2.0
"""Feature kernels of networks, compared with their prior means and with the targets."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array
from jaxtyping import Float

from ... import _checks
from ..._callables import as_pytree
from ..._checks import ArrayLike

MAX_BYTES = 2**31
_AT_ONCE = 16
_RANK = 1e-10  # eigenvalues below this share of the largest are taken as zero


def kernels(
    apply: Callable,
    params,
    X: ArrayLike,
    *,
    lead: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
) -> xr.Dataset:
    r"""Return the feature kernels :math:`\Phi_l = H_lH_l^T/N_l` of given networks.

    Parameters
    ----------
    apply : callable
        Takes ``params`` and X; returns the sequence of hidden layers H_l (n, N_l), each of any
        width.
    params : pytree, parameters of one network, or of many along leading axes
    X : (n, d), inputs
    lead : sequence of str, names of the leading axes, for instance ("chain", "draw")
    max_bytes : int, most memory that the kernels may take, in bytes

    Returns
    -------
    Dataset
        feature_kernel (..., layer, point, point_bis), with layers counted from 1. With the axes
        chain and draw it can be a group of the tree that `measure` takes.

    Raises
    ------
    ValueError
        If the result would exceed ``max_bytes``.
    """
    lead = tuple(_checks.sequence("lead", lead, "names of axes"))
    X = _checks.inputs("X", X)
    _checks.function("apply", apply)
    params = _checks.parameters("params", params)
    max_bytes = _checks.whole("max_bytes", max_bytes)

    def at(params):
        hidden = _checks.sequence("what apply returns", apply(params, X), "hidden layers")
        hidden = [_checks.returned("apply", H) for H in hidden]
        if any(H.ndim != 2 or H.shape[0] != X.shape[0] for H in hidden):
            shapes = [H.shape for H in hidden]
            raise ValueError(f"apply returns layers of shapes {shapes}; give (n, N_l) each")
        return jnp.stack([H @ H.T / H.shape[1] for H in hidden])

    first = jax.tree.map(lambda p: jnp.asarray(p)[(0,) * len(lead)], params)
    one = jax.eval_shape(at, first)
    shape = jnp.shape(jax.tree.leaves(params)[0])[: len(lead)]
    guard(int(np.prod(shape)), one, max_bytes)
    for _ in lead:
        at = _over(at)
    Phi = np.asarray(jax.jit(at)(params))
    dims = (*lead, "layer", "point", "point_bis")
    dataset = xr.Dataset({"feature_kernel": (dims, Phi)}, attrs={"estimator": "draw"})
    dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
    return dataset.assign_coords(layer=np.arange(1, Phi.shape[-3] + 1))


def _over(function):
    return lambda params: jax.lax.map(function, params)


def guard(draws, one, max_bytes):
    """Raise ValueError if ``draws`` kernels, each like ``one``, exceed ``max_bytes``."""
    size = draws * int(np.prod(one.shape)) * one.dtype.itemsize
    if size > max_bytes:
        raise ValueError(
            f"kernels {one.shape} of {draws} draws take {size:,} bytes and max_bytes is "
            f"{max_bytes:,}; thin the draws, or measure them without keeping them"
        )


class Reference(NamedTuple):
    r"""Prior means and targets with which kernels are compared, from `reference`.

    Attributes
    ----------
    kernels : (L, n, n), prior means :math:`K_l`
    values : (L, n), eigenvalues of the prior means, falling
    targets : (n, c), targets Y
    centred : (n, c), Y minus its column means
    lifted : (L, n, c), :math:`K_l^+Y`
    ridge : (), :math:`\tau` of the effective dimension
    """

    kernels: Float[Array, "layer point point_bis"]
    values: Float[Array, "layer mode"]
    targets: Float[Array, "point output"]
    centred: Float[Array, "point output"]
    lifted: Float[Array, "layer point output"]
    ridge: Float[Array, ""]


class Walk(NamedTuple):
    """Quantities of every draw, (chain, draw, ...), and the mean kernels (L, n, n) of all draws."""

    quantities: dict[str, np.ndarray]
    mean: np.ndarray


def reference(kernels: Array, targets: Array, ridge: Array) -> Reference:
    """Return the `Reference` for prior mean ``kernels`` (L, n, n), ``targets`` (n, c), ridge ()."""
    return Reference(kernels, *_reference(kernels, targets), ridge)


@jax.jit
def _reference(kernels, targets):
    values, vectors = jnp.linalg.eigh(kernels)
    least = max(_RANK, 10 * kernels.shape[-1] * float(jnp.finfo(values.dtype).eps))
    floor = least * values.max(-1, keepdims=True)
    inverse = jnp.where(values > floor, 1.0 / jnp.where(values > floor, values, 1.0), 0.0)
    lifted = vectors @ (inverse[..., None] * (jnp.swapaxes(vectors, -1, -2) @ targets))
    centred = targets - targets.mean(0)
    return values[..., ::-1], targets, centred, lifted


def quantities(Phi: Float[Array, "layer point point_bis"], ref: Reference, modes: int) -> dict:
    r"""Return scalars that compare the kernels ``Phi`` of all layers with a reference.

    Parameters
    ----------
    Phi : (L, n, n), kernels of one draw
    ref : Reference
        Prior means K and targets Y.
    modes : int, number of eigenvalues whose shift is computed

    Returns
    -------
    dict
        Arrays (L,); spectral_shift is (L, modes). Without targets, alignments and gain are nan.

        - kernel_scale: :math:`\mathrm{tr}\Phi/\mathrm{tr}K`
        - target_alignment: :math:`\langle\Phi, YY^T\rangle/\|\Phi\|\|YY^T\|`
        - centred_alignment: target_alignment of centred kernels and targets
        - target_gain: :math:`\mathrm{tr}Y^TK^+\Phi K^+Y/\mathrm{tr}Y^TK^+Y`
        - participation_ratio: :math:`(\mathrm{tr}\Phi)^2/\mathrm{tr}\Phi^2`
        - effective_dimension: :math:`\mathrm{tr}\,\Phi(\Phi+\tau)^{-1}`
        - top_eigenvalue: largest eigenvalue of :math:`\Phi`
        - spectral_shift: :math:`\lambda_k(\Phi) - \lambda_k(K)`
        - lazy_distance: :math:`\|\Phi - K\|_F/\|K\|_F`
    """
    values = jnp.linalg.eigvalsh(Phi)[..., ::-1]
    trace, norm = jnp.trace(Phi, axis1=-2, axis2=-1), _norm(Phi)
    positive = jnp.clip(values, 0.0)
    total = positive + ref.ridge
    learnt = jnp.where(total > 0, positive / jnp.where(total > 0, total, 1.0), 0.0)
    gain = (ref.lifted * (Phi @ ref.lifted)).sum((-2, -1))
    centred = Phi - Phi.mean(-1, keepdims=True)
    centred = centred - centred.mean(-2, keepdims=True)
    return {
        "kernel_scale": trace / jnp.trace(ref.kernels, axis1=-2, axis2=-1),
        "target_alignment": _alignment(Phi, ref.targets),
        "centred_alignment": _alignment(centred, ref.centred),
        "target_gain": gain / (ref.lifted * ref.targets).sum((-2, -1)),
        "participation_ratio": trace**2 / norm**2,
        "effective_dimension": learnt.sum(-1),
        "top_eigenvalue": values[..., 0],
        "spectral_shift": (values - ref.values)[..., :modes],
        "lazy_distance": _norm(Phi - ref.kernels) / _norm(ref.kernels),
    }


def _norm(kernels):
    return jnp.sqrt((kernels**2).sum((-2, -1)))


def _alignment(Phi, Y):
    along = (Y * (Phi @ Y)).sum((-2, -1))
    return along / (_norm(Phi) * _norm(Y.T @ Y))  # Y^T Y and Y Y^T have equal norms


def walk(
    groups: Mapping[str, Mapping[str, Array]],
    at: Callable[[dict], tuple[dict, Array]],
    ref: Reference,
    modes: int,
    keep: bool = False,
) -> dict[str, Walk]:
    """Return the quantities of the kernels of every draw, and the mean kernels, per group.

    Parameters
    ----------
    groups : mapping
        From name of a group to a mapping of at least one array (chain, draw, ...). All groups have
        arrays of equal names.
    at : callable
        Takes one draw, a dict. Returns further quantities, a dict, and kernels (L, n, n). Traced
        by JAX.
    ref : Reference
        Prior means and targets for `quantities`.
    modes : int, number of eigenvalues whose shift is computed
    keep : bool
        Return feature_kernel of every draw too. Otherwise only the mean kernels are in memory.

    Returns
    -------
    dict
        From name of a group to its Walk.
    """
    # All groups run through one compiled scan, in blocks. The last draw is repeated to fill the
    # last block, with weight zero; row i of `weight` says to which group draw i belongs.
    leads = [next(iter(draws.values())).shape[:2] for draws in groups.values()]
    total, found = _walk(as_pytree(at), ref, list(groups.values()), modes, keep)
    found = {
        k: np.asarray(v).reshape(v.shape[0] * _AT_ONCE, *v.shape[2:]) for k, v in found.items()
    }
    result, start = {}, 0
    for name, lead, mean in zip(groups, leads, np.asarray(total), strict=True):
        size = lead[0] * lead[1]
        own = {k: v[start : start + size].reshape(*lead, *v.shape[1:]) for k, v in found.items()}
        result[name], start = Walk(own, mean / size), start + size
    return result


@partial(jax.jit, static_argnames=("modes", "keep"))
def _walk(at, ref, groups, modes, keep):
    """Sum of the kernels of each group, and quantities of all draws (block, draw, ...)."""
    sizes = [np.prod(next(iter(draws.values())).shape[:2], dtype=int) for draws in groups]
    ends = np.cumsum(sizes)
    blocks = -(-int(ends[-1]) // _AT_ONCE)
    there = np.minimum(np.arange(blocks * _AT_ONCE), ends[-1] - 1)  # the last draw fills up
    weight = np.eye(len(groups))[np.searchsorted(ends, there, side="right")]
    weight[ends[-1] :] = 0.0

    def flat(name):
        arrays = [draws[name] for draws in groups]
        joined = jnp.concatenate([a.reshape(-1, *a.shape[2:]) for a in arrays])[there]
        return joined.reshape(blocks, _AT_ONCE, *joined.shape[1:])

    def one(draw):
        extra, Phi = at(draw)
        found = extra | quantities(Phi, ref, modes) | ({"feature_kernel": Phi} if keep else {})
        return Phi, found

    def step(total, block):
        weight, draws = block
        Phi, found = jax.vmap(one)(draws)
        return total + jnp.tensordot(weight, Phi, (0, 0)), found

    start = jnp.zeros((len(groups), *ref.kernels.shape), ref.kernels.dtype)
    weight = jnp.asarray(weight.reshape(blocks, _AT_ONCE, -1), ref.kernels.dtype)
    return jax.lax.scan(step, start, (weight, {name: flat(name) for name in groups[0]}))
