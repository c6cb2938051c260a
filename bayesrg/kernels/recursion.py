# SPDX-License-Identifier: Apache-2.0
r"""Covariance K and tangent kernel Theta of an infinitely wide network, layer by layer.

.. math:: K_1 = \sigma_w^2 x\cdot z/d + \sigma_b^2, \quad \Theta_1 = K_1, \qquad
          K_{l+1} = \sigma_w^2 V(K_l) + \sigma_b^2, \quad
          \Theta_{l+1} = K_{l+1} + \sigma_w^2 \dot V(K_l)\, \Theta_l

with the moments V of `_activations` (Cho and Saul 2009; arXiv 1806.07572). The diagonals K(x, x)
are computed first, one number per point and layer. Tiles of pairs then read them, and pairs of
equal rows take their values at every layer.

If the moments depend on the angle between two rows, K alone does not contain enough digits: a small
angle is the square root of a difference of nearly equal numbers. So the gaps
:math:`1 \mp K(x, z)/\sqrt{K(x, x) K(z, z)}` are computed beside K, as sums of positive terms.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, PyTree, UInt32

from .._activations import Series, angle_between
from .._linalg import ratio, safe_sqrt, with_value
from .rows import least_share, row_hashes, same_rows, subtracted


class Points(NamedTuple):
    """Rows of inputs (n, d), and what depends on each row alone.

    ``K`` and ``theta`` (n, layers) are the diagonals of every layer. ``prepared`` has, for each
    layer but the last, what the moments need to know of the row's variance.
    """

    x: Float[Array, "point feature"]
    hashes: UInt32[Array, "point word"]
    K: Float[Array, "point layer"]
    theta: Float[Array, "point layer"] | None
    prepared: tuple[PyTree, ...]


class Recursion(eqx.Module):
    """Recursion over the layers of a network, with the hyper-parameters of all layers.

    If ``skip`` is a number, every step but the last is a residual block of that strength. The
    tangent kernel is computed if ``tangent`` is set; ``train_bias`` decides whether biases count.
    """

    weights: Float[Array, " layer"]
    biases: Float[Array, " layer"]
    skip: Float[Array, ""] | None
    dual: tuple
    layernorm: bool = eqx.field(static=True, default=False)
    tangent: bool = eqx.field(static=True, default=False)
    train_bias: bool = eqx.field(static=True, default=True)

    def points(self, X: Float[Array, "point feature"]) -> Points:
        """Return the `Points` of X (n, d): every row paired with itself, through all layers."""
        K = self.weights[0] / X.shape[1] * (X**2).sum(-1) + self.biases[0]
        theta = self._first_tangent(K)
        Ks, thetas, ready = [K], [theta], []
        for layer in range(1, self.weights.size):
            a, normed = K, theta
            if self.layernorm:  # divides pre-activations, and so gradients, by the deviation
                a, normed = jnp.ones_like(K), theta * ratio(1.0, K) if self.tangent else None

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
            """Give equal rows the value of the diagonal of this layer."""
            return settled(same, value, own[:, layer], other[:, layer])

        inner = left.x @ right.x.T
        K = self.weights[0] / left.x.shape[1] * inner + self.biases[0]
        gaps = self._first_gaps(left, right, K, same) if self.dual.gaps else None
        theta = self._first_tangent(K)
        K = settle(K, left.K, right.K, 0)
        theta = settle(theta, left.theta, right.theta, 0) if self.tangent else None

        for layer in range(1, self.weights.size):
            # p and q are what the moments need of the rows, c is the covariance of the two
            p = jax.tree.map(lambda v: v[:, None], left.prepared[layer - 1])
            q = jax.tree.map(lambda v: v[None], right.prepared[layer - 1])
            c, normed = K, theta
            if self.layernorm:
                a, b = left.K[:, layer - 1][:, None], right.K[:, layer - 1][None]
                scale = safe_sqrt(ratio(1.0, a)) * safe_sqrt(ratio(1.0, b))
                c, normed = K * scale, theta * scale if self.tangent else None

            known = ()
            if gaps is not None:
                e, g = jnp.where(same, 0.0, gaps[0]), jnp.where(same, 2.0, gaps[1])
                # without the barrier XLA computes the gaps again, and rounds them differently
                e, g = lax.optimization_barrier((e, g))
                t = angle_between(e, g)
                # with e, g = 1 -/+ cos t the root of e g is sin t, and the area is |u| |v| sin t
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
        """Theta of the first layer: its K, minus the bias if that is not trained."""
        if not self.tangent:
            return None
        return K if self.train_bias else K - self.biases[0]

    def _step(self, layer, V, slope, K, theta, normed):
        """K and Theta after a layer, from the moments V and V' (``slope``) and K, Theta before it.

        ``normed`` is Theta, divided by the variances if layers are normalised.
        """
        weight, bias = self.weights[layer], self.biases[layer]
        branch = weight * V + bias
        change = None
        if self.tangent:
            # gradients in the parameters of this layer, and in those of all layers before it
            change = (branch if self.train_bias else weight * V) + weight * slope * normed
        if self.skip is None or layer == self.weights.size - 1:
            return branch, change

        strength = self.skip**2
        grown = theta + strength * change if self.tangent else None
        return K + strength * branch, grown

    def _first_gaps(
        self, left: Points, right: Points, K: Float[Array, "n m"], same: Bool[Array, "n m"]
    ) -> tuple[Float[Array, "n m"], Float[Array, "n m"]]:
        """Gaps 1 -/+ correlation of the first layer, (n, m) each.

        Inner products give them with an absolute error of the machine precision. Where a gap is so
        small that digits are lost, the row is subtracted from all others instead.
        """
        x, z, a, b, K, weight, bias = lax.stop_gradient(
            (left.x, right.x, left.K[:, 0], right.K[:, 0], K, self.weights[0], self.biases[0])
        )
        root_a, root_b = safe_sqrt(ratio(1.0, a)), safe_sqrt(ratio(1.0, b))
        rho = jnp.clip(K * root_a[:, None] * root_b[None], -1.0, 1.0)
        lost = (jnp.abs(rho) > 1 - least_share(K.dtype)) & ~same

        # K is the inner product of inputs with one more column, the bias; make their length 1
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
        r"""Gaps after a layer, from the gaps e, g and the angle t before its activation.

        The new covariance is a sum of parts: activation, bias, and what the layer skips. Let the
        entries of a unit vector x be the square roots of the shares of the parts in the variance
        of one row, y those of another row, and :math:`\rho_i` the correlation of part i. Then
        :math:`1 \mp \sum_i x_i y_i \rho_i = \sum_i x_i y_i (1 \mp \rho_i) + |x - y|^2/2`, in which
        no term is negative.
        """
        left, right, weight, bias, skip = lax.stop_gradient(
            (left, right, self.weights[layer], self.biases[layer], self.skip)
        )
        # of the activation, of the bias (correlation 1), and of the skipped layer
        gaps = [self.dual.gaps(e, g, t), (0.0, 2.0), (e, g)]

        def shares(points):
            """Unit vectors of the rows, one list entry per part; and where the variance is > 0."""
            own = points.K[:, layer - 1]
            moved = weight * self.dual.diagonal(points.prepared[layer - 1])
            parts = [moved, jnp.broadcast_to(bias, moved.shape)]
            if skip is not None:
                parts = [skip**2 * v for v in parts] + [own]
            whole = sum(parts)
            return [safe_sqrt(v * ratio(1.0, whole)) for v in parts], whole > 0

        (left, moves), (right, also) = shares(left), shares(right)

        pairs = [(x[:, None], y[None]) for x, y in zip(left, right, strict=True)]
        apart = sum((x - y) ** 2 for x, y in pairs) / 2
        added = (
            sum((x * y * gap[i] for (x, y), gap in zip(pairs, gaps, strict=False)), apart)
            for i in (0, 1)
        )

        # without variance there is no angle: use 90 degrees
        known = moves[:, None] & also[None]
        return tuple(jnp.where(known, gap, 1.0) for gap in added)


@subtracted
def _halves(u, others):
    """Gaps 1 -/+ u.v of unit vectors: half the squared lengths of u - v and u + v, (m,) each.

    ``others`` are the vectors v (m, d), and whether their lengths are not 0, (m,).
    """
    v, known = others
    least = 8 * float(jnp.finfo(u.dtype).eps) ** 2  # squared distance that rounding makes
    halves = ((u - v) ** 2).sum(-1) / 2, ((u + v) ** 2).sum(-1) / 2
    # Treat rows that agree up to rounding as parallel (half 0). A row of length zero has no angle:
    # use 90 degrees (half 1).
    halves = (jnp.where(h < least, 0.0, h) for h in halves)
    return tuple(jnp.where(known & u.any(), h, 1.0) for h in halves)


def settled(
    same: Bool[Array, "n m"], value: Float[Array, "n m"], own: Array, other: Array
) -> Float[Array, "n m"]:
    """Return ``value`` (n, m), but at equal rows the mean of the diagonals (n,) and (m,).

    Equal rows are those where ``same`` (n, m) is True. All derivatives are those of ``value``.
    """
    mean = 0.5 * (own[:, None] + other[None])
    return with_value(value, jnp.where(same, mean, value))


def prepared(dual, a: Float[Array, "..."]) -> PyTree:
    """Return what the moments need to know of variances a (...), with derivatives also at zero.

    A series differentiates the standard deviation, which has no derivative at variance zero. There
    this function uses derivatives at a variance of the size of a rounding error, and the values at
    zero.
    """
    if not isinstance(dual, Series):
        return dual.prepare(a)
    none = a == 0
    p = dual.prepare(with_value(a, jnp.where(none, jnp.finfo(a.dtype).eps, a)))
    square = dual.activation.function(jnp.zeros((), a.dtype)) ** 2
    return p._replace(square=with_value(p.square, jnp.where(none, square, p.square)))


def beyond(dual, same: Bool[Array, "n m"], p: PyTree, q: PyTree, of: str = "value"):
    """Return the part of second moments (n, m) that a series leaves out at equal rows, else 0.

    ``p`` and ``q`` are the coefficients of the rows; ``of`` is "value" for f or "slope" for f'. The
    sum of the series and this part equals the integral ``E f^2``, which the diagonal uses; so do
    the derivatives.
    """
    if not isinstance(dual, Series):
        return 0.0
    square = {"value": "square", "slope": "slope_square"}[of]
    left, right = (getattr(v, square) - (getattr(v, of) ** 2).sum(-1) for v in (p, q))
    return jnp.where(same, 0.5 * (left + right), 0.0)
