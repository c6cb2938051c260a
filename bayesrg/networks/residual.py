# SPDX-License-Identifier: Apache-2.0
"""Residual networks, whose layers move points by small steps."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jaxtyping import Float, PyTree

from .. import _checks
from .._activations import Activation, activation_function, named
from .._callables import Held, hold, still
from .._checks import ArrayLike
from .._paths import Paths
from .base import Network

_SMALL = 0.01  # deviation of the second weights of a block, times the root of its hidden units


class Residual(Network):
    r"""Network whose layers move points, :math:`x_{k+1} = x_k + v_k(x_k)`, with a linear head.

    The outputs are :math:`f = x_K H^T + c`, where :math:`x_0` are the inputs or what an encoder
    makes of them. The layers are one scan, so their number changes neither the size of a compiled
    program nor the time of its compilation.

    ``params`` is a dict: ``"velocity"`` has the weights of all layers, stacked along a first axis
    of length K unless ``tied``; ``"head"``, if it is trainable, has ``"weight"`` (outputs, d) and
    ``"bias"`` (outputs,); ``"encoder"`` is there if the encoder has weights.

    Parameters
    ----------
    velocity : int, or object with ``init(key, width)`` and ``__call__(params, x)``
        A number h of hidden units means :math:`v(x) = B\,\phi(Ax + a) + b`, whose ``params`` are
        ``"A"`` (h, d), ``"a"`` (h,), ``"B"`` (d, h) and ``"b"`` (d,). They start as
        :math:`A\sim N(0, 1/d)`, :math:`B\sim N(0, 0.01^2/h)` (variances) and zero. An object gives
        the weights of one layer, and moves x (n, d) by an array of the same shape.
    depth : int
        Number K of layers.
    outputs : int
        Number c of outputs.
    head : "trainable", "fixed", or (c, d) array
        H starts as :math:`N(0, 1/d)`. A fixed head or an array has no bias and is no part of
        ``params``, so no optimizer moves it. "fixed" is one draw for all keys, of rows of length 1.
    dt : (), optional
        Factor of the velocity, 1 by default.
    tied : bool
        Whether all layers share one set of weights.
    encoder : callable, optional
        From X to :math:`x_0` (n, d): a function, or an object like ``velocity``, whose ``init``
        takes a key and the number of columns of X.
    activation : str or callable
        :math:`\phi`, where ``velocity`` is a number.

    References
    ----------
    arXiv 2009.08372.
    """

    velocity: Held
    depth: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    head: Float[Array, "output feature"] | str
    dt: Float[Array, ""] | None
    tied: bool = eqx.field(static=True)
    encoder: Held | None

    def __init__(
        self,
        velocity: int | Callable,
        depth: int,
        *,
        outputs: int,
        head: str | ArrayLike = "trainable",
        dt: ArrayLike | None = None,
        tied: bool = False,
        encoder: Callable | None = None,
        activation: str | Callable | Activation = "tanh",
    ):
        if not callable(velocity):
            velocity = _Block(_checks.whole("velocity", velocity), named(activation))
        elif not hasattr(velocity, "init"):
            raise ValueError(
                "velocity has no method init(key, width); give a number of hidden units, or an "
                "object with init(key, width) and __call__(params, x)"
            )
        self.velocity = hold(velocity)
        self.depth = _checks.whole("depth", depth)
        self.outputs = _checks.whole("outputs", outputs)
        if isinstance(head, str):
            self.head = still(_checks.choice("head", head, ("trainable", "fixed")))
        else:
            self.head = _checks.finite("head", head, ndim=2)
            if len(self.head) != self.outputs:
                raise ValueError(
                    f"head has shape {self.head.shape} for {self.outputs} outputs; give "
                    f"({self.outputs}, d)"
                )
        self.dt = None if dt is None else _checks.positive("dt", dt, ndim=0)
        self.tied = _checks.flag("tied", tied)
        self.encoder = None if encoder is None else hold(_checks.function("encoder", encoder))

    def init(self, key: Array | int, inputs: int) -> dict:
        """Draw the weights at the start of training and return ``params``.

        ``key`` is a JAX key or an integer, ``inputs`` the number of columns of X.
        """
        of_encoder, of_layers, of_head = random.split(_checks.random_key(key), 3)
        inputs, params = _checks.whole("inputs", inputs), {}
        width = inputs
        if self.encoder is not None:
            encoder = self.encoder.open()
            x = jax.ShapeDtypeStruct((1, inputs), jnp.result_type(float))
            if hasattr(encoder, "init"):
                params["encoder"] = encoder.init(of_encoder, inputs)
            width = jax.eval_shape(self._encoded, params, x).shape[1]
        first = partial(self.velocity.open().init, width=width)
        keys = of_layers if self.tied else random.split(of_layers, self.depth)
        params["velocity"] = first(keys) if self.tied else jax.vmap(first)(keys)
        if self.head == "trainable":
            params["head"] = {
                "weight": random.normal(of_head, (self.outputs, width)) / np.sqrt(width),
                "bias": jnp.zeros(self.outputs),
            }
        return params

    def paths(self, params: PyTree, X: ArrayLike) -> Paths:
        """Return the paths of the points X (n, d) through the layers.

        ``params`` are weights as `init` returns them.
        """
        return self._paths(params, self._encoded(params, _checks.inputs("X", X)))

    def layers(self, params: PyTree, X: ArrayLike) -> tuple[Array, ...]:
        """Return X, if there is an encoder, then the states x_0 to x_K and the outputs.

        ``params`` are weights as `init` returns them, ``X`` is (n, d).
        """
        X = _checks.inputs("X", X)
        states = self.paths(params, X).states
        encoded = () if self.encoder is None else (X,)
        return (*encoded, *states, self.read_out(params, states[-1]))

    def apply(self, params: PyTree, X: ArrayLike) -> Array:
        """Return the outputs (n, c) at the inputs X (n, d).

        ``params`` are weights as `init` returns them.
        """
        return self.read_out(params, self.paths(params, X).states[-1])

    def read_out(self, params: PyTree, x: Array) -> Array:
        """Return the outputs (n, c) of the head at states ``x`` (n, d).

        ``params`` are weights as `init` returns them.
        """
        H = self._head(params, x.shape[1], x.dtype)
        bias = params["head"]["bias"] if self.head == "trainable" else 0.0
        return x @ H.T + bias

    def head_norm(self, params: PyTree) -> Array:
        """Return the Frobenius norm () of the weights of the head."""
        if self.head == "fixed":
            return jnp.sqrt(self.outputs * 1.0)
        return jnp.linalg.norm(params["head"]["weight"] if self.head == "trainable" else self.head)

    def _head(self, params, width, dtype):
        """Return the weights of the head, (c, d)."""
        if self.head == "trainable":
            return params["head"]["weight"]
        if self.head == "fixed":
            H = random.normal(random.key(0), (self.outputs, width), dtype)
            return H / jnp.linalg.norm(H, axis=1, keepdims=True)
        if self.head.shape[1] != width:
            raise ValueError(
                f"head has shape {self.head.shape} for states of {width} features; give "
                f"({self.outputs}, {width})"
            )
        return self.head

    def _encoded(self, params, X):
        """Return the states x_0 (n, d) at inputs X."""
        if self.encoder is None:
            return X
        encoder = self.encoder.open()
        x = encoder(params["encoder"], X) if hasattr(encoder, "init") else encoder(X)
        shape = jnp.shape(x)
        if len(shape) != 2 or shape[0] != len(X):
            raise ValueError(
                f"encoder returned shape {shape} for X of shape {X.shape}; give (n, d)"
            )
        return x

    def _paths(self, params, x):
        """Return the paths of states ``x`` (n, d)."""
        velocity = self.velocity.open()
        x = x.astype(jnp.result_type(x, *jax.tree.leaves(params["velocity"])))

        def move(x, params):
            v = velocity(params, x)
            if jnp.shape(v) != x.shape:
                raise ValueError(
                    f"velocity output shape {jnp.shape(v)} differs from state shape {x.shape}: "
                    "residual flow needs equal widths"
                )
            step = (v if self.dt is None else self.dt * v).astype(x.dtype)
            return x + step, (x + step, step)

        shared = params["velocity"]
        if self.tied:
            _, (states, steps) = lax.scan(lambda x, _: move(x, shared), x, length=self.depth)
        else:
            _, (states, steps) = lax.scan(move, x, shared)
        return Paths(jnp.concatenate([x[None], states]), steps)


class _Block(eqx.Module):
    """Velocity of one hidden layer, as the parameter ``velocity`` of `Residual` describes."""

    hidden: int = eqx.field(static=True)
    activation: str | Activation

    def init(self, key, width):
        first, second = random.split(key)
        return {
            "A": random.normal(first, (self.hidden, width)) / np.sqrt(width),
            "a": jnp.zeros(self.hidden),
            "B": _SMALL * random.normal(second, (width, self.hidden)) / np.sqrt(self.hidden),
            "b": jnp.zeros(width),
        }

    def __call__(self, params, x):
        hidden = activation_function(self.activation)(x @ params["A"].T + params["a"])
        return hidden @ params["B"].T + params["b"]
