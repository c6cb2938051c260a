# SPDX-License-Identifier: Apache-2.0
"""The main job: sample a model, see where its data stop the flow, coarse-grain, compare."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import arviz as az
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from . import _checks, gp, inference, io, rg
from .data import Data
from .gp.effective import RULES
from .inference.fit import arrays, check_sampling
from .inference.sites import bind, law, over_draws


@dataclass
class Report:
    """What a run found: rows of ``summary`` (name, value) and, if coarse-grained, of ``rules``.

    A rule has its name, log evidence and, where there are test points, mean squared test error.
    """

    dt: xr.DataTree
    summary: list[tuple[str, str]]
    rules: list[tuple[str, float, float | None]] = field(default_factory=list)


def run(
    module: ModuleType,
    data: Data | tuple,
    *,
    key: jax.Array,
    draws: int,
    warmup: int,
    chains: int,
    devices: int | None = None,
    threshold: float = 0.5,
    out: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Run the main job on a model file.

    Parameters
    ----------
    module : module
        With ``model`` and perhaps ``prepare``, as the files of ``models/``.
    data : Data or (X, y)
    key : JAX key
    draws, warmup, chains, devices : as in `bayesrg.fit`
    threshold : learnability at which the flow stops
    out : folder, optional
        Receives result.nc, with the full model's draws as soon as there are any, and where modes
        were cut flow.png and spectrum.png; refused if it holds a result.
    say : callable
        Told what happens next.

    Returns
    -------
    Report
    """
    start = time.perf_counter()
    _checks.threshold(threshold)
    sampling = {"draws": draws, "warmup": warmup, "chains": chains, "devices": devices}
    check_sampling(**sampling)
    X, y = arrays(data)
    data = data._replace(X=X, y=y) if isinstance(data, Data) else Data(X, y)
    with contextlib.nullcontext() if out is None else io.claim(out) as result:
        hyper = module.prepare(data) if hasattr(module, "prepare") else {}
        keys = jax.random.split(key, 4)
        say("sampling the full model")
        dt = inference.fit(module.model, data, key=keys[0], **sampling, **hyper)
        if result is not None:
            io.save(dt, result)  # safe, whatever happens to the rest
        report = Report(dt, [("points", str(data.X.shape[0])), *_parameters("", dt)])
        try:
            cut = _cut(module.model, data, hyper, dt, threshold)
            if cut is not None:
                say(f"sampling the coarse model, {cut.cutoff} modes kept")
                _compare(report, module.model, data, hyper, cut, sampling, keys)
        except Exception:
            if result is not None:
                say(f"the draws of the full model are in {result}")
            raise
        report.summary.append(("seconds", f"{time.perf_counter() - start:.0f}"))
        if result is not None and cut is not None:
            say(f"writing {out}")
            io.save(report.dt, result)
            _plots(report.dt, Path(out))
    return report


@dataclass
class _Cut:
    """Where the flow stops at the medians of the parameters."""

    site: str
    medians: dict
    fn: gp.MercerNormal
    flow: rg.Flow
    cutoff: int
    moving: bool


def _cut(model, data, hyper, dt, threshold):
    """Let the ridge flow at the posterior medians; None for a model without modes to cut."""
    names = list(dt["observed_data"].data_vars)
    if f"{names[0]}_modes" in dt["posterior"]:
        return None  # cut already
    posterior = dt["posterior"].to_dataset()
    medians = {k: jnp.asarray(v) for k, v in posterior.median(("chain", "draw")).items()}
    bound = bind(model, hyper)
    fn = law(bound, bound.arrays, data.X, medians, names[0])
    if len(names) != 1 or not isinstance(fn, gp.MercerNormal) or fn.features.shape[1] == 0:
        return None
    if fn.batch_shape or fn.ridge.shape != (1,):
        return None
    n = data.X.shape[0]
    residual = None if fn.residual is None else fn.scale * fn.residual
    k = fn.features.shape[1]
    flow = rg.flow(
        fn.scale * fn.values, n, fn.ridge[0], threshold=threshold, features=fn.features,
        residual=residual, y=data.y, tail=float(fn.prior_variance(k).mean()),
    )  # fmt: skip
    first = {k: jnp.asarray(v[0, 0]) for k, v in posterior.items()}
    other = law(bound, bound.arrays, data.X, first, names[0])
    parts = [(f.features, f.values, f.residual) for f in (fn, other)]
    return _Cut(names[0], medians, fn, flow, flow.stop, not eqx.tree_equal(*parts))


def _coarse(model, site, cutoff):
    """Return the model with one site cut, eigenpairs of the eliminated part as an argument."""

    def coarse(X, y=None, *, coarse_eigen, **hyper):
        sites = {site: rg.Coarse(cutoff, eigen=coarse_eigen)}
        return rg.coarsen(model, **sites)(X, y, **hyper)

    return coarse


