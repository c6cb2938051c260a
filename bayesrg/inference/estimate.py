# SPDX-License-Identifier: Apache-2.0
"""Estimate of the memory and the time that a run will take."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import potential_energy

from .. import _checks
from .._callables import Held, hold
from ..data import Data
from .fit import check_data, check_size
from .kept import Entry, as_text, plan, prior_draws
from .sites import bind, layout_of, one_at_a_time

_PER_STEP = (1, 31, 1023)  # gradients per step of NUTS: trees of depth 1, 5 and 10, the deepest
_SECONDS, _MOST = 0.1, 200  # gradients are timed for about this long, and at most so many


class Estimate(NamedTuple):
    """What a run will take.

    Attributes
    ----------
    entries : variables of the result that grow with the number of draws, each with ``group``,
        ``name``, ``dims``, ``shape`` and ``bytes``
    bytes : bytes of these variables together, with which `fit` compares ``max_bytes``
    block_bytes : bytes of the draws of one block
    blocks : number of compiled blocks, warm-up included
    steps : number of steps per chain, warm-up included
    gradient_seconds : seconds per gradient of the log density, of all chains side by side; None if
        the model has no continuous latent site
    seconds : expected seconds of all steps, without compilation, by the number of gradients that
        one step takes. NUTS chooses this number, 2^depth - 1, so it is not known before. It is 1 at
        least, 31 at depth 5, and at most 1023 at depth 10. The work of NUTS between gradients, some
        ten microseconds each, is not in it.
    """

    entries: tuple[Entry, ...]
    bytes: int
    block_bytes: int
    blocks: int
    steps: int
    gradient_seconds: float | None
    seconds: dict[int, float]

    def __repr__(self):
        lines = []
        for entry in self.entries:
            axes = ", ".join(f"{d}: {n}" for d, n in zip(entry.dims, entry.shape, strict=True))
            lines.append(
                f"{entry.group:18s} {entry.name:18s} {as_text(entry.bytes):>10s}  ({axes})"
            )
        lines.append(f"{'result':37s} {as_text(self.bytes):>10s}")
        lines.append(f"{'one block':37s} {as_text(self.block_bytes):>10s}")
        lines.append(f"{self.blocks} blocks, {self.steps} steps per chain")
        if self.gradient_seconds is not None:
            lines.append(f"{self.gradient_seconds:.2g} s per gradient of all chains")
        for gradients, seconds in self.seconds.items():
            unit = "gradient" if gradients == 1 else "gradients"
            lines.append(f"{_duration(seconds)} if a step takes {gradients} {unit}")
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """Return all fields as a dict that JSON can hold."""
        found = self._asdict() | {"entries": [entry._asdict() for entry in self.entries]}
        return found | {"seconds": {str(n): value for n, value in self.seconds.items()}}


def _duration(seconds):
    """Return a time as text, such as "3.2 min"."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s"


@one_at_a_time
def estimate(
    model: Callable,
    data: Data | tuple,
    *,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    block: int = 100,
    thin: int = 1,
    store: Sequence[str] | str | None = None,
    log_likelihood: bool = True,
    prior: int = 0,
    devices: int | None = None,
    **hyper,
) -> Estimate:
    """Return the memory and the time that a run of `bayesrg.fit` would take, without sampling.

    The log density and its gradient are compiled, and a few gradients are timed at the start of the
    chains. Nothing is written.

    Parameters
    ----------
    model, data, draws, warmup, chains, block, thin, store, log_likelihood, prior, devices
        As in `bayesrg.fit`.
    **hyper
        Hyper-arguments of the model.

    Returns
    -------
    Estimate
        Sites with dims and shapes, bytes, seconds per gradient, number of blocks, and the time
        expected; printed as a table. The time is that of the default sampler, NUTS.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that the model does not take, data of the
        wrong shape, or an entry of ``store`` that matches no site.
    """
    size = check_size(draws, warmup, chains, devices, block, thin)
    log_likelihood = _checks.flag("log_likelihood", log_likelihood)
    prior = _checks.whole("prior", prior, least=0)
    data = check_data(data)
    bound = bind(model, hyper, estimate)
    layout = layout_of(bound, data.X, data.y)
    key = jax.random.key(0)  # only where gradients are timed depends on it
    of_prior = prior_draws(bound, data.X, key, prior)
    kept = plan(bound, data.X, layout, layout.observed(), size, store, log_likelihood, of_prior)
    gradient = _time_per_gradient(bound, data, layout, size.chains // size.devices, key)
    times = {} if gradient is None else {n: n * gradient * size.steps for n in _PER_STEP}
    return Estimate(
        kept.entries, kept.bytes, kept.block_bytes, size.blocks, size.steps, gradient, times
    )


def _time_per_gradient(bound, data, layout, chains, key):
    """Return seconds per gradient of the log density of ``chains`` chains side by side, or None."""
    moved = [n for n, v in layout.latents.items() if jnp.issubdtype(v.dtype, jnp.floating)]
    if not moved:
        return None
    run = partial(_gradients, hold(bound), tuple(moved), data.X, data.y)
    keys = jax.random.split(key, chains)

    def seconds(count):
        start = time.perf_counter()
        jax.block_until_ready(run(keys, np.asarray(count)))  # an array: one program for all counts
        return time.perf_counter() - start

    seconds(1)  # compiles
    few = seconds(1)  # with the start of the chains, which costs about one more gradient
    count = int(min(_MOST, max(4, _SECONDS / few)))
    return min(seconds(count) for _ in range(3)) / count  # other programs only make it longer


@eqx.filter_jit
def _gradients(bound: Held, moved, X, y, keys, count):
    """Take ``count`` gradients of the log density, one after the other, from random starts."""
    bound = bound.open()

    def chain(key):
        model = handlers.seed(bound, key)
        start = handlers.substitute(model, substitute_fn=init_to_uniform)
        trace = handlers.trace(start).get_trace(X, y)
        place = {n: biject_to(trace[n]["fn"].support).inv(trace[n]["value"]) for n in moved}
        slope = jax.grad(partial(potential_energy, model, (X, y), {}))

        def step(_, place):  # hardly moves, but depends on the gradient
            return jax.tree.map(lambda x, g: x - 1e-12 * jnp.nan_to_num(g), place, slope(place))

        return jax.lax.fori_loop(0, count, step, place)

    return jax.vmap(chain)(keys)
