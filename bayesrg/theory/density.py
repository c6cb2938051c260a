# SPDX-License-Identifier: Apache-2.0
"""Density of the eigenvalues of a sample covariance, given those of the population."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import implicit
from ..spectrum.levels import LevelsLike, without_tail

_RUNGS, _STEPS = 40, 6


class Density(eqx.Module):
    """Eigenvalue density of a sample covariance; see `spectral_density`.

    Attributes
    ----------
    grid : (g,) eigenvalues x
    density : (g,) per unit of x; with the atom it integrates to 1
    atom : () share of the p eigenvalues that are zero
    """

    grid: Float[Array, " grid"]
    density: Float[Array, " grid"]
    atom: Float[Array, ""]


def spectral_density(values: LevelsLike, n: ArrayLike, grid: ArrayLike) -> Density:
    r"""Predict the density of the eigenvalues of :math:`X^TX/n` for n rows drawn at random.

    It is :math:`(n/p)\,\mathrm{Im}\,v(x + i0)/\pi` for the companion transform
    :math:`-1/v = z - \frac1n\sum_k \omega_k/(1 + \omega_k v)`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (p,) of the population, zeros included
        Bare eigenvalues may come in any order. Only the modes of a spectrum count.
    n : () number of rows, positive
    grid : (g,) positive, where to evaluate
        The density falls like a square root at its edges: take many points there.

    Raises
    ------
    ValueError
        For a grid that is not positive, or if no eigenvalue is positive.

    Notes
    -----
    It is evaluated at a distance from the real axis of 1e-9 of the largest eigenvalue, and at most
    1e-4 x, which smooths it over such a distance. For equal eigenvalues it is the law of
    Marchenko and Pastur.

    References
    ----------
    Marchenko and Pastur (1967); Silverstein (1995); arXiv 2402.13999 for the same fixed point at
    z = -ridge/n, where v = 1/tau.
    """
    _checks.warn_32_bits("theory.spectral_density")
    levels = without_tail(values, falling=False)
    values = levels.values
    n = _checks.positive("n", n, ndim=0).astype(values.dtype)
    grid = _checks.positive("grid", grid, ndim=1).astype(values.dtype)
    if not len(levels) or (_checks.known(values) and not np.asarray(values).max() > 0):
        raise ValueError(f"values of shape {values.shape} has no positive entry; give at least one")
    found = _density(levels, n, grid)
    _checks.defined("values or grid", found.density)
    return found


@jax.jit
def _density(levels, n, grid):
    values, counts = levels.values, levels.degeneracy
    p, largest = counts.sum(), values.max()
    rank = jnp.where(values > p * jnp.finfo(values.dtype).eps * largest, counts, 0.0).sum()
    height = jnp.minimum(1e-9 * largest, 1e-4 * grid)

    # For n > rank the companion has an atom at zero. At this distance from the axis it has spread
    # to a Lorentzian, which is subtracted.
    tail = jnp.clip(1.0 - rank / n, 0.0) * height / (grid**2 + height**2)
    v = _companion(values / largest, counts, n, grid / largest, height / largest) / largest
    density = n / p / jnp.pi * (v.imag - tail)
    return Density(grid, jnp.clip(density, 0.0), 1.0 - jnp.minimum(n, rank) / p)


def _companion(values, counts, n, x, height):
    """Return the companion transform (g,) at x + i height (g,), for values of at most 1.

    Newton's method on ``1 + z v - mean`` of the share of each value, which is linear far from the
    axis; the solution there is followed down a ladder of imaginary parts. The root is complex, so
    there is neither a bracket nor a bound from which `bayesrg._fixedpoint` could start.
    """

    def imbalance(v, at):
        values, n, z = at
        return 1.0 + z * v - (counts * values * v / (1.0 + values * v)).sum() / n

    fixed, fixed_n = jax.lax.stop_gradient((values, n))

    def newton(_, state):
        v, z = state
        slope = z - (counts * fixed / (1.0 + fixed * v) ** 2).sum() / fixed_n
        step = -imbalance(v, (fixed, fixed_n, z)) / slope
        # The root is in the upper half plane: at most halve the imaginary part.
        fall = -step.imag / v.imag
        return v + step * jnp.where(fall > 0.5, 0.5 / jnp.where(fall > 0.5, fall, 1.0), 1.0), z

    def rung(v, z):
        return jax.lax.fori_loop(0, _STEPS, newton, (v, z))[0], None

    def at(given):
        x, heights = given
        path = x + 1j * heights
        v = jax.lax.scan(rung, -1.0 / path[0], jax.lax.stop_gradient(path))[0]
        return implicit(imbalance, v, (values, n, path[-1]))

    ladder = jnp.exp(jnp.linspace(jnp.log(3.0), jnp.log(height), _RUNGS))  # (rungs, g)
    return jax.lax.map(at, (x, ladder.T), batch_size=64)
