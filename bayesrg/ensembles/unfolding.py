# SPDX-License-Identifier: Apache-2.0
"""Unfolding: rescale levels so that their mean spacing is one along the spectrum."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._warnings import warn
from .densities import marchenko_pastur, semicircle
from .statistics import sorted_levels

_USES = {"loc": ("semicircle",), "scale": ("semicircle", "mp"), "shape": ("mp", "mp-fit")}
METHODS = ("ensemble", "semicircle", "mp", "mp-fit", "polynomial", "none")


class Unfolded(eqx.Module):
    """Result of `unfold`.

    Attributes
    ----------
    levels : (..., n) ascending, n times the share of levels below each
    spacings : (..., n - 1) with mean one
    mean : (n - 1,) with the method "ensemble", else (): mean spacing before it was set to one
    """

    levels: Float[Array, "*batch level"]
    spacings: Float[Array, "*batch spacing"]
    mean: Float[Array, ""] | Float[Array, " spacing"]


def unfold(
    levels: ArrayLike,
    method: str = "ensemble",
    *,
    loc: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    shape: tuple[int, int] | None = None,
    degree: int = 5,
) -> Unfolded:
    """Divide out the density of levels, so that spacings can be compared with a universal law.

    Parameters
    ----------
    levels : (..., n), sorted, n at least 2
        Spectra of one law, such as those of chains and draws.
    method : str
        - "ensemble": each spacing over its mean across all spectra, for the only right result on a
          degenerate pair;
        - "semicircle": by the semicircle law of n levels;
        - "mp", "mp-fit": by the law of Marchenko and Pastur with a given or fitted ``scale``;
        - "polynomial": a polynomial fitted to the number of levels below x, for each spectrum;
        - "none": no unfolding.
    loc : (), optional
        Centre of the semicircle; the mean of all levels by default.
    scale : (), optional
        Width sigma of the semicircle, see `CoulombGas`, by default fitted to the variance of all
        levels; or the standard deviation of the entries, needed for "mp".
    shape : (m, n), needed for "mp" and "mp-fit"
        Shape of the matrix whose squared singular values the levels are.
    degree : int
        Of the polynomial. Above n / 5 it follows the levels themselves, with a warning.

    Returns
    -------
    Unfolded

    Raises
    ------
    ValueError
        For fewer than two levels, two equal ones, or arguments that do not go with the method.

    References
    ----------
    arXiv 2407.16427.
    """
    levels = jnp.sort(sorted_levels("levels", levels, least=2), -1)
    n = levels.shape[-1]
    method = _checks.choice("method", method, METHODS)
    given = {"loc": loc, "scale": scale, "shape": shape}
    unused = [name for name in given if given[name] is not None and method not in _USES[name]]
    if unused:
        raise ValueError(
            f"method {method!r} has no {unused[0]}; leave it out, or use "
            f"{' or '.join(map(repr, _USES[unused[0]]))}"
        )
    if method in _USES["shape"]:
        shape = () if shape is None else _checks.whole_numbers("shape", shape)
        if len(shape) != 2 or min(shape) != n:
            raise ValueError(
                f"method {method!r} needs shape=(m, n) of the matrix, with {n} on the smaller "
                f"side; got {shape or None}"
            )
    if method == "mp" and scale is None:
        raise ValueError('method "mp" needs scale, of the entries; or use "mp-fit"')
    scale = None if scale is None else _checks.positive("scale", scale, ndim=0)

    if method == "semicircle":
        loc = levels.mean() if loc is None else _checks.finite("loc", loc, ndim=0)
        second = ((levels - loc) ** 2).mean()  # sigma^2 (n + 1) / 2 at finite n
        scale = jnp.sqrt(2 * second / (n + 1)) if scale is None else scale
        unfolded = n * semicircle.cdf(levels, np.sqrt(2 * n) * scale, loc)
    elif method in ("mp", "mp-fit"):
        # the mean of the nonzero levels is s^2 times the larger side
        fitted = jnp.sqrt(levels.mean() / max(shape))
        unfolded = n * marchenko_pastur.cdf(levels, *shape, scale if method == "mp" else fitted)
    elif method == "polynomial":
        degree = _checks.whole("degree", degree)
        if degree > n / 5:
            warn(
                f"a polynomial of degree {degree} through {n} levels follows single levels and "
                f"makes spacings too regular; take a degree of at most {max(1, n // 5)}"
            )
        unfolded = _staircase(levels, degree)
    else:
        unfolded = levels

    gaps = jnp.diff(unfolded, axis=-1)
    axes = tuple(range(gaps.ndim - 1)) if method == "ensemble" else None
    mean = gaps.mean(axes)
    return Unfolded(unfolded, gaps / mean, mean)


@jax.jit(static_argnames="degree")
def _staircase(levels, degree):
    """Fit a polynomial to the number of levels below x, and evaluate it at the levels (..., n)."""
    n = levels.shape[-1]
    low, high = levels[..., :1], levels[..., -1:]
    t = jnp.clip(2 * (levels - low) / (high - low) - 1, -1.0, 1.0)
    # Chebyshev polynomials: well conditioned
    columns = jnp.cos(jnp.arange(degree + 1) * jnp.arccos(t)[..., None])
    count = jnp.broadcast_to(jnp.arange(n) + 0.5, levels.shape)[..., None]
    Q, _ = jnp.linalg.qr(columns)
    return (Q @ (Q.mT @ count))[..., 0]
