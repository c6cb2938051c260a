# SPDX-License-Identifier: Apache-2.0
"""Posterior of the flow: cutoff, ridges and learnabilities per draw."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks, io, rg
from .._callables import as_pytree
from .._checks import ArrayLike
from ..io.labels import read_group
from ..spectrum import Levels, Spectrum, levels
from ..spectrum.levels import LevelsLike

_CUTOFFS = 24  # number of default cutoffs, before equal ones are merged
_AT_ONCE = 64  # draws computed side by side
_SAMPLE = ("chain", "draw")


def posterior_flow(
    dt: xr.DataTree,
    spectrum: LevelsLike,
    *,
    scale: str | ArrayLike = "amplitude",
    noise: str | ArrayLike = "noise",
    values_fn: Callable | None = None,
    n: ArrayLike | None = None,
    rule: str = "running",
    threshold: float = 0.5,
    cutoffs: ArrayLike | None = None,
) -> xr.DataTree:
    r"""Compute cutoff, ridges and learnabilities for every posterior draw, in a new group flow.

    A draw with amplitude a and noise s has a times the levels of ``spectrum`` and the ridge
    :math:`s^2`. A function ``values_fn`` replaces this rule.

    Parameters
    ----------
    dt : DataTree
        With a group posterior.
    spectrum : Spectrum, Levels, or eigenvalues (k,)
        Of the prior at amplitude one. For a Spectrum without a tail, the tail is measured at the
        training inputs (X in constant_data).
    scale : str or number
        Site of the amplitude (a variance), or its value.
    noise : str or number
        Site of the noise (a standard deviation), or its value.
    values_fn : callable, optional
        Takes one draw, a dict of the posterior's arrays. Returns a Spectrum, Levels or falling
        eigenvalues (k,), and the ridge (). Used in place of ``scale`` and ``noise``; traced by JAX.
    n : (), optional
        Number of training points; by default the number of rows of X in constant_data.
    rule : str
        Rule for the number of modes kept: one of those that `bayesrg.rg.cutoff` lists, except
        "posterior", which needs features at given points.
    threshold : float
        Strictly between 0 and 1: learnability from which on a mode is kept. The rules "dof" and
        "match" ignore it.
    cutoffs : (t,) integers, optional
        Cutoffs at which ridges are computed; by default about 24 from 1 to the number of modes.

    Returns
    -------
    DataTree
        The groups of ``dt`` and ``flow``, which replaces a group of that name. Its variables have
        the axes chain and draw first: stop (number of modes kept), ridge (bare), effective_ridge,
        learnability over mode (at the effective ridge), total_learnability (its sum over all
        modes), and over cutoff universal, dressed and rescaled, which `bayesrg.rg.Flow` describes.
        ``az.summary(dt, group="flow", var_names=[...])`` tabulates it.

    Raises
    ------
    ValueError
        For a missing group or site, a site that is not a scalar, or the rule "posterior".

    References
    ----------
    arXiv 2405.06008, equations 33, 34 and 37, applied to each draw.
    """
    _checks.choice("rule", rule, rg.cutoffs.CUTOFF_RULES)
    threshold = _checks.threshold(threshold)
    if rule == "posterior":
        raise ValueError(
            'rule "posterior" needs features at given points, which a draw does not have; use '
            '"running" or "self_consistent"'
        )
    posterior = read_group(dt, "posterior")
    lead = tuple(posterior.sizes[axis] for axis in _SAMPLE)
    draws = {}
    for name, variable in posterior.items():
        array = variable.transpose(*_SAMPLE, ...).to_numpy()
        draws[name] = jnp.asarray(array.reshape(-1, *array.shape[2:]))

    if n is None:
        n = len(read_group(dt, "constant_data", "X", remedy="give n=")["X"])
    n, prior = _checks.positive("n", n, ndim=0), _levels_of(spectrum, dt)
    if values_fn is None:
        sites = _read(posterior, "scale", scale), _read(posterior, "noise", noise)
        given, first = partial(_scaled, prior, *sites), prior
    else:
        _checks.function("values_fn", values_fn, "a function of one draw")
        given = partial(_returned, values_fn, bool((prior.degeneracy == 1).all()))
        first, ridge = given({name: v[0] for name, v in draws.items()})
        _checks.nonnegative("ridge", ridge, ndim=0)

    total = round(float(first.degeneracy.sum()))
    if cutoffs is None:
        cutoffs = np.unique(np.geomspace(1, total, _CUTOFFS).round().astype(int))
    cutoffs = np.atleast_1d(_checks.cutoffs(cutoffs, total, "cutoffs"))
    if cutoffs.ndim != 1 or not cutoffs.size:
        raise ValueError(f"cutoffs has shape {cutoffs.shape}; give integers (t,)")

    result = _flows(as_pytree(given), draws, n, cutoffs, rule, threshold)
    axes = dict.fromkeys(("universal", "dressed", "rescaled"), ("cutoff",))
    axes["learnability"] = ("mode",)
    arrays = {
        name: (_SAMPLE + axes.get(name, ()), np.asarray(v).reshape(lead + v.shape[1:]))
        for name, v in result.items()
    }
    group = xr.Dataset(
        arrays,
        coords={axis: posterior[axis] for axis in _SAMPLE} | {"cutoff": cutoffs},
        attrs={"sample_dims": list(_SAMPLE), "n": float(n), "rule": rule, "threshold": threshold},
    )
    tree = dt.copy()
    tree["flow"] = io.label(flow=group.assign_coords(mode=np.arange(len(first))))["flow"]
    return tree


@eqx.filter_jit
def _flows(given, draws, n, cutoffs, rule, threshold):
    """Return a dict of the variables of the flow, each with one entry per draw."""

    def one(draw):
        whole, ridge = given(draw)
        learnt = rg.learnability(whole, n, ridge)
        universal = rg.universal_ridge(whole, ridge, cutoffs)
        # Eigenvalue of the last mode below each cutoff, by the level that the mode belongs to.
        level = jnp.searchsorted(jnp.cumsum(whole.degeneracy) - 1, cutoffs - 1)
        edge = whole.values[jnp.clip(level, 0, len(whole) - 1)]
        return {
            "stop": rg.cutoff(whole, n, ridge, rule, threshold),
            "ridge": ridge,
            "effective_ridge": rg.effective_ridge(whole, n, ridge),
            "total_learnability": (whole.degeneracy * learnt).sum(),
            "learnability": learnt,
            "universal": universal,
            "dressed": rg.dressed_ridge(whole, n, ridge, cutoffs),
            "rescaled": jnp.where(cutoffs > 0, universal / (cutoffs * edge), jnp.nan),
        }

    size = len(next(iter(draws.values())))
    return jax.lax.map(one, draws, batch_size=min(_AT_ONCE, size))


def _scaled(prior, scale, noise, draw):
    """Return levels and ridge of a draw; ``scale`` and ``noise`` are numbers or names of sites."""
    a, s = (draw[v] if isinstance(v, str) else v for v in (scale, noise))
    return a * prior, s**2


def _returned(values_fn, single, draw):
    """Return levels and ridge of a draw, checked, from the user's function.

    ``single`` is True if every value of the prior stands for one mode.
    """
    moved, ridge = _checks.several("what values_fn returned", values_fn(draw), "levels, ridge")
    if not isinstance(moved, Levels | Spectrum):
        moved = _checks.returned("values_fn", moved)
        if not single:
            raise ValueError(
                "values_fn returns no degeneracy, but values of the spectrum stand for several "
                "modes; return Levels or a Spectrum"
            )
    return levels(moved), _checks.returned("values_fn", ridge)


def _levels_of(spectrum, dt):
    """Return the levels of the prior at amplitude one, with the tail measured at X if unknown."""
    unknown = isinstance(spectrum, Spectrum) and spectrum.tail is None
    X = dt["constant_data"].get("X") if unknown and "constant_data" in dt.children else None
    found = levels(spectrum, at=None if X is None else X.to_numpy())
    if found.values.ndim != 1 or found.tail.ndim or not len(found):
        shape = found.values.shape
        raise ValueError(f"spectrum has values of shape {shape}; give (k,) with k above zero")
    return found


def _read(posterior, argument, value):
    """Return a number, checked, or the name of a scalar site of the posterior."""
    if not isinstance(value, str):
        return _checks.nonnegative(argument, value, ndim=0)
    scalars = [name for name, v in posterior.items() if v.ndim == len(_SAMPLE)]
    if value not in scalars:
        raise ValueError(
            f"{argument}: the posterior has no site {value!r} with one number per draw, only "
            f"{', '.join(map(repr, scalars))}; give one of these or a number, or use values_fn"
        )
    return value
