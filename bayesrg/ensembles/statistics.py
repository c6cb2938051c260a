# SPDX-License-Identifier: Apache-2.0
"""The few sums over levels on which the density of a gas depends."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike


class GasStatistics(eqx.Module):
    """What the density of a `CoulombGas` or `LaguerreGas` depends on, of m spectra of n levels.

    Attributes
    ----------
    spectra : int, m
    levels : int, n
    mean : (...) mean of all levels
    scatter : (...) sum of the squared distances of all levels from ``mean``
    logs : (...) sum of log x; minus infinity unless all levels are positive
    pairs : (...) sum of log(x_j - x_i) over the pairs i < j of each spectrum
    """

    spectra: int = eqx.field(static=True)
    levels: int = eqx.field(static=True)
    mean: Float[Array, "..."]
    scatter: Float[Array, "..."]
    logs: Float[Array, "..."]
    pairs: Float[Array, "..."]


def gas_statistics(levels: ArrayLike) -> GasStatistics:
    """Return the statistics of spectra, so that a density costs the same for any number of them.

    Parameters
    ----------
    levels : (..., m, n)
        Ascending levels of m spectra, or of one, (n,).

    Returns
    -------
    GasStatistics

    Raises
    ------
    ValueError
        For levels that are not strictly ascending.

    References
    ----------
    arXiv 2407.16427.
    """
    _checks.warn_32_bits("a gas of levels")
    levels = ascending("levels", levels)
    levels = levels[None] if levels.ndim == 1 else levels
    return _summed(levels)


@jax.jit
def _summed(levels):
    return over_spectra(levels, axis=(-2, -1))


def over_spectra(levels, axis):
    """Return the statistics of levels (..., n), of each spectrum (axis -1) or of all (-2, -1)."""
    i, j = np.triu_indices(levels.shape[-1], 1)
    gaps = levels[..., j] - levels[..., i]
    mean = levels.mean(axis, keepdims=True)
    positive = levels > 0
    logs = jnp.where(positive, jnp.log(jnp.where(positive, levels, 1.0)), -jnp.inf)
    return GasStatistics(
        spectra=levels.shape[-2] if axis == (-2, -1) else 1,
        levels=levels.shape[-1],
        mean=mean.squeeze(axis),
        scatter=((levels - mean) ** 2).sum(axis),
        logs=logs.sum(axis),
        pairs=jnp.log(gaps).sum(axis),
    )


def sorted_levels(name: str, levels: ArrayLike, least: int = 1) -> Array:
    """Return levels (..., n) as floats; raise unless ``least`` or more rise, or fall, strictly."""
    levels = _checks.finite(name, levels)
    n = levels.shape[-1] if levels.ndim and levels.size else 0
    if n < least:
        words = {
            2: "levels must have at least 2 entries along the level axis",
            3: "ratio statistic needs at least 3 levels",
        }
        raise ValueError(f"{words.get(least, f'{name} is empty')}, got {n}; give longer spectra")
    if _checks.known(levels):
        steps = np.diff(np.asarray(levels), axis=-1)
        equal = np.argwhere(steps == 0)
        if equal.size:
            i = int(equal[0, -1])
            raise ValueError(
                f"{name}: equal levels at indices {i},{i + 1}: spacing is zero; drop structural "
                "zeros, or levels that were rounded"
            )
        bent = np.argwhere(np.diff(steps > 0, axis=-1))
        if bent.size:
            index = [*bent[0, :-1].tolist(), int(bent[0, -1]) + 1]
            raise ValueError(f"{name} are not sorted, see index {index}; use np.sort(levels, -1)")
    return levels


def ascending(name: str, levels: ArrayLike) -> Array:
    """Return levels (..., n) as floats; raise unless they are strictly ascending."""
    levels = sorted_levels(name, levels)
    if _checks.known(levels) and (np.diff(np.asarray(levels), axis=-1) < 0).any():
        raise ValueError(f"{name} descend along the last axis; flip them: levels[..., ::-1]")
    return levels
