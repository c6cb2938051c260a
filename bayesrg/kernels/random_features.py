# SPDX-License-Identifier: Apache-2.0
"""Random features: a finite network whose kernel has the infinite one as its mean."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._activations import resolve
from .base import Kernel
from .network import NNGP


class RandomFeatures(Kernel):
    """Kernel of finitely many random features. Made by `random_features`.

    Attributes
    ----------
    base : NNGP
        The kernel of infinite width, an `NNGP` or `NTK` of depth 1.
    weights : (d + 1, m)
        Standard normal numbers: weights of the m hidden units, and their biases in the last row.
    """

    base: NNGP
    weights: Float[Array, "column unit"]

    def features(self, X: _checks.ArrayLike) -> Float[Array, "point feature"]:
        """Return features F (n, p) at X (n, d), such that F F^T is the Gram matrix.

        For an `NNGP` p is m; for an `NTK` m (d + 1), or m (d + 2) if hidden biases are trained. A
        bias of the read-out adds one.
        """
        X = _checks.inputs("X", X)
        values, slopes, inner, bias = self._parts(X)
        columns = [values]
        if slopes is not None:  # gradients in the hidden weights: products f'(h) times input
            columns.append((slopes[:, :, None] * inner[:, None]).reshape(X.shape[0], -1))
        if bias is not None:
            columns.append(jnp.broadcast_to(jnp.sqrt(bias), (X.shape[0], 1)))
        return jnp.concatenate(columns, 1)

    def gram(self, X, Z):
        values, slopes, inner, bias = self._parts(X)
        others, other_slopes, other_inner, _ = self._parts(Z)
        K = values @ others.T
        if slopes is not None:
            # features f'(h) times input need not be made: their Gram matrix is this product
            K = K + (slopes @ other_slopes.T) * (inner @ other_inner.T)
        return K if bias is None else K + bias

    def gram_diag(self, X):
        values, slopes, inner, bias = self._parts(X)
        K = (values**2).sum(-1)
        if slopes is not None:
            K = K + (slopes**2).sum(-1) * (inner**2).sum(-1)
        return K if bias is None else K + bias

    def _parts(self, X):
        """Parts of the features: values f(h) and slopes f'(h), scaled, inputs and bias.

        Their shapes are (n, m), (n, m), (n, d + 1) and (). Slopes are None for an `NNGP`, the bias
        is None if it is not a feature. Without trained biases the inputs are (n, d).
        """
        base, d, units = self.base, self.weights.shape[0] - 1, self.weights.shape[1]
        _checks.columns("X", X, d, "the weights")
        first, last = jnp.broadcast_to(base.weight_var, (2,))
        hidden_bias, bias = jnp.broadcast_to(base.bias_var, (2,))
        train_bias = getattr(base, "train_bias", True)

        # the hidden bias is the weight of one more input, which is constant
        ones = jnp.ones((X.shape[0], 1), X.dtype)
        inner = jnp.concatenate([jnp.sqrt(first / d) * X, jnp.sqrt(hidden_bias) * ones], 1)
        function = resolve(base.activation).function
        if base.activation == "leaky_relu":
            slope = base.slope if isinstance(base.slope, Array) else float(base.slope)
            function = partial(_bent, slope)

        h = inner @ self.weights
        values, slopes = jax.jvp(function, (h,), (jnp.ones_like(h),))
        scale = jnp.sqrt(last / units)
        return (
            scale * values,
            scale * slopes if base._tangent else None,
            inner if train_bias else inner[:, :d],
            bias if base.readout_bias and train_bias else None,
        )


def _bent(slope, h):
    """Leaky relu with the given slope below zero."""
    return jnp.where(h > 0, h, slope * h)


def random_features(
    kernel: Kernel, columns: int, units: int, *, key: Array | int
) -> RandomFeatures:
    r"""Draw a network of one hidden layer and return its kernel, whose mean is ``kernel``.

    With :math:`h = \sqrt{\sigma_w^2/d}\, XW + \sigma_b b` for m hidden units the features of an
    `NNGP` are :math:`\sqrt{\sigma_w^2/m}\, f(h)`. An `NTK` has further features
    :math:`\sqrt{\sigma_w^2/m}\, f'(h) \otimes (\sqrt{\sigma_w^2/d}\, x, \sigma_b)`.

    Parameters
    ----------
    kernel : NNGP or NTK
        Kernel of infinite width, of depth 1. Its variances may be sampled; the random numbers stay
        the same.
    columns : int
        Number d of columns of the inputs (n, d).
    units : int
        Number m of hidden units. The error of an entry falls as :math:`m^{-1/2}`.
    key : JAX key, or int

    Returns
    -------
    RandomFeatures
        A kernel. Its ``features(X)`` (n, p) can be given to `bayesrg.gp.MercerNormal` as features,
        with values 1 and ``orthonormal=False``. A density then costs :math:`O(np^2)`.

    Raises
    ------
    ValueError
        If the kernel is of another kind or depth, or has residual blocks or normalised layers.

    References
    ----------
    arXiv 1806.07572; Cho and Saul (2009); Rahimi and Recht (2007).

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from bayesrg import kernels
    >>> finite = kernels.random_features(kernels.NTK(1), 3, 100, key=0)
    >>> finite.features(jnp.ones((5, 3))).shape
    (5, 501)
    """
    what = "an NNGP or an NTK, such as kernels.NNGP(1, activation)"
    _checks.instance("kernel", kernel, NNGP, what)
    if kernel.depth != 1 or kernel.skip is not None or kernel.layernorm:
        raise ValueError(
            f"random features have one plain hidden layer, got depth={kernel.depth}, "
            f"skip={kernel.skip}, layernorm={kernel.layernorm}; for other networks use "
            "empirical_ntk"
        )
    columns, units = _checks.whole("columns", columns), _checks.whole("units", units)
    key = _checks.random_key(key)
    weights = random.normal(key, (columns + 1, units), jnp.result_type(kernel.weight_var, float))
    return RandomFeatures(kernel, weights)
