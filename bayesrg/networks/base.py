# SPDX-License-Identifier: Apache-2.0
"""What every network is: white noise becomes weights, weights make layers, the last the outputs."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jax import Array, random

from .. import _checks
from .._checks import ArrayLike

Inputs = int | tuple[int, ...]


class Network(eqx.Module):
    """A network with a prior of its weights, which are functions of white noise.

    A subclass says how many hidden layers it has (``depth``), and writes ``_shapes``, ``_build``
    and ``_forward`` on checked arguments. There ``inputs`` is the shape of one input, a tuple.
    """

    @property
    @abstractmethod
    def depth(self) -> int:
        """Number L of hidden layers."""

    @abstractmethod
    def _shapes(self, inputs: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the weights, layer by layer."""

    @abstractmethod
    def _build(self, inputs: tuple[int, ...], white: Callable) -> tuple[Array, ...]:
        """Weights from ``white(index, shape)``, the white noise of a layer."""

    @abstractmethod
    def _forward(self, weights: list[Array], X: Array) -> list[Array]:
        """Values of all layers above the inputs X, the outputs last."""

    def init(self, key: Array | int, inputs: Inputs) -> tuple[Array, ...]:
        """Draw weights from the prior: one array per layer.

        ``inputs`` is the number of columns of X (n, d), or the channels and sites of
        X (n, channels, sites). ``key`` is a JAX key, or an integer.
        """
        key, inputs = _checks.random_key(key), self._size(inputs)
        keys = random.split(key, len(self._shapes(inputs)))
        return self._build(inputs, lambda i, shape: random.normal(keys[i], shape, self._dtype))

    def white_shapes(self, inputs: Inputs) -> tuple[tuple[int, ...], ...]:
        """Shapes of the white noise of all layers.

        ``inputs`` is the number of columns of X (n, d), or the channels and sites of
        X (n, channels, sites).
        """
        return self._shapes(self._size(inputs))

    def weights(self, white: Sequence[ArrayLike], inputs: Inputs) -> tuple[Array, ...]:
        """Make the weights of all layers from ``white`` noise of the shapes of `white_shapes`.

        White noise with standard normal entries gives the law of `init`. ``inputs`` is the number
        of columns of X (n, d), or the channels and sites of X (n, channels, sites).
        """
        inputs, white = self._size(inputs), _checks.sequence("white", white)
        count = len(self._shapes(inputs))
        if len(white) != count:
            raise ValueError(
                f"white has {len(white)} arrays for {count} layers; give one per layer"
            )

        def given(i, shape):
            return _checks.shaped(f"white[{i}]", white[i], shape, "as white_shapes says")

        return self._build(inputs, given)

    def layers(self, weights: Sequence[ArrayLike], X: ArrayLike) -> tuple[Array, ...]:
        """Values of all layers under ``weights``, from the inputs X to the outputs.

        The first axis of each is that of the n inputs.
        """
        X = self._inputs(X)
        weights = list(weights) if getattr(weights, "ndim", 0) > 2 else weights  # stacked
        weights = _checks.sequence("weights", weights, "arrays, one per layer")
        shapes = self._shapes(X.shape[1:])
        if len(weights) != len(shapes):
            raise ValueError(
                f"weights has {len(weights)} arrays for {self.depth} hidden layers; give "
                f"{len(shapes)}, as init does"
            )
        advice = f"as init does for inputs of shape {X.shape[1:]}"
        weights = [
            _checks.shaped(f"weights[{i}]", W, shape, advice)
            for i, (W, shape) in enumerate(zip(weights, shapes, strict=True))
        ]
        return (X, *self._forward(weights, X))

    def apply(self, weights: Sequence[ArrayLike], X: ArrayLike) -> Array:
        """Outputs at the inputs X under ``weights``: the last of `layers`, one row per input."""
        return self.layers(weights, X)[-1]

    def _inputs(self, X):
        """Convert inputs to a finite array."""
        return _checks.inputs("X", X)

    def _size(self, inputs):
        """Shape of one input as a tuple."""
        return (_checks.whole("inputs", inputs),)

    @property
    def _dtype(self):
        """Precision of drawn weights."""
        return jnp.result_type(float)


def scales(weight_scales: Array, layers: int) -> Array:
    """Standard deviations (layers,) of all layers from one number, or one per layer."""
    return jnp.broadcast_to(weight_scales, (layers,))


def check_scales(weight_scales: Array, depth: int) -> None:
    """Require one standard deviation for all weights, or one per layer and one of the readout."""
    if weight_scales.shape not in ((), (depth + 1,)):
        raise ValueError(
            f"weight_scales has shape {weight_scales.shape} for {depth} hidden layers; give one "
            f"number, or {depth + 1}: one per layer, the readout's last"
        )
