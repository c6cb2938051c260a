# SPDX-License-Identifier: Apache-2.0
r"""Maps of eigenvalues, :math:`\lambda \to g(\lambda) \ge 0`, which change a spectrum.

Each function here returns a map. A map takes falling eigenvalues (..., k), in units of variance, to
new ones of the same shape. Parameters may be traced: sample them, or differentiate in them. Counts
r are fixed integers; in a spectrum of whole levels they count levels.
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
    "combine",
    "flatten",
    "hard_cutoff",
    "identity",
    "lift",
    "polynomial_cutoff",
    "power",
    "ridge",
    "scale",
    "soft_cutoff",
    "table",
]


class Map(eqx.Module):
    """Map from eigenvalues (..., k) to new ones: ``g(values)``."""

    @abstractmethod
    def __call__(self, values: Array) -> Array:
        """New eigenvalues (..., k), for falling ``values`` (..., k)."""

    def edge(self, values: Array) -> int | None:
        """Return how many values stand before a jump of the map, or None if it has no jump."""
        return None


class Pointwise(Map):
    """Map of one eigenvalue at a time, which may also depend on the largest eigenvalue."""

    @abstractmethod
    def at(self, values: Array, largest: Array) -> Array:
        """New eigenvalues of ``values`` (...), where the largest of the spectrum is ``largest``."""

    def __call__(self, values):
        values = jnp.asarray(values)
        if values.shape[-1] == 0:
            return values
        return _pointwise(self, values)


@eqx.filter_jit
def _pointwise(g, values):
    return g.at(values, values.max(-1, keepdims=True))


def _where_positive(values, function):
    """``function`` of positive values; value and derivatives are 0 at the others."""
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
    """Map that sets the first r values to the value at ``index``."""

    r: int = eqx.field(static=True)
    index: int = eqx.field(static=True)

    def __call__(self, values):
        values = jnp.asarray(values)
        name, needed = ("lift", self.r) if self.index == 0 else ("flatten", self.index + 1)
        if values.shape[-1] < needed:
            raise ValueError(
                f"{name}({self.r}) needs {needed} modes and the spectrum has {values.shape[-1]}; "
                "lower r, or take a larger reference sample"
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


def identity() -> Map:
    r"""Return the map that changes nothing, :math:`g = \lambda`."""
    return _Combined(())


def scale(c: ArrayLike) -> Map:
    r"""Return the map :math:`g = c\lambda`, with a factor c () of zero or more."""
    return _Scale(_checks.nonnegative("c", c, ndim=0))


def power(alpha: ArrayLike) -> Map:
    r"""Return the map :math:`g = \lambda_1(\lambda/\lambda_1)^\alpha`, which changes the decay.

    ``alpha`` () is positive. The largest eigenvalue :math:`\lambda_1` stays.
    """
    return _Power(_checks.positive("alpha", alpha, ndim=0))


def flatten(r: int) -> Map:
    r"""Return the map that lowers the first r values to the next, :math:`g_i = \lambda_{r+1}`."""
    r = _checks.whole("r", r)
    return _Level(r, r)


def lift(r: int) -> Map:
    r"""Return the map that raises the first r values to the largest, :math:`g_i = \lambda_1`."""
    return _Level(_checks.whole("r", r), 0)


def hard_cutoff(cutoff: ArrayLike) -> Map:
    r"""Return the map that removes values below a cutoff, :math:`g=\lambda\,[\lambda\ge\Lambda]`.

    ``cutoff`` () is a variance. The derivative in it is zero, so a sampler that follows gradients
    needs `soft_cutoff`.
    """
    return _HardCutoff(_checks.nonnegative("cutoff", cutoff, ndim=0))


def soft_cutoff(cutoff: ArrayLike, width: ArrayLike) -> Map:
    r"""Return the smooth cutoff :math:`g = \lambda/(1 + (\Lambda/\lambda)^{1/w})`, a map.

    It is :math:`\lambda` times the logistic function of :math:`\ln(\lambda/\Lambda)/w`, a smooth
    regulator of the renormalisation group. ``cutoff`` () is a variance, ``width`` () the width w in
    the logarithm of the variance. Both are positive.
    """
    cutoff = _checks.positive("cutoff", cutoff, ndim=0)
    return _SoftCutoff(cutoff, 1.0 / _checks.positive("width", width, ndim=0))


def polynomial_cutoff(cutoff: ArrayLike, p: ArrayLike) -> Map:
    r"""Return the cutoff by a power, :math:`g = \lambda/(1 + (\Lambda/\lambda)^p)`, a map.

    It is `soft_cutoff` of width 1/p. ``cutoff`` () is a variance, ``p`` () the power; both are
    positive.
    """
    cutoff = _checks.positive("cutoff", cutoff, ndim=0)
    return _SoftCutoff(cutoff, _checks.positive("p", p, ndim=0))


def ridge(s: ArrayLike) -> Map:
    r"""Return the map :math:`g = \lambda^2/(\lambda + s)`, the damping of ridge regression.

    ``s`` () is a variance, zero or more.
    """
    return _Ridge(_checks.nonnegative("s", s, ndim=0))


def table(values: ArrayLike) -> Map:
    """Return the map that sets the first m values to ``values`` (m,) and leaves the others.

    ``values`` are variances, zero or more, in the order of the modes.
    """
    return _Table(_checks.nonnegative("values", values, ndim=1))


def combine(*maps: Map) -> Map:
    r"""Return the product of several maps, :math:`g/\lambda = \prod_j g_j(\lambda)/\lambda`.

    All ``maps`` see the old eigenvalues (..., k), one at a time; `flatten`, `lift` and `table`
    cannot be combined. To apply maps one after the other, call `modify` several times.
    """
    for g in maps:
        if not isinstance(g, Pointwise):
            raise ValueError(
                f"combine takes maps of one eigenvalue at a time, got {type(g).__name__}; apply "
                "modify twice for a map by rank or a function of your own"
            )
    return _Combined(tuple(maps))
