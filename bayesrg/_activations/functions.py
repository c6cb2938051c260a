# SPDX-License-Identifier: Apache-2.0
"""The table of activation functions: adding one is one entry."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from .. import _checks
from . import closed, duals


class Activation(NamedTuple):
    """An elementwise function and what is known about it.

    Attributes
    ----------
    function : callable
        Elementwise, of JAX arrays.
    kinks : tuple of float, rising
        Where it, or a derivative, jumps or turns sharply: quadrature has panels between them.
    closed : callable (mean, variance) -> (E f, E f', E f'', E f^2 or None), optional
    dual : Dual, optional
    """

    function: Callable
    kinks: tuple[float, ...] = (0.0,)
    closed: Callable | None = None
    dual: duals.Dual | None = None


SLOPE = 0.2  # of the leaky relu

ACTIVATIONS = {
    "relu": Activation(jax.nn.relu, closed=closed.relu, dual=duals.RELU),
    "erf": Activation(erf, closed=closed.error_function(1.0), dual=duals.ERF),
    "linear": Activation(lambda x: x, closed=closed.linear, dual=duals.LINEAR),
    "leaky_relu": Activation(
        lambda x: jnp.where(x > 0, x, SLOPE * x),
        closed=closed.bent(SLOPE, 1 - SLOPE),
        dual=duals.leaky(SLOPE),
    ),
    "abs": Activation(jnp.abs, closed=closed.bent(-1.0, 2.0), dual=duals.ABS),
    "erf_sqrt2": Activation(
        lambda x: erf(x / np.sqrt(2)),
        closed=closed.error_function(float(np.sqrt(0.5))),
        dual=duals.ERF_SQRT2,
    ),
    "sin": Activation(jnp.sin, closed=closed.sin, dual=duals.SIN),
    "cos": Activation(jnp.cos, closed=closed.cos, dual=duals.COS),
    "step": Activation(
        lambda x: jnp.where(x > 0, 1.0, jnp.zeros_like(x)), closed=closed.step, dual=duals.STEP
    ),
    "sign": Activation(jnp.sign, closed=closed.sign, dual=duals.SIGN),
    "gelu": Activation(lambda x: jax.nn.gelu(x, approximate=False), closed=closed.gelu),
    "tanh": Activation(jnp.tanh),
    "sigmoid": Activation(jax.nn.sigmoid),
    "silu": Activation(jax.nn.silu),
    "softplus": Activation(jax.nn.softplus),
    "softsign": Activation(jax.nn.soft_sign),
    "elu": Activation(jax.nn.elu),
    "hard_tanh": Activation(jax.nn.hard_tanh, kinks=(-1.0, 1.0)),
}

DUALS = {name: entry.dual for name, entry in ACTIVATIONS.items() if entry.dual is not None}


def resolve(activation):
    """Find an activation by its name; an elementwise callable is checked and wrapped.

    Raises
    ------
    ValueError
        For an unknown name, or a callable that does not act on each element alone.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, or an "
                f"elementwise callable, got {activation!r}"
            )
        return ACTIVATIONS[activation]
    if isinstance(activation, Activation):
        _checks.function("activation", activation.function, "an elementwise function")
        kinks = np.asarray(_checks.finite("kinks", activation.kinks, ndim=1)).tolist()
        activation = activation._replace(kinks=tuple(kinks))
        if activation in ACTIVATIONS.values():
            return activation
        entry = activation
    elif callable(activation):
        entry = Activation(activation)
    else:
        raise ValueError(
            "activation must be a name or an elementwise callable, got "
            f"{_checks.shown(activation)}; the names are {', '.join(map(repr, ACTIVATIONS))}"
        )
    _require_elementwise(entry.function)
    return entry


@lru_cache(64)
def _require_elementwise(function):
    probe = np.array([[0.3, -1.2, 2.0], [-0.4, 0.0, 1.1]])
    with jax.ensure_compile_time_eval():
        try:
            whole = np.asarray(jax.jit(function)(jnp.asarray(probe)))
            single = np.asarray(jax.jit(function)(jnp.asarray(probe[:1, 1])))
        except Exception as error:
            raise ValueError(
                f"activation {function} fails on a traced array of shape (2, 3): {error}; write it "
                "with jax.numpy"
            ) from error
    alone = single.shape == (1,) and whole.shape == (2, 3)
    if not alone or not np.allclose(whole[0, 1], single[0], rtol=1e-5, atol=1e-6):
        if whole.shape == (2, 3) and single.shape == (1,):
            raise ValueError(
                f"activation {function} mixes the elements of its input, as a softmax does, and "
                "units would not be alike; take a function of each element alone"
            )
        raise ValueError(
            f"activation {function} is not vectorised: it maps shape (2, 3) to {whole.shape} and "
            "must act on each element alone; wrap it in jnp.vectorize"
        )


def activation_function(activation):
    """Elementwise function of a name, of an `Activation`, or of a callable, which is itself."""
    return resolve(activation).function


def is_odd(activation):
    """Say whether ``f(-t) = -f(t)`` to 1e-12 of the largest value, on a grid to 8.

    A traced callable is asked outside the trace. In 32-bit floats to 1e-6.
    """
    return _odd(resolve(activation).function)


@lru_cache(64)
def _odd(function):
    grid = np.linspace(0.0, 8.0, 129)
    with jax.ensure_compile_time_eval():
        up, down = np.asarray(jax.jit(function)(jnp.asarray(np.stack([grid, -grid]))))
    digits = 1e-12 if up.dtype == np.float64 else 1e-6
    return bool((np.abs(up + down) <= digits * np.abs(up).max()).all())


def one_a_layer(name, activations, layers):
    """Repeat one activation for all layers, or check that there is one for each."""
    if isinstance(activations, str | Activation) or callable(activations):
        activations = (activations,) * layers
    if not isinstance(activations, tuple | list):
        raise ValueError(
            f"{name} must be an activation or a list of one a layer, got "
            f"{_checks.shown(activations)}"
        )
    activations = tuple(activations)
    if len(activations) != layers:
        raise ValueError(
            f"{name} has {len(activations)} entries for {layers} layers; give one a layer"
        )
    for activation in activations:
        resolve(activation)
    return activations
