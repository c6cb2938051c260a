# SPDX-License-Identifier: Apache-2.0
"""Runs of `bayesrg.dynamics` as labelled trees."""

import jax
import numpy as np
import xarray as xr

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import Trajectory
from .labels import to_datatree


def trajectory(
    found: Trajectory, learning_rate: ArrayLike | None = None, burn_in: int | None = None
) -> xr.DataTree:
    """Label what a run recorded, as a path in time or as draws of a stationary law.

    Parameters
    ----------
    found : Trajectory
        From `bayesrg.dynamics.run`, of one run or of several chains.
    learning_rate : float, optional
        Time per step; by default that of the algorithm.
    burn_in : int, optional
        Steps that are left out. The later records become draws.

    Returns
    -------
    DataTree
        Without ``burn_in`` the group ``dynamics`` over chain and step, with the coordinate time;
        observables have the axis each_step. With it the group ``posterior`` over chain and draw. A
        position that is one array is called x, entries of a pytree by their names.

    Raises
    ------
    ValueError
        If no record is later than ``burn_in``.
    """
    _checks.instance("found", found, Trajectory, "a Trajectory, from dynamics.run")
    if learning_rate is not None:
        learning_rate = _checks.number("learning_rate", learning_rate, above=0.0)
    single = np.ndim(found.status) == 0
    step = np.asarray(found.step)
    arrays = {name: v[None] if single else v for name, v in _named(found.x, "x").items()}

    if burn_in is not None:
        burn_in = _checks.whole("burn_in", burn_in, least=0)
        late = step > burn_in
        if not late.any():
            raise ValueError(
                f"burn_in is {burn_in} and the run has {step[-1]} steps; run longer, or lower it"
            )
        draws = {name: v[:, late] for name, v in arrays.items()}
        return to_datatree({"posterior": draws}, {})

    time = np.asarray(found.time)
    if learning_rate is not None:
        time = step * learning_rate
    elif not single:
        time = time[np.argmax(time[:, -1])]  # of the chain that ran longest
    seen = {n: v[None] if single else v for n, v in _named(found.observables, "observed").items()}
    data = {n: (("chain", "step", *_rest(n, v)), v) for n, v in arrays.items()}
    data |= {n: (("chain", "each_step", *_rest(n, v)), v) for n, v in seen.items()}
    dataset = xr.Dataset(data)
    index = {d: np.arange(size) for d, size in dataset.sizes.items()}
    dataset = dataset.assign_coords(index | {"step": step, "time": ("step", time)})
    dataset["status"] = "chain", np.atleast_1d(found.status)
    return xr.DataTree.from_dict({"dynamics": dataset})


def _named(tree, name):
    """Return the arrays of a pytree by name; a single array is called ``name``."""
    leaves = jax.tree.leaves_with_path(tree)
    label = jax.tree_util.keystr
    return {
        label(path, simple=True, separator=".") if path else name: np.asarray(v)
        for path, v in leaves
    }


def _rest(name, value):
    """Return names of the axes after the first two."""
    return tuple(f"{name}_axis{'_bis' * i}" for i in range(value.ndim - 2))
