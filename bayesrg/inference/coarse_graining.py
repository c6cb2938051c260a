# SPDX-License-Identifier: Apache-2.0
"""The main job: sample a model, find its cutoff, sample the coarse model, compare the two."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks, gp, io, rg
from .._callables import hold
from ..data import Data
from ..gp.effective import RULES
from .convergence import warn_if_poor
from .display import display
from .fit import check_after_block, check_data, check_size, sample
from .kept import MAX_BYTES
from .predict import predict
from .processes import claim, first
from .progress import Progress
from .resume import Job, check_accept, tested
from .sites import bind, law, one_at_a_time, over_draws


@one_at_a_time
def coarse_grain(
    model: Callable,
    data: Data | tuple,
    *,
    key: jax.Array | int,
    draws: int = 1000,
    warmup: int = 1000,
    chains: int = 4,
    thin: int = 1,
    max_bytes: int = MAX_BYTES,
    devices: int | None = None,
    threshold: float = 0.5,
    prepare: Callable[[Data], Mapping] | None = None,
    path: str | os.PathLike | None = None,
    accept: Sequence[str] = (),
    origin: Mapping | None = None,
    progress: bool = True,
    after_block: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
    **hyper,
) -> xr.DataTree:
    """Sample a model and its coarse-grained form; return the draws of both and a comparison.

    First the full model is sampled. The cutoff is where the flow of the ridge stops
    (`bayesrg.rg.flow`, rule "running"), computed at the posterior medians of the parameters. The
    coarse model keeps the modes up to the cutoff and marginalises the others exactly, so its
    parameters have the same posterior as those of the full model.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``.
    data : Data or (X, y)
        X (n, d), y (n,). If `Data` holds test points, predictions are compared too.
    key : JAX key or int
    draws, warmup, chains : int
        Draws kept per chain, steps discarded before them, and number of chains; for both models.
    thin : int
        Steps from one draw to the next.
    max_bytes : int
        Largest size of the result of each of the two fits, in bytes; by default 2 GiB. Of all sites
        draws are kept, because the comparison needs them; see `bayesrg.fit`.
    devices : int, optional
        Number of devices that share the chains; by default the largest that divides them evenly.
    threshold : float
        Learnability at which the flow stops, between 0 and 1.
    prepare : callable, optional
        Function from `Data` to a mapping of more hyper-arguments, such as ``prepare`` of a model
        file. It is called after all arguments have been checked.
    path : path, optional
        Folder for ``result.nc``. The folders ``full`` and ``coarse`` in it are the run folders of
        the two fits, see `bayesrg.fit`. The same call again continues what was interrupted, returns
        the result of a finished run, and extends it if ``draws`` is larger.
    accept : sequence of str
        Differences that are allowed when a run is continued: "versions" and "devices".
    origin : mapping, optional
        Texts and numbers, by name, that are stored in ``run.json``, so that a program can find
        there how it made the model and the data.
    progress : bool
        Show a bar for each of the two fits on the terminal, or below the cell of a notebook. If
        stderr is a file, one line is written to it for each tenth of a fit.
    after_block : callable, optional
        Function that is called with a `bayesrg.inference.Progress` after each block of both fits.
        An exception that it raises ends the job; with ``path`` the same call goes on from there.
    say : callable
        Function that receives one line of text before each long step, for instance ``print``.
    **hyper
        Hyper-arguments of the model.

    Returns
    -------
    DataTree
        The tree that `bayesrg.fit` returns for the full model. If the model observes exactly one
        Gaussian process, which is not cut already, the tree has four more groups:

        - ``flow`` and ``spectrum``: see `bayesrg.io.flow_to_datatree`;
        - ``coarse_posterior``: draws of the coarse model;
        - ``rules``: ``log_evidence`` (nats) and, with test points, the mean squared ``test_error``,
          of the full model and of the coarse model under every rule, all at the posterior medians.
          Attributes: ``modes_learnt``, the sum of all learnabilities; ``evidence_change``, the
          largest difference of log evidence between full and coarse model over 100 draws;
          ``test_error_full`` and ``test_error_coarse``, the errors of the posterior means.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that the model does not take, or data of
        the wrong shape. If ``path`` holds another run; the message has the field that differs, and
        both values.
    FileExistsError
        If ``path`` is a file or holds something else, or another process writes there.
    bayesrg.io.SaveError
        If the result cannot be written; the attribute ``tree`` of the error is the result.

    Warns
    -----
    SamplingWarning
        Once per model, if its draws should not be trusted.
    """
    _checks.threshold(threshold)
    size = check_size(draws, warmup, chains, devices, thin=thin)
    max_bytes = _checks.whole("max_bytes", max_bytes)
    progress = _checks.flag("progress", progress)
    check_after_block(after_block)
    _checks.function("say", say, "a function of a line of text")
    if jax.process_index() > 0:
        say = str  # one process speaks
    if prepare is not None:
        _checks.function("prepare", prepare, "a function from data to hyper-arguments")
    data = check_data(data)
    keys = jax.random.split(_checks.random_key(key), 4)

    accept = check_accept(accept)
    if origin is not None:
        kinds = str | bool | int | float | None
        _checks.instance("origin", origin, Mapping, "a mapping from name to text or number")
        for name, value in origin.items():
            _checks.instance("origin", name, str, "a mapping from name to text or number")
            _checks.instance(f"origin[{name!r}]", value, kinds, "a text or a number")

    with claim(path) as folder, display(progress) as show:
        made = {} if prepare is None else prepare(data)
        _checks.instance("what prepare returned", made, Mapping, "a mapping from name to value")
        bound = bind(model, {**made, **hyper}, coarse_grain)
        how = {"show": show, "after_block": after_block, "accept": accept}
        how["max_bytes"] = max_bytes
        job = None
        if folder is not None:
            what = {"threshold": threshold, **tested(data)}
            job = first(lambda: Job(folder, what, size.draws, origin))

        say("sampling the full model")
        try:
            with _inside(folder, "full") as full:
                dt = sample(bound, data, keys[0], size, fit="full", folder=full, **how)
        finally:
            if job is not None:
                first(job.withdraw)
        if job is not None and first(lambda: job.finished):
            return first(job.result)
        warn_if_poor(dt)

        try:
            cut = _cut(bound, data, dt, threshold)
            if cut is not None:
                say(f"sampling the coarse model, {cut.flow.stop} modes kept")
                if job is not None:
                    first(lambda: job.coarse(cut.flow.stop))
                with _inside(folder, "coarse") as inner:
                    how |= {"fit": "coarse", "folder": inner}
                    _compare(bound, data, dt, cut, keys[1:], size, how)
        except Exception:
            if folder is not None:
                say(f"the draws of the full model are in {folder.path / 'full'}")
            raise

        if folder is not None:
            say(f"writing {path}")
            first(lambda: job.finish(dt))
    return dt


@contextlib.contextmanager
def _inside(folder, name):
    """Claim the run folder ``name`` in the folder of the job; without a folder give None."""
    with claim(None if folder is None else folder.path / name) as inner:
        yield inner


class _Cut(NamedTuple):
    """The site to cut, its distribution ``fn`` and its flow, both at the posterior medians.

    ``eigen`` are the eigenpairs of the eliminated modes. It is None if the modes of the site change
    with the parameters, so that no eigenpairs hold for all draws.
    """

    site: str
    medians: dict
    fn: gp.MercerNormal
    flow: rg.Flow
    eigen: tuple | None


def _cut(bound, data, dt, threshold):
    """Compute the flow at the posterior medians; return a `_Cut`, or None if nothing can be cut."""
    names = list(dt["observed_data"].data_vars)
    if f"{names[0]}_modes" in dt["posterior"]:
        return None  # cut already

    posterior = dt["posterior"].to_dataset()
    medians = {k: jnp.asarray(v) for k, v in posterior.median(("chain", "draw")).items()}
    fn = law(bound, data.X, medians, names[0])
    if len(names) != 1 or not isinstance(fn, gp.MercerNormal) or fn.features.shape[1] == 0:
        return None
    if fn.batch_shape or fn.ridge.shape != (1,):
        return None  # the flow is that of one target with one ridge

    n = data.X.shape[0]
    residual = None if fn.residual is None else fn.scale * fn.residual
    k = fn.features.shape[1]
    flow = rg.flow(
        fn.scale * fn.values,
        n,
        fn.ridge[0],
        threshold=threshold,
        features=fn.features,
        residual=residual,
        y=data.y,
        tail=float(fn.prior_variance(k).mean()),
    )

    # compare the modes at the medians with those at one draw: do they depend on the parameters?
    first = {k: jnp.asarray(v[0, 0]) for k, v in posterior.items()}
    other = law(bound, data.X, first, names[0])
    fixed = eqx.tree_equal(*((f.features, f.values, f.residual) for f in (fn, other)))
    high = fn.features[:, flow.stop :], fn.values[flow.stop :], fn.residual
    return _Cut(names[0], medians, fn, flow, gp.eigenpairs(*high) if fixed else None)


def _coarse(model, site, cutoff):
    """Return the model with one site cut.

    The eigenpairs of the eliminated part become its hyper-argument ``coarse_eigen``.
    """

    def coarse(X, y=None, *, coarse_eigen, **hyper):
        sites = {site: rg.Coarse(cutoff, eigen=coarse_eigen)}
        return rg.coarsen(model, **sites)(X, y, **hyper)

    return coarse


def _compare(bound, data, dt, cut, keys, size, how):
    """Sample the coarse model; add its draws and its comparison with the full model to ``dt``.

    ``how`` are further arguments of `sample`.
    """
    flow, hyper = cut.flow, bound.hyper | {"coarse_eigen": cut.eigen}
    coarse = bind(_coarse(bound.model, cut.site, flow.stop), hyper)
    coarse_dt = sample(coarse, data, keys[0], size, **how)
    warn_if_poor(coarse_dt)

    n = data.X.shape[0]
    # at the effective ridge, where the learnabilities sum up to the degrees of freedom
    learnt = rg.learnability(flow.values, n, flow.ridge, tail=float(flow.tail[-1]))
    rules = _rules(bound, data, cut)
    rules.attrs["modes_learnt"] = float(learnt.sum())
    rules.attrs["evidence_change"] = _evidence_change(bound, data, cut, dt, keys[1])
    if _tested(data):
        for name, of, found in (("full", bound, dt), ("coarse", coarse, coarse_dt)):
            out = predict(found, of.model, data.X_test, key=keys[2], **of.hyper)
            mean = out["predictive_moments"]["mean"].mean(("chain", "draw")).to_numpy()
            rules.attrs[f"test_error_{name}"] = _error(mean, data)

    dt.update(io.flow_to_datatree(flow).children)
    dt["coarse_posterior"] = coarse_dt["posterior"]
    dt["rules"] = xr.DataTree(rules)


def _evidence_change(bound, data, cut, dt, key):
    """Return the largest difference of log p(y | parameters) between full and coarse model.

    The maximum is over at most 100 posterior draws. The kept modes are integrated out.
    """
    draws = {k: v.to_numpy().reshape((-1,) + v.shape[2:]) for k, v in dt["posterior"].items()}
    total = len(next(iter(draws.values())))
    chosen = jax.random.choice(key, total, (min(100, total),), replace=False)
    some = {k: jnp.asarray(v)[chosen][None] for k, v in draws.items()}

    @eqx.filter_jit
    def changes(held, data, some, eigen):
        def at(draw):
            fn = law(held.open(), data.X, draw, cut.site)
            # with the kept modes integrated out again, the cut must not have changed the evidence
            root, rest = fn.split(cut.flow.stop, eigen=eigen)
            return fn.log_prob(data.y) - rg.integrate_modes(root, rest, data.y).log_evidence

        return over_draws(at, some)

    return float(jnp.abs(changes(hold(bound), data, some, cut.eigen)).max())


def _rules(bound, data, cut):
    """Return log evidence and test error of the full model and of every rule, at the medians."""
    n, cutoff = data.X.shape[0], cut.flow.stop
    # a law at training and test points together predicts the second from the first
    both = jnp.concatenate([data.X, data.X_test]) if _tested(data) else data.X
    everywhere = law(bound, both, cut.medians, cut.site)
    evidence, laws = [float(cut.fn.log_prob(data.y))], [everywhere]
    for rule in RULES:
        low = rg.integrate_modes(*cut.fn.split(cutoff, rule), data.y)
        root, rest = everywhere.split(cutoff, rule, n=n, max_dense=len(both))
        evidence.append(float(low.log_evidence))
        laws.append(rest.shift(root @ low.mean))  # predict with the posterior mean of the low modes
    found = {"log_evidence": ("rule", evidence)}
    if _tested(data):
        errors = [_error(np.asarray(fn.krige(data.y)[0]), data) for fn in laws]
        found["test_error"] = ("rule", errors)
    return xr.Dataset(found, coords={"rule": ["full", *RULES]})


def _tested(data):
    return data.X_test is not None and data.y_test is not None


def _error(mean, data):
    return float(((mean - np.asarray(data.y_test)) ** 2).mean())
