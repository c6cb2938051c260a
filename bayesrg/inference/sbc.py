# SPDX-License-Identifier: Apache-2.0
"""Simulation-based calibration: ranks of true values that test a model and its sampler."""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import lax, random
from numpyro import handlers
from numpyro.infer import NUTS
from numpyro.infer.mcmc import MCMCKernel
from scipy.stats import kstest

from .. import _checks
from .._checks import ArrayLike
from .driver import scan
from .samplers import Sampler, sampler_of
from .sites import bind, fingerprint, layout_of, one_at_a_time

_AT_ONCE = 200  # simulations that run side by side


@one_at_a_time
def sbc(
    model: Callable,
    X: ArrayLike,
    quantities: Mapping[str, Callable | tuple[Callable, Callable]],
    *,
    key: jax.Array | int,
    simulations: int = 200,
    draws: int = 99,
    warmup: int = 300,
    thin: int = 5,
    truth: Callable | None = None,
    truth_hyper: Mapping | None = None,
    observed: Callable | str = "y",
    sampler: Callable[[Callable], MCMCKernel | Sampler] = NUTS,
    **hyper,
) -> xr.DataTree:
    """Simulate data from the prior, fit each set, and return ranks of the true values.

    For every simulated data set the posterior is sampled, and the true value of each quantity is
    ranked among its posterior draws. If the data come from the model that is fitted, and the
    sampler is right, the ranks are uniform.

    Parameters
    ----------
    model : callable
        NumPyro model, called as ``model(X, y, **hyper)``; it is fitted to every simulation.
    X : (n, d)
        Inputs of all simulations.
    quantities : mapping
        From the name of a quantity to ``function(sites, y, key)``, which returns a number. The
        function receives the values of all sites at one draw (deterministic ones too), the
        simulated targets, and a JAX key for anything that must be drawn given these. In place of
        one function a pair is allowed: the first for the truth, the second for posterior draws.
    key : JAX key or int
    simulations, draws : int
        Number of simulated data sets, and of posterior draws for each.
    warmup, thin : int
        Steps before the first draw, and steps from one draw to the next.
    truth : callable, optional
        Model from which data are simulated, by default ``model``. If it is another form of the
        same distribution, both forms are tested. It must not have an `action_factor`, which draws
        from the prior ignore.
    truth_hyper : mapping, optional
        Hyper-arguments of ``truth``, by default ``hyper``.
    observed : str or callable
        Name of the site of ``truth`` that is the simulated y, or a function from a dict of sites
        to y.
    sampler : callable
        Function from a model to a NumPyro kernel or a `Sampler`.
    **hyper : hyper-arguments of the model

    Returns
    -------
    DataTree
        One group, sbc, whose attribute ``draws`` is the number of draws. Per simulation and
        quantity: ``rank``, from 0 to ``draws``, and the ``true`` value. Per quantity: ``p_value``
        of a Kolmogorov-Smirnov test of uniform ranks, ties broken at random, and
        ``autocorrelation``, the mean correlation of successive draws; if it is above about 0.1,
        raise ``thin``. Per simulation: ``diverging``, the number of divergent steps.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that a model does not take, simulated
        targets whose shape is not that of the model's, or a truth with an action factor.

    References
    ----------
    arXiv 1804.06788.
    """
    for name, value in (("simulations", simulations), ("draws", draws)):
        _checks.whole(name, value, least=2)
    _checks.whole("thin", thin)
    _checks.whole("warmup", warmup, least=0)
    if truth is not None:
        _checks.function("truth", truth)
    if not isinstance(observed, str):
        _checks.function("observed", observed, "the name of a site, or a function of sites")
    _checks.instance("quantities", quantities, Mapping, "a mapping from name to function")
    for name, value in quantities.items():
        for one in value if isinstance(value, tuple) else (value,):
            _checks.function(f"quantities[{name!r}]", one, "a function of sites, y and key")
    if not quantities:
        raise ValueError("quantities is empty; give at least one function(sites, y, key)")

    X = _checks.inputs("X", X)
    key = _checks.random_key(key)
    if truth_hyper is None:
        truth_hyper = hyper
    _checks.instance("truth_hyper", truth_hyper, Mapping, "a mapping from names to values")
    source = bind(model if truth is None else truth, dict(truth_hyper))
    fitted = bind(model, hyper)
    sampler = sampler_of(sampler, fitted)

    pairs = {name: f if isinstance(f, tuple) else (f, f) for name, f in quantities.items()}

    def simulated(key, X, arrays):
        sites = _prior_draw(source, key, X, arrays)
        if not isinstance(observed, str):
            return sites, observed(sites)
        if observed not in sites:
            names = ", ".join(map(repr, sites)) or "none"
            raise ValueError(
                f"observed must name a site of truth, got {observed!r}; truth has {names}"
            )
        return sites, sites[observed]

    def check_shapes(key):
        layout_of(fitted, X, simulated(key, X, source.arrays)[1])
        for name, site in handlers.trace(handlers.seed(source, key)).get_trace(X, None).items():
            if "action" in site.get("infer", {}):
                raise ValueError(
                    f"truths are drawn from the prior without the action factor {name!r}, so they "
                    "do not follow the prior that is fitted; give truth=, a model that draws from "
                    "the prior with the factor"
                )

    jax.eval_shape(check_shapes, key)

    def diverges(state):  # zero for samplers that have no such statistic
        return jnp.asarray(sampler.stats(state).get("diverging", 0), int)

    def measure(side, sites, y, key):
        keys = random.split(key, len(pairs))
        found = [pair[side](sites, y, k) for pair, k in zip(pairs.values(), keys, strict=True)]
        return jnp.stack([jnp.reshape(value, ()) for value in found])

    @eqx.filter_jit
    def run(keys, X, of_source, of_fitted):
        def one(key):
            simulate, first, last, start, rest = random.split(key, 5)
            sites, y = simulated(simulate, X, of_source)
            true = measure(0, sites, y, first)

            # only y is handed over, so that the fit cannot know the true values
            args = (X, y, of_fitted)
            state, _ = scan(sampler, sampler.init(start, warmup, args), args, warmup)

            def next_draw(state, key):
                state, diverging = scan(sampler, state, args, thin, diverges)
                sites = sampler.sites(sampler.draw(state), args)
                return state, (measure(1, sites, y, key), jnp.sum(diverging))

            _, (drawn, diverging) = lax.scan(next_draw, state, random.split(last, draws))
            noise = random.uniform(rest, true.shape)
            return true, (drawn < true).sum(0), noise, _lag_one(drawn), diverging.sum()

        return lax.map(one, keys, batch_size=min(_AT_ONCE, simulations))

    keys = random.split(key, simulations)
    true, rank, noise, lag, diverging = run(keys, X, source.arrays, fitted.arrays)

    # a rank is one of draws + 1 integers; uniform noise makes it continuous for the test
    share = (np.asarray(rank) + np.asarray(noise)) / (draws + 1)
    both = ("simulation", "quantity")
    found = xr.Dataset(
        {
            "rank": (both, np.asarray(rank)),
            "true": (both, np.asarray(true, float)),
            "p_value": ("quantity", [kstest(column, "uniform").pvalue for column in share.T]),
            "autocorrelation": ("quantity", np.nanmean(np.asarray(lag, float), 0)),
            "diverging": ("simulation", np.asarray(diverging)),
        },
        coords={"simulation": np.arange(simulations), "quantity": list(pairs)},
        attrs={"draws": draws, "warmup": warmup, "thin": thin, "hyper": fingerprint(hyper)},
    )
    return xr.DataTree.from_dict({"sbc": found})


def _prior_draw(bound, key, X, arrays):
    """Return the values of all sites, also of y, in one draw from the prior."""
    trace = handlers.trace(handlers.seed(bound, key)).get_trace(X, None, arrays)
    kinds = ("sample", "deterministic")
    return {name: site["value"] for name, site in trace.items() if site["type"] in kinds}


def _lag_one(drawn):
    """Return the correlation (k,) of successive draws (s, k)."""
    centred = drawn - drawn.mean(0)
    return (centred[1:] * centred[:-1]).sum(0) / (centred**2).sum(0)
