# SPDX-License-Identifier: Apache-2.0
"""Simulation-based calibration: ranks of true values among posterior draws."""

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
    batch: int = 200,
    truth: Callable | None = None,
    truth_hyper: Mapping | None = None,
    observed: Callable | str = "y",
    sampler: Callable[[Callable], MCMCKernel | Sampler] = NUTS,
    **hyper,
) -> xr.DataTree:
    """Rank true values of quantities among posterior draws, over data simulated from the prior.

    If data come from the model that is fitted, and the sampler is right, ranks are uniform.

    Parameters
    ----------
    model : callable
        ``model(X, y, **hyper)``, fitted to every simulation.
    X : (n, d)
    quantities : mapping
        From name to ``function(sites, y, key)``, a number: of one draw's sites (deterministic
        ones included), the simulated targets, and a JAX key for what remains to be drawn given
        these. A pair holds one function for the truth and one for posterior draws.
    key : JAX key or int
    simulations, draws, warmup, thin : int
        Data sets; draws ranked in each; steps before the first; steps from one draw to the next.
    batch : int
        Simulations that run side by side.
    truth : callable, optional
        Model that simulates: by default ``model``. Another form of the same law tests both.
    truth_hyper : mapping, optional
        Its hyper-arguments, by default ``hyper``.
    observed : str or callable
        Site of the truth that is handed over as y, or a function of its sites that makes y.
    sampler : callable
        From a model to a NumPyro kernel or a `Sampler`.
    **hyper : hyper-arguments of the model

    Returns
    -------
    DataTree
        Group sbc: over simulation and quantity the ``rank``, from 0 to the attribute draws, and
        the ``true`` value; over quantity the ``p_value`` of a Kolmogorov-Smirnov test of uniform
        ranks, ties broken at random, and ``autocorrelation``, the mean correlation of successive
        draws: above 0.1 or so thin more; over simulation the number ``diverging``.

    Raises
    ------
    ValueError
        For an argument out of range, a hyper-argument that a model does not take, or simulated
        targets whose shape is not that of the model's.

    References
    ----------
    arXiv 1804.06788.
    """
    for name, value in (("simulations", simulations), ("draws", draws)):
        _checks.whole(name, value, least=2)
    for name, value in (("thin", thin), ("batch", batch)):
        _checks.whole(name, value)
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
        raise ValueError("quantities is empty; give a function of a draw's sites to be ranked")
    X = _checks.inputs("X", X)
    key = _checks.random_key(key)
    fitted = bind(model, hyper)
    source = fitted
    if truth is not None or truth_hyper is not None:
        given = hyper if truth_hyper is None else truth_hyper
        _checks.instance("truth_hyper", given, Mapping, "a mapping from names to values")
        source = bind(truth or model, dict(given))
    sampler = sampler_of(sampler, fitted)
    pairs = {name: f if isinstance(f, tuple) else (f, f) for name, f in quantities.items()}

    def simulated(key, X, arrays):
        sites = _prior_draw(source, key, X, arrays)
        if not isinstance(observed, str):
            return sites, observed(sites)
        if observed not in sites:
            names = ", ".join(map(repr, sites)) or "none"
            raise ValueError(f"observed: truth has no site {observed!r}, only {names}")
        return sites, sites[observed]

    def check_shapes(key):
        layout_of(fitted, X, simulated(key, X, source.arrays)[1])

    jax.eval_shape(check_shapes, key)

    def diverges(state):
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
            args = (X, y, of_fitted)
            state, _ = scan(sampler, sampler.init(start, warmup, args), args, warmup)

            def next_draw(state, key):
                state, diverging = scan(sampler, state, args, thin, diverges)
                sites = sampler.sites(sampler.draw(state), args)
                return state, (measure(1, sites, y, key), jnp.sum(diverging))

            _, (drawn, diverging) = lax.scan(next_draw, state, random.split(last, draws))
            noise = random.uniform(rest, true.shape)
            return true, (drawn < true).sum(0), noise, _lag_one(drawn), diverging.sum()

        return lax.map(one, keys, batch_size=min(batch, simulations))

    keys = random.split(key, simulations)
    true, rank, noise, lag, diverging = run(keys, X, source.arrays, fitted.arrays)
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
    """Values of all sites of one draw from the prior, y included."""
    trace = handlers.trace(handlers.seed(bound, key)).get_trace(X, None, arrays)
    kinds = ("sample", "deterministic")
    return {name: site["value"] for name, site in trace.items() if site["type"] in kinds}


def _lag_one(drawn):
    """Correlation of successive draws (s, k), (k,)."""
    centred = drawn - drawn.mean(0)
    return (centred[1:] * centred[:-1]).sum(0) / (centred**2).sum(0)
