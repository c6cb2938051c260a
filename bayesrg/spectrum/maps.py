# SPDX-License-Identifier: Apache-2.0
r"""Maps of eigenvalues, :math:`\lambda \to g(\lambda) \ge 0`, that reshape a spectrum.

A map takes falling eigenvalues (..., k), under a probability measure and in units of variance, to
new ones of the same shape. Its parameters may be traced: sample them, or differentiate in them.
Counts r are fixed integers; on a spectrum of whole levels they count levels.
"""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike

__all__ = [
    "combine", "flatten", "hard_cutoff", "identity", "lift", "polynomial_cutoff", "power",
    "ridge", "scale", "soft_cutoff", "table",
]  # fmt: skip


class Map(eqx.Module):
    """New eigenvalues of old ones: ``g(values)``, both (..., k)."""

    @abstractmethod
    def __call__(self, values: Array) -> Array:
        """Map falling eigenvalues (..., k)."""

    def edge(self, values: Array) -> int | None:
        """Count the values before a jump of the map, None without one."""
        return None


class Pointwise(Map):
    """Map of one eigenvalue at a time, which may also know the largest."""

    @abstractmethod
    def at(self, values: Array, largest: Array) -> Array:
        """Map eigenvalues of any shape where the largest of their spectrum is ``largest``."""

    def __call__(self, values):
        values = jnp.asarray(values)
        if values.shape[-1] == 0:
            return values
        return _pointwise(self, values)


@eqx.filter_jit
def _pointwise(g, values):
    return g.at(values, values.max(-1, keepdims=True))


def _where_positive(values, function):
    """``function`` of the positive values, 0 at the others, derivatives included."""
    positive = values > 0
    return jnp.where(positive, function(jnp.where(positive, values, 1.0)), 0.0)


class _Scale(Pointwise):
    factor: Float[Array, ""]

    def at(self, values, largest):
        return self.factor * values


class _Power(Pointwise):
    exponent: Float[Array, ""]

    def at(self, values, largest):
        top = jnp.where(largest > 0, largest, 1.0)
        return _where_positive(values, lambda v: top * (v / top) ** self.exponent)


class _HardCutoff(Pointwise):
    cutoff: Float[Array, ""]

    def at(self, values, largest):
        return jnp.where(values >= self.cutoff, values, 0.0)

    def edge(self, values):
        return int((np.asarray(values) >= np.asarray(self.cutoff)).sum())


class _SoftCutoff(Pointwise):
    cutoff: Float[Array, ""]
    steepness: Float[Array, ""]

    def at(self, values, largest):
        def cut(v):
            return v * jax.nn.sigmoid(self.steepness * (jnp.log(v) - jnp.log(self.cutoff)))

        return _where_positive(values, cut)


class _Ridge(Pointwise):
    ridge: Float[Array, ""]

    def at(self, values, largest):
        return _where_positive(values, lambda v: v * (v / (v + self.ridge)))


class _Combined(Pointwise):
    maps: tuple[Pointwise, ...]

    def at(self, values, largest):
        def gains(v):
            result = v
            for g in self.maps:
                result = result * (g.at(v, largest) / v)
            return result

        return _where_positive(values, gains)

    def edge(self, values):
        edges = [g.edge(values) for g in self.maps]
        return min((e for e in edges if e is not None), default=None)


class _Level(Map):
    """The first r values set to that of one index."""

    r: int = eqx.field(static=True)
    index: int = eqx.field(static=True)

    def __call__(self, values):
        values = jnp.asarray(values)
        name, needed = ("lift", self.r) if self.index == 0 else ("flatten", self.index + 1)
        if values.shape[-1] < needed:
            raise ValueError(
                f"{name}({self.r}) needs {needed} modes and the spectrum has {values.shape[-1]}; "
                "those that a sample's spectrum dropped are rounding, and lifting would amplify "
                "it: lower r, or take a larger reference sample"
            )
        return _level(self.r, self.index, values)

    def edge(self, values):
        return self.r if self.index == 0 else None


@partial(jax.jit, static_argnums=(0, 1))
def _level(r, index, values):
    first = jnp.arange(values.shape[-1]) < r
    return jnp.where(first, values[..., index, None], values)


