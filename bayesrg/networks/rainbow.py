# SPDX-License-Identifier: Apache-2.0
"""Rainbow networks: random layers whose weight covariance may depend on the layers below."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._activations import Activation, activation_function, one_per_layer
from .._callables import Held, hold
from .._checks import ArrayLike
from .base import Network

Covariance = ArrayLike | Callable | None


class Rainbow(Network):
    r"""Random layers :math:`x_l = f_l(W_l x_{l-1})` whose rows of weights have a given covariance.

    :math:`W_l = Z_l R_l^T/\sqrt{N_{l-1}}`, where the entries of :math:`Z_l` are standard normal and
    :math:`R_lR_l^T = C_l`. So each row of :math:`W_l` has covariance :math:`C_l/N_{l-1}`. The
    covariance :math:`C_l` may depend on the weights of the layers below. There are no biases and no
    read-out: ``apply`` returns the last layer, (n, N_L), not scaled by its width.

    Parameters
    ----------
    widths : tuple of int
        :math:`(N_1, ..., N_L)`, from the inputs up.
    cov : sequence, optional
        One entry per layer, with q = N_{l-1}: None for the identity; a (q, q) array, which is the
        covariance itself and positive definite; a (q, r) array with r other than q, which is a
        factor R; or a function that takes the list of the weights of the layers below and returns
        one of these.
    activations : str, callable, or a sequence of one per layer
        Names such as "relu", or elementwise functions.
    jitter : float
        Added to the diagonal of (q, q) arrays, in units of their mean diagonal.

    Attributes
    ----------
    factors : tuple of (q, r) arrays or None
        Factors R of the covariances that were given as arrays.
    rules : tuple of callables or None
        The covariances that were given as functions.
    activations : tuple of str or Activation

    Raises
    ------
    ValueError
        For a width that is not a positive integer, lengths that differ, an unknown activation, or a
        covariance of the wrong shape, not symmetric or singular.

    Notes
    -----
    R of a (q, q) array is its Cholesky factor, because a symmetric square root has no gradient
    where eigenvalues are equal, as at the identity. JAX arrays that a function uses from outside
    are leaves of the network as a pytree.

    References
    ----------
    arXiv 2402.13999; arXiv 2305.18512.
    """

    widths: tuple[int, ...] = eqx.field(static=True)
    factors: tuple[Float[Array, "unit rank"] | None, ...]
    rules: tuple[Held | None, ...]
    activations: tuple[str | Activation, ...]
    jitter: float = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int] | int,
        cov: Sequence[Covariance] | None = None,
        activations: str | Callable | Sequence[str | Callable] = "tanh",
        *,
        jitter: float | int = 0.0,
    ):
        self.widths = _checks.whole_numbers("widths", widths)
        if not self.widths:
            raise ValueError("widths is empty; a rainbow network needs a hidden layer")
        depth = len(self.widths)
        self.jitter = _checks.number("jitter", jitter, least=0)
        self.activations = one_per_layer("activations", activations, depth)
        cov = (None,) * depth if cov is None else tuple(_checks.sequence("cov", cov))
        if len(cov) != depth:
            raise ValueError(f"cov has {len(cov)} entries for {depth} layers; give one per layer")
        self.rules = tuple(hold(c) if callable(c) else None for c in cov)
        sizes = (None, *self.widths[:-1])
        self.factors = tuple(
            None if c is None or callable(c) else self._factor(layer, c, size)
            for layer, (c, size) in enumerate(zip(cov, sizes, strict=True), 1)
        )

    @property
    def depth(self) -> int:
        """Number L of hidden layers."""
        return len(self.widths)

    def _factor(self, layer, C, size):
        """Return the factor R (q, r) of layer ``layer``, whose covariance or factor is C."""
        name = f"cov[{layer - 1}]"
        C = _checks.finite(name, C, ndim=2)
        if size is not None:  # that of layer 1 is known when inputs are
            _check_rows(layer, C, size)
        q, r = C.shape
        if q != r:
            return C
        if _checks.known(C):
            host = np.asarray(C)
            eps = float(jnp.finfo(C.dtype).eps)
            if _checks.asymmetry(host) > 1e3 * eps:
                raise ValueError(
                    f"{name} is square and not symmetric, so it is no covariance; if it is meant "
                    "as a factor R, give R @ R.T"
                )
            eigenvalues = np.linalg.eigvalsh(host) + self.jitter * np.trace(host) / q
            if eigenvalues[0] <= q * eps * eigenvalues[-1]:
                raise ValueError(
                    f"{name} is not positive definite, its smallest eigenvalue is "
                    f"{eigenvalues[0]:.3g}; give a thin factor R of shape ({q}, r) with R R^T the "
                    "covariance, or a jitter"
                )
        return jnp.linalg.cholesky(C + self.jitter * jnp.trace(C) / q * jnp.eye(q, dtype=C.dtype))

    def _root(self, layer, below, q):
        """Return R (q, r) of layer ``layer`` from the weights ``below``; None for the identity."""
        rule, R = self.rules[layer - 1], self.factors[layer - 1]
        if rule is not None:
            C = rule(list(below))
            return None if C is None else self._factor(layer, C, q)
        return R if R is None else _check_rows(layer, R, q)

    def _shapes(self, inputs):
        sizes = (*inputs, *self.widths)
        return tuple(zip(sizes[1:], sizes[:-1], strict=True))

    def _build(self, inputs, white):
        weights, (q,) = [], inputs
        for layer, width in enumerate(self.widths, 1):
            R = self._root(layer, weights, q)
            Z = white(layer - 1, (width, q if R is None else R.shape[1]))
            weights.append((Z if R is None else Z @ R.T) / np.sqrt(q))
            q = width
        return tuple(weights)

    def white_shapes(self, inputs: int) -> tuple[tuple[int, int], ...]:
        """Return the shapes (N_l, r_l) of the white noise, one per layer.

        ``inputs`` is the number of columns of X. Covariances that depend on weights are computed
        and checked here once, for random weights, because a compiled model cannot check them. If
        they also depend on traced values, only their shapes are checked.
        """
        inputs, shapes = self._size(inputs), []
        rng = np.random.default_rng(0)

        def white(i, shape):
            shapes.append(shape)
            return jnp.asarray(rng.standard_normal(shape))

        if all(map(_checks.known, jax.tree.leaves(self))):
            with jax.ensure_compile_time_eval():
                self._build(inputs, white)
        else:
            jax.eval_shape(lambda: self._build(inputs, white))
        return tuple(shapes)

    def _forward(self, weights, X):
        hidden = []
        for W, activation in zip(weights, self.activations, strict=True):
            X = activation_function(activation)(X @ W.T)
            hidden.append(X)
        return hidden


def _check_rows(layer, C, size):
    """Return a covariance or factor C of a layer; raise unless it has one row per input."""
    if len(C) != size:
        raise ValueError(
            f"cov[{layer - 1}] has shape {C.shape} and layer {layer} has {size} inputs; give a "
            f"covariance ({size}, {size}) or a factor ({size}, r)"
        )
    return C
