# SPDX-License-Identifier: Apache-2.0
"""Posterior of the flow: cutoff, ridges and learnabilities for each draw."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks, io, rg
from .._checks import ArrayLike
from ..spectrum import Spectrum

_CUTOFFS = 24


def posterior_flow(
    dt: xr.DataTree,
    spectrum: Spectrum | ArrayLike,
    *,
    scale: str | ArrayLike | None = "amplitude",
    noise: str | ArrayLike | None = "noise",
    n: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
    rule: str = "running",
    threshold: float = 0.5,
    cutoffs: ArrayLike | None = None,
    modes: ArrayLike | None = None,
    values_fn: Callable | None = None,
    batch: int = 64,
) -> xr.DataTree:
    r"""Let the ridge flow for every posterior draw.

    A draw with amplitude a and noise s has eigenvalues :math:`a\lambda_k`, tail a times ``tail``
    and ridge :math:`s^2`, unless ``values_fn`` says otherwise.

    Parameters
    ----------
    dt : DataTree
        With a group posterior.
    spectrum : Spectrum, or its eigenvalues (k,)
        Of the prior at amplitude one.
    scale : str, number or None
        Site of the amplitude, a variance; or its value; None for one.
    noise : str, number or None
        Site of the noise, a standard deviation; or its value; None for zero.
    n : (), optional
        Points that stop the flow; by default the training points, the rows of X in constant_data.
    tail : ()
        Variance outside the spectrum at amplitude one, e.g. ``spectrum.residual(X).mean()``.
    rule, threshold : as in `bayesrg.rg.cutoff`
        But for the rule "posterior", which belongs to given points.
    cutoffs : (t,) integers, optional
        Where to evaluate ridges; by default some 24 from 1 to the number of modes.
    modes : (m,) integers, optional
        Modes whose learnability is kept, all by default.
    values_fn : callable, optional
        From one draw, a dict of the posterior's arrays, to eigenvalues (k,), falling, the ridge
        (), tail included, and where values stand for many modes their degeneracy (k,); in place
        of ``scale``, ``noise`` and ``tail``. Traced by JAX.
    batch : int, draws computed at once

    Returns
    -------
    DataTree
        The groups of ``dt`` and ``flow``, all of whose variables begin with chain and draw: stop
        (modes kept), ridge (bare), effective_ridge, learnability over mode (at the effective
        ridge), its sum total_learnability over all modes, and universal, dressed and rescaled
        over cutoff as in `bayesrg.rg.Flow`.
        ``az.summary(dt, group="flow", var_names=[...])`` reads it. A group flow of ``dt`` is
        replaced.

    Raises
    ------
    ValueError
        For a missing group or site, a site that is no scalar, or the rule "posterior".

    References
    ----------
    arXiv 2405.06008, equations 33, 34 and 37, for each draw.
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
    values = spectrum.values if isinstance(spectrum, Spectrum) else spectrum
    values = _checks.eigenvalues(values)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"spectrum has values of shape {values.shape}; give (k,), k above zero")
    degeneracy = spectrum.degeneracy if isinstance(spectrum, Spectrum) else jnp.ones_like(values)
    n = _checks.positive("n", _points(dt) if n is None else n, ndim=0)
    if values_fn is None:
        tail = _checks.nonnegative("tail", tail, ndim=0)
        amplitude, deviation = _read(posterior, "scale", scale), _read(posterior, "noise", noise)
        names = [name for name in (scale, noise) if isinstance(name, str)]

        def given(draw):
            a = draw[scale] if isinstance(scale, str) else amplitude
            s = draw[noise] if isinstance(noise, str) else deviation
            return a * values, s**2, a * tail, degeneracy

    else:
        names = list(posterior)
        single = bool((degeneracy == 1).all())

        def given(draw):
            what = "values_fn returned"
            found = _checks.sequence(
                f"what {what}", values_fn(draw), "values, ridge (, degeneracy)"
            )
            if len(found) not in (2, 3):
                raise ValueError(f"{what} {len(found)} parts; return values, ridge (, degeneracy)")
            values, ridge, *count = (_checks.returned("values_fn", part) for part in found)
            if not count and not single:
                raise ValueError(
                    "values_fn returns no degeneracy, but the values of the spectrum stand for "
                    "many modes; return it third, in the order of the values"
                )
            return values, ridge, 0.0, jnp.asarray(*count or [jnp.ones_like(values)])

    draws = {}
    for name in names:
        array = posterior[name].transpose("chain", "draw", ...).to_numpy()
        draws[name] = jnp.asarray(array.reshape(-1, *array.shape[2:]))
    first = given({name: v[0] for name, v in draws.items()})
    size = _checks.eigenvalues(first[0]).shape[0]
    _checks.nonnegative("ridge", first[1], ndim=0)
    total = round(float(first[3].sum()))
    if cutoffs is None:
        cutoffs = np.unique(np.geomspace(1, total, _CUTOFFS).round().astype(int))
    cutoffs = np.atleast_1d(_checks.cutoffs(cutoffs, total, "cutoffs"))
    if cutoffs.ndim != 1 or not cutoffs.size:
        raise ValueError(f"cutoffs has shape {cutoffs.shape}; give integers (t,)")
    modes = range(size) if modes is None else _checks.indices("modes", modes, size)
    modes = np.asarray(modes, int)

    def one(draw):
        values, ridge, tail, degeneracy = given(draw)
        whole = {"degeneracy": degeneracy, "tail": tail}
        learnt = rg.learnability(values, n, ridge, **whole)
        universal = rg.universal_ridge(values, ridge, cutoffs, **whole)
        level = jnp.searchsorted(jnp.cumsum(degeneracy) - 1, cutoffs - 1)
        edge = values[jnp.clip(level, 0, size - 1)]
        return {
            "stop": rg.cutoff(values, n, ridge, rule, threshold, **whole),
            "ridge": ridge,
            "effective_ridge": rg.effective_ridge(values, n, ridge, **whole),
            "total_learnability": (degeneracy * learnt).sum(),
            "learnability": learnt[modes],
            "universal": universal,
            "dressed": rg.dressed_ridge(values, n, ridge, cutoffs, **whole),
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


def _points(dt):
    """Rows of the training inputs."""
    if "constant_data" not in dt.children or "X" not in dt["constant_data"]:
        raise ValueError("the tree has no X in constant_data to count the points of; give n=")
    return dt["constant_data"]["X"].shape[0]


def _read(posterior, argument, value):
    """Check the name of a site, or return the number that stands in its place."""
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
