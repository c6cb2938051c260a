# SPDX-License-Identifier: Apache-2.0
"""Sample the posterior of a model into a tree for ArviZ."""

import os
import platform
from collections.abc import Callable, Sequence

import jax
import numpyro
import xarray as xr
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel

from .. import __version__, _checks, io
from ..data import Data
from ..spectrum import Spectrum
from .convergence import warn_if_poor
from .display import display, watch
from .driver import Draws, Size, sample_in_blocks
from .identity import identity
from .kept import MAX_BYTES, plan, prior_draws
from .processes import claim, require_same
from .progress import Progress
from .resume import Recorded, check_accept, record, require_space
from .samplers import Sampler, sampler_of
from .shared import recorded
from .sites import bind, fingerprint, layout_of, one_at_a_time


@one_at_a_time
def fit(
    model: Callable,
    data: Data | tuple,
    *,
    key: jax.Array | int,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    block: int = 100,
    thin: int = 1,
    store: Sequence[str] | str | None = None,
    log_likelihood: bool = True,
    max_bytes: int = MAX_BYTES,
    sampler: Callable[[Callable], MCMCKernel | Sampler] | None = None,
    prior: int = 0,
    path: str | os.PathLike | None = None,
    keep_blocks: bool = False,
    accept: Sequence[str] = (),
    progress: bool = True,
    after_block: Callable[[Progress], None] | None = None,
    devices: int | None = None,
    **hyper,
) -> xr.DataTree:
    """Sample the posterior of a NumPyro model; return draws, densities and data as a tree.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``.
    data : Data or (X, y)
        X (n, d), y (n,) or (n, c).
    key : JAX key or int
    draws, warmup, chains : int
        Draws kept and steps discarded per chain, and number of chains; chains run side by side.
    block : int
        Steps per compiled block; the progress bar advances once per block.
    thin : int
        Steps from one draw to the next. The draws, with their statistics, are every ``thin``-th
        draw of a run with ``thin=1`` and ``thin`` times as many draws. Divergences in between are
        not counted.
    store : str or sequence of str, optional
        Names of the sites whose draws are kept, or patterns such as "layer*"; by default all. The
        other sites are sampled too, but neither returned nor written. `predict` needs all latent
        sites.
    log_likelihood : bool
        Add the group log_likelihood. It is computed block by block from all latent sites, also from
        those that ``store`` leaves out.
    max_bytes : int
        Largest size of the result, in bytes; by default 2 GiB. It is computed before sampling.
    sampler : callable, optional
        Function from a model to a NumPyro kernel, e.g. ``lambda m: NUTS(m, dense_mass=True)``, or
        to a `bayesrg.inference.Sampler`, which wraps the sampler of another library. By default
        NUTS.
    prior : int
        Number of draws from the prior to add. They ignore factors (`numpyro.factor`,
        `action_factor`).
    path : path, optional
        Folder of the run, to which every finished block is written. The same call again continues
        a run that was interrupted, returns the result of a finished one, and extends it if
        ``draws`` is larger.
    keep_blocks : bool
        Keep the files of blocks in the folder after the result is there.
    accept : sequence of str
        Differences that are allowed when a run is continued: "versions" of libraries, and
        "devices", their kind and number. The draws that follow are then of the same law, but not
        bit by bit those of a run that was not interrupted.
    progress : bool
        Show a bar on the terminal, or below the cell of a notebook. If stderr is a file, one line
        is written to it for each tenth of the run.
    after_block : callable, optional
        Function that is called with a `bayesrg.inference.Progress` after each block. An exception
        that it raises ends the run. With ``path`` the same call then goes on after this block;
        without ``path`` the draws are lost.
    devices : int, optional
        Number of devices that share the chains; by default the largest that divides them evenly.
        If `jax.distributed` has joined several processes, all of them make the same call. The
        devices are then those of all processes, with the same number of each. Process 0 writes the
        folder and shows the bar, and the tree is returned in all processes.
    **hyper
        Hyper-arguments of the model; pytrees (a spectrum, a kernel) are allowed.

    Returns
    -------
    DataTree
        Groups posterior, sample_stats, log_likelihood, observed_data and constant_data; with
        ``prior`` also prior and prior_predictive. log_likelihood (nats) has one value per
        observation. For a Gaussian process it is the density of this observation given all the
        others, so ``az.loo`` estimates the leave-one-out error. All values have 64 bits; the
        sampler runs in JAX's current precision.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that the model does not take, data of the
        wrong shape, or chains that do not divide among processes. If an entry of ``store`` matches
        no site; the message has names like it. If the result would have more than ``max_bytes``;
        the message has the three largest sites. If ``path`` holds another run; the message has the
        field that differs, and both values. If a file of the run is missing or was altered.
    FileExistsError
        If ``path`` is a file or holds something else, or another process writes there.
    bayesrg.io.SaveError
        If a block or the result cannot be written; the attribute ``tree`` of the error has all
        draws.
    KeyboardInterrupt
        After the running block, if SIGINT or SIGTERM arrives while a run with ``path`` samples. Its
        attribute ``code`` is 130 or 143. A program that does not catch it shows one line, which
        says how to go on, and exits with this status. A second signal ends the process at once.
    RuntimeError
        If another process of the run has ended.

    Warns
    -----
    SamplingWarning
        Once, at the end, if draws diverged, if R-hat is above 1.01, or if the effective sample size
        is below 100 per chain.

    Notes
    -----
    Names of sites and axes, shapes, the folder and the pointwise densities are checked before
    sampling, so that mistakes show early. Calls from several threads wait for each other, because
    NumPyro keeps one stack of handlers.
    """
    size = check_size(draws, warmup, chains, devices, block, thin)
    log_likelihood = _checks.flag("log_likelihood", log_likelihood)
    max_bytes = _checks.whole("max_bytes", max_bytes)
    prior = _checks.whole("prior", prior, least=0)
    progress = _checks.flag("progress", progress)
    check_after_block(after_block)
    data = check_data(data)
    key = _checks.random_key(key)
    keep_blocks = _checks.flag("keep_blocks", keep_blocks)
    accept = check_accept(accept)
    bound = bind(model, hyper, fit)

    with claim(path) as folder, display(progress) as show:
        dt = sample(
            bound,
            data,
            key,
            size,
            sampler=sampler,
            store=store,
            log_likelihood=log_likelihood,
            max_bytes=max_bytes,
            prior=prior,
            show=show,
            after_block=after_block,
            folder=folder,
            keep_blocks=keep_blocks,
            accept=accept,
        )
    warn_if_poor(dt)
    return dt


