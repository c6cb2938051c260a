# SPDX-License-Identifier: Apache-2.0
"""Convergence of chains of a network: an exact identity, and R-hat of rotation invariants."""

import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import arviz as az
import numpy as np
import xarray as xr

from ... import _checks
from ..._warnings import warn
from ...io.labels import read_group

R_HAT = 1.01  # largest R-hat that passes
SPREAD = 4.0  # largest deviation from the layer identity that passes, in standard errors
_UNIT = re.compile(r"(^|_)unit(_bis)?$")
_SAMPLE = ("chain", "draw")
_GROUPS = ("posterior", "feature_learning")
_SYMMETRY = (
    "the posterior of weights is invariant under rotations of the units of every hidden layer, so "
    "that their R-hat does not measure convergence"
)


class Diagnosis(NamedTuple):
    """Result of `diagnose` for a tree of draws.

    Attributes
    ----------
    passed : bool, True if no check failed and at least one variable was checked
    reasons : tuple of str, one sentence per failed check
    table : Dataset
        Over variable: the largest r_hat and the least ess of its entries, the number of
        ``constant`` entries, and the status (passed, failed, constant, weights or exact).
    """

    passed: bool
    reasons: tuple[str, ...]
    table: xr.Dataset


def layer_identity(dt: xr.DataTree, *, group: str = "feature_learning") -> xr.Dataset:
    r"""Compare the two sides of an identity that every layer of a deep linear network obeys.

    .. math:: E[\|z_l\|^2|Y] - N_lN_{l-1} = E[\|B_l\|^2|Y] - N_ld_l = E[\Delta(Q)|Y]

    Every side is what the data change in the mean of a square. z_l are the standardised weights of
    layer l; B_l is its Bartlett factor in the order parameter Q, with d_l rows. The drive
    :math:`\Delta(Q)` is twice the derivative of log p(Y|cQ) with respect to log c, at c = 1. The
    identity holds at any widths and noise. Draws that violate it have not converged.

    Parameters
    ----------
    dt : DataTree, returned by `bayesrg.diagnostics.feature.measure_deep_linear`
    group : str, group that contains layer_excess and drive

    Returns
    -------
    Dataset
        Over level: excess (the left-hand side), its Monte Carlo error mcse, and z. For every layer
        z is the mean of the excess minus :math:`\Delta(Q)` of the same draw, over its Monte Carlo
        error; nan where draws are constant. Without level: drive (the right-hand side),
        drive_mcse, and spread, the largest absolute value of z. If spread is above 4, the sampler
        has not converged.

    Raises
    ------
    ValueError
        For a missing group or variable.

    References
    ----------
    arXiv 2406.03260, for deep linear networks; the identity is derived in this package.
    """
    names = ["layer_excess", "drive"]
    draws = read_group(dt, group, *names, remedy="make it with measure_deep_linear")[names]
    draws = draws.assign(gap=draws["layer_excess"] - draws["drive"])
    mean, error = draws.mean(_SAMPLE), mcse(draws)
    z = mean["gap"] / error["gap"].where(error["gap"] > 0)
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
    dt: xr.DataTree, *, var_names: Sequence[str] | None = None, allow_weights: bool = False
) -> Diagnosis:
    """Check the convergence of chains of a network, and return a `Diagnosis`.

    The check uses only variables that do not change when the units of a hidden layer are rotated.

    Parameters
    ----------
    dt : DataTree
        With draws in the groups posterior and feature_learning, or in one of them. Divergences are
        read from sample_stats.
    var_names : sequence of str, optional
        Variables to check. By default all except weights (variables with an axis of units) and
        whole kernels (their traces and gains are checked instead).
    allow_weights : bool
        Put weights that ``var_names`` names into the table, with a warning. They do not change
        the result.

    Returns
    -------
    Diagnosis
        Not passed if there are divergences, an R-hat above 1.01, a `layer_identity` violated by
        more than four standard errors, variables that never move (their R-hat is not defined),
        weights without ``allow_weights``, or no variable to check. Draws in a group with the
        attribute ``exact`` do not come from a chain: they pass without R-hat or effective size. A
        failed check never raises an error.

    Warns
    -----
    UserWarning
        For weights in the table: their R-hat does not measure convergence.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    allow_weights = _checks.flag("allow_weights", allow_weights)
    if var_names is not None:
        for name in _checks.sequence("var_names", var_names, "names of variables"):
            _checks.instance("an entry of var_names", name, str, "the name of a variable")

    found, exact, reasons = {}, set(), []
    for group in _GROUPS:
        for name, variable in dt[group].data_vars.items() if group in dt.children else ():
            sampled = set(_SAMPLE) <= set(variable.dims) and variable.dtype.kind in "fiu"
            if sampled and name not in found:
                found[name] = variable
                exact |= {name} if dt[group].attrs.get("exact", False) else set()
    weights = [name for name, v in found.items() if any(_UNIT.search(str(axis)) for axis in v.dims)]
    if var_names is None:
        var_names = [
            name for name, v in found.items() if name not in weights and "point_bis" not in v.dims
        ]
    reasons += [f"{name}: no such variable" for name in var_names if name not in found]
    chosen = [name for name in var_names if name in found]

    asked = [name for name in chosen if name in weights]
    if asked and allow_weights:
        warn(f"{', '.join(asked)}: {_SYMMETRY}")
    elif asked:
        reasons.append(
            f"{', '.join(asked)} left out: {_SYMMETRY}; check f, Q and feature_learning, or give "
            "allow_weights=True"
        )
        chosen = [name for name in chosen if name not in weights]

    nothing = (np.nan, np.nan, 0, "exact")
    rows = {name: nothing if name in exact else _row(found[name]) for name in chosen}
    for name in asked if allow_weights else ():
        rows[name] = (*rows[name][:3], "weights")
    for name, (r_hat, ess, constant, status) in rows.items():
        if status == "failed":
            reasons.append(f"{name}: R-hat {r_hat:.3f} exceeds {R_HAT} (ESS {ess:.0f})")
        elif status == "constant":
            reasons.append(
                f"{name}: constant over all {constant} entries, so that R-hat is undefined; the "
                "sampler does not move, or the model fixes this variable: then leave it out of "
                "var_names"
            )
    reasons += _divergences(dt) + _identity(dt)
    if not any(row[-1] in ("passed", "exact") for row in rows.values()):
        reasons.append("nothing to check: no variable with axes chain and draw moves")
    return Diagnosis(not reasons, tuple(reasons), _table(rows))


def mcse(draws: xr.Dataset) -> xr.Dataset:
    """Return Monte Carlo standard errors of the means of ``draws``; nan for infinite entries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return az.mcse(draws.where(np.isfinite(draws)), method="mean")


