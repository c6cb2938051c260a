# SPDX-License-Identifier: Apache-2.0
"""Deep linear networks of one-dimensional convolutions, and their local kernels."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .base import LinearNetwork


class ConvLinear(LinearNetwork):
    r"""Bayesian deep linear network of one-dimensional convolutions and a dense readout.

    :math:`h_l[c,i] = \sum_{c'k} W_l[c,c',k]\, h_{l-1}[c', t_l i + k]/\sqrt{C_{l-1}m_l}`, without
    padding, and :math:`f_a = \sum_{ci} v_a[c,i]\, h_L[c,i]/\sqrt{C_LS_L}`, observed with noise of
    variance ``ridge``. All weights are :math:`N(0, s_l^2)`.

    Inputs X are (n, C_0, S_0): points, channels, sites. Weights are L arrays (C_l, C_{l-1}, m_l)
    and a readout (c, C_L, S_L). ``layers`` returns X, the :math:`h_l` (n, C_l, S_l) and the outputs
    (n, c); ``apply`` returns the outputs.

    Parameters
    ----------
    channels : (L,)
        Numbers of channels :math:`C_1, ..., C_L`.
    masks : (L,)
        Numbers :math:`m_l` of sites that one unit reads.
    strides : (L,), or one number
        Distances :math:`t_l`, in sites, between the masks of neighbouring units.
    ridge : ()
        Noise variance.
    outputs : int
    weight_scales : () or (L + 1,)
        Standard deviations :math:`s_l`, the readout's last. Data determine only their product.

    References
    ----------
    arXiv 2406.03260.
    """

    channels: tuple[int, ...] = eqx.field(
        static=True, converter=partial(_checks.whole_numbers, "channels")
    )
    masks: tuple[int, ...] = eqx.field(
        static=True, converter=partial(_checks.whole_numbers, "masks")
    )
    strides: tuple[int, ...] = eqx.field(
        static=True, converter=partial(_checks.whole_numbers, "strides"), default=1
    )

    def __check_init__(self):
        depth = self.depth
        lengths = {len(self.masks), depth}
        if lengths != {depth} or len(self.strides) not in (1, depth) or not depth:
            raise ValueError(
                f"channels, masks and strides have {depth}, {len(self.masks)} and "
                f"{len(self.strides)} entries; give one per layer, and at least one layer"
            )

    @property
    def depth(self) -> int:
        """Number L of layers of convolutions."""
        return len(self.channels)

    @property
    def variance(self) -> Float[Array, ""]:
        """Product S of the squared scales of all layers."""
        return (self.scales**2).prod()

    def sites(self, inputs: int) -> tuple[int, ...]:
        r"""Count the sites :math:`S_0, ..., S_L` of all layers for ``inputs`` sites of X.

        Raises a ValueError if a mask is wider than the layer that it reads.
        """
        sites = [_checks.whole("inputs", inputs)]
        for mask, stride in zip(self.masks, self.steps, strict=True):
            if mask > sites[-1]:
                raise ValueError(
                    f"a mask of {mask} does not fit {sites[-1]} sites; with masks {self.masks} and "
                    f"strides {self.steps} inputs of {inputs} sites are too short"
                )
            sites.append((sites[-1] - mask) // stride + 1)
        return tuple(sites)

    @property
    def steps(self) -> tuple[int, ...]:
        """Strides of all layers, (L,)."""
        return self.strides if len(self.strides) > 1 else self.strides * self.depth

    def _shapes(self, inputs):
        channels = (inputs[0], *self.channels)
        shapes = zip(channels[1:], channels[:-1], self.masks, strict=True)
        return (*shapes, (self.outputs, channels[-1], self.sites(inputs[1])[-1]))

    def _build(self, inputs, white):
        pairs = zip(self.scales, self._shapes(inputs), strict=True)
        return tuple(scale * white(i, shape) for i, (scale, shape) in enumerate(pairs))

    def _forward(self, weights, X):
        hidden = []
        for W, stride in zip(weights[:-1], self.steps, strict=True):
            X = jax.lax.conv(X, W, (stride,), "VALID") / np.sqrt(W.shape[1] * W.shape[2])
            hidden.append(X)
        v = weights[-1]
        outputs = jnp.einsum("nci,aci->na", X, v) / np.sqrt(v.shape[1] * v.shape[2])
        return [*hidden, outputs]

    def _inputs(self, X):
        return self.check(X)

    def _size(self, inputs):
        inputs = _checks.whole_numbers("inputs", inputs)
        if len(inputs) != 2:
            raise ValueError(f"inputs must be channels and sites of X, got {inputs}")
        return inputs

    def check(self, X: ArrayLike) -> Float[Array, "point channel site"]:
        """Convert inputs X to a finite array (n, C_0, S_0) that all masks fit."""
        X = _checks.finite("X", X, ndim=3)
        if not X.size:
            raise ValueError(f"X has shape {X.shape}; give at least one input")
        self.sites(X.shape[2])
        return X

    def patches(self, X: ArrayLike) -> Float[Array, "point site feature"]:
        r"""Return what each unit of the first layer reads, (n, S_1, C_0 m_1), in units of f.

        Inner products of patches are the local kernels :math:`K_{ii'}(x, x')`.
        """
        X = self.check(X)
        m, stride = self.masks[0], self.steps[0]
        index = stride * np.arange(self.sites(X.shape[2])[1])[:, None] + np.arange(m)
        seen = jnp.moveaxis(X[:, :, index], 1, 2)  # (n, S_1, C_0, m)
        seen = seen.reshape(seen.shape[:2] + (-1,))
        return seen * jnp.sqrt(self.variance / seen.shape[-1])

    def local_kernels(
        self, X: ArrayLike, Z: ArrayLike | None = None
    ) -> Float[Array, "site site_bis point point_bis"]:
        r"""Return the kernels :math:`K_{ii'}(x,x') = S\sum_{ck}x[c,ti+k]x'[c,ti'+k]/C_0m_1`.

        ``X`` is (n, C_0, S_0) and ``Z`` (m, C_0, S_0), X itself by default; the result is
        (S_1, S_1, n, m).
        """
        left = self.patches(X)
        return jnp.einsum("nip,mjp->ijnm", left, left if Z is None else self.patches(Z))
