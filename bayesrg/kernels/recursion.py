# SPDX-License-Identifier: Apache-2.0
r"""From layer to layer of an infinitely wide network: covariance K and tangent kernel Theta.

.. math:: K_1 = \sigma_w^2 x\cdot z/d + \sigma_b^2, \quad \Theta_1 = K_1, \qquad
          K_{l+1} = \sigma_w^2 V(K_l) + \sigma_b^2, \quad
          \Theta_{l+1} = K_{l+1} + \sigma_w^2 \dot V(K_l)\, \Theta_l

with the moments V of `_activations`. The diagonals are followed first, a number per point and
layer; tiles of pairs then read them. Equal rows take them at every layer. Where moments turn on
the angle between two rows, K would give it to the root of the machine precision only; so the gaps
:math:`1 \mp K(x, z)/\sqrt{K(x, x) K(z, z)}` are followed beside K, as sums of positive terms.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, PyTree, UInt32

from .._activations import Series, angle_between
from .._linalg import safe_sqrt, with_value
from .rows import least_share, row_hashes, same_rows, subtracted


class Points(NamedTuple):
    """Rows of inputs and what every layer makes of each of them alone."""

    x: Float[Array, "point feature"]
    hashes: UInt32[Array, "point word"]
    K: Float[Array, "point layer"]
    theta: Float[Array, "point layer"] | None
    prepared: tuple[PyTree, ...]


class Recursion(eqx.Module):
    """The hyper-parameters of all layers, and the steps between them.

    ``skip`` makes every step but the last a residual block of that strength. ``tangent`` says
    whether the tangent kernel is followed, ``train_bias`` whether biases are part of it.
    """

    weights: Float[Array, " layer"]
    biases: Float[Array, " layer"]
    skip: Float[Array, ""] | None
    dual: tuple
    layernorm: bool = eqx.field(static=True, default=False)
    tangent: bool = eqx.field(static=True, default=False)
    train_bias: bool = eqx.field(static=True, default=True)

    def points(self, X: Float[Array, "point feature"]) -> Points:
        """Follow every row of X (n, d) with itself through the layers."""
        K = self.weights[0] / X.shape[1] * (X**2).sum(-1) + self.biases[0]
        theta = self._first_tangent(K)
        Ks, thetas, ready = [K], [theta], []
        for layer in range(1, self.weights.size):
            a, normed = K, theta
            if self.layernorm:
                a, normed = jnp.ones_like(K), theta * _inverse(K) if self.tangent else None
            p = prepared(self.dual, a)
            slope = self.dual.slope_diagonal(p) if self.tangent else None
            K, theta = self._step(layer, self.dual.diagonal(p), slope, K, theta, normed)
            ready.append(p)
            Ks.append(K)
            thetas.append(theta)
        stacked = jnp.stack(thetas, -1) if self.tangent else None
        return Points(X, row_hashes(X), jnp.stack(Ks, -1), stacked, tuple(ready))

    def pairs(self, left: Points, right: Points) -> tuple[Array, Array | None]:
        """K and Theta of the last layer, (n, m) each, between two sets of points."""
        same = same_rows(left.hashes, right.hashes)

        def settle(value, own, other, layer):
            return settled(same, value, own[:, layer], other[:, layer])

        inner = left.x @ right.x.T
        K = self.weights[0] / left.x.shape[1] * inner + self.biases[0]
        gaps = self._first_gaps(left, right, K, same) if self.dual.gaps else None
        theta = self._first_tangent(K)
        K = settle(K, left.K, right.K, 0)
        theta = settle(theta, left.theta, right.theta, 0) if self.tangent else None
        for layer in range(1, self.weights.size):
            p = jax.tree.map(lambda v: v[:, None], left.prepared[layer - 1])
            q = jax.tree.map(lambda v: v[None], right.prepared[layer - 1])
            c, normed = K, theta
            if self.layernorm:
                a, b = left.K[:, layer - 1][:, None], right.K[:, layer - 1][None]
                scale = safe_sqrt(_inverse(a)) * safe_sqrt(_inverse(b))
                c, normed = K * scale, theta * scale if self.tangent else None
            known = ()
            if gaps is not None:
                e, g = jnp.where(same, 0.0, gaps[0]), jnp.where(same, 2.0, gaps[1])
                e, g = lax.optimization_barrier((e, g))  # one value for all its uses
                t = angle_between(e, g)
                known = ((jnp.sqrt(e * g) * safe_sqrt(p * q), t),)
                gaps = self._next_gaps(layer, left, right, e, g, t)
            V = self.dual.covariance(p, q, c, *known) + beyond(self.dual, same, p, q)
            slope = None
            if self.tangent:
                slope = self.dual.slope(p, q, c, *known) + beyond(self.dual, same, p, q, "slope")
            K, theta = self._step(layer, V, slope, K, theta, normed)
            K = settle(K, left.K, right.K, layer)
            theta = settle(theta, left.theta, right.theta, layer) if self.tangent else None
        return K, theta

    def _first_tangent(self, K):
        if not self.tangent:
            return None
        return K if self.train_bias else K - self.biases[0]

    def _step(self, layer, V, slope, K, theta, normed):
        """K and Theta after a layer, from moments and what was before it."""
        weight, bias = self.weights[layer], self.biases[layer]
        branch = weight * V + bias
        change = None
        if self.tangent:
            change = (branch if self.train_bias else weight * V) + weight * slope * normed
        if self.skip is None or layer == self.weights.size - 1:
            return branch, change
        strength = self.skip**2
        grown = theta + strength * change if self.tangent else None
        return K + strength * branch, grown

    def _first_gaps(
        self, left: Points, right: Points, K: Float[Array, "n m"], same: Bool[Array, "n m"]
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
        """Gaps of the first layer, from differences where the angle is small.

        Inner products leave an error of machine precision over the angle; a row for which any is
        so small that digits are lost is subtracted from the others.
        """
        x, z, a, b, K, weight, bias = lax.stop_gradient(
            (left.x, right.x, left.K[:, 0], right.K[:, 0], K, self.weights[0], self.biases[0])
        )
        root_a, root_b = safe_sqrt(_inverse(a)), safe_sqrt(_inverse(b))
        rho = jnp.clip(K * root_a[:, None] * root_b[None], -1.0, 1.0)
        lost = (jnp.abs(rho) > 1 - least_share(K.dtype)) & ~same

        scale, shift = safe_sqrt(weight / x.shape[1]), safe_sqrt(bias)
        u = jnp.concatenate([scale * x, jnp.broadcast_to(shift, (*a.shape, 1))], 1)
        v = jnp.concatenate([scale * z, jnp.broadcast_to(shift, (*b.shape, 1))], 1)
        rows = u * root_a[:, None]
        others = v * root_b[:, None], root_b > 0
        return _halves(lost, (1 - rho, 1 + rho), rows, others)

    def _next_gaps(
        self,
        layer: int,
        left: Points,
        right: Points,
        e: Float[Array, "n m"],
        g: Float[Array, "n m"],
        t: Float[Array, "n m"],
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
        r"""Gaps of the layer that follows, from those before activation ``layer`` at angles t.

        Covariances add, and their shares of a variance are the squares of a unit vector's
        entries: with x and y those of two rows :math:`1 - x\cdot y = |x - y|^2/2`.
        """
        left, right, weight, bias, skip = lax.stop_gradient(
            (left, right, self.weights[layer], self.biases[layer], self.skip)
        )
        gaps = [self.dual.gaps(e, g, t), (0.0, 2.0), (e, g)]

        def shares(points):
            own = points.K[:, layer - 1]
            moved = weight * self.dual.diagonal(points.prepared[layer - 1])
            parts = [moved, jnp.broadcast_to(bias, moved.shape)]
            if skip is not None:
                parts = [skip**2 * v for v in parts] + [own]
            whole = sum(parts)
            return [safe_sqrt(v * _inverse(whole)) for v in parts], whole > 0

        (left, moves), (right, also) = shares(left), shares(right)
        pairs = [(x[:, None], y[None]) for x, y in zip(left, right, strict=True)]
        apart = sum((x - y) ** 2 for x, y in pairs) / 2
        added = (
            sum((x * y * gap[i] for (x, y), gap in zip(pairs, gaps, strict=False)), apart)
            for i in (0, 1)
        )
        known = moves[:, None] & also[None]
        return tuple(jnp.where(known, gap, 1.0) for gap in added)


@subtracted
def _halves(u, others):
    """Half the squared lengths of u - v and u + v, for unit vectors v where they are known."""
    v, known = others
    least = 8 * float(jnp.finfo(u.dtype).eps) ** 2
    halves = ((u - v) ** 2).sum(-1) / 2, ((u + v) ** 2).sum(-1) / 2
    # Treat rows that agree up to rounding as parallel (half 0). A row of length zero has no angle:
    # use 90 degrees (half 1).
    halves = (jnp.where(h < least, 0.0, h) for h in halves)
    return tuple(jnp.where(known & u.any(), h, 1.0) for h in halves)


def settled(
    same: Bool[Array, "n m"], value: Float[Array, "n m"], own: Array, other: Array
) -> Float[Array, "n m"]:
    """Give equal rows the mean of their diagonals (n,) and (m,), with the derivatives of value."""
    mean = 0.5 * (own[:, None] + other[None])
    return with_value(value, jnp.where(same, mean, value))


def prepared(dual, a: Float[Array, "..."]) -> PyTree:
    """Prepare variances (...) for moments, with derivatives also where a variance is zero.

    A series differentiates the standard deviation, which has no derivative at zero: take it at a
    variance as small as round-off, with the values at zero.
    """
    if not isinstance(dual, Series):
        return dual.prepare(a)
    none = a == 0
    p = dual.prepare(with_value(a, jnp.where(none, jnp.finfo(a.dtype).eps, a)))
    square = dual.activation.function(jnp.zeros((), a.dtype)) ** 2
    return p._replace(square=with_value(p.square, jnp.where(none, square, p.square)))


def beyond(dual, same: Bool[Array, "n m"], p: PyTree, q: PyTree, of: str = "value"):
    """Return what a series leaves out of the second moments of equal rows, by their integrals.

    ``of`` is "value" or "slope". With this, derivatives there are those of the diagonal.
    """
    if not isinstance(dual, Series):
        return 0.0
    square = {"value": "square", "slope": "slope_square"}[of]
    left, right = (getattr(v, square) - (getattr(v, of) ** 2).sum(-1) for v in (p, q))
    return jnp.where(same, 0.5 * (left + right), 0.0)


def _inverse(a):
    """``1 / a``, zero where a is."""
    return jnp.where(a > 0, 1 / jnp.where(a > 0, a, 1.0), 0.0)