def _compare(report, model, data, hyper, cut, sampling, keys):
    fn, cutoff = cut.fn, cut.cutoff
    eigen = None  # only where scale and ridge alone are sampled do eigenpairs stay what they are
    if not cut.moving:
        eigen = gp.eigenpairs(fn.features[:, cutoff:], fn.values[cutoff:], fn.residual)
    coarse = _coarse(model, cut.site, cutoff)
    coarse_dt = inference.fit(coarse, data, key=keys[1], **sampling, coarse_eigen=eigen, **hyper)
    flow, n = cut.flow, data.X.shape[0]
    learnt = rg.learnability(flow.values, n, flow.ridge, tail=float(flow.tail[-1]))
    at_stop = float(np.interp(cutoff, np.asarray(flow.cutoff), np.asarray(flow.universal)))
    difference = _evidence_difference(model, data, hyper, cut, report.dt, eigen, keys[2])
    report.summary += [
        ("cutoff", f"{cutoff} modes (rule running, threshold {flow.threshold:g})"),
        ("modes learnt", f"{float(learnt.sum()):.1f} (sum of learnabilities)"),
        ("ridge", f"{float(flow.ridge):.4g} before, {at_stop:.4g} after (variance)"),
        ("evidence", f"differs by at most {difference:.1e} over 100 draws, full against coarse"),
        *_parameters("coarse ", coarse_dt),
    ]
    if _tested(data):
        new = {"X_new": data.X_test, "key": keys[3], **hyper}
        full = inference.predict(report.dt, model, **new)
        low = inference.predict(coarse_dt, coarse, coarse_eigen=eigen, **new)
        errors = f"{_mse(full, data):.4f} full, {_mse(low, data):.4f} coarse (sampled)"
        report.summary.append(("test MSE", errors))
    report.rules = _rules(model, data, hyper, cut)
    report.dt.update(io.flow_to_datatree(flow).children)
    report.dt["coarse_posterior"] = coarse_dt["posterior"]


def _evidence_difference(model, data, hyper, cut, dt, eigen, key):
    """Largest change of log p(y | parameters) over posterior draws, modes integrated out."""
    bound = bind(model, hyper)
    draws = {k: v.to_numpy().reshape((-1,) + v.shape[2:]) for k, v in dt["posterior"].items()}
    total = len(next(iter(draws.values())))
    chosen = jax.random.choice(key, total, (min(100, total),), replace=False)
    some = {k: jnp.asarray(v)[chosen][None] for k, v in draws.items()}

    @eqx.filter_jit
    def differences(some, arrays, eigen):
        def at(draw):
            fn = law(bound, arrays, data.X, draw, cut.site)
            root, rest = fn.split(cut.cutoff, eigen=eigen)
            return fn.log_prob(data.y) - rg.integrate_modes(root, rest, data.y).log_evidence

        return over_draws(at, some)

    return float(jnp.abs(differences(some, bound.arrays, eigen)).max())


def _rules(model, data, hyper, cut):
    """Log evidence and test error of the coarse model under every rule, at the medians."""
    bound, n = bind(model, hyper), data.X.shape[0]
    both = jnp.concatenate([data.X, data.X_test]) if _tested(data) else data.X
    everywhere = law(bound, bound.arrays, both, cut.medians, cut.site)

    def mse(fn):
        if not _tested(data):
            return None
        return float(((fn.krige(data.y)[0] - data.y_test) ** 2).mean())

    rows = [("full", float(cut.fn.log_prob(data.y)), mse(everywhere))]
    for rule in RULES:
        root, rest = cut.fn.split(cut.cutoff, rule)
        low = rg.integrate_modes(root, rest, data.y)
        root, rest = everywhere.split(cut.cutoff, rule, n=n, max_dense=len(both))
        rows.append((rule, float(low.log_evidence), mse(rest.shift(root @ low.mean))))
    return rows


def _tested(data):
    return data.X_test is not None and data.y_test is not None


def _parameters(prefix, dt):
    """One row a scalar parameter: mean, deviation, R-hat and effective sample size."""
    posterior = dt["posterior"].to_dataset()
    scalars = [name for name, v in posterior.items() if v.ndim == 2]
    if not scalars:
        return []
    rhat, ess = az.rhat(dt, var_names=scalars), az.ess(dt, var_names=scalars)
    if isinstance(rhat, xr.DataTree):
        rhat, ess = rhat.to_dataset(), ess.to_dataset()
    return [
        (
            f"{prefix}{name}",
            f"{float(posterior[name].mean()):.3g} +- {float(posterior[name].std()):.2g}"
            f"   R-hat {float(rhat[name]):.3f}   ESS {float(ess[name]):.0f}",
        )
        for name in scalars
    ]


def _mse(dt, data):
    mean = dt["predictive_moments"]["mean"].mean(("chain", "draw")).to_numpy()
    return float(((mean - np.asarray(data.y_test)) ** 2).mean())


def _plots(dt, out):
    from . import plots

    for name, plot in (("flow", plots.plot_flow), ("spectrum", plots.plot_spectrum)):
        plot(dt, backend="matplotlib").savefig(out / f"{name}.png")
