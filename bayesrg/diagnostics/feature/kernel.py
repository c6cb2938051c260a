# SPDX-License-Identifier: Apache-2.0
"""Feature kernels of networks whose weights are given."""

from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ... import _checks
from ..._callables import as_pytree
from ..._checks import ArrayLike

MAX_BYTES = 2**31


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
    apply = as_pytree(_checks.function("apply", apply))
    params = _checks.parameters("params", params)
    max_bytes = _checks.whole("max_bytes", max_bytes)

    first = jax.tree.map(lambda p: jnp.asarray(p)[(0,) * len(lead)], params)
    one = eqx.filter_eval_shape(_of_one, apply, X, first)
    shape = jnp.shape(jax.tree.leaves(params)[0])[: len(lead)]
    check_memory(int(np.prod(shape)), one, max_bytes)
    Phi = np.asarray(_of_all(apply, X, params, len(lead)))

    dims = (*lead, "layer", "point", "point_bis")
    dataset = xr.Dataset({"feature_kernel": (dims, Phi)}, attrs={"estimator": "draw"})
    dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
    return dataset.assign_coords(layer=dataset["layer"] + 1)


def _of_one(apply, X, params):
    """Return the kernels (L, n, n) of one network."""
    hidden = _checks.sequence("what apply returns", apply(params, X), "hidden layers")
    hidden = [_checks.returned("apply", H) for H in hidden]
    if any(H.ndim != 2 or H.shape[0] != X.shape[0] for H in hidden):
        shapes = [H.shape for H in hidden]
        raise ValueError(f"apply returns layers of shapes {shapes}; give (n, N_l) each")
    return jnp.stack([H @ H.T / H.shape[1] for H in hidden])


@eqx.filter_jit
def _of_all(apply, X, params, lead):
    """Return the kernels (..., L, n, n) of networks along ``lead`` leading axes."""
    function = partial(_of_one, apply, X)
    for _ in range(lead):
        function = partial(jax.lax.map, function)
    return function(params)


def check_memory(draws, one, max_bytes):
    """Raise ValueError if ``draws`` kernels, each like ``one``, exceed ``max_bytes``."""
    size = draws * int(np.prod(one.shape)) * one.dtype.itemsize
    if size > max_bytes:
        raise ValueError(
            f"kernels {one.shape} of {draws} draws take {size:,} bytes and max_bytes is "
            f"{max_bytes:,}; thin the draws, or measure them without keeping them"
        )