def _row(variable):
    """Return largest R-hat, least ESS, number of constant entries and status of one variable."""
    values = variable.transpose(*_SAMPLE, ...).to_numpy().astype(float)
    values = values.reshape(*values.shape[:2], -1)
    first = values[:1, :1]
    same = ((values == first) | (np.isnan(values) & np.isnan(first))).all((0, 1))
    if same.all():
        return np.nan, np.nan, int(same.sum()), "constant"

    moving = xr.Dataset({"v": ((*_SAMPLE, "entry"), values[..., ~same])})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        r_hat = np.asarray(az.rhat(moving)["v"], float)
        ess = np.asarray(az.ess(moving)["v"], float)

    # R-hat is not finite if one of the chains does not move, which is a failure.
    finite = np.isfinite(moving["v"]).all(_SAMPLE) & np.isfinite(r_hat)
    r_hat = np.where(finite, r_hat, np.inf)
    status = "passed" if (r_hat <= R_HAT).all() else "failed"
    least = np.where(np.isfinite(ess), ess, 0.0).min()
    return float(r_hat.max()), float(least), int(same.sum()), status


def _divergences(dt):
    if "sample_stats" not in dt.children or "diverging" not in dt["sample_stats"]:
        return []
    count = int(dt["sample_stats"]["diverging"].sum())
    return [f"{count} divergences; raise target_accept_prob"] if count else []


def _identity(dt):
    for group in _GROUPS:
        if group in dt.children and {"layer_excess", "drive"} <= set(dt[group].data_vars):
            spread = float(layer_identity(dt, group=group)["spread"])
            if spread > SPREAD:
                return [
                    f"layer identity: off by {spread:.1f} Monte Carlo errors, more than {SPREAD:g}"
                ]
    return []


def _table(rows):
    columns = ("r_hat", "ess", "constant", "status")
    data = {c: ("variable", [row[i] for row in rows.values()]) for i, c in enumerate(columns)}
    return xr.Dataset(data, coords={"variable": ("variable", np.asarray(list(rows), dtype=str))})
