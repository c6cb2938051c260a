# SPDX-License-Identifier: Apache-2.0
"""What a run keeps: which sites, how many bytes of each, and the pointwise log densities."""

import difflib
import fnmatch
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from numpyro.infer import Predictive

from .. import _checks
from .._callables import Held, hold
from ..io.labels import stored as name_in_tree
from .driver import Size, pick
from .sites import Bound, Layout, law, over_draws

MAX_BYTES = 2 << 30


class Entry(NamedTuple):
    """One variable of the result: its group, name, names and lengths of its axes, and its bytes."""

    group: str
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    bytes: int


class Kept(NamedTuple):
    """What a run keeps of the draws of a model.

    Attributes
    ----------
    sites : names of the sites whose draws are kept
    left_out : names of the sites whose draws are not kept
    densities : function from draws of the latent sites, a dict of arrays (chain, draw, ...), to the
        log density of each observation, a dict by observed site; None if these are not kept
    latents : names of the sites that ``densities`` needs
    entries : the variables of the result that grow with the number of draws
    block_bytes : bytes of one block of draws of the needed sites
    """

    sites: tuple[str, ...]
    left_out: tuple[str, ...]
    densities: Callable[[dict], dict] | None
    latents: tuple[str, ...]
    entries: tuple[Entry, ...]
    block_bytes: int

    @property
    def needed(self) -> frozenset[str]:
        """Names of the sites whose draws leave the device."""
        return frozenset((*self.sites, *self.latents))

    def pick(self, part: tuple[dict, dict], size: Size, done: int) -> tuple[dict, ...]:
        """Return samples, statistics and, if they are kept, log densities of the draws of a block.

        Parameters
        ----------
        part : samples and statistics of all steps of the block, arrays (chain, step, ...)
        size : Size
        done : number of blocks before this one
        """
        samples, stats = pick(part, size, done)
        found = {name: value for name, value in samples.items() if name in self.sites}
        if self.densities is None:
            return found, stats

        # as many draws in every block, so that one program is compiled; some may be there twice
        at = np.arange(size.block)[size.kept_steps(done)]
        # a latent site that the kernel sums over, such as an enumerated one, has no draws
        there = [name for name in self.latents if name in part[0]]
        latents = {name: part[0][name][:, np.resize([*at, 0], size.most)] for name in there}
        densities = jax.device_get(self.densities(latents))
        return found, stats, jax.tree.map(lambda value: value[:, : len(at)], densities)

    @property
    def bytes(self) -> int:
        """Bytes of all entries together."""
        return sum(entry.bytes for entry in self.entries)

    def require_memory(self, max_bytes: int) -> None:
        """Raise ValueError if the result, or one block of draws, has more than ``max_bytes``."""
        if self.bytes > max_bytes:
            largest = sorted(self.entries, key=lambda entry: -entry.bytes)[:3]
            text = ", ".join(f"{e.group} {e.name!r} {as_text(e.bytes)}" for e in largest)
            raise ValueError(
                f"the result would have {self.bytes} bytes ({as_text(self.bytes)}), and max_bytes "
                f"is {max_bytes}; the largest sites are {text}; take fewer draws, raise "
                "max_bytes or, in fit, name in store the sites that you need, or give "
                "log_likelihood=False"
            )
        if self.block_bytes > max_bytes:
            raise ValueError(
                f"a block of draws would have {self.block_bytes} bytes "
                f"({as_text(self.block_bytes)}), and max_bytes is {max_bytes}; take a smaller "
                "block, or raise max_bytes"
            )


