# SPDX-License-Identifier: Apache-2.0
"""Covariances of infinitely wide networks."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._activations import DUALS
from .base import Kernel, MomentKernel

__all__ = ["NNGP"]


class NNGP(Kernel):
    r"""Covariance of an infinitely wide fully connected network with Gaussian weights.

    .. math:: K_1 = \sigma_w^2 x\cdot z/d + \sigma_b^2, \qquad
              K_{l+1} = \sigma_w^2\, E f(u) f(v) + \sigma_b^2, \quad (u, v) \sim N(0, K_l)

    Parameters
    ----------
    depth : int
        Hidden layers, zero or more; the linear read-out is one more step.
    activation : "relu", "erf" or "linear"
    weight_var : () or (depth + 1,)
        Variance of a weight times its fan-in; one a layer if an array, the read-out last.
    bias_var : () or (depth + 1,)
        Variance of a bias.
    readout_bias : bool
        Whether the read-out has a bias.

    Notes
    -----
    First derivatives are exact also at coincident and antipodal inputs, second derivatives there
    are not. At a zero input without bias the derivative in the bias is infinite and given as 0.
    In 32-bit floats entries carry about six digits.

    References
    ----------
    arXiv 2307.14531, section 2; Cho and Saul (2009), equation 6 (relu); Williams (1998) (erf).
    """

    depth: int = eqx.field(static=True)
    activation: str = eqx.field(static=True, default="relu")
    weight_var: Float[Array, "..."] = eqx.field(
        converter=partial(_checks.positive, "weight_var", ndim=(0, 1)), default=2.0
    )
    bias_var: Float[Array, "..."] = eqx.field(
        converter=partial(_checks.nonnegative, "bias_var", ndim=(0, 1)), default=0.0
    )
    readout_bias: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        if isinstance(self.depth, bool) or not isinstance(self.depth, int) or self.depth < 0:
            raise ValueError(
                f"depth must be an integer >= 0, got {self.depth!r}; it counts hidden layers"
            )
        _checks.choice("activation", self.activation, tuple(DUALS))
        for name in ("weight_var", "bias_var"):
            shape = jnp.shape(getattr(self, name))
            if shape not in ((), (self.depth + 1,)):
                raise ValueError(
                    f"{name} has shape {shape}; give one number, or one a layer: "
                    f"({self.depth + 1},)"
                )

    def _layers(self):
        """Yield weight and bias variance of every layer after the first."""
        weights = jnp.broadcast_to(self.weight_var, (self.depth + 1,))
        biases = jnp.broadcast_to(self.bias_var, (self.depth + 1,))
        if not self.readout_bias:
            biases = biases.at[-1].set(0.0)
        return weights, biases

    def _moments(self, d):
        return _Recursion(*self._layers(), self.activation, d)

    def gram(self, X, Z):
        return self._moments(X.shape[1]).gram(X, Z)

    def gram_diag(self, X):
        return self._moments(X.shape[1]).gram_diag(X)


class _Recursion(MomentKernel):
    """The layer recursion at a given input dimension, as a function of inner products."""

    weights: Float[Array, " layer"]
    biases: Float[Array, " layer"]
    activation: str = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def _first(self, inner):
        return self.weights[0] / self.dimension * inner + self.biases[0]

    def moments(self, xx, zz, xz):
        dual = DUALS[self.activation]
        a, b, c = self._first(xx), self._first(zz), self._first(xz)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            c = weight * dual.covariance(a, b, c) + bias
            a, b = (weight * dual.diagonal(v) + bias for v in (a, b))
        return c

    def diag_moments(self, xx):
        a = self._first(xx)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            a = weight * DUALS[self.activation].diagonal(a) + bias
        return a
