# SPDX-License-Identifier: Apache-2.0
"""Comparison of training runs by their ratio of learning rate to batch size."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from ... import _checks

_SAME = 1e-6  # relative difference up to which times and ratios count as equal
_NEAR = 0.35  # relative difference of times up to which runs are compared as a control


def linear_scaling_report(runs: Sequence[Mapping], *, quantity: str = "ratio") -> xr.Dataset:
    r"""Compare runs of equal learning rate over batch size, and runs that differ in it.

    The rule of linear scaling says that runs agree at equal :math:`\alpha/B` and equal time
    :math:`\alpha\times` steps. Early training follows time alone, whatever the noise: runs at equal
    time and **different** :math:`\alpha/B` are the control. If these agree as well, the pairs are
    no evidence for the rule.

    Parameters
    ----------
    runs : sequence of mappings
        Each with ``learning_rate``, ``batch``, ``steps`` (k,) and the quantity (k,) after these
        steps, for instance the largest level over the edge.
    quantity : str
        Key of the quantity.

    Returns
    -------
    Dataset
        Over ``pair``: ``first`` and ``second`` number of the runs, ``time`` of each, ``noise`` of
        each (learning rate over batch size), the two values, ``difference`` relative to their mean,
        and ``control`` (True for different noise). Attributes: ``largest_difference`` of equal
        pairs, ``smallest_control`` and ``verdict``.

    Raises
    ------
    ValueError
        For fewer than two runs, or runs that share no time.

    References
    ----------
    arXiv 2407.16427.
    """
    runs = _checks.sequence("runs", runs, "mappings, one per run")
    if len(runs) < 2:
        raise ValueError(f"runs has {len(runs)} entries; a comparison needs two")
    points = []
    for i, run in enumerate(runs):
        lacks = {"learning_rate", "batch", "steps", quantity} - set(run)
        if lacks:
            raise ValueError(f"runs[{i}] lacks {', '.join(sorted(lacks))}; give all four")
        rate = _checks.number(f"runs[{i}]['learning_rate']", run["learning_rate"], above=0.0)
        noise = rate / _checks.whole(f"runs[{i}]['batch']", run["batch"])
        steps = np.atleast_1d(_checks.on_64_bits("steps", run["steps"]))
        values = np.atleast_1d(_checks.on_64_bits(quantity, run[quantity]))
        points += [(i, noise, rate * t, v) for t, v in zip(steps, values, strict=True) if t > 0]

    rows = []
    for a, b in itertools.combinations(points, 2):
        same_time = abs(a[2] - b[2]) <= _SAME * a[2]
        near_time = abs(a[2] - b[2]) <= _NEAR * max(a[2], b[2])
        same_noise = abs(a[1] - b[1]) <= _SAME * a[1]
        if a[0] != b[0] and (same_noise and same_time or not same_noise and near_time):
            difference = abs(a[3] - b[3]) / (abs(a[3] + b[3]) / 2)
            rows.append(
                (a[0], b[0], a[2], b[2], a[1], b[1], a[3], b[3], difference, not same_noise)
            )
    names = (
        "first",
        "second",
        "time",
        "other_time",
        "noise",
        "other_noise",
        "value",
        "other_value",
    )
    names += ("difference", "control")
    if not rows:
        raise ValueError("no two runs share a time (learning rate times steps); record equal times")
    found = xr.Dataset(
        {n: ("pair", list(v)) for n, v in zip(names, zip(*rows, strict=True), strict=True)}
    )
    return found.assign_attrs(_verdict(found["difference"].to_numpy(), found["control"].to_numpy()))


def _verdict(difference, control):
    """Return what the differences of pairs and controls say."""
    pairs, controls = difference[~control], difference[control]
    found = {
        "largest_difference": float(pairs.max()) if pairs.size else np.nan,
        "smallest_control": float(controls.min()) if controls.size else np.nan,
    }
    if not pairs.size:
        words = "no two runs have equal learning rate over batch size at equal times"
    elif not controls.size:
        words = "not confirmed: no control, that is a run with other noise at a similar time"
    elif found["smallest_control"] > 2 * found["largest_difference"]:
        words = "runs agree at equal noise and time, and differ at other noise: as the rule says"
    else:
        words = "not confirmed: runs with other noise agree as well, so time alone may decide"
    return found | {"verdict": words}
