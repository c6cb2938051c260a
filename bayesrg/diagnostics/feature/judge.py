# SPDX-License-Identifier: Apache-2.0
"""Whether chains of a network can be trusted: an exact identity, and R-hat of invariants alone."""

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import arviz as az
import numpy as np
import xarray as xr

from ... import _checks

R_HAT = 1.01
SPREAD = 4.0
_UNIT = re.compile(r"(^|_)unit(_bis)?$")
_SAMPLE = ("chain", "draw")
_SYMMETRY = (
    "the posterior of weights is invariant under rotations of the units of every hidden layer, so "
    "that their R-hat says nothing of convergence"
)


class Diagnosis(NamedTuple):
    """Verdict on a tree of draws.

    Attributes
    ----------
    passed : whether nothing failed and something was judged
    reasons : what speaks against it, in words
    table : Dataset over variable: worst r_hat and least ess of its entries, how many of them are
        ``constant``, and status: passed, failed, constant, weights or exact
    """

    passed: bool
    reasons: tuple[str, ...]
    table: xr.Dataset


def layer_identity(dt: xr.DataTree, *, group: str = "feature_learning") -> xr.Dataset:
    r"""Test a sampler by the number that all layers of a deep linear network must share.

    .. math:: E[\|z_l\|^2|Y] - N_lN_{l-1} = E[\|B_l\|^2|Y] - N_ld_l = E[\Delta(Q)|Y]

    for the white weights z of every layer and the Bartlett factors B of the order parameter, at
    any widths and noise.

    Parameters
    ----------
    dt : DataTree
        Of `bayesrg.diagnostics.feature.measure_deep_linear`.
    group : str

    Returns
    -------
    Dataset
        Over level: excess, the left-hand side, and its mcse; z, the mean difference from
        :math:`\Delta(Q)` of the same draws in units of its Monte Carlo error, nan where draws
        are constant; drive and drive_mcse, the right-hand side; spread, the largest size of z.
        Above 4 the sampler has not converged.

    Raises
    ------
    ValueError
        For a missing group or variable.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    _checks.instance("group", group, str, "the name of a group")
    if group not in dt.children or not {"layer_excess", "drive"} <= set(dt[group].data_vars):
        names = ", ".join(map(repr, dt.children)) or "none"
        raise ValueError(
            f"the tree has no group {group!r} with layer_excess and drive, only {names}; make it "
            "with measure_deep_linear"
        )
    draws = dt[group].to_dataset()[["layer_excess", "drive"]]
    draws = draws.assign(gap=draws["layer_excess"] - draws["drive"])
    mean, error = draws.mean(_SAMPLE), mcse(draws)
    z = xr.where(error["gap"] > 0, mean["gap"] / error["gap"].where(error["gap"] > 0, 1.0), np.nan)
    found = {
        "excess": mean["layer_excess"],
        "mcse": error["layer_excess"],
        "z": z,
        "drive": mean["drive"],
        "drive_mcse": error["drive"],
        "spread": abs(z).max(),
    }
    return xr.Dataset(found, attrs={"estimator": dt[group].attrs.get("estimator", "unknown")})


def diagnose(
    dt: xr.DataTree,
    *,
    var_names: Sequence[str] | None = None,
    allow_weights: bool = False,
    groups: Sequence[str] = ("posterior", "feature_learning"),
) -> Diagnosis:
    """Judge chains of a network by what does not change when hidden units are rotated.

    Parameters
    ----------
    dt : DataTree
        With draws in its ``groups``; divergences are read from sample_stats.
    var_names : sequence of str, optional
        Variables to judge; by default all but weights, which have an axis of units, and whole
        kernels, whose traces and gains stand for them.
    allow_weights : bool
        Whether to tabulate weights in ``var_names``, with a warning; the verdict ignores them.
    groups : sequence of str
        Where to look; those that are missing are passed over.

    Returns
    -------
    Diagnosis
        Not passed for divergences, an R-hat above 1.01, a `layer_identity` off by more than four
        errors, variables that never move, whose R-hat is not defined, weights, and if nothing was
        judged. Draws of a group with the attribute ``exact`` come from no chain and pass without
        R-hat or effective size. It never raises.

    Warns
    -----
    UserWarning
        For weights that are allowed, naming the symmetry.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    _checks.flag("allow_weights", allow_weights)
    if var_names is not None:
        for name in _checks.sequence("var_names", var_names, "names of variables"):
            _checks.instance("an entry of var_names", name, str, "the name of a variable")
    found, reasons, certain = {}, [], set()
    for group in groups:
        if group in dt.children:
            if dt[group].attrs.get("exact", False):
                certain |= set(dt[group].data_vars) - set(found)
            for name, variable in dt[group].data_vars.items():
                if set(_SAMPLE) <= set(variable.dims) and variable.dtype.kind in "fiu":
                    found.setdefault(name, variable)
    if var_names is None:
        chosen = [
            name
            for name, variable in found.items()
            if not _weights(variable) and "point_bis" not in variable.dims
        ]
    else:
        chosen = [name for name in var_names if name in found]
        reasons += [f"{name}: no such variable" for name in var_names if name not in found]
    weights = [name for name in chosen if _weights(found[name])]
    if weights and allow_weights:
        warnings.warn(f"{', '.join(weights)}: {_SYMMETRY}", stacklevel=2)
    elif weights:
        reasons.append(
            f"{', '.join(weights)} refused: {_SYMMETRY}; judge f, Q and feature_learning, or give "
            "allow_weights=True"
        )
        chosen = [name for name in chosen if name not in weights]
    rows = {
        name: (np.nan, np.nan, 0, "exact")
        if name in certain
        else _row(found[name], name in weights)
        for name in chosen
    }
    for name, (r_hat, ess, constant, status) in rows.items():
        if status == "failed":
            reasons.append(f"{name}: R-hat {r_hat:.3f} exceeds {R_HAT} (ESS {ess:.0f})")
        elif status == "constant":
            reasons.append(
                f"{name}: constant over all {constant} entries, so that R-hat is undefined; the "
                "sampler does not move, or the model fixes it: then leave it out of var_names"
            )
    reasons += _divergences(dt) + _identity(dt, groups)
    judged = any(row[-1] in ("passed", "exact") for row in rows.values())
    if not judged:
        reasons.append("nothing was found to pass: no variable of chain and draw that moves")
    return Diagnosis(not reasons, tuple(reasons), _table(rows))


