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
from .base import BaseNetwork

_SMALL = 0.01  # deviation of the second weights of a block, times the root of its hidden units


class Residual(BaseNetwork):
    r"""BaseNetwork whose layers move points, :math:`x_{k+1} = x_k + v_k(x_k)`, with a linear head.

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
        return self._init(_checks.random_key(key), _checks.whole("inputs", inputs))

    def paths(self, params: PyTree, X: ArrayLike) -> Paths:
        """Return the paths of the points X (n, d) through the layers.

        ``params`` are weights as `init` returns them. For several draws of them use `jax.vmap`.
        The paths have the widest floats among X and the weights.
        """
        return _moved(self, *self._checked(params, X))[0]

    def layers(self, params: PyTree, X: ArrayLike) -> tuple[Array, ...]:
        """Return X, if there is an encoder, then the states x_0 to x_K and the outputs.

        ``params`` are weights as `init` returns them, ``X`` is (n, d).
        """
        params, X = self._checked(params, X)
        states = _moved(self, params, X)[0].states
        encoded = () if self.encoder is None else (X,)
        return (*encoded, *states, self._outputs(params, states[-1]))

    def apply(self, params: PyTree, X: ArrayLike) -> Array:
        """Return the outputs (n, c) at the inputs X (n, d).

        ``params`` are weights as `init` returns them.
        """
        return _outputs(self, *self._checked(params, X))

    def read_out(self, params: PyTree, x: ArrayLike) -> Array:
        """Return the outputs (n, c) of the head at states ``x`` (n, d).

        ``params`` are weights as `init` returns them.
        """
        return self._outputs(params, _checks.inputs("x", x))

    def head_norm(self, params: PyTree) -> Array:
        """Return the Frobenius norm () of the weights of the head.

        ``params`` are weights as `init` returns them.
        """
        if self.head == "fixed":
            return jnp.sqrt(self.outputs * 1.0)  # rows of length 1
        return jnp.linalg.norm(self._trained(params)[0] if self.head == "trainable" else self.head)

    def state_gradients(self, params: PyTree, X: ArrayLike, loss: Callable) -> Array:
        """Return the gradient (K, n, d) of a loss with respect to the states x_0 to x_(K-1).

        Later states follow a change of a state. ``params`` are weights as `init` returns them,
        ``X`` is (n, d). ``loss`` is a function from the outputs (n, c) to a number, such as
        ``lambda f: ((f - y) ** 2).mean()``.
        """
        params, X = self._checked(params, X)
        return _gradients(self, params, X, hold(_checks.function("loss", loss)))

    def _init(self, key, inputs):
        """Draw the weights, as `init` does, for arguments that are checked."""
        of_encoder, of_layers, of_head = random.split(key, 3)
        params, width = {}, inputs
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
        else:
            self._head(params, width, float)  # raises for one of another width
        return params

    def _trained(self, params):
        """Return the weights (c, d) and the bias (c,) of a trainable head."""
        _require_parts("params", params, ("head",))
        _require_parts("params['head']", params["head"], ("weight", "bias"))
        head = _checks.parameters("params['head']", params["head"])
        weight, bias = jnp.asarray(head["weight"]), jnp.asarray(head["bias"])
        if bias.shape != (self.outputs,) or weight.ndim != 2:
            raise ValueError(
                f"params['head'] has a weight of shape {weight.shape} and a bias of shape "
                f"{bias.shape}; give ({self.outputs}, d) and ({self.outputs},)"
            )
        return weight, bias

    def _head(self, params, width, dtype):
        """Return the weights (c, d) and the bias of the head for states of ``width`` features."""
        if self.head == "fixed":
            H = np.random.default_rng(0).standard_normal((self.outputs, width))
            return jnp.asarray(H / np.linalg.norm(H, axis=1, keepdims=True), dtype), 0.0
        H, bias = self._trained(params) if self.head == "trainable" else (self.head, 0.0)
        if H.shape != (self.outputs, width):
            raise ValueError(
                f"head has shape {H.shape} for states of {width} features; give "
                f"({self.outputs}, {width})"
            )
        return H, bias

    def _outputs(self, params, x):
        """Return the outputs (n, c) of the head at an array of states x (n, d)."""
        H, bias = self._head(params, x.shape[1], x.dtype)
        return x @ H.T + bias

    def _checked(self, params, X):
        """Return params and X (n, d) as arrays; raise unless `init` gives the shapes of params."""
        X = _checks.inputs("X", X)
        expected = jax.eval_shape(lambda: self._init(random.key(0), X.shape[1]))
        _require_parts("params", params, expected)
        for part in params:
            if part not in expected:
                raise ValueError(f"params has {part!r}, which this network has not; leave it out")
        params = _checks.parameters("params", dict(params))

        found, made = (dict(jax.tree.leaves_with_path(tree)) for tree in (params, expected))
        if jax.tree.structure(params) != jax.tree.structure(expected):
            names = [sorted(map(jax.tree_util.keystr, tree)) for tree in (found, made)]
            raise ValueError(
                f"params holds {', '.join(names[0])}, but init gives {', '.join(names[1])}; give "
                "weights of this network"
            )
        for path, like in made.items():
            shape = jnp.shape(found[path])
            if shape != like.shape:
                raise ValueError(
                    f"params{jax.tree_util.keystr(path)} has shape {shape}, but init gives "
                    f"{like.shape} for {self.depth} layers and X of {X.shape[1]} columns; give X "
                    "and weights of this network, and use jax.vmap over several draws"
                )
        return params, X

    def _encoded(self, params, X):
        """Return the states x_0 (n, d) at inputs X."""
        if self.encoder is None:
            return X
        encoder = self.encoder.open()
        try:
            x = encoder(params["encoder"], X) if hasattr(encoder, "init") else encoder(X)
        except TypeError as error:  # JAX raises it for shapes that do not fit
            raise ValueError(
                f"encoder fails for X of shape {X.shape} ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}); give inputs of the width that it takes, and write "
                "it with jax.numpy"
            ) from error
        x = _checks.finite("what encoder returned", x)
        if x.ndim != 2 or len(x) != len(X) or not x.size:
            raise ValueError(
                f"encoder returned shape {x.shape} for X of shape {X.shape}; give (n, d)"
            )
        return x


def _require_parts(name, tree, parts):
    """Raise unless ``tree`` is a dict that has all ``parts``."""
    if not isinstance(tree, dict):
        raise ValueError(f"{name} must be a dict, as init returns it, got {_checks.shown(tree)}")
    for part in parts:
        if part not in tree:
            raise ValueError(f"{name} has no {part!r}; give all that init returns")


@jax.jit
def _moved(net, params, X, shifts=None):
    """Return the paths of X and their last states (n, d).

    ``shifts`` (K, n, d) are added to the states before each layer.
    """
    velocity, x = net.velocity.open(), net._encoded(params, X)
    x = x.astype(jnp.result_type(x, *jax.tree.leaves(params["velocity"])))

    def move(x, layer):
        params, shift = layer
        x = x if shift is None else x + shift
        v = _checks.returned("velocity", velocity(params, x))
        if v.shape != x.shape:
            raise ValueError(
                f"velocity output shape {v.shape} differs from state shape {x.shape}: residual "
                "flow needs equal widths"
            )
        step = (v if net.dt is None else net.dt * v).astype(x.dtype)
        return x + step, (x + step, step)

    if net.tied:
        shared = params["velocity"]
        last, (states, steps) = lax.scan(
            lambda x, shift: move(x, (shared, shift)), x, shifts, length=net.depth
        )
    else:
        layers = params["velocity"], shifts
        last, (states, steps) = lax.scan(move, x, layers, length=net.depth)
    return Paths(jnp.concatenate([x[None], states]), steps), last


@jax.jit
def _outputs(net, params, X):
    """Return the outputs of a network at X."""
    # of ``last`` alone JAX keeps no derivative of the other states, a third of the memory
    return net._outputs(params, _moved(net, params, X)[1])


@jax.jit
def _gradients(net, params, X, loss):
    """Return the gradient of a loss of the outputs with respect to the states before each layer."""

    def shifted(shifts):
        x = _moved(net, params, X, shifts)[1]
        found = _checks.returned("loss", loss(net._outputs(params, x)))
        if found.shape != ():
            raise ValueError(f"loss returned shape {found.shape}; give one number")
        return found

    steps = jax.eval_shape(_moved, net, params, X)[0].increments
    return jax.grad(shifted)(jnp.zeros(steps.shape, steps.dtype))


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
        activation = activation_function(self.activation)

        # A derivative keeps the sums alone and computes the activation again. That needs less
        # memory than its value and its slope, and takes no longer.
        @partial(jax.checkpoint, prevent_cse=False)  # a scan separates the two already
        def second(sums, B):
            return activation(sums) @ B.T

        return second(x @ params["A"].T + params["a"], params["B"]) + params["b"]