def sample(
    bound,
    data,
    key,
    size,
    *,
    sampler=None,
    store=None,
    log_likelihood=True,
    max_bytes=MAX_BYTES,
    prior=0,
    show=None,
    after_block=None,
    fit="fit",
    folder=None,
    keep_blocks=False,
    accept=(),
) -> xr.DataTree:
    """Sample a bound model and return the tree of `fit`; the arguments have been checked.

    ``bound`` comes from `bind`, ``data`` from `check_data`, ``size`` from `check_size`, ``folder``
    from `io.claim`, and ``accept`` from `check_accept`. ``show`` comes from `display`, and
    ``fit`` is the name of the fit in what it shows.
    """
    X, y = data.X, data.y
    make = NUTS if sampler is None else sampler
    sampler = sampler_of(make, bound)
    for value in bound.hyper.values():
        if isinstance(value, Spectrum):
            value.warn_if_shared(X[:, None] if X.ndim == 1 else X)

    layout = layout_of(bound, X, y)
    if not layout.latents:
        raise ValueError("the model has no latent site, so there is nothing to sample; add one")
    values = layout.observed()
    of_prior = prior_draws(bound, X, key, prior)
    kept = plan(bound, X, layout, values, size, store, log_likelihood, of_prior)
    kept.require_memory(max_bytes)

    draws = Draws(size, kept, fit)
    if folder is not None or jax.process_count() > 1:
        asked = identity(bound, data, key, size, make, layout, kept, prior)
        require_same(asked | {"draws": size.draws})
    if folder is not None:

        def begin():
            require_space(folder, size, kept)
            return Recorded(folder, asked, size, layout.dims, accept, kept, fit)

        draws = recorded(begin, size, kept)
        if draws.finished:
            draws.clean(keep_blocks)
            return draws.result()

    name = getattr(bound.model, "__name__", type(bound.model).__name__)
    attrs = {
        "model": f"{bound.model.__module__}.{name}",
        "hyper": fingerprint(bound.hyper),
        **size._asdict(),
        "precision": str(X.dtype),
        "device_kind": jax.devices()[0].device_kind,
        "bayesrg": __version__,
        "numpyro": numpyro.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }

    if kept.left_out:
        attrs["left_out"] = ", ".join(kept.left_out)

    run = sample_in_blocks if folder is None else record
    if show is not None:
        show(draws.meter.facts)
    run(sampler, key, (X, y, bound.arrays), draws, watch(show, after_block))

    groups = dict(zip(io.draws.SAMPLED, draws.all(), strict=False))
    groups |= {"observed_data": values, "constant_data": {"X": X}}
    if of_prior is not None:
        drawn = {name: value[None] for name, value in of_prior().items()}
        left = kept.left_out
        groups["prior"] = {k: v for k, v in drawn.items() if k not in values and k not in left}
        groups["prior_predictive"] = {k: v for k, v in drawn.items() if k in values}

    dims = layout.dims | {"X": ("point", "feature")[: X.ndim]}
    if folder is None:
        return io.to_datatree(groups, dims, attrs=attrs)
    dt = io.to_datatree(groups, dims, attrs=attrs | draws.attrs())
    draws.finish(dt, keep_blocks)
    return dt