class _Table(Map):
    entries: Float[Array, " mode"]

    def __call__(self, values):
        values, size = jnp.asarray(values), self.entries.shape[0]
        if size > values.shape[-1]:
            raise ValueError(
                f"values has {size} entries and the spectrum {values.shape[-1]} modes; give at "
                "most one per mode"
            )
        first = jnp.broadcast_to(self.entries, values.shape[:-1] + (size,))
        return jnp.concatenate([first.astype(values.dtype), values[..., size:]], -1)


def identity(values: ArrayLike | None = None):
    """Return eigenvalues ``values`` (..., k) as they are: a map itself, and without them, one."""
    return _Combined(()) if values is None else _checks.finite("values", values)


def scale(c: ArrayLike) -> Map:
    r"""Multiply by c (), zero or more: :math:`g = c\lambda`; returns a map."""
    return _Scale(_checks.nonnegative("c", c, ndim=0))


def power(alpha: ArrayLike) -> Map:
    r"""Change the decay: :math:`g = \lambda_1(\lambda/\lambda_1)^\alpha`; returns a map.

    ``alpha`` () is positive; the largest eigenvalue :math:`\lambda_1` stays.
    """
    return _Power(_checks.positive("alpha", alpha, ndim=0))


def flatten(r: int) -> Map:
    r"""Lower the first r modes to the next: :math:`g_i = \lambda_{r+1}`, (k,); returns a map."""
    r = _checks.whole("r", r)
    return _Level(r, r)


def lift(r: int) -> Map:
    r"""Raise the first r modes to the largest: :math:`g_i = \lambda_1`, (k,); returns a map."""
    return _Level(_checks.whole("r", r), 0)


def hard_cutoff(cutoff: ArrayLike) -> Map:
    r"""Remove what is small: :math:`g = \lambda\,[\lambda \ge \Lambda]`; returns a map.

    ``cutoff`` () is a variance. Its derivative in the cutoff is zero, so a sampler that follows
    gradients needs `soft_cutoff`.
    """
    return _HardCutoff(_checks.nonnegative("cutoff", cutoff, ndim=0))


def soft_cutoff(cutoff: ArrayLike, width: ArrayLike) -> Map:
    r"""Cut smoothly: :math:`g = \lambda/(1 + (\Lambda/\lambda)^{1/w})`; returns a map.

    That is :math:`\lambda` times the logistic function of :math:`\ln(\lambda/\Lambda)/w`: a smooth
    regulator of the renormalisation group. ``cutoff`` () is a variance and ``width`` () one of
    its logarithm, both positive.
    """
    cutoff = _checks.positive("cutoff", cutoff, ndim=0)
    return _SoftCutoff(cutoff, 1.0 / _checks.positive("width", width, ndim=0))


def polynomial_cutoff(cutoff: ArrayLike, p: ArrayLike) -> Map:
    r"""Cut by a power: :math:`g = \lambda/(1 + (\Lambda/\lambda)^p)`; returns a map.

    ``cutoff`` () is a variance, ``p`` () the power, both positive: `soft_cutoff` of width 1/p.
    """
    cutoff = _checks.positive("cutoff", cutoff, ndim=0)
    return _SoftCutoff(cutoff, _checks.positive("p", p, ndim=0))


def ridge(s: ArrayLike) -> Map:
    r"""Damp as ridge regression does: :math:`g = \lambda^2/(\lambda + s)`; returns a map.

    ``s`` () is a variance, zero or more.
    """
    return _Ridge(_checks.nonnegative("s", s, ndim=0))


def table(values: ArrayLike) -> Map:
    """Give the first eigenvalues (m,) by rank and leave the others; returns a map.

    ``values`` (m,) are non-negative variances in the order of the modes they belong to.
    """
    return _Table(_checks.nonnegative("values", values, ndim=1))


def combine(*maps: Map) -> Map:
    r"""Apply several maps at once: :math:`g/\lambda = \prod_j g_j/\lambda`, each of the old values.

    Parameters
    ----------
    *maps : maps of one eigenvalue at a time, that is, no `flatten`, `lift` or `table`

    Returns
    -------
    A map of (..., k); maps one after the other are `modify` applied repeatedly.
    """
    for g in maps:
        if not isinstance(g, Pointwise):
            raise ValueError(
                f"combine takes maps of one eigenvalue at a time, got {type(g).__name__}; apply "
                "modify twice for a map by rank or a function of your own"
            )
    return _Combined(tuple(maps))
