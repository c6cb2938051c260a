# SPDX-License-Identifier: Apache-2.0
"""Random features: a network of one hidden layer, whose kernel is the infinite one on average."""

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
    """Kernel of finitely many random features; see `random_features`.

    Attributes
    ----------
    weights : (d + 1, m)
        Standard normal numbers, those of the hidden biases last.
    """

    base: NNGP
    weights: Float[Array, "column unit"]

    def features(self, X: _checks.ArrayLike) -> Float[Array, "point feature"]:
        """Columns F at X (n, d), whose products over rows are the kernel's values.

        Of an `NNGP` there are m, of an `NTK` m (d + 1), or m (d + 2) with hidden biases trained;
        one more is the bias of the read-out.
        """
        X = _checks.inputs("X", X)
        values, slopes, inner, bias = self._parts(X)
        columns = [values]
        if slopes is not None:
            columns.append((slopes[:, :, None] * inner[:, None]).reshape(X.shape[0], -1))
        if bias is not None:
            columns.append(jnp.broadcast_to(jnp.sqrt(bias), (X.shape[0], 1)))
        return jnp.concatenate(columns, 1)

    def gram(self, X, Z):
        (left, *more, bias), (right, *others, _) = self._parts(X), self._parts(Z)
        K = left @ right.T
        if more[0] is not None:
            K = K + (more[0] @ others[0].T) * (more[1] @ others[1].T)
        return K if bias is None else K + bias

    def gram_diag(self, X):
        values, slopes, inner, bias = self._parts(X)
        K = (values**2).sum(-1)
        if slopes is not None:
            K = K + (slopes**2).sum(-1) * (inner**2).sum(-1)
        return K if bias is None else K + bias

    def _parts(self, X):
        """Values (n, m), slopes (n, m) and inputs (n, d + 1) that they multiply, bias ()."""
        base, d, units = self.base, self.weights.shape[0] - 1, self.weights.shape[1]
        if X.shape[1] != d:
            raise ValueError(f"X has {X.shape[1]} columns; these features take inputs of {d}")
        first, last = jnp.broadcast_to(base.weight_var, (2,))
        hidden_bias, bias = jnp.broadcast_to(base.bias_var, (2,))
        train_bias = getattr(base, "train_bias", True)
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
    """Leaky relu of a given slope."""
    return jnp.where(h > 0, h, slope * h)


def random_features(
    kernel: Kernel, columns: int, units: int, *, key: Array | int
) -> RandomFeatures:
    r"""Draw a network of one hidden layer whose kernel is that of infinite width on average.

    With :math:`h = \sqrt{\sigma_w^2/d}\, XW + \sigma_b b` of m units the features of an `NNGP`
    are :math:`\sqrt{\sigma_w^2/m}\, f(h)`, and an `NTK` has besides them
    :math:`\sqrt{\sigma_w^2/m}\, f'(h) \otimes (\sqrt{\sigma_w^2/d}\, x, \sigma_b)`.

    Parameters
    ----------
    kernel : NNGP or NTK
        Of depth 1. Its variances may be sampled: the random numbers stay.
    columns : int
        Columns d of the inputs (n, d).
    units : int
        Hidden units m. The error of an entry falls as :math:`m^{-1/2}`.
    key : PRNG key, or int

    Returns
    -------
    RandomFeatures
        A kernel, whose ``features(X)`` (n, p) are the columns of
        `bayesrg.gp.MercerNormal` with values 1 and ``orthonormal=False``: with p features for n
        points a density costs :math:`O(np^2)`.

    Raises
    ------
    ValueError
        For other kernels, residual blocks or normalised layers, and activations that jump.

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
    if not isinstance(kernel, NNGP):
        raise ValueError(f"kernel must be an NNGP or an NTK, got a {type(kernel).__name__}")
    if kernel.depth != 1 or kernel.skip is not None or kernel.layernorm:
        raise ValueError(
            f"random features have one plain hidden layer, got depth={kernel.depth}, "
            f"skip={kernel.skip}, layernorm={kernel.layernorm}; for other networks take "
            "empirical_ntk"
        )
    columns, units = _checks.whole("columns", columns), _checks.whole("units", units)
    key = _checks.random_key(key)
    weights = random.normal(key, (columns + 1, units), jnp.result_type(kernel.weight_var, float))
    return RandomFeatures(kernel, weights)
