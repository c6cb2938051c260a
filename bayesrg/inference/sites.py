# SPDX-License-Identifier: Apache-2.0
"""Names and axes of the sites of a model, and the distribution of one site given the others."""

import difflib
import functools
import hashlib
import inspect
import json
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.extend.core import jaxpr_as_fun
from numpyro import handlers
from numpyro.infer.initialization import init_to_sample

from .. import _checks
from . import shapes
from .dependence import Without, check_strengths

_running = threading.RLock()
_AT_ONCE = 64  # draws whose distributions are computed side by side
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def one_at_a_time(function: Callable) -> Callable:
    """Return ``function`` such that calls from several threads wait for each other.

    NumPyro keeps one stack of handlers, which two threads would mix up.
    """

    @functools.wraps(function)
    def waits(*args, **kwargs):
        with _running:
            return function(*args, **kwargs)

    return waits


class Layout(NamedTuple):
    """Sites of a model, found by tracing it without computing any value.

    Attributes
    ----------
    dims : dict from the name of each site that a result holds to the names of its axes
    latents : dict from the name of each latent site to its shape and dtype
    sites : as ``latents``, with the deterministic sites too: all that has draws
    likelihood : names of the observed sites and of the factors (`numpyro.factor`)
    observed : function that computes the values of the observed sites, a dict by name
    strengths : function that computes the strengths of the action factors, a dict by name
    counts : dict from the name of each action factor to the number that multiplies its action
    """

    dims: dict[str, tuple[str, ...]]
    latents: dict[str, jax.ShapeDtypeStruct]
    sites: dict[str, jax.ShapeDtypeStruct]
    likelihood: frozenset[str]
    observed: Callable[[], dict[str, jax.Array]]
    strengths: Callable[[], dict[str, Any]]
    counts: dict[str, int]


class Bound(NamedTuple):
    """A model with its hyper-arguments.

    Arrays among these are kept apart in ``arrays``, so that a compiled program can take them as
    arguments; all else is in ``static``.
    """

    model: Callable
    arrays: Any
    static: Any

    @property
    def hyper(self) -> dict:
        """All hyper-arguments, as they were given."""
        return eqx.combine(self.arrays, self.static)

    def __call__(self, X, y=None, arrays=None):
        hyper = self.hyper if arrays is None else eqx.combine(arrays, self.static)
        return self.model(X, y, **hyper)


def bind(model: Callable, hyper: dict, caller: Callable | None = None) -> Bound:
    """Check hyper-arguments against the signature of the model; return both as a `Bound`.

    ``caller`` is the public function that takes the model. The names of its own keywords cannot be
    names of hyper-arguments.
    """
    _checks.function("model", model, "a NumPyro model, model(X, y)")
    parameters = inspect.signature(model).parameters
    if len(parameters) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        raise ValueError(
            f"model takes {', '.join(parameters) or 'no arguments'}; it is called as model(X, y)"
        )
    own = {} if caller is None else inspect.signature(caller).parameters
    clash = [name for name in parameters if name in own and own[name].kind is _KEYWORD]
    if clash:
        raise ValueError(
            f"the model takes {', '.join(map(repr, clash))}, which {caller.__name__} takes itself; "
            "rename it"
        )

    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    names = list(parameters)[2:]
    for name in hyper:
        if name not in names and not open_ended:
            near, there = difflib.get_close_matches(name, names, 1), ", ".join(names) or "none"
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {there}"
            raise ValueError(f"the model has no hyper-argument {name!r}; {hint}")

    arrays, static = eqx.partition(hyper, eqx.is_array)
    return Bound(model, arrays, static)


def fingerprint(hyper: dict) -> str:
    """Return one line of JSON that identifies hyper-arguments.

    Numbers and strings are stored as they are, functions by name, all else by its SHA-256.
    """
    entries = {}
    for name, value in sorted(hyper.items()):
        if value is None or isinstance(value, bool | int | float | str):
            entries[name] = value
            continue
        if callable(value) and not isinstance(value, eqx.Module):
            entries[name] = f"{value.__module__}.{getattr(value, '__qualname__', value)}"
            continue
        leaves, structure = jax.tree.flatten(value)
        # addresses in memory differ between runs
        digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", str(structure)).encode())
        for leaf in leaves:
            dtype = getattr(leaf, "dtype", np.dtype(float))
            if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            leaf = np.asarray(leaf)  # shape and dtype too: equal bytes can be different arrays
            digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
        entries[name] = digest.hexdigest()
    return json.dumps(entries)


