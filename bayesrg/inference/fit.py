# SPDX-License-Identifier: Apache-2.0
"""Sample the posterior of a model and hand it over to ArviZ."""

import contextlib
import platform
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import xarray as xr
from numpyro import handlers
from numpyro.infer import NUTS, Predictive
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.mcmc import MCMCKernel

from .. import __version__, _checks, io
from ..data import Data
from ..spectrum import Spectrum
from .driver import sample_in_blocks
from .sites import bind, fingerprint, law, over_draws, sites_of

_RESERVED = (
    "draws", "warmup", "chains", "block", "sampler", "prior", "path", "progress", "devices", "key",
)  # fmt: skip


def fit(
    model: Callable,
    data: Data | tuple,
    *,
    key: jax.Array | int,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    block: int = 100,
    sampler: Callable[[Callable], MCMCKernel] | None = None,
    prior: int = 0,
    path=None,
    progress: bool = True,
    devices: int | None = None,
    **hyper,
) -> xr.DataTree:
    """Sample the posterior of a NumPyro model.

    Parameters
    ----------
    model : callable
        ``model(X, y, **hyper)``, wiring NumPyro sites.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    key : JAX key or int
    draws, warmup, chains : int
        Kept and discarded steps a chain, and chains, which run vectorised.
    block : int
        Steps compiled together: the unit of progress.
    sampler : callable, optional
        From model to NumPyro kernel, e.g. ``lambda m: NUTS(m, dense_mass=True)``; NUTS by default.
    prior : int
        Draws from the prior to add.
    path : path, optional
        Run folder that receives ``result.nc``; one that has a result already is refused.
    progress : bool
        Show a progress bar on the terminal.
    devices : int, optional
        Devices to share the chains among; by default as many as divide them evenly.
    **hyper
        Hyper-arguments of the model; pytrees (a spectrum, a kernel) are allowed.

    Returns
    -------
    DataTree
        Groups posterior, sample_stats, log_likelihood (pointwise; leave-one-out densities for
        Gaussian-process sites, so that ``az.loo`` means what it says), observed_data,
        constant_data, and prior and prior_predictive on request. Values in 64 bits; the sampler
        itself runs in JAX's current precision.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that the model does not take, or data of
        the wrong shape.
    FileExistsError
        If ``path`` holds a result.
    """
    for name, value, least in (
        ("draws", draws, 1), ("warmup", warmup, 0), ("chains", chains, 1), ("block", block, 1),
        ("prior", prior, 0),
    ):  # fmt: skip
        _checks.whole(name, value, least=least)
    _checks.function("model", model, "a NumPyro model, model(X, y)")
    _checks.flag("progress", progress)
    if sampler is not None:
        _checks.function("sampler", sampler, "a function from a model to a NumPyro kernel")
    result = None if path is None else io.claim(path)
    X, y = _arrays(data)
    key = _checks.random_key(key)
    bound = bind(model, hyper, _RESERVED)
    for value in hyper.values():
        if isinstance(value, Spectrum):
            value.warn_if_shared(_checks.inputs("X", X))
    devices = _devices(devices, chains)
    what = "a function that returns a NumPyro kernel, e.g. NUTS"
    kernel = _checks.instance("sampler", (sampler or NUTS)(bound), MCMCKernel, what)
    sites = sites_of(bound, X, y)
    if all(s.observed or s.deterministic for s in sites):
        raise ValueError("the model has no latent site, so there is nothing to sample; add one")
    values = _observed_values(bound, X, y, sites)
    with _progress(progress, warmup + draws) as after_block:
        samples, stats = sample_in_blocks(
            kernel, key, (X, y, bound.arrays), warmup=warmup, draws=draws, chains=chains,
            block=block, devices=devices, after_block=after_block,
        )  # fmt: skip
    if "tree_depth" in stats:
        depth = np.max(getattr(kernel, "_max_tree_depth", 10))
        stats["reached_max_tree_depth"] = stats["tree_depth"] >= depth
    observed = {s.name for s in sites if s.observed}
    groups = {
        "posterior": samples,
        "sample_stats": stats,
        "log_likelihood": _log_likelihood(bound, X, values, samples, sites),
        "observed_data": values,
        "constant_data": {"X": X},
    }
    if prior:
        drawn = Predictive(bound, num_samples=prior)(jax.random.fold_in(key, 1), X, None)
        drawn = {name: value[None] for name, value in drawn.items()}
        groups["prior"] = {k: v for k, v in drawn.items() if k not in observed}
        groups["prior_predictive"] = {k: v for k, v in drawn.items() if k in observed}
    dims = {s.name: s.dims for s in sites} | {"X": ("point", "feature")[: X.ndim]}
    attrs = {
        "model": f"{model.__module__}.{getattr(model, '__name__', type(model).__name__)}",
        "hyper": fingerprint(hyper), "draws": draws, "warmup": warmup, "chains": chains,
        "block": block, "devices": devices, "precision": str(X.dtype),
        "device_kind": jax.devices()[0].device_kind, "bayesrg": __version__,
        "numpyro": numpyro.__version__, "jax": jax.__version__,
        "python": platform.python_version(),
    }  # fmt: skip
    dt = io.to_datatree(groups, dims, attrs=attrs)
    if result is not None:
        io.save(dt, result)
    return dt


def _arrays(data):
    """Inputs and targets of `Data` or a pair, checked."""
    if not isinstance(data, Data) and not (isinstance(data, tuple | list) and len(data) == 2):
        raise ValueError(f"data must be a Data or a pair (X, y), got {type(data).__name__}")
    X, y = data[0], data[1]
    X = _checks.finite("X", X, ndim=(1, 2))
    return X, _checks.targets("y", y, X.shape[0])


def _devices(devices, chains):
    available = jax.local_device_count()
    if devices is None:
        return max(d for d in range(1, min(available, chains) + 1) if chains % d == 0)
    if _checks.integer(devices) is None or not 1 <= devices <= available or chains % devices:
        raise ValueError(
            f"devices must divide the {chains} chains and be at most {available}, the devices "
            f"that JAX has here, got {_checks.shown(devices)}"
        )
    return int(devices)


def _observed_values(bound, X, y, sites):
    """Observed sites' values as the model sees them, e.g. transposed to (output, point)."""
    model = handlers.substitute(handlers.seed(bound, 0), substitute_fn=init_to_uniform)
    trace = handlers.trace(model).get_trace(X, y)
    return {s.name: trace[s.name]["value"] for s in sites if s.observed}


def _log_likelihood(bound, X, values, samples, sites):
    latents = {s.name: samples[s.name] for s in sites if s.name in samples and not s.deterministic}

    @eqx.filter_jit
    def pointwise(latents, arrays, values):
        def at(draw):
            result = {}
            for name, value in values.items():
                fn = law(bound, arrays, X, draw | values, name)
                result[name] = fn.loo(value) if hasattr(fn, "loo") else fn.log_prob(value)
            return result

        return over_draws(at, latents)

    return pointwise({k: jnp.asarray(v) for k, v in latents.items()}, bound.arrays, values)


@contextlib.contextmanager
def _progress(show, steps):
    if not show:
        yield lambda done, blocks: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("compiling", total=None)

        def after_block(done, blocks):
            text = f"sampling {min(steps, done * -(-steps // blocks))}/{steps}"
            bar.update(task, total=blocks, completed=done, description=text)

        yield after_block
