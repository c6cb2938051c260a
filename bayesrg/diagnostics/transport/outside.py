# SPDX-License-Identifier: Apache-2.0
"""Paths of points through a network that was trained elsewhere."""

import os
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from ... import _checks
from ..._checks import ArrayLike
from ..._paths import Paths


def paths_of(states: Sequence[ArrayLike] | Mapping | str | os.PathLike) -> Paths:
    """Return the `Paths` of points from the outputs of a network's residual layers.

    Parameters
    ----------
    states : list of arrays (n, d), or an npz file
        First the state before the first layer, then the output of every layer, of the same points
        in the same order, and all of one width d. Of a file, by its path or as ``np.load`` opens
        it, all arrays are taken in the order of the file.

    Raises
    ------
    ValueError
        For fewer than two states, or states of different shapes.
    """
    if isinstance(states, str | os.PathLike):
        with np.load(states) as file:  # refuses pickles, which can run code
            states = {name: file[name] for name in file.files}
    if isinstance(states, Mapping):
        named = {str(name): states[name] for name in states}
    elif getattr(states, "ndim", 0) == 3:
        named = {f"states[{i}]": x for i, x in enumerate(states)}
    else:
        _checks.sequence("states", states, "arrays (n, d), one per layer, or an npz file")
        named = {f"states[{i}]": x for i, x in enumerate(states)}
    if len(named) < 2:
        raise ValueError(
            f"states has {len(named)} arrays; give the state before the first layer and one after "
            "each layer"
        )
    found = {name: np.asarray(_checks.finite(name, x, ndim=2), float) for name, x in named.items()}
    first = next(iter(found))
    for name, x in found.items():
        if x.shape != found[first].shape:
            raise ValueError(
                f"{name} has shape {x.shape} and {first} {found[first].shape}; transport needs "
                "states of equal width, of the same points: give the outputs of residual layers of "
                "one width"
            )
    stacked = np.stack(list(found.values()))
    return Paths(jnp.asarray(stacked), jnp.asarray(np.diff(stacked, axis=0)))
