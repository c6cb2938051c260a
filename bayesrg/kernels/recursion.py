# SPDX-License-Identifier: Apache-2.0
r"""From layer to layer of an infinitely wide network: covariance K and tangent kernel Theta.

.. math:: K_1 = \sigma_w^2 x\cdot z/d + \sigma_b^2, \quad \Theta_1 = K_1, \qquad
          K_{l+1} = \sigma_w^2 V(K_l) + \sigma_b^2, \quad
          \Theta_{l+1} = K_{l+1} + \sigma_w^2 \dot V(K_l)\, \Theta_l

with the moments V of `_activations`. The diagonals are followed first, a number a point and
layer; tiles of pairs then read them. Equal rows take them at every layer: beyond the first, the
angle between two rows is known to the root of the machine precision only.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, PyTree, UInt32

from .._linalg import safe_sqrt
from .base import row_hashes, same_rows


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
    dual: tuple = eqx.field(static=True)
    layernorm: bool = eqx.field(static=True, default=False)
    tangent: bool = eqx.field(static=True, default=False)
    train_bias: bool = eqx.field(static=True, default=True)

    def points(self, X: Float[Array, "point feature"]) -> Points:
        """Follow every row of X (n, d) with itself through the layers."""
        K = self.weights[0] / X.shape[1] * (X**2).sum(-1) + self.biases[0]
        theta = self._first_tangent(K)
        Ks, thetas, prepared = [K], [theta], []
        for layer in range(1, self.weights.size):
            a, normed = K, theta
            if self.layernorm:
                a, normed = jnp.ones_like(K), theta * _inverse(K) if self.tangent else None
            p = self.dual.prepare(a)
            slope = self.dual.slope_diagonal(p) if self.tangent else None
            K, theta = self._step(layer, self.dual.diagonal(p), slope, K, theta, normed)
            prepared.append(p)
            Ks.append(K)
            thetas.append(theta)
        stacked = jnp.stack(thetas, -1) if self.tangent else None
        return Points(X, row_hashes(X), jnp.stack(Ks, -1), stacked, tuple(prepared))

    def pairs(self, left: Points, right: Points) -> tuple[Array, Array | None]:
        """K and Theta of the last layer, (n, m) each, between two sets of points."""
        same = same_rows(left.hashes, right.hashes)

        def settle(value, own, other, layer):
            mean = 0.5 * (own[:, layer][:, None] + other[:, layer][None])
            return jnp.where(same, mean, value)

        inner = left.x @ right.x.T
        K = self.weights[0] / left.x.shape[1] * inner + self.biases[0]
        angle = self._angle(left, right, K, same) if self.dual.angular else None
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
            if layer == 1 and angle is not None:
                known = ((angle[0] * safe_sqrt(p * q), angle[1]),)
            V = self.dual.covariance(p, q, c, *known)
            slope = self.dual.slope(p, q, c, *known) if self.tangent else None
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

    def _angle(
        self, left: Points, right: Points, K: Float[Array, "n m"], same: Bool[Array, "n m"]
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
        """Sine and value of the first layer's angle, from differences where it is small.

        Inner products leave an error of machine precision over the angle; a row for which any is
        so small that digits are lost is subtracted from the others.
        """
        x, z, a, b, K, weight, bias = lax.stop_gradient(
            (left.x, right.x, left.K[:, 0], right.K[:, 0], K, self.weights[0], self.biases[0])
        )
        root_a, root_b = safe_sqrt(_inverse(a)), safe_sqrt(_inverse(b))
        rho = jnp.clip(K * root_a[:, None] * root_b[None], -1.0, 1.0)
        least = 1 - 0.5 * float(jnp.finfo(K.dtype).eps) ** 0.25
        lost = (jnp.abs(rho) > least) & ~same

        scale, shift = safe_sqrt(weight / x.shape[1]), safe_sqrt(bias)
        u = jnp.concatenate([scale * x, jnp.broadcast_to(shift, (*a.shape, 1))], 1)
        v = jnp.concatenate([scale * z, jnp.broadcast_to(shift, (*b.shape, 1))], 1)
        v = v * root_b[:, None]

        def subtracted(u, rho):
            return ((u - v) ** 2).sum(-1), ((u + v) ** 2).sum(-1)

        def multiplied(u, rho):
            return 2 - 2 * rho, 2 + 2 * rho

        def row_by_row(lost, u, rho):
            def one(row):
                return lax.cond(row[0].any(), subtracted, multiplied, *row[1:])

            return lax.map(one, (lost, u, rho))

        def at_once(lost, u, rho):
            return multiplied(u, rho)

        u = u * root_a[:, None]
        apart, along = lax.cond(lost.any(), row_by_row, at_once, lost, u, rho)
        apart, along = jnp.sqrt(apart), jnp.sqrt(along)
        return apart * along / 2, 2 * jnp.arctan2(apart, along)


def _inverse(a):
    """``1 / a``, zero where a is."""
    return jnp.where(a > 0, 1 / jnp.where(a > 0, a, 1.0), 0.0)
