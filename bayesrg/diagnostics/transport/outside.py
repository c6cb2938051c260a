# SPDX-License-Identifier: Apache-2.0
"""Paths of points through a network that was trained elsewhere."""

import os
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from ... import _checks
from ..._checks import ArrayLike
from ..._paths import Paths
from ...io import load_weights


def paths_of(states: ArrayLike | Mapping | str | os.PathLike) -> Paths:
    """Return the `Paths` of points from the outputs of a network's residual layers.

    Parameters
    ----------
    states : list or mapping of arrays (n, d), one array (K + 1, n, d), or path of a file
        First the state before the first layer, then the output of every layer, of the same points
        in the same order, and all of one width d. Arrays of a file (npz or safetensors, see
        `bayesrg.io.load_weights`) or of a mapping are taken in their order, not by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For fewer than two states, empty ones, or states of different shapes.
    """
    if isinstance(states, str | os.PathLike):
        if not os.path.exists(states):
            raise FileNotFoundError(
                f"states: {os.fspath(states)!r} does not exist; give arrays, or a file of them"
            )
        states = load_weights(states)  # any arrays; it refuses pickles, which can run code
    if isinstance(states, Mapping):
        named = {f"states[{name!r}]": states[name] for name in states}
    else:
        states = list(states) if getattr(states, "ndim", 0) == 3 else states
        _checks.sequence("states", states, "arrays (n, d), the states, or the path of a file")
        named = {f"states[{i}]": x for i, x in enumerate(states)}
    if len(named) < 2:
        raise ValueError(
            f"states has {len(named)} arrays; give the state before the first layer and one after "
            "each layer"
        )
    _checks.on_host("paths_of", named)
    found = {name: _checks.on_64_bits(name, x, ndim=2) for name, x in named.items()}
    first = next(iter(found))
    if not found[first].size:
        raise ValueError(
            f"{first} has shape {found[first].shape}; give at least one point and one feature"
        )
    for name, x in found.items():
        if x.shape != found[first].shape:
            raise ValueError(
                f"{name} has shape {x.shape} and {first} {found[first].shape}; transport needs "
                "states of equal width, of the same points: give the outputs of residual layers of "
                "one width"
            )
    stacked = np.stack(list(found.values()))
    return Paths(jnp.asarray(stacked), jnp.asarray(np.diff(stacked, axis=0)))