def mcse(draws: xr.Dataset) -> xr.Dataset:
    """Monte Carlo errors of means, by the effective sample size for means; nan where infinite."""
    what = "a Dataset of draws, dt[group].to_dataset()"
    _checks.instance("draws", draws, xr.Dataset | xr.DataArray, what)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return az.mcse(draws.where(np.isfinite(draws)), method="mean")


def _weights(variable):
    return any(_UNIT.search(str(axis)) for axis in variable.dims)


def _row(variable, weights):
    """Worst R-hat, least ESS, constant entries and status of one variable."""
    values = variable.transpose(*_SAMPLE, ...).to_numpy().astype(float)
    values = values.reshape(*values.shape[:2], -1)
    first = values[:1, :1]
    same = ((values == first) | (np.isnan(values) & np.isnan(first))).all((0, 1))
    moving = xr.Dataset({"v": ((*_SAMPLE, "entry"), values[..., ~same])})
    if same.all():
        return np.nan, np.nan, int(same.sum()), "weights" if weights else "constant"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        r_hat = np.asarray(az.rhat(moving)["v"], float)
        ess = np.asarray(az.ess(moving)["v"], float)
    finite = np.isfinite(moving["v"]).all(_SAMPLE) & np.isfinite(r_hat)  # else a chain stands still
    r_hat = np.where(finite, r_hat, np.inf)
    status = "passed" if (r_hat <= R_HAT).all() else "failed"
    worst, least = float(r_hat.max()), float(np.where(np.isfinite(ess), ess, 0.0).min())
    return worst, least, int(same.sum()), "weights" if weights else status


def _divergences(dt):
    if "sample_stats" not in dt.children or "diverging" not in dt["sample_stats"]:
        return []
    count = int(dt["sample_stats"]["diverging"].sum())
    return [f"{count} divergences; raise target_accept_prob"] if count else []


def _identity(dt, groups):
    for group in groups:
        if group in dt.children and {"layer_excess", "drive"} <= set(dt[group].data_vars):
            found = layer_identity(dt, group=group)
            if found["spread"] > SPREAD:
                return [
                    f"layer identity: off by {float(found['spread']):.1f} Monte Carlo errors, "
                    f"more than {SPREAD:g}"
                ]
    return []


def _table(rows):
    columns = ("r_hat", "ess", "constant", "status")
    data = {c: ("variable", [row[i] for row in rows.values()]) for i, c in enumerate(columns)}
    return xr.Dataset(data, coords={"variable": ("variable", np.asarray(list(rows), dtype=str))})