def layout_of(bound: Bound | Without, X, y) -> Layout:
    """Trace a model once, without computing anything; return its sites.

    Raises
    ------
    ValueError
        If an observed value does not have the shape of its distribution, if a plate shares a kernel
        that varies over it, if the strength of an action factor depends on a latent site, or if the
        result cannot hold a name.
    """
    dims, lengths, plates, factors, supports, counts = {}, {}, {}, set(), {}, {}
    sites = {}

    def run():
        model = handlers.substitute(handlers.seed(bound, 0), substitute_fn=init_to_sample)
        latents, kernels, values, strengths = {}, {}, {}, {}
        for name, site in handlers.trace(model).get_trace(X, y).items():
            if site["type"] not in ("sample", "deterministic"):
                continue
            if action := site.get("infer", {}).get("action"):
                shapes.check_factor(name, site)
                scale = 1.0 if site["scale"] is None else site["scale"]
                counts[name], strengths[name] = action.count, jnp.asarray(action.lam * scale)
            if site["type"] == "sample" and isinstance(site["fn"], dist.Unit):
                factors.add(name)
                continue

            dims[name], lengths[name] = shapes.axes(name, site), jnp.shape(site["value"])
            plates[name] = {frame.name for frame in site["cond_indep_stack"]}
            if not site.get("is_observed", False):
                dtype = jnp.result_type(site["value"])
                sites[name] = jax.ShapeDtypeStruct(lengths[name], dtype)
            if site.get("is_observed", False):
                shapes.check_shape(name, site)
                fn = shapes.unwrap(site["fn"])
                supports[name] = type(fn).__name__, shapes.fixed_support(fn)
                kernels[name] = shapes.at_points(fn)
                values[name] = site["value"]
            elif site["type"] == "sample":
                latents[name] = site["value"]
        return latents, kernels, values, strengths

    program, (latents, *others) = jax.make_jaxpr(run, return_shape=True)()
    structure = jax.tree.structure((latents, *others))
    shapes.check_kernels(program.jaxpr, structure, plates)
    variables = jax.tree.unflatten(structure, program.jaxpr.outvars)
    check_strengths(program.jaxpr, variables[0], variables[3])

    def part(i):
        # run only the part of the program that these values need; the rest is never compiled
        run_again = jaxpr_as_fun(program)
        return jax.jit(lambda: jax.tree.unflatten(structure, run_again())[i])()

    def observed():
        values = part(2)
        for name, value in values.items():
            shapes.check_support(name, *supports[name], value)
        for name, value in (part(3) if counts else {}).items():
            if not 0 <= value < np.inf:
                raise ValueError(
                    f"lam of the factor {name!r} must be a finite number of at least 0, got {value}"
                )
        return values

    likelihood = frozenset(factors | supports.keys())
    dims = shapes.distinct(dims, lengths)
    return Layout(dims, latents, sites, likelihood, observed, lambda: part(3), counts)


def law(bound: Bound, X, latents: dict, site: str):
    """Return the distribution of one site at inputs X, given the values of the latent sites.

    Plates and ``to_event`` around the distribution are removed.
    """

    def value(message):
        if message["name"] == site:  # nothing is drawn there, only its law is wanted
            return jnp.zeros(message["fn"].shape())
        return latents.get(message["name"]) if message["type"] == "sample" else None

    model = handlers.substitute(handlers.seed(bound, 0), substitute_fn=value)
    trace = handlers.trace(model).get_trace(X, None)
    return shapes.unwrap(trace[site]["fn"])


def over_draws(function: Callable, draws: Any):
    """Return ``function`` of each draw, stacked into arrays (chain, draw, ...).

    ``draws`` is a pytree of arrays (chain, draw, ...). Some draws are computed at a time; what does
    not depend on the draw is computed once for these.
    """
    shape = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda v: v.reshape((-1,) + v.shape[2:]), draws)
    result = jax.lax.map(function, flat, batch_size=min(_AT_ONCE, shape[0] * shape[1]))
    return jax.tree.map(lambda x: x.reshape(shape + x.shape[1:]), result)