def as_text(count: int) -> str:
    """Return a number of bytes as text, such as "1.5 GiB"."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}" if unit != "bytes" else f"{count} bytes"


def plan(
    bound: Bound,
    X: Any,
    layout: Layout,
    values: dict,
    size: Size,
    store: Any,
    log_likelihood: bool,
    of_prior: Callable[[], dict] | None,
) -> Kept:
    """Return what a run will keep; nothing is computed.

    The densities and the draws from the prior are traced, so that their errors are raised before
    sampling.

    Parameters
    ----------
    bound : model with its hyper-arguments
    X : inputs
    layout : sites of the model
    values : values of the observed sites
    size : Size
    store : names of sites or patterns, as `fit` takes them; None for all
    log_likelihood : whether the log density of each observation is kept
    of_prior : function that draws from the prior, None if nothing is drawn there
    """
    sites = check_store(store, list(layout.sites))
    left_out = tuple(name for name in layout.sites if name not in sites)
    lead, count = ("chain", "draw"), (size.chains, size.draws)
    entries = [
        _entry("posterior", name, lead + layout.dims[name], count + like.shape, like.dtype)
        for name, like in layout.sites.items()
        if name in sites
    ]
    densities, latents = None, ()
    if log_likelihood:
        densities, latents = partial(_pointwise, hold(bound), X, values), tuple(layout.latents)
        # of one block, as `Kept.pick` asks for them: then this is the only trace
        drawn = {
            name: jax.ShapeDtypeStruct((size.chains, size.most, *like.shape), like.dtype)
            for name, like in layout.latents.items()
        }
        for name, like in eqx.filter_eval_shape(densities, drawn).items():
            dims = lead + layout.dims[name][: like.ndim - 2]
            entries.append(_entry("log_likelihood", name, dims, count + like.shape[2:], like.dtype))
    if of_prior is not None:
        for name, like in jax.eval_shape(of_prior).items():
            group = "prior_predictive" if name in values else "prior"
            if name not in left_out:
                dims = lead + layout.dims.get(name, ())
                entries.append(_entry(group, name, dims, (1, *like.shape), like.dtype))

    # the sampler has the latent sites too, on the scale where it moves
    moved = [*layout.latents.values(), *(layout.sites[n] for n in {*sites, *latents})]
    numbers = sum(math.prod(like.shape) for like in moved)
    return Kept(
        sites=sites,
        left_out=left_out,
        densities=densities,
        latents=latents,
        entries=tuple(entries),
        block_bytes=8 * size.chains * size.block * numbers,
    )


def _entry(group, name, dims, shape, dtype):
    """Return the `Entry` of a variable; numbers have 64 bits in the result."""
    width = 8 if np.dtype(dtype).kind == "f" else np.dtype(dtype).itemsize
    return Entry(group, name_in_tree(name), dims, tuple(shape), width * math.prod(shape))


def check_store(store: Any, names: list[str]) -> tuple[str, ...]:
    """Return the sites that ``store`` names, in the order of ``names``.

    ``store`` is None for all sites, a name, a pattern such as "layer*", or a sequence of these.

    Raises
    ------
    ValueError
        If an entry matches no site.
    """
    if store is None:
        return tuple(names)
    store = (store,) if isinstance(store, str) else store
    store = _checks.sequence("store", store, "names of sites, or patterns such as 'layer*'")
    found = set()
    for pattern in store:
        matching = [name for name in names if _matches(name, pattern)]
        if not matching:
            near = difflib.get_close_matches(str(pattern), names, 3)
            hint = f"did you mean {' or '.join(map(repr, near))}?"
            if not near:
                hint = f"the model has {', '.join(map(repr, names))}"
            raise ValueError(f"store: no site matches {_checks.shown(pattern)}; {hint}")
        found |= set(matching)
    if not found:
        raise ValueError("store is empty, so no draw would be kept; name at least one site")
    return tuple(name for name in names if name in found)


def _matches(name, pattern):
    """Return whether a site has a name, also as written in a tree, or matches a pattern."""
    if not isinstance(pattern, str):
        return False
    return pattern == name_in_tree(name) or fnmatch.fnmatchcase(name, pattern)


def prior_draws(bound: Bound, X: Any, key: jax.Array, count: int) -> Callable[[], dict] | None:
    """Return a function that draws all sites from the prior; None if ``count`` is zero."""
    if not count:
        return None
    return lambda: Predictive(bound, num_samples=count)(jax.random.fold_in(key, 1), X, None)


@eqx.filter_jit
def _pointwise(bound: Held, X, values, latents):
    """Return log densities of the observed ``values`` (chain, draw, ...), for draws of the latents.

    A Gaussian process gives leave-one-out densities (method ``loo``), another site its log density.
    """
    bound = bound.open()

    def at(draw):
        result = {}
        for name, value in values.items():
            try:
                fn = law(bound, X, draw | values, name)
            except Exception as error:
                raise ValueError(
                    "the model fails with y=None, and densities and predictions call it so "
                    f"({type(error).__name__}: {error}); make it accept None, e.g. with "
                    "obs=None if y is None else y.T, or give log_likelihood=False"
                ) from error
            result[name] = fn.loo(value) if hasattr(fn, "loo") else fn.log_prob(value)
        return result

    return over_draws(at, latents)
