# SPDX-License-Identifier: Apache-2.0
"""Deep linear networks of dense layers."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Linear
from .base import LinearNetwork


class DeepLinear(LinearNetwork):
    r"""Bayesian deep linear network without biases.

    :math:`f = X W_1^T\cdots W_{L+1}^T/\gamma_{out}`, observed as
    :math:`Y = f + \sqrt T\epsilon`, with independent weights
    :math:`W_l[i,j]\sim N(0, s_l^2/N_{l-1})`: white noise times :math:`s_l/\sqrt{N_{l-1}}`. For an
    intercept, append a constant column to X. ``layers`` returns X (n, d), the hidden layers
    :math:`H_1, ..., H_L` (n, N_l) and the outputs f (n, outputs); ``apply`` returns f.

    Parameters
    ----------
    widths : tuple of int
        :math:`(N_1, ..., N_L)`, from the inputs up; empty for Bayesian linear regression.
    ridge : ()
        Noise variance T, also called temperature; zero for interpolation.
    outputs : int
        Columns of Y.
    weight_scales : () or (L + 1,)
        Standard deviations :math:`s_l`, the readout's last. Data determine only their product.
    parametrisation : "standard" or "mean_field"
        Mean field divides outputs by :math:`\gamma\sqrt{N_L}` and the noise variance by
        :math:`N_L`, so that feature learning survives at infinite width.
    richness : ()
        :math:`\gamma` of the mean-field parametrisation: lazy near 0, rich when large.

    References
    ----------
    arXiv 2406.03260 for the model; 2406.16689 for the mean-field parametrisation.
    """

    widths: tuple[int, ...] = eqx.field(
        static=True, converter=partial(_checks.whole_numbers, "widths")
    )
    parametrisation: str = eqx.field(static=True, default="standard", kw_only=True)
    richness: Float[Array, ""] = eqx.field(
        converter=partial(_checks.positive, "richness", ndim=0), default=1.0, kw_only=True
    )

    def __check_init__(self):
        _checks.choice("parametrisation", self.parametrisation, ("standard", "mean_field"))
        if self.parametrisation == "mean_field" and not self.widths:
            raise ValueError(
                "widths is empty, and the mean-field parametrisation scales by the last width; "
                "give a hidden layer, or parametrisation='standard'"
            )
        if self.parametrisation == "standard" and _checks.known(self.richness):
            if float(self.richness) != 1.0:
                raise ValueError(
                    f"richness is {float(self.richness)}, which the standard parametrisation does "
                    "not use; give parametrisation='mean_field' or leave richness out"
                )

    @property
    def depth(self) -> int:
        """Number L of hidden layers."""
        return len(self.widths)

    @property
    def output_scale(self) -> Float[Array, ""]:
        r"""Divisor of the outputs: 1, or :math:`\gamma\sqrt{N_L}` in mean field."""
        if self.parametrisation == "standard":
            return jnp.ones((), self.ridge.dtype)
        return self.richness * np.sqrt(self.widths[-1])

    @property
    def noise_variance(self) -> Float[Array, ""]:
        """Variance of the noise on Y: the ridge T, or :math:`T/N_L` in mean field."""
        return self.ridge if self.parametrisation == "standard" else self.ridge / self.widths[-1]

    def standardise(self) -> "DeepLinear":
        r"""Return the standard network that fits Y times ``output_scale`` as this one fits Y.

        Its noise variance is :math:`T\gamma^2`. Order parameter and feature kernels are those of
        this network.
        """
        if self.parametrisation == "standard":
            return self
        ridge = self.noise_variance * self.output_scale**2
        return DeepLinear(
            self.widths, ridge=ridge, outputs=self.outputs, weight_scales=self.weight_scales
        )

    def kernel(self, X: ArrayLike, Z: ArrayLike | None = None) -> Array:
        r"""Return the prior covariance of an output, :math:`S XZ^T/N_0`, in units of y squared.

        ``X`` is (n, d) and ``Z`` (m, d), X itself by default; the result is (n, m). S is the
        product of the squared scales, divided by the squared ``output_scale``. In the standard
        parametrisation this is also the kernel of an infinitely wide network.
        """
        X = _checks.inputs("X", X)
        Z = X if Z is None else _checks.columns("Z", _checks.inputs("Z", Z), X.shape[1], "X")
        return self._variance * (X @ Z.T) / X.shape[1]

    def input_kernel(self, inputs: int) -> Linear:
        """Return the prior covariance of an output as a `Kernel`, for X with ``inputs`` columns."""
        return Linear(self._variance / _checks.whole("inputs", inputs))

    @property
    def _variance(self):
        return (self.scales**2).prod() / self.output_scale**2

    def _shapes(self, inputs):
        sizes = (*inputs, *self.widths, self.outputs)
        return tuple(zip(sizes[1:], sizes[:-1], strict=True))

    def _build(self, inputs, white):
        pairs = zip(self.scales, self._shapes(inputs), strict=True)
        return tuple(s * white(i, size) / np.sqrt(size[1]) for i, (s, size) in enumerate(pairs))

    def _forward(self, weights, X):
        hidden = []
        for W in weights:
            X = X @ W.T
            hidden.append(X)
        return [*hidden[:-1], hidden[-1] / self.output_scale]
