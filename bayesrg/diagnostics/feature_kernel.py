# SPDX-License-Identifier: Apache-2.0
"""What a feature kernel has learnt, in numbers: against its prior mean and against the targets."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .._callables import as_pytree

_AT_ONCE = 16
_RANK = 1e-10  # eigenvalues below this share of the largest are taken as zero


class Reference(NamedTuple):
    r"""What kernels are measured against; see `reference`.

    Attributes
    ----------
    kernels : (L, n, n) prior means :math:`K_l`
    values : (L, n) their eigenvalues, falling
    targets : (n, c) Y, and ``centred``, Y without its column means
    lifted : (L, n, c) :math:`K_l^+Y`
    ridge : () :math:`\tau` of the effective dimension
    """

    kernels: Float[Array, "layer point point_bis"]
    values: Float[Array, "layer mode"]
    targets: Float[Array, "point output"]
    centred: Float[Array, "point output"]
    lifted: Float[Array, "layer point output"]
    ridge: Float[Array, ""]


class Walk(NamedTuple):
    """Quantities of every draw, (chain, draw, ...), and the mean kernel (L, n, n)."""

    quantities: dict[str, np.ndarray]
    mean: np.ndarray


def reference(kernels: Array, targets: Array, ridge: Array) -> Reference:
    """Diagonalise the prior means (L, n, n) once; targets are (n, c), the ridge ()."""
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
    r"""Measure the kernels ``Phi`` of all layers.

    Parameters
    ----------
    Phi : (L, n, n)
    ref : Reference
    modes : int, eigenvalues whose shift is kept

    Returns
    -------
    dict
        Of arrays (L,), but for spectral_shift (L, modes). Without targets, alignments and gain
        are nan.

        kernel_scale :math:`\mathrm{tr}\Phi/\mathrm{tr}K`; target_alignment
        :math:`\langle\Phi, YY^T\rangle/\|\Phi\|\|YY^T\|`, and centred_alignment the same of
        centred kernels and targets; target_gain :math:`\mathrm{tr}Y^TK^+\Phi K^+Y/
        \mathrm{tr}Y^TK^+Y`; participation_ratio :math:`(\mathrm{tr}\Phi)^2/\mathrm{tr}\Phi^2`;
        effective_dimension :math:`\mathrm{tr}\,\Phi(\Phi+\tau)^{-1}`; top_eigenvalue;
        spectral_shift :math:`\lambda_k(\Phi) - \lambda_k(K)`; lazy_distance
        :math:`\|\Phi - K\|_F/\|K\|_F`.
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
    return along / (_norm(Phi) * _norm(Y.T @ Y))  # both Grams of Y have one norm


def walk(
    groups: Mapping[str, Mapping[str, Array]],
    at: Callable[[dict], tuple[dict, Array]],
    ref: Reference,
    modes: int,
    keep: bool = False,
) -> dict[str, Walk]:
    """Measure the kernels of every draw; only their mean is held in memory, unless ``keep``.

    Parameters
    ----------
    groups : mapping
        From group to mapping of arrays (chain, draw, ...), at least one, the same in each group.
    at : callable
        From one draw, a dict, to further quantities, a dict, and its kernels (L, n, n). Traced.
    ref, modes : as in `quantities`
    keep : whether feature_kernel is among the quantities

    Returns
    -------
    dict
        Of a Walk for each group.
    """
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
