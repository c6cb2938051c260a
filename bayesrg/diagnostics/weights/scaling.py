# SPDX-License-Identifier: Apache-2.0
"""Training runs of several ratios of learning rate to batch size, compared or fitted."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from ... import _checks
from ..._checks import ArrayLike
from ...io.labels import read_group
from .summary import effective

_SAME = 1e-6  # relative difference up to which learning rates over batch sizes are equal
_EQUAL_TIME = 0.02  # that of times, since epochs of other batch sizes end at other times
_NEAR_TIME = 0.25  # that of times of a control, if no control has equal times
_RESPONSE = 0.1  # exponent of the noise below which a quantity hardly follows it


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
        ``control`` (True for different noise) and ``response``, the power of the noise by which the
        values of a control differ; it is one half for the width of levels. Times up to 2 % apart
        count as equal. If no control has equal times, those up to 25 % apart take their place.
        Attributes: ``largest_difference`` of equal pairs, ``smallest_control``,
        ``smallest_response`` and ``verdict``, which confirms the rule only if all controls differ,
        by a response of 0.1 or more.

    Raises
    ------
    ValueError
        For fewer than two runs, or runs that share no time.

    References
    ----------
    arXiv 2407.16427.
    """
    _checks.instance("quantity", quantity, str, "a key of each run")
    points = []
    for i, (run, rate, batch) in enumerate(_checked(runs, "steps", quantity)):
        noise = rate / batch
        steps = np.atleast_1d(_checks.on_64_bits("steps", run["steps"]))
        values = np.atleast_1d(_checks.on_64_bits(quantity, run[quantity]))
        if steps.ndim != 1 or steps.shape != values.shape:
            raise ValueError(
                f"runs[{i}] has steps {steps.shape} and {quantity} {values.shape}; give one value "
                "per number of steps"
            )
        points += [(i, noise, rate * t, v) for t, v in zip(steps, values, strict=True) if t > 0]

    rows, near = [], []
    for a, b in itertools.combinations(points, 2):
        apart = abs(a[2] - b[2]) / max(a[2], b[2])
        control = abs(a[1] - b[1]) > _SAME * a[1]
        if a[0] != b[0] and apart <= (_NEAR_TIME if control else _EQUAL_TIME):
            size = max((abs(a[3]) + abs(b[3])) / 2, np.finfo(float).tiny)
            difference = abs(a[3] - b[3]) / size
            row = (*itertools.chain(*zip(a, b, strict=True)), difference, control)
            (rows if apart <= _EQUAL_TIME else near).append(row)
    if not any(row[-1] for row in rows):
        rows += near
    if not rows:
        raise ValueError("no two runs share a time (learning rate times steps); record equal times")
    names = ("first", "second", "noise", "other_noise", "time", "other_time", "value")
    names += ("other_value", "difference", "control")
    columns = zip(names, zip(*rows, strict=True), strict=True)
    found = xr.Dataset({name: ("pair", list(values)) for name, values in columns})
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(abs(found["value"] / found["other_value"]))
        found["response"] = values / np.log(found["noise"] / found["other_noise"])
    found["response"] = found["response"].where(found["control"])
    return found.assign_attrs(_verdict(found))


def _checked(runs, *names):
    """Return each run with its learning rate and batch size; raise unless it has ``names``."""
    runs = _checks.sequence("runs", runs, "mappings, one per run")
    if len(runs) < 2:
        raise ValueError(f"runs has {len(runs)} entries; a comparison needs two")
    found = []
    for i, run in enumerate(runs):
        _checks.instance(f"runs[{i}]", run, Mapping, "a mapping")
        lacks = [name for name in ("learning_rate", "batch", *names) if name not in run]
        if lacks:
            raise ValueError(f"runs[{i}] lacks {', '.join(map(str, lacks))}; give all")
        rate = _checks.number(f"runs[{i}]['learning_rate']", run["learning_rate"], above=0.0)
        found.append((run, rate, _checks.whole(f"runs[{i}]['batch']", run["batch"])))
    return found


def _verdict(found):
    """Return what the differences of pairs and controls say."""
    control = found["control"].to_numpy()
    pairs, controls = (
        found["difference"].to_numpy()[~control],
        found["difference"].to_numpy()[control],
    )
    response = np.abs(found["response"].to_numpy()[control])
    said = {
        "largest_difference": float(pairs.max()) if pairs.size else np.nan,
        "smallest_control": float(controls.min()) if controls.size else np.nan,
        "smallest_response": float(response.min()) if controls.size else np.nan,
    }
    if not pairs.size:
        words = "no two runs have equal learning rate over batch size at equal times"
    elif not controls.size:
        words = "not confirmed: no control, that is a run with other noise at a similar time"
    elif (
        said["smallest_control"] > 2 * said["largest_difference"] and (response >= _RESPONSE).all()
    ):
        words = "runs agree at equal noise and time, and differ at other noise: as the rule says"
    else:
        words = "not confirmed: runs with other noise agree as well, so time alone may decide"
    return said | {"verdict": words}


class ScalingData(NamedTuple):
    """Result of `scaling_data`, the arguments of the model ``noise_scaling``.

    ``X`` (r, 2), learning rate over batch size and amplitude of each run; ``y`` (r,), half the sum
    of squared spacings; ``spacings`` (r,), their effective number; ``vary_power``, whether the
    amplitudes differ.
    """

    X: np.ndarray
    y: np.ndarray
    spacings: np.ndarray
    vary_power: bool


