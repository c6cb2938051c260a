# SPDX-License-Identifier: Apache-2.0
"""What runs at several strengths of the action, or with several seeds, say about transport."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
import xarray as xr
from jax import Array
from scipy.stats import norm, rankdata

from ... import _checks
from ..._checks import ArrayLike
from ...io.labels import read_group
from ..feature.convergence import mcse

_SAMPLE = ("chain", "draw")
_GRID = 400  # nodes of an integral over the mean at one strength
_REPEATS = 500  # repetitions of all runs, from which the error of a probability follows
_RESAMPLES = 10_000  # of the bootstrap over runs
_FEW = 20  # runs below which a correlation supports no conclusion


def judge(
    runs: Mapping[float, xr.DataTree], *, group: str = "transport", tolerance: ArrayLike = 0.25
) -> xr.Dataset:
    r"""Return the probability that transport falls with its strength, and that layers act equally.

    For any data the mean of the action in the density falls as its strength grows, since
    :math:`d\langle A\rangle/d\lambda = -\mathrm{Var}(A)`. A small probability therefore says that
    chains have not converged, or that they are too short. Layers that act equally are the sign of
    least action: then points move in equal steps.

    Parameters
    ----------
    runs : mapping
        From the strength lam of the action, a number, to the tree that `measure` returned.
    group : str
        Group of the trees to use.
    tolerance : ()
        Largest deviation of the action of a layer from the mean over layers, relative to this mean,
        that counts as equal.

    Returns
    -------
    Dataset
        Variables with the suffix ``_mcse`` are Monte Carlo errors.

        - transport_cost (lam): posterior mean of T
        - decreasing: probability that the means of T fall from each lam to the next, given their
          Monte Carlo errors. Its own error is its standard deviation if all runs are repeated. nan
          for one run.
        - constant (lam): posterior probability that :math:`|A_k/\bar A - 1|` is at most the
          tolerance for all layers
        - growing (lam): posterior probability that :math:`A_k` grows along the layers, in the sense
          of least squares

    Raises
    ------
    ValueError
        For strengths that are no numbers, a tree that was not measured, or fewer than four draws.

    References
    ----------
    arXiv 2009.08372.
    """
    _checks.instance("runs", runs, Mapping, "a mapping from lam to a measured tree")
    tolerance = _checks.number("tolerance", tolerance, above=0.0)
    if not runs:
        raise ValueError("runs is empty; give at least one measured tree")
    lams = {_checks.number("a strength in runs", lam, least=0.0): dt for lam, dt in runs.items()}
    means = xr.concat(
        [_judged(lams[lam], group, tolerance) for lam in sorted(lams)],
        xr.Variable("lam", sorted(lams)),
    )
    T, error = means["transport_cost"].to_numpy(), means["transport_cost_mcse"].to_numpy()
    means["decreasing"], means["decreasing_mcse"] = (), np.nan
    return means


def _judged(dt, group, tolerance):
    """Return means over the draws of one tree, and their Monte Carlo errors."""
    draws = read_group(dt, group, "layer_action", "transport_cost", remedy="measure it first")
    if draws.sizes["draw"] < 4:
        raise ValueError(
            f"runs has a tree of {draws.sizes['draw']} draws per chain; an error needs four"
        )
    A = draws["layer_action"]
    mean = A.mean("layer")
    rise = (A * (A["layer"] - A["layer"].mean())).sum("layer")
    found = xr.Dataset(
        {
            "transport_cost": draws["transport_cost"],
            "constant": (abs(A - mean) <= tolerance * mean).all("layer").astype(float),
            "growing": (rise > 0).astype(float),
        }
    )
    errors = mcse(found)
    ...
