# SPDX-License-Identifier: Apache-2.0
"""Posterior of the flow: cutoff, ridges and learnabilities per draw."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks, io, rg
from .._checks import ArrayLike
from ..spectrum import Levels, Spectrum, levels
from ..spectrum.levels import LevelsLike

_CUTOFFS = 24  # number of default cutoffs, before equal ones are merged


def posterior_flow(
    dt: xr.DataTree,
    spectrum: LevelsLike,
    *,
    scale: str | ArrayLike | None = "amplitude",
    noise: str | ArrayLike | None = "noise",
    n: ArrayLike | None = None,
    rule: str = "running",
    threshold: float = 0.5,
    cutoffs: ArrayLike | None = None,
    modes: ArrayLike | None = None,
    values_fn: Callable | None = None,
    batch: int = 64,
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
    scale : str, number or None
        Site of the amplitude (a variance), or its value; None means one.
    noise : str, number or None
        Site of the noise (a standard deviation), or its value; None means zero.
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
    modes : (m,) integers, optional
        Modes whose learnability is stored; by default all.
    values_fn : callable, optional
        Takes one draw, a dict of the posterior's arrays. Returns a Spectrum, Levels or falling
        eigenvalues (k,), and the ridge (). Used in place of ``scale`` and ``noise``; traced by JAX.
    batch : int, number of draws computed at once

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
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    batch = _checks.whole("batch", batch)
    _checks.choice("rule", rule, rg.cutoffs.CUTOFF_RULES)
    threshold = _checks.threshold(threshold)
    if values_fn is not None:
        _checks.function("values_fn", values_fn, "a function of one draw")
    if rule == "posterior":
        raise ValueError(
            'rule "posterior" needs features at given points, which a draw does not have; use '
            '"running" or "self_consistent"'
        )

    if "posterior" not in dt.children:
        groups = ", ".join(map(repr, dt.children)) or "none"
        raise ValueError(f"the tree has no group 'posterior', only {groups}; give what fit returns")
    posterior = dt["posterior"].to_dataset()
    prior = levels_of(spectrum, dt)
    n = _checks.positive("n", _points(dt) if n is None else n, ndim=0)
    if values_fn is None:
        amplitude, deviation = _read(posterior, "scale", scale), _read(posterior, "noise", noise)
        names = [name for name in (scale, noise) if isinstance(name, str)]

        def given(draw):
            a = draw[scale] if isinstance(scale, str) else amplitude
            s = draw[noise] if isinstance(noise, str) else deviation
            return a * prior, s**2

    else:
        names = list(posterior)
        single = bool((prior.degeneracy == 1).all())

        def given(draw):
            found = _checks.sequence("what values_fn returned", values_fn(draw), "levels, ridge")
            if len(found) != 2:
                raise ValueError(f"values_fn returned {len(found)} parts; return levels, ridge")
            moved, ridge = found
            if not isinstance(moved, Levels | Spectrum):
                moved = _checks.returned("values_fn", moved)
                if not single:
                    raise ValueError(
                        "values_fn returns no degeneracy, but values of the spectrum stand for "
                        "several modes; return Levels or a Spectrum"
                    )
            return levels(moved), _checks.returned("values_fn", ridge)

    draws = {}
    for name in names:
        array = posterior[name].transpose("chain", "draw", ...).to_numpy()
        draws[name] = jnp.asarray(array.reshape(-1, *array.shape[2:]))

    first, ridge = given({name: v[0] for name, v in draws.items()})
    _checks.nonnegative("ridge", ridge, ndim=0)
    size, total = len(first), round(float(first.degeneracy.sum()))
    if cutoffs is None:
        cutoffs = np.unique(np.geomspace(1, total, _CUTOFFS).round().astype(int))
    cutoffs = np.atleast_1d(_checks.cutoffs(cutoffs, total, "cutoffs"))
    if cutoffs.ndim != 1 or not cutoffs.size:
        raise ValueError(f"cutoffs has shape {cutoffs.shape}; give integers (t,)")
    modes = range(size) if modes is None else _checks.indices("modes", modes, size)
    modes = np.asarray(modes, int)

    def one(draw):
        whole, ridge = given(draw)
        learnt = rg.learnability(whole, n, ridge)
        universal = rg.universal_ridge(whole, ridge, cutoffs)
        # Eigenvalue of the last mode below each cutoff, by the level that the mode belongs to.
        level = jnp.searchsorted(jnp.cumsum(whole.degeneracy) - 1, cutoffs - 1)
        edge = whole.values[jnp.clip(level, 0, size - 1)]
        return {
            "stop": rg.cutoff(whole, n, ridge, rule, threshold),
            "ridge": ridge,
            "effective_ridge": rg.effective_ridge(whole, n, ridge),
            "total_learnability": (whole.degeneracy * learnt).sum(),
            "learnability": learnt[modes],
            "universal": universal,
            "dressed": rg.dressed_ridge(whole, n, ridge, cutoffs),
            "rescaled": jnp.where(cutoffs > 0, universal / (cutoffs * edge), jnp.nan),
        }

    lead = tuple(posterior.sizes[axis] for axis in ("chain", "draw"))
    if not draws:  # every draw is the same
        draws = {"": jnp.zeros(lead[0] * lead[1])}
    batch = min(batch, lead[0] * lead[1])
    result = jax.jit(lambda draws: jax.lax.map(one, draws, batch_size=batch))(draws)
    result = {name: np.asarray(v).reshape(lead + v.shape[1:]) for name, v in result.items()}

    axes = dict.fromkeys(("universal", "dressed", "rescaled"), ("cutoff",))
    group = xr.Dataset(
        {
            name: (("chain", "draw") + axes.get(name, ("mode",) * (v.ndim - 2)), v)
            for name, v in result.items()
        },
        coords={axis: posterior[axis] for axis in ("chain", "draw")}
        | {"cutoff": cutoffs, "mode": modes},
        attrs={"sample_dims": ["chain", "draw"], "n": float(n), "rule": rule}
        | {"threshold": float(threshold)},
    )
    tree = dt.copy()
    tree["flow"] = io.label(flow=group)["flow"]
    return tree


def _inputs(dt):
    """Return the training inputs (n, d), or None if the tree has none."""
    there = "constant_data" in dt.children and "X" in dt["constant_data"]
    return dt["constant_data"]["X"].to_numpy() if there else None


def _points(dt):
    X = _inputs(dt)
    if X is None:
        raise ValueError("the tree has no X in constant_data to count points in; give n=")
    return len(X)


def levels_of(spectrum, dt):
    """Return the levels of the prior at amplitude one, with the tail measured at X if unknown."""
    unknown = isinstance(spectrum, Spectrum) and spectrum.tail is None
    found = levels(spectrum, at=_inputs(dt) if unknown else None)
    if found.values.ndim != 1 or found.tail.ndim or not len(found):
        shape = found.values.shape
        raise ValueError(f"spectrum has values of shape {shape}; give (k,) with k above zero")
    return found


def _read(posterior, argument, value):
    """Return the number given as ``value``; for a name, check that it is a scalar site."""
    if isinstance(value, str):
        if value not in posterior:
            names = ", ".join(map(repr, posterior))
            raise ValueError(
                f"{argument}: the posterior has no site {value!r}, only {names}; give one of "
                f"these, a number, or None, or use values_fn"
            )
        if posterior[value].ndim != 2:
            raise ValueError(
                f"{argument}: site {value!r} has dims {posterior[value].dims}; give one number per "
                "draw, or use values_fn"
            )
        return None
    default = {"scale": 1.0, "noise": 0.0}[argument]
    return _checks.nonnegative(argument, default if value is None else value, ndim=0)