def check_size(draws, warmup, chains, devices=None, block=100, thin=1) -> Size:
    """Check the numbers of steps, chains and devices and return them as a `Size`.

    If ``devices`` is None, the largest number of devices that divides the chains is chosen. With
    several processes, every one of them gets the same number of chains.
    """
    return Size(
        _checks.whole("draws", draws),
        _checks.whole("warmup", warmup, least=0),
        _checks.whole("chains", chains),
        _checks.whole("block", block),
        _devices(devices, chains),
        _checks.whole("thin", thin),
    )


def check_after_block(value) -> None:
    """Raise unless ``after_block`` is None or can be called."""
    if value is not None:
        _checks.function("after_block", value, "a function of an inference.Progress")


def check_data(data, targets=True) -> Data:
    """Return `Data` or a pair (X, y) as `Data` whose X (n, d) or (n,) and y are checked.

    If ``targets`` is False, y may be None.
    """
    if not isinstance(data, Data):
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise ValueError(f"data must be a Data or a pair (X, y), got {type(data).__name__}")
        data = Data(*data)
    X = _checks.finite("X", data.X, ndim=(1, 2))
    if data.y is None and not targets:
        return data._replace(X=X)
    return data._replace(X=X, y=_checks.targets("y", data.y, X.shape[0]))


def _devices(devices, chains):
    processes, available = jax.process_count(), jax.device_count()
    if available != processes * jax.local_device_count():
        raise ValueError(
            f"all processes must have the same number of devices, but this one of {processes} has "
            f"{jax.local_device_count()} of {available}; start each with the same number"
        )
    if chains % processes:
        raise ValueError(
            f"chains must divide among the {processes} processes, got {chains}; give a multiple "
            f"of {processes}"
        )
    if devices is None:
        most = min(available, chains)
        return max(d for d in range(processes, most + 1, processes) if chains % d == 0)
    devices = _checks.whole("devices", devices)
    if devices > available or chains % devices or devices % processes:
        several = f", and be a multiple of {processes}, the processes" * (processes > 1)
        raise ValueError(
            f"devices must divide the {chains} chains and be at most {available}, the devices "
            f"that JAX has here{several}, got {devices}"
        )
    return devices