def scaling_data(
    runs: Sequence[Mapping],
    *,
    amplitude: ArrayLike = 1.0,
    alpha_correction: str = "none",
    curvature: ArrayLike | None = None,
) -> ScalingData:
    r"""Return what the model ``noise_scaling`` observes, from stationary levels of several runs.

    Parameters
    ----------
    runs : sequence of mappings
        Each with ``learning_rate``, ``batch`` and ``levels`` (chain, draw, n) or (draw, n) of one
        group of n levels after burn-in.
    amplitude : () or (r,), positive
        Noise A of a run, to which the squared width is proportional besides learning rate over
        batch size: :math:`c^2s^2` for label noise, :math:`\mu^2 - \kappa` for a Boltzmann machine.
    alpha_correction : str
        - "none": the learning rate as it is;
        - "ou": :math:`\alpha/(1 - \alpha\gamma/2)` in its place, right for finite steps on a
          quadratic loss of the ``curvature`` :math:`\gamma`.
    curvature : () or (r,), optional
        Needed for "ou". For batches of B fresh inputs of N whitened dimensions: 1 + (N + 1)/B.

    Returns
    -------
    ScalingData
        For a group of n > 2 levels ``spacings`` is half the number of degrees of freedom of the
        squared width, which is the number of spacings at n = 2. Where draws depend on each other,
        it counts effective draws.

    Raises
    ------
    ValueError
        For fewer than two runs, runs of equal learning rate over batch size, a learning rate above
        the stability limit, or "ou" without curvature.

    References
    ----------
    arXiv 2407.16427.
    """
    found = _checked(runs, "levels")
    count = len(found)
    amplitude = _per_run("amplitude", amplitude, count)
    if _checks.choice("alpha_correction", alpha_correction, ("none", "ou")) == "ou":
        if curvature is None:
            raise ValueError('alpha_correction="ou" needs curvature, that of the loss in each run')
        curvature = _per_run("curvature", curvature, count)
    elif curvature is not None:
        raise ValueError('curvature is used by alpha_correction="ou" alone; give that, or neither')
    rates = np.array([rate for _, rate, _ in found])
    if curvature is not None:
        for rate, limit in zip(rates, 2 / curvature, strict=True):
            _checks.below_limit(rate, limit)
        rates = rates / (1 - rates * curvature / 2)
    noise = rates / np.array([batch for *_, batch in found])
    plain = {rate / batch for _, rate, batch in found}
    if max(plain) - min(plain) <= _SAME * max(plain):
        raise ValueError(
            f"slope is not identified: all runs share alpha/B={max(plain):.4g}; add a run with "
            "another learning rate or batch size"
        )
    squares, shapes = zip(
        *(_half_squares(i, run["levels"]) for i, (run, *_) in enumerate(found)), strict=True
    )
    X = np.stack([noise, amplitude], 1)
    differ = bool(np.ptp(amplitude) > _SAME * amplitude.max())
    return ScalingData(X, np.array(squares), np.array(shapes), differ)


def _per_run(name, value, count):
    """Return one positive number for each run."""
    value = _checks.on_64_bits(name, value, _checks.positive)
    if value.shape not in ((), (count,)):
        raise ValueError(f"{name} has shape {value.shape} for {count} runs; give () or ({count},)")
    return np.broadcast_to(value, (count,))


def _half_squares(i, levels):
    """Return half the sum of squared spacings of a run, and their effective number.

    About their own centre, n levels have (n - 1) + n(n - 1)/2 degrees of freedom. One level has
    none: then the centre is that of the run.
    """
    name = f"runs[{i}]['levels']"
    x = _checks.on_64_bits(name, levels, ndim=(2, 3))
    x = x[None] if x.ndim == 2 else x
    n = x.shape[-1]
    centre = x.mean() if n == 1 else x.mean(-1, keepdims=True)
    squares = ((x - centre) ** 2).sum(-1)
    if not squares.size or not squares.mean() > 0:
        raise ValueError(f"{name} of shape {x.shape} do not vary; give draws after burn-in")
    ess = effective(squares)[0] - (n == 1)
    degrees = 1 if n == 1 else n - 1 + n * (n - 1) / 2
    return ess * squares.mean(), ess * degrees / 2


def scaling_slope(dt: xr.DataTree) -> xr.Dataset:
    r"""Return the slope of the mean spacing, and how sure the exponent one is, from a fit.

    Parameters
    ----------
    dt : DataTree
        From `bayesrg.fit` of the model ``noise_scaling``.

    Returns
    -------
    Dataset
        ``slope`` (chain, draw) of the mean spacing of a pair of levels against
        :math:`\sqrt{\alpha A/B}`, at the centre of the runs; for another exponent than one it
        depends on the place. ``near_one`` (), the probability that the exponent of learning rate
        over batch size is within 0.05 of one.

    Raises
    ------
    ValueError
        If the tree is of another model.

    References
    ----------
    arXiv 2407.16427.
    """
    posterior = read_group(dt, "posterior", "exponent")
    read_group(dt, "posterior", "intercept")
    X = np.log(read_group(dt, "constant_data", "X")["X"].to_numpy()).mean(0)
    power = posterior["power"] if "power" in posterior else 1.0
    exponent = posterior["exponent"]
    log_theta = posterior["intercept"] + (exponent - 1) * X[0] + (power - 1) * X[1]
    near = (abs(exponent - 1) < 0.05).mean()
    return xr.Dataset({"slope": np.sqrt(np.pi / 2) * np.exp(log_theta / 2), "near_one": near})
