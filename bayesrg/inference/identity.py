# SPDX-License-Identifier: Apache-2.0
"""What identifies a run: the program of its model, its data, numbers, sampler and versions.

A model is known by what it computes. A run is continued if the trace of its log density, with the
constants in it, is that of the call; the text of the model does not matter.
"""

import hashlib
import inspect
import json
import platform
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import log_density

from .. import __version__
from .driver import Size
from .kept import Kept
from .sites import Bound, Layout, fingerprint

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
# names of functions, which do not change what is computed
_NAMES = ("name", "debug_info")


def identity(
    bound: Bound,
    data: Any,
    key: jax.Array,
    size: Size,
    make: Callable,
    layout: Layout,
    kept: Kept,
    prior: int,
) -> dict:
    """Return what identifies a run, a dict that JSON can hold.

    Parameters
    ----------
    bound : model with its hyper-arguments
    data : Data whose X and y have been checked
    key : JAX key
    size : Size
    make : function from a model to a sampler
    layout : sites of the model
    kept : what is kept of the draws
    prior : number of draws from the prior
    """
    name = getattr(bound.model, "__name__", type(bound.model).__name__)
    return {
        "model": f"{bound.model.__module__}.{name}",
        "hyper": json.loads(fingerprint(bound.hyper)),
        "X": of_array(data.X),
        "y": of_array(data.y),
        "key": _of_key(key),
        "warmup": size.warmup,
        "chains": size.chains,
        "block": size.block,
        "thin": size.thin,
        "store": list(kept.sites),
        "log_likelihood": kept.densities is not None,
        "prior": prior,
        "sampler": _of_sampler(make, bound, key, size, (data.X, data.y, bound.arrays)),
        "precision": str(data.X.dtype),
        "versions": {
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "numpyro": numpyro.__version__,
            "bayesrg": __version__,
        },
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "number": size.devices,
            "processes": jax.process_count(),
            "chain_method": "vectorized" if size.devices == 1 else "shard_map",
        },
        "program": _of_model(bound, data.X, data.y, layout),
        "source": _of_source(bound.model),
        "python": platform.python_version(),
    }


def of_array(value) -> str:
    """Return dtype, shape and SHA-256 of an array as one line."""
    value = np.asarray(value)
    digest = hashlib.sha256(value.tobytes()).hexdigest()
    return f"{value.dtype}{list(value.shape)} SHA-256 {digest}"


def _of_key(key):
    """Return the kind and the numbers of a random key as one line."""
    return f"{jax.random.key_impl(key)} {np.asarray(jax.random.key_data(key)).tolist()}"


def _of_source(model):
    """Return the SHA-256 of the text of a model; None if it has no text."""
    try:
        text = inspect.getsource(inspect.unwrap(model))
    except (OSError, TypeError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _of_sampler(make, bound, key, size, args):
    """Return a sampler and its settings: a dict by name, or the SHA-256 of its first step."""
    made = make(bound)
    if isinstance(made, MCMCKernel):
        return _settings(made)
    several = made.vectorised and size.chains > 1
    keys = jax.random.split(key, size.chains) if several else key
    try:
        step = jax.make_jaxpr(lambda key: made.step(made.init(key, size.warmup, args), args))
        return {"class": "Sampler", "program": program_digest(step(keys))}
    except Exception:  # a start that needs numbers; then the functions are known by name
        return {"class": "Sampler"} | {
            field: getattr(value, "__qualname__", str(type(value)))
            for field, value in made._asdict().items()
        }


def _settings(value):
    """Return a value as JSON: objects by class and attributes, functions by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return of_array(value)
    if isinstance(value, Mapping):
        return {str(k): _settings(v) for k, v in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_settings(v) for v in value]
    if isinstance(value, MCMCKernel):
        own = {k: v for k, v in vars(value).items() if "model" not in k}
        return {"class": type(value).__qualname__} | {k: _settings(v) for k, v in own.items()}
    if hasattr(value, "func"):  # a function with some arguments filled in
        return {"function": _settings(value.func), "given": _settings([value.args, value.keywords])}
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return _ADDRESS.sub("", str(value))


def _of_model(bound, X, y, layout):
    """Return the SHA-256 of the program that computes a model.

    The program takes the latent sites, data and hyper-arguments. It computes the log density, the
    deterministic sites, and the latent sites on the unconstrained scale, where samplers move.
    """

    def program(latents, X, y, arrays):
        model = handlers.seed(handlers.substitute(bound, data=latents), 0)
        density, trace = log_density(model, (X, y, arrays), {}, latents)
        outputs = {"density": density}
        for name, site in trace.items():
            if site["type"] == "deterministic":
                outputs[name] = site["value"]
            elif name in latents and jnp.issubdtype(jnp.result_type(site["value"]), jnp.floating):
                try:
                    outputs[name] = biject_to(site["fn"].support).inv(site["value"])
                except NotImplementedError:  # a support that is not mapped
                    supports.append((name, type(site["fn"].support).__name__))
        return outputs

    supports = []
    traced = jax.make_jaxpr(program)(layout.latents, X, y, bound.arrays)
    return program_digest(traced, supports)


def program_digest(program: ClosedJaxpr, *more: Any) -> str:
    """Return the SHA-256 of a traced program with its constants, and of the texts of ``more``.

    Variables are numbered in their order. Names of functions and addresses in memory do not count,
    nor whether JAX has found that two parts of the program are the same.
    """
    digest = hashlib.sha256()

    def put(*parts):
        for part in parts:
            digest.update(part if isinstance(part, bytes) else str(part).encode())
            digest.update(b"\0")

    def array(value):
        if jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.prng_key):
            value = jax.random.key_data(value)
        value = np.asarray(value)
        put("array", value.dtype, value.shape, value.tobytes())

    def walk(jaxpr, constants):
        numbers = {}

        def variable(v):
            if isinstance(v, Literal):
                put("literal", v.aval)
                array(v.val)
            else:
                put(numbers.setdefault(v, len(numbers)), v.aval)

        put("program", len(jaxpr.constvars), len(jaxpr.invars), len(jaxpr.eqns))
        for v in (*jaxpr.constvars, *jaxpr.invars):
            variable(v)
        for value in constants:
            array(value)
        for equation in jaxpr.eqns:
            put("equation", equation.primitive.name)
            for v in (*equation.invars, *equation.outvars):
                variable(v)
            for name, value in sorted(equation.params.items()):
                if name not in _NAMES:
                    put(name)
                    parameter(value)
        for v in jaxpr.outvars:
            variable(v)

    def parameter(value):
        if isinstance(value, ClosedJaxpr):
            walk(value.jaxpr, value.consts)
        elif isinstance(value, Jaxpr):
            walk(value, ())
        elif isinstance(value, np.ndarray | np.generic | jax.Array):
            array(value)
        elif isinstance(value, Mapping):
            for key in sorted(value, key=str):
                put(key)
                parameter(value[key])
        elif isinstance(value, tuple | list):
            put(len(value))
            for entry in value:
                parameter(entry)
        elif isinstance(value, set | frozenset):
            put(*sorted(map(str, value)))
        elif callable(value):
            put("function")
        else:
            put(_ADDRESS.sub("", str(value)))

    walk(program.jaxpr, program.consts)
    put(*more)
    return digest.hexdigest()
