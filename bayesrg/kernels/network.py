# SPDX-License-Identifier: Apache-2.0
"""Kernels of infinitely wide networks: the covariance (NNGP) and the tangent kernel (NTK)."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._activations import SLOPE, Activation, Series, dual_of, named, still_number
from .._checks import ArrayLike
from .._warnings import warn
from .base import Kernel, two_inputs
from .recursion import Recursion
from .tiles import BLOCK_BYTES, side, tiled

__all__ = ["NNGP", "NTK"]


class NNGP(Kernel):
    r"""Covariance of an infinitely wide fully connected network with Gaussian weights.

    .. math:: K_1 = \sigma_w^2 x\cdot z/d + \sigma_b^2, \qquad
              K_{l+1} = \sigma_w^2\, E f(u) f(v) + \sigma_b^2, \quad (u, v) \sim N(0, K_l)

    Parameters
    ----------
    depth : int
        Number of hidden layers, zero or more, not counting the linear read-out. With ``skip`` the
        number of residual blocks.
    activation : str or callable
        "relu", "leaky_relu", "abs", "step", "sign", "erf", "erf_sqrt2", "sin", "cos" and "linear"
        have closed forms. For other names and for elementwise functions a Hermite series is used.
        Arrays that a function captured are parameters: they may be sampled and differentiated.
    weight_var : () or (depth + 1,)
        Variance of a weight times its fan-in: one for all layers, or one per layer, read-out last.
        With ``skip`` (depth + 2,): input layer, blocks, read-out.
    bias_var : () or (depth + 1,)
        Variance of a bias, one for all layers or one per layer.
    skip : () or None
        Strength alpha of residual blocks :math:`h \to h + \alpha W f(h)`. They follow the input
        layer; the read-out has an activation before it.
    layernorm : bool
        Whether pre-activations are normalised over the width before each activation.
    readout_bias : bool
        Whether the read-out has a bias.
    slope : () or float
        Slope of "leaky_relu" below zero.
    order : int
        Number of terms of the Hermite series.
    block_bytes : int
        Memory in bytes for work arrays with one number per pair of inputs. Larger Gram matrices
        are computed in tiles. Arrays with one number per entry of X, or per row and term of a
        series, are not counted.

    Warns
    -----
    UserWarning
        If the series leaves out more than 1e-6 of a variance.

    Notes
    -----
    First and second derivatives in the inputs are exact, at equal, opposite and nearly equal inputs
    too. For smooth activations all higher ones are exact as well. Where a derivative does not
    exist, the mean over opposite directions is returned. At parallel inputs these are the third and
    higher derivatives of relu, leaky relu and abs, and all derivatives of step and sign. At a zero
    input without bias these are all derivatives of the five: there the kernel has the shape of a
    cone.

    At a zero input the derivative in a bias variance of zero is infinite for these five, and is
    returned as 0. With a series the second derivative in it is dominated by rounding errors there.
    With 32-bit floats entries have about six correct digits.

    References
    ----------
    arXiv 2307.14531, section 2; Cho and Saul (2009), equation 6 (relu); Williams (1998) (erf).
    """

    depth: int = eqx.field(static=True)
    activation: str | Activation = eqx.field(converter=named, default="relu")
    weight_var: Float[Array, "..."] = eqx.field(
        converter=partial(_checks.positive, "weight_var", ndim=(0, 1)), default=2.0
    )
    bias_var: Float[Array, "..."] = eqx.field(
        converter=partial(_checks.nonnegative, "bias_var", ndim=(0, 1)), default=0.0
    )
    skip: Float[Array, ""] | None = eqx.field(
        converter=lambda v: v if v is None else _checks.nonnegative("skip", v, ndim=0),
        default=None,
        kw_only=True,
    )
    layernorm: bool = eqx.field(static=True, default=False, kw_only=True)
    readout_bias: bool = eqx.field(static=True, default=True, kw_only=True)
    slope: float | Array = eqx.field(
        converter=partial(still_number, "slope"), default=SLOPE, kw_only=True
    )
    order: int = eqx.field(static=True, default=64, kw_only=True)
    block_bytes: int = eqx.field(static=True, default=BLOCK_BYTES, kw_only=True)

    def __check_init__(self):
        _checks.whole("depth", self.depth, least=0)
        _checks.flag("layernorm", self.layernorm)
        _checks.flag("readout_bias", self.readout_bias)
        _checks.whole("order", self.order)
        _checks.whole("block_bytes", self.block_bytes)
        for name in ("weight_var", "bias_var"):
            shape = jnp.shape(getattr(self, name))
            if shape not in ((), (self._steps + 1,)):
                raise ValueError(
                    f"{name} has shape {shape}; give one number, or one per layer: "
                    f"({self._steps + 1},)"
                )

    @property
    def _steps(self):
        """Number of layers after the first, read-out included."""
        return self.depth + (self.skip is not None)

    _tangent = False

    def _recursion(self):
        """The recursion over layers, with one weight and bias variance per layer."""
        weights = jnp.broadcast_to(self.weight_var, (self._steps + 1,))
        biases = jnp.broadcast_to(self.bias_var, (self._steps + 1,))
        if not self.readout_bias:
            biases = biases.at[-1].set(0.0)
        dual = dual_of(self.activation, self.slope, self.order)
        train_bias = getattr(self, "train_bias", True)
        return Recursion(
            weights, biases, self.skip, dual, self.layernorm, self._tangent, train_bias
        )

    def _choose(self, K, theta):
        """Pick the value of this kernel from the covariance K and the tangent kernel theta."""
        return K

    def gram(self, X, Z):
        self._warn_series(X, Z)
        return self._defined(_gram(self, X, Z, both=False))

    def symmetric_gram(self, X):
        self._warn_series(X)
        return self._defined(_gram(self, X, None, both=False))

    def gram_diag(self, X):
        self._warn_series(X)
        return self._defined(_diag(self, X))

    def _defined(self, K):
        """Return K; raise if it has entries that are not numbers."""
        return _checks.defined("X, weight_var, bias_var or skip", K)

    def series_error(self, X: ArrayLike) -> Float[Array, " layer"]:
        """Return the largest share of a variance that the series leaves out at X (n, d), per layer.

        The array (layers,) is zero for activations with a closed form. For a tangent kernel it is
        the larger of the shares of f and of its derivative.
        """
        return _left_out(self, _checks.inputs("X", X))[0]

    def _warn_series(self, *inputs):
        """Warn if a series leaves out too much at the inputs; traced values are not checked.

        Raises for a tangent kernel if the activation jumps.
        """
        leaves = (*inputs, *jax.tree.leaves(self))
        dual = dual_of(self.activation, self.slope, self.order)
        if not isinstance(dual, Series) or not all(_checks.known(v) for v in leaves):
            return
        for X in inputs:
            left_out, jump = (np.asarray(v) for v in _left_out(self, X))
            if self._tangent and (jump > 1e-3).any():
                raise ValueError(
                    f"activation {self.activation!r} jumps and has no derivative: only NNGP is "
                    "defined; take NNGP, or a continuous activation"
                )
            if (left_out > 1e-6).any():
                warn(
                    f"a series of {self.order} terms leaves out {left_out.max():.1e} of the "
                    f"variance of activation {self.activation!r}"
                    f"{' or of its derivative' if self._tangent else ''}, at layer "
                    f"{left_out.argmax() + 1}; raise order"
                )
                return


class NTK(NNGP):
    r"""Tangent kernel of an infinitely wide network: inner product of its parameter gradients.

    .. math:: \Theta_1 = K_1, \qquad
              \Theta_{l+1} = K_{l+1} + \sigma_w^2\, E f'(u) f'(v)\, \Theta_l

    with :math:`(u, v) \sim N(0, K_l)` and the covariance :math:`K_l` of `NNGP`.

    Parameters
    ----------
    depth, activation, weight_var, bias_var, skip, layernorm, readout_bias
        Depth, activation, variances and other properties of the network; `NNGP` explains each.
    slope, order, block_bytes
        Slope of "leaky_relu" below zero, number of terms of the series, memory for a tile.
    train : "all" or "last"
        Which parameters are trained: all, or those of the read-out. The kernel of the latter is
        the NNGP.
    train_bias : bool
        Whether biases are trained too.

    Raises
    ------
    ValueError
        For an activation that jumps.

    Notes
    -----
    For smooth activations derivatives are exact. For relu, leaky relu and abs the kernel has a cusp
    where inputs are parallel. There a derivative in only one of the two inputs does not exist: the
    first is returned as the mean from both sides, and higher ones are wrong. Derivatives in both
    inputs at once, as on the diagonal, and derivatives in variances exist and are exact.

    References
    ----------
    arXiv 1806.07572; arXiv 2307.14531, section 2.
    """

    train: str = eqx.field(
        converter=lambda v: _checks.choice("train", v, ("all", "last")),
        static=True,
        default="all",
        kw_only=True,
    )
    train_bias: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        _checks.flag("train_bias", self.train_bias)
        dual = dual_of(self.activation, self.slope, self.order)
        if self.train == "all" and not isinstance(dual, Series) and dual.slope is None:
            raise ValueError(
                f"{self.activation} has no derivative: only NNGP is defined; take NNGP, or a "
                "continuous activation"
            )

    @property
    def _tangent(self):
        return self.train == "all"

    def _choose(self, K, theta):
        if self._tangent:
            return theta
        biased = self.readout_bias and not self.train_bias
        return K - jnp.ravel(self.bias_var)[-1] if biased else K

    def both(self, X: ArrayLike, Z: ArrayLike | None = None) -> tuple[Array, Array]:
        """Return NNGP and tangent kernel, (n, m) each, between X (n, d) and Z (m, d)."""
        _checks.warn_32_bits("a kernel")
        X, Z = two_inputs(X, Z)
        self._warn_series(*((X,) if Z is None else (X, Z)))
        return _gram(self, X, Z, both=True)


@partial(jax.jit, static_argnames="both")
def _gram(kernel, X, Z, both):
    """Gram matrix (n, m) in tiles, or with ``both`` covariance and Gram matrix; Z None means X."""
    recursion = kernel._recursion()
    left = recursion.points(X)
    right = left if Z is None else recursion.points(Z)

    def pairs(left, right):
        K, theta = recursion.pairs(left, right)
        value = kernel._choose(K, theta)
        return (K, value) if both else value

    size = side(kernel.block_bytes, X.dtype.itemsize)
    return tiled(pairs, left, right, size, symmetric=Z is None)


@jax.jit
def _diag(kernel, X):
    """Diagonal (n,) of the kernel at X (n, d)."""
    points = kernel._recursion().points(X)
    theta = points.theta
    return kernel._choose(points.K[:, -1], None if theta is None else theta[:, -1])


@jax.jit
def _left_out(kernel, X):
    """Largest share of a variance left out by the series, and largest sign of a jump, per layer."""
    recursion = kernel._recursion()
    if not isinstance(recursion.dual, Series) or not kernel._steps:
        return jnp.zeros(kernel._steps), jnp.zeros(kernel._steps)
    layers = [recursion.dual.left_out(p) for p in recursion.points(X).prepared]
    value, slope, jump = (jnp.stack(v).max(1) for v in zip(*layers, strict=True))
    return jnp.maximum(value, slope) if kernel._tangent else value, jump
