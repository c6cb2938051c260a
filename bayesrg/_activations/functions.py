# SPDX-License-Identifier: Apache-2.0
"""The table of activation functions. A new activation is one more entry of `ACTIVATIONS`."""

from functools import lru_cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import erf

from .. import _checks
from .._callables import Held, hold, still
from . import closed, duals


def still_number(name, value):
    """Convert a number to a field of a module: a JAX array stays one, a float becomes static."""
    if isinstance(value, Array):
        return _checks.finite(name, value, ndim=0)
    return still(_checks.number(name, value))


def _kinks(kinks):
    """Convert kinks to a tuple of fields; an array (k,) counts as a list of k numbers."""
    given = list(kinks) if getattr(kinks, "ndim", 0) == 1 else kinks
    places = _checks.sequence("kinks", given, "numbers, where the function or a derivative jumps")
    return tuple(still_number("an entry of kinks", place) for place in places)


def _closed(function):
    return function if function is None else hold(_checks.function("closed", function))


class Activation(eqx.Module):
    """An elementwise function, with the closed forms of its Gaussian moments that are known.

    Attributes
    ----------
    function : callable
        Acts on each element of a JAX array. Arrays that the function captured are parameters.
    kinks : tuple of float or of arrays (), rising
        Places where the function or a derivative jumps or turns sharply. Integrals are split
        there.
    closed : callable (mean, variance) -> (E f, E f', E f'', E f^2 or None), optional
        Moments at one Gaussian argument. Without it they are integrated.
    dual : Dual, optional
        Moments at two Gaussian arguments of mean zero. Without it a Hermite series is used.
    """

    function: Held = eqx.field(converter=hold)
    kinks: tuple[float | Array, ...] = eqx.field(converter=_kinks, default=(0.0,))
    closed: Held | None = eqx.field(converter=_closed, default=None)
    dual: duals.Dual | None = eqx.field(static=True, default=None)

    def __repr__(self):
        return repr(self.function)


SLOPE = 0.2  # of the leaky relu below zero, by default

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


_NAMES = {entry.function.plan: name for name, entry in ACTIVATIONS.items()}


def named(activation):
    """Convert an activation to a field of a module: its static name, else the `Activation`."""
    entry = resolve(activation)
    return next((still(name) for name, known in ACTIVATIONS.items() if known is entry), entry)


def resolve(activation):
    """Return the `Activation` of a name, or of an elementwise callable after checking it.

    A callable that is the function of a named activation gives that activation.

    Raises
    ------
    ValueError
        For an unknown name, or a callable that does not act on each element alone.
    """
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if not callable(activation) and not isinstance(activation, Activation):
        raise ValueError(
            f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}, or an elementwise "
            f"callable, got {_checks.shown(activation)}"
        )

    entry = activation if isinstance(activation, Activation) else Activation(activation)
    name = _NAMES.get(entry.function.plan)
    if name is not None:  # a function of the table, which needs no check
        return entry if entry is activation else ACTIVATIONS[name]
    _checks.finite("kinks", entry.kinks, ndim=1)
    _require_elementwise(entry.function)
    return entry


_GRID = np.linspace(0.0, 8.0, 129)
_POINTS = {
    "array": np.array([[0.3, -1.2, 2.0], [-0.4, 0.0, 1.1]]),
    "element": np.array([-1.2]),
    "both signs": np.stack([_GRID, -_GRID]),
}


def _require_elementwise(function):
    """Raise unless a function acts on each element alone, as its values on an array tell."""
    try:
        whole, single = (
            jax.eval_shape(function, _POINTS[name]) if function.traced else _values(function, name)
            for name in ("array", "element")
        )
    except Exception as error:
        raise ValueError(
            f"activation {function} fails on a traced array of shape (2, 3): {error}; use only "
            "jax.numpy in it, since JAX arrays that it captured are traced too"
        ) from error
    alone = single.shape == (1,) and whole.shape == (2, 3)
    traced = isinstance(whole, jax.ShapeDtypeStruct)
    if not alone or not (traced or np.allclose(whole[0, 1], single[0], rtol=1e-5, atol=1e-6)):
        if alone:
            raise ValueError(
                f"activation {function} mixes the elements of its input, as a softmax does, so "
                "units would not be alike; give a function that acts on each element alone"
            )
        raise ValueError(
            f"activation {function} is not vectorised: it maps shape (2, 3) to {whole.shape} and "
            "must act on each element alone; wrap it in jnp.vectorize"
        )


def _values(function, name):
    """Return the values of a function that is not traced at `_POINTS`, even while JAX traces."""
    # a function without arrays depends only on its plan: its values are computed once
    return _evaluate(function, name) if function.arrays else _kept(function.plan, name)


@lru_cache(128)
def _kept(plan, name):
    return _evaluate(Held([], plan), name)


def _evaluate(function, name):
    with jax.ensure_compile_time_eval():
        return np.asarray(_apply(function, jnp.asarray(_POINTS[name])))


@jax.jit
def _apply(function, x):
    return function(x)


def activation_function(activation):
    """Return the elementwise function of an activation: a name, an `Activation` or a callable."""
    return resolve(activation).function


def is_odd(activation):
    """Return whether an activation is odd, ``f(-t) = -f(t)``.

    It counts as odd if both sides agree on a grid from 0 to 8, to 1e-12 of the largest value
    (1e-6 in 32-bit floats). Returns None if that depends on values that are traced.
    """
    function = resolve(activation).function
    if function.traced:
        return None
    up, down = _values(function, "both signs")
    digits = 1e-12 if up.dtype == np.float64 else 1e-6
    return bool((np.abs(up + down) <= digits * np.abs(up).max()).all())


def one_per_layer(name, activations, layers):
    """Return a tuple with one activation per layer, from one for all layers or a list.

    Raises
    ------
    ValueError
        For a list of another length; the message calls the argument ``name``.
    """
    if isinstance(activations, str | Activation) or callable(activations):
        activations = (activations,) * layers
    if not isinstance(activations, tuple | list):
        raise ValueError(
            f"{name} must be an activation or a list of one per layer, got "
            f"{_checks.shown(activations)}"
        )
    activations = tuple(activations)
    if len(activations) != layers:
        raise ValueError(
            f"{name} has {len(activations)} entries for {layers} layers; give one per layer"
        )
    return tuple(map(named, activations))
