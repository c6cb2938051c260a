# SPDX-License-Identifier: Apache-2.0
"""Deep linear networks of one-dimensional convolutions: local kernels, renormalised."""

from collections.abc import Mapping, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import quad_logdet
from .order import Bartlett, bartlett_factor

_LARGEST = 500  # rows of the covariance that every draw factorises


class ConvLinear(eqx.Module):
    r"""Bayesian deep linear network of one-dimensional convolutions and a dense readout.

    :math:`h_l[c,i] = \sum_{c'k} W_l[c,c',k]\, h_{l-1}[c', t_l i + k]/\sqrt{C_{l-1}m_l}`, without
    padding, and :math:`f_a = \sum_{ci} v_a[c,i]\, h_L[c,i]/\sqrt{C_LS_L}`, with weights
    :math:`N(0, s_l^2)`, observed with noise of variance ``ridge``.

    Parameters
    ----------
    channels : (L,)
        :math:`C_1, ..., C_L`.
    masks : (L,)
        Sites :math:`m_l` that a unit looks at.
    strides : (L,), or one number
        Steps :math:`t_l` from one unit to the next.
    ridge : ()
        Noise variance.
    outputs : int
    weight_scales : () or (L + 1,)
        The :math:`s_l`, the readout's last. Data fix their product alone.

    Raises
    ------
    ValueError
        For lengths that differ, entries that are not positive integers, or numbers out of range.

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
    ridge: Float[Array, ""] = eqx.field(
        converter=partial(_checks.nonnegative, "ridge", ndim=0), kw_only=True
    )
    outputs: int = eqx.field(
        static=True, converter=partial(_checks.whole, "outputs"), default=1, kw_only=True
    )
    weight_scales: Float[Array, "*level"] = eqx.field(
        converter=partial(_checks.positive, "weight_scales", ndim=(0, 1)),
        default=1.0, kw_only=True,
    )  # fmt: skip

    def __check_init__(self):
        depth = len(self.channels)
        lengths = {len(self.masks), depth}
        if lengths != {depth} or len(self.strides) not in (1, depth) or not depth:
            raise ValueError(
                f"channels, masks and strides have {depth}, {len(self.masks)} and "
                f"{len(self.strides)} entries; give one per layer, and at least one layer"
            )
        if self.weight_scales.shape not in ((), (depth + 1,)):
            raise ValueError(
                f"weight_scales has shape {self.weight_scales.shape} for {depth} layers; give one "
                f"number, or {depth + 1}: one per layer, the readout's last"
            )

    @property
    def variance(self) -> Float[Array, ""]:
        """Product S of the squared scales of all layers."""
        depth = len(self.channels)
        return (jnp.broadcast_to(self.weight_scales, (depth + 1,)) ** 2).prod()

    def sites(self, inputs: int) -> tuple[int, ...]:
        r"""Count the sites :math:`S_0, ..., S_L` of all layers for ``inputs`` sites of X.

        Raises
        ------
        ValueError
            If a mask is wider than what it looks at.
        """
        sites = [_checks.whole("inputs", inputs)]
        for mask, stride in zip(self.masks, self._strides, strict=True):
            if mask > sites[-1]:
                raise ValueError(
                    f"a mask of {mask} does not fit {sites[-1]} sites; with masks {self.masks} and "
                    f"strides {self._strides} inputs of {inputs} sites are too short"
                )
            sites.append((sites[-1] - mask) // stride + 1)
        return tuple(sites)

    @property
    def _strides(self):
        return self.strides if len(self.strides) > 1 else self.strides * len(self.channels)

    def init(self, key: Array | int, inputs: tuple[int, int]) -> tuple[Array, ...]:
        """Draw weights from the prior: L of (C_l, C_{l-1}, m_l), and a readout (c, C_L, S_L).

        ``inputs`` are the channels and sites (C_0, S_0) of X.
        """
        key = _checks.random_key(key)
        inputs = _checks.whole_numbers("inputs", inputs)
        if len(inputs) != 2:
            raise ValueError(f"inputs must be channels and sites of X, got {inputs}")
        shapes = self._shapes(inputs)
        scales = jnp.broadcast_to(self.weight_scales, (len(shapes),))
        keys = random.split(key, len(shapes))
        return tuple(
            scale * random.normal(k, shape, scale.dtype)
            for k, scale, shape in zip(keys, scales, shapes, strict=True)
        )

    def _shapes(self, inputs):
        channels = (inputs[0], *self.channels)
        shapes = list(zip(channels[1:], channels[:-1], self.masks, strict=True))
        return [*shapes, (self.outputs, channels[-1], self.sites(inputs[1])[-1])]

    def apply(self, weights: Sequence[Array], X: ArrayLike) -> Float[Array, "point output"]:
        """Outputs at X (n, C_0, S_0) under ``weights``: (n, c)."""
        h = self.check(X)
        weights = [
            _checks.finite("an entry of weights", W, ndim=3)
            for W in _checks.sequence("weights", weights)
        ]  # as init gives them
        shapes = [W.shape for W in weights]
        expected = [tuple(s) for s in self._shapes(h.shape[1:])]
        if shapes != expected:
            raise ValueError(f"weights have shapes {shapes}; give {expected}, as init does")
        for W, stride in zip(weights[:-1], self._strides, strict=True):
            fan = W.shape[1] * W.shape[2]
            h = jax.lax.conv(h, W, (stride,), "VALID") / np.sqrt(fan)
        v = weights[-1]
        return jnp.einsum("nci,aci->na", h, v) / np.sqrt(v.shape[1] * v.shape[2])

    def check(self, X: ArrayLike) -> Float[Array, "point channel site"]:
        """Convert inputs X to a finite array (n, C_0, S_0) that all masks fit."""
        X = _checks.finite("X", X, ndim=3)
        if not X.size:
            raise ValueError(f"X has shape {X.shape}; give at least one input")
        self.sites(X.shape[2])
        return X

    def sizes(self, inputs: int) -> tuple[Bartlett, ...]:
        """List the random factors in the order L, ..., 1 for ``inputs`` sites of X."""
        sites, result = self.sites(inputs), []
        rows = self.outputs * sites[-1]
        for layer in range(len(self.channels), 0, -1):
            result.append(Bartlett(layer, self.channels[layer - 1], rows))
            rows = result[-1].rank * self.masks[layer - 1]
        return tuple(result)

    def order_factor(
        self, inputs: int, latents: Mapping[str, ArrayLike]
    ) -> Float[Array, "*batch output site rank"]:
        r"""Factor G of the order parameter :math:`Q_1 = GG^T` that correlates sites and outputs.

        :math:`Q_L` is Wishart with :math:`C_L` degrees of freedom around :math:`1/S_L`, and
        :math:`Q_{l-1}` given :math:`Q_l` with :math:`C_{l-1}` around :math:`T_l[Q_l]`, which adds
        up what the mask sees. Factors and not matrices are mapped, so that sites which a stride
        skips do no harm.

        Parameters
        ----------
        inputs : sites S_0 of X
        latents : mapping
            Of ``c{l}`` (..., pivots) and ``t{l}`` (..., entries), as `sizes` lists them.

        Returns
        -------
        (..., c, S_1, r)
        """
        sites, outputs = self.sites(inputs), self.outputs
        F = jnp.eye(outputs * sites[-1]) / np.sqrt(sites[-1])
        for size in self.sizes(inputs):
            B = bartlett_factor(size, latents.get(f"c{size.layer}"), latents.get(f"t{size.layer}"))
            G = F @ B / np.sqrt(size.width)
            G = G.reshape(G.shape[:-2] + (outputs, sites[size.layer], size.rank))
            if size.layer > 1:
                i = size.layer - 1
                F = _spread(G, sites[i], self.masks[i], self._strides[i])
                F = F.reshape(F.shape[:-3] + (outputs * sites[i], F.shape[-1]))
        return G

    def patches(self, X: ArrayLike) -> Float[Array, "point site feature"]:
        r"""What the units of the first layer see: (n, S_1, C_0 m_1) in units of f.

        Products of them are the local kernels :math:`K_{ii'}(x, x')`.
        """
        X = self.check(X)
        m, stride = self.masks[0], self._strides[0]
        index = stride * np.arange(self.sites(X.shape[2])[1])[:, None] + np.arange(m)
        seen = jnp.moveaxis(X[:, :, index], 1, 2)  # (n, S_1, C_0, m)
        seen = seen.reshape(seen.shape[:2] + (-1,))
        return seen * jnp.sqrt(self.variance / seen.shape[-1])

    def local_kernels(
        self, X: ArrayLike, Z: ArrayLike | None = None
    ) -> Float[Array, "site site_bis point point_bis"]:
        r"""Kernels :math:`K_{ii'}(x,x') = S\sum_{ck}x[c,ti+k]x'[c,ti'+k]/C_0m_1`.

        ``X`` is (n, C_0, S_0) and ``Z`` (m, C_0, S_0), X itself by default; the result is
        (S_1, S_1, n, m).
        """
        left = self.patches(X)
        return jnp.einsum("nip,mjp->ijnm", left, left if Z is None else self.patches(Z))

    def covariance(
        self, X: ArrayLike, factor: ArrayLike
    ) -> Float[Array, "*batch output point output_bis point_bis"]:
        r"""Covariance :math:`\sum_{ii'}Q_{(ai),(bi')}K_{ii'}(x,x')` of the functions given Q.

        ``X`` is (n, C_0, S_0) and ``factor`` (..., c, S_1, r) from `order_factor`; the result is
        (..., c, n, c, n).
        """
        factor = jnp.asarray(factor)
        columns = jnp.einsum("nip,...air->...anpr", self.patches(X), factor)
        flat = columns.reshape(columns.shape[:-2] + (-1,))
        return jnp.einsum("...anq,...bmq->...anbm", flat, flat)

    def log_likelihood(
        self, X: ArrayLike, Y: ArrayLike, factor: ArrayLike
    ) -> Float[Array, "*batch"]:
        """Log density of targets given the order parameter, by one dense Cholesky factor.

        Parameters
        ----------
        X : (n, C_0, S_0)
        Y : (n,) or (n, c), with n c at most 500, as local kernels share no eigenvectors
        factor : (..., c, S_1, r) from `order_factor`

        Returns
        -------
        (...)

        Raises
        ------
        ValueError
            For mismatched shapes, non-finite data, or more than 500 targets.
        """
        X = self.check(X)
        Y = _checks.targets("Y", Y, X.shape[0]).reshape(X.shape[0], -1)
        n, c = Y.shape
        if c != self.outputs:
            raise ValueError(f"Y has {c} columns and the network {self.outputs} outputs")
        if n * c > _LARGEST:
            raise ValueError(
                f"Y has {n * c} entries, and their covariance is factorised at every draw; give "
                f"at most {_LARGEST}"
            )
        C = self.covariance(X, factor)
        C = C.reshape(C.shape[:-4] + (n * c, n * c)) + self.ridge * jnp.eye(n * c)
        y = jnp.broadcast_to(Y.T.reshape(-1), C.shape[:-1])
        quad, log_det = quad_logdet(C, y[..., None, :])
        return -0.5 * (quad[..., 0] + log_det + n * c * np.log(2 * np.pi))


def _spread(G, sites, mask, stride):
    r"""Factor of :math:`T[GG^T]`: (..., c, sites, mask r) from (..., c, S, r)."""
    parts = []
    for k in range(mask):
        seen = stride * np.arange(G.shape[-2]) + k
        parts.append(jnp.zeros(G.shape[:-2] + (sites, G.shape[-1])).at[..., seen, :].set(G))
    return jnp.concatenate(parts, -1) / np.sqrt(mask)


def order_fourth_moment(net: ConvLinear, inputs: int) -> Float[np.ndarray, "i j k l"]:
    r"""Prior mean of :math:`Q_{ij}Q_{kl}` over outputs and sites.

    For W Wishart with C degrees of freedom around :math:`\Sigma`,
    :math:`E W_{ij}W_{kl} = E\Sigma_{ij}\Sigma_{kl} + (E\Sigma_{ik}\Sigma_{jl} +
    E\Sigma_{il}\Sigma_{jk})/C`, then T on both pairs of indices.

    Parameters
    ----------
    net : ConvLinear
    inputs : sites S_0 of X

    Returns
    -------
    (s, s, s, s), with s = D S_1
        On the host, with outputs slowest; the mean of Q is 1 / S_L through all T.
    """
    _checks.instance("net", net, ConvLinear, "a ConvLinear")
    sites, c = net.sites(inputs), net.outputs
    eye = np.eye(c * sites[-1]) / sites[-1]
    E = np.einsum("ij,kl->ijkl", eye, eye)
    for layer in range(len(net.channels), 0, -1):
        other = np.einsum("ikjl->ijkl", E) + np.einsum("iljk->ijkl", E)
        E = E + other / net.channels[layer - 1]
        if layer > 1:
            T = _transfer(net, sites, layer)
            E = np.einsum("kia,kjb,hlc,hmd,abcd->ijlm", T, T, T, T, E, optimize=True)
    return E


def _transfer(net, sites, layer):
    """Matrices (m, D S_{l-1}, D S_l) with T[Q] the sum of A Q A^T over the first axis."""
    i = layer - 1
    G = np.eye(net.outputs * sites[layer]).reshape(net.outputs, sites[layer], -1)
    F = np.asarray(_spread(jnp.asarray(G), sites[i], net.masks[i], net._strides[i]))
    F = F.reshape(net.outputs * sites[i], net.masks[i], -1)
    return np.moveaxis(F, 1, 0)
