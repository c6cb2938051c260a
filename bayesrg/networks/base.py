# SPDX-License-Identifier: Apache-2.0
"""What networks have in common: white noise gives weights, and weights give layers at inputs X."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from jax import Array, random
from jaxtyping import Float, PyTree

from .. import _checks
from .._checks import ArrayLike

Inputs = int | tuple[int, ...]


class BaseNetwork(eqx.Module):
    """A network: random weights to start from, and values of its layers at inputs.

    Attributes
    ----------
    depth : int
        Number of hidden layers.
    """

    depth: eqx.AbstractVar[int]

    @abstractmethod
    def init(self, key: Array | int, inputs: Inputs) -> PyTree:
        """Draw weights, a pytree of arrays.

        ``key`` is a JAX key or an integer. ``inputs`` is the number of columns of X (n, d), or the
        pair of channels and sites of X (n, channels, sites).
        """

    @abstractmethod
    def layers(self, weights: PyTree, X: ArrayLike) -> tuple[Array, ...]:
        """Return the values of all layers, from the inputs X to the outputs.

        ``weights`` are as `init` returns them. The first axis of each result counts the n inputs.
        """

    def apply(self, weights: PyTree, X: ArrayLike) -> Array:
        """Return the outputs at the inputs X, one row per input: the last of `layers`.

        ``weights`` are as `init` returns them.
        """
        return self.layers(weights, X)[-1]


class Network(BaseNetwork):
    """A network with a prior of its weights, which are functions of white noise.

    A subclass defines ``depth``, ``_shapes``, ``_build`` and ``_forward``. These get arguments that
    are checked already, with the shape of one input as the tuple ``inputs``.
    """

    @abstractmethod
    def _shapes(self, inputs: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights, one per layer; by default also those of the white noise."""

    @abstractmethod
    def _build(self, inputs: tuple[int, ...], white: Callable) -> tuple[Array, ...]:
        """Weights, from a function ``white(index, shape)`` that returns the noise of a layer."""

    @abstractmethod
    def _forward(self, weights: list[Array], X: Array) -> list[Array]:
        """Values of all layers above the inputs X, with the outputs last."""

    def init(self, key: Array | int, inputs: Inputs) -> tuple[Array, ...]:
        """Draw weights from the prior and return one array per layer.

        ``key`` is a JAX key or an integer. ``inputs`` is the number of columns of X (n, d), or the
        pair of channels and sites of X (n, channels, sites).
        """
        key, inputs = _checks.random_key(key), self._size(inputs)
        keys = random.split(key, len(self._shapes(inputs)))
        return self._build(inputs, lambda i, shape: random.normal(keys[i], shape, self._dtype))

    def white_shapes(self, inputs: Inputs) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the white noise, one per layer.

        ``inputs`` is the number of columns of X (n, d), or the pair of channels and sites of
        X (n, channels, sites).
        """
        return self._shapes(self._size(inputs))

    def weights(self, white: Sequence[ArrayLike], inputs: Inputs) -> tuple[Array, ...]:
        """Return the weights, one array per layer, that are made of the noise ``white``.

        ``white`` has one array per layer, of the shapes that `white_shapes` returns. Standard
        normal entries give weights of the same law as `init`. ``inputs`` is the number of columns
        of X (n, d), or the pair of channels and sites of X (n, channels, sites).
        """
        inputs = self._size(inputs)
        white = _one_per_layer("white", white, len(self._shapes(inputs)))

        def given(i, shape):
            return _checks.shaped(f"white[{i}]", white[i], shape, "see white_shapes")

        return self._build(inputs, given)

    def layers(self, weights: Sequence[ArrayLike], X: ArrayLike) -> tuple[Array, ...]:
        """Return the values of all layers, from the inputs X to the outputs.

        ``weights`` has one array per layer, as `init` returns them. The first axis of each result
        counts the n inputs.
        """
        X = self._inputs(X)
        weights = list(weights) if getattr(weights, "ndim", 0) > 2 else weights  # stacked
        shapes = self._shapes(X.shape[1:])
        weights = _one_per_layer("weights", weights, len(shapes))
        advice = f"as init does for inputs of shape {X.shape[1:]}"
        weights = [
            _checks.shaped(f"weights[{i}]", W, shape, advice)
            for i, (W, shape) in enumerate(zip(weights, shapes, strict=True))
        ]
        return (X, *self._forward(weights, X))

    def _inputs(self, X):
        """Check inputs X and convert them to an array."""
        return _checks.inputs("X", X)

    def _size(self, inputs):
        """Check the size of one input and return its shape as a tuple."""
        return (_checks.whole("inputs", inputs),)

    @property
    def _dtype(self):
        """Precision of drawn weights."""
        return jnp.result_type(float)


def _one_per_layer(name, arrays, layers):
    """Return a list or tuple of arrays; raise unless there is one for each of the layers."""
    arrays = _checks.sequence(name, arrays, "arrays, one per layer")
    if len(arrays) != layers:
        raise ValueError(f"{name} has {len(arrays)} arrays for {layers} layers; give one per layer")
    return arrays


class LinearNetwork(Network):
    """A network without activations, observed with noise of variance ``ridge``.

    It has ``outputs`` outputs. ``weight_scales`` () or (L + 1,) are the standard deviations of the
    weights, up to the factors of the parametrisation: one for all layers, or one per layer with
    the readout's last.
    """

    ridge: Float[Array, ""] = eqx.field(
        converter=partial(_checks.nonnegative, "ridge", ndim=0), kw_only=True
    )
    outputs: int = eqx.field(
        static=True, converter=partial(_checks.whole, "outputs"), default=1, kw_only=True
    )
    weight_scales: Float[Array, "*level"] = eqx.field(
        converter=partial(_checks.positive, "weight_scales", ndim=(0, 1)), default=1.0, kw_only=True
    )

    def __check_init__(self):
        if self.weight_scales.shape not in ((), (self.depth + 1,)):
            raise ValueError(
                f"weight_scales has shape {self.weight_scales.shape} for {self.depth} hidden "
                f"layers; give one number, or {self.depth + 1}: one per layer, the readout's last"
            )

    @property
    def scales(self) -> Float[Array, " level"]:
        """Standard deviations :math:`s_l` of all layers, (L + 1,)."""
        return jnp.broadcast_to(self.weight_scales, (self.depth + 1,))

    @property
    def _dtype(self):
        return self.weight_scales.dtype
