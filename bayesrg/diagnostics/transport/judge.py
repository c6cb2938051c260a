# SPDX-License-Identifier: Apache-2.0
"""What runs at several strengths of the action, or with several seeds, say about transport."""

import warnings
from collections.abc import Mapping

import arviz as az
import jax
import numpy as np
import xarray as xr
from jax import Array
from scipy.stats import multivariate_normal, rankdata

from ... import _checks
from ..._checks import ArrayLike
from ...io.labels import read_group
from ..feature.convergence import mcse

_SAMPLE = ("chain", "draw")
_REPEATS = 500  # repetitions of all runs, from which the error of a probability follows
_INTERVAL = (0.055, 0.945)
_FEW = 20  # runs below which a correlation supports no conclusion


def judge(runs: Mapping, *, group: str = "transport", tolerance: ArrayLike = 0.25) -> xr.Dataset:
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
        For strengths that are no numbers, a tree that was not measured or has numbers that are not
        finite, or fewer than four draws.

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
        [_judged(lam, lams[lam], group, tolerance) for lam in sorted(lams)],
        xr.Variable("lam", sorted(lams)),
    )
    T, error = means["transport_cost"].to_numpy(), means["transport_cost_mcse"].to_numpy()
    found, spread = _falling(T, error) if len(T) > 1 else (np.nan, np.nan)
    return means.assign(decreasing=found, decreasing_mcse=spread).assign_attrs(tolerance=tolerance)


def _judged(lam, dt, group, tolerance):
    """Return means over the draws of one tree, and their Monte Carlo errors."""
    draws = read_group(dt, group, "layer_action", "transport_cost", remedy="measure it first")
    if draws.sizes["draw"] < 4:
        raise ValueError(
            f"runs has a tree of {draws.sizes['draw']} draws per chain; an error needs four"
        )
    for name in ("layer_action", "transport_cost"):
        if not np.isfinite(draws[name]).all():
            raise ValueError(
                f"runs at lam {lam:g}: {name} has entries that are not finite; leave out the draws "
                "whose points move so far"
            )
    A = draws["layer_action"]
    mean = A.mean("layer")
    rise = (A * (A["layer"] - A["layer"].mean())).sum("layer")
    events = {"constant": (abs(A - mean) <= tolerance * mean).all("layer"), "growing": rise > 0}
    draws = xr.Dataset({"transport_cost": draws["transport_cost"]} | events).astype(float)
    found = draws.mean(_SAMPLE)
    errors = mcse(draws)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        size = az.ess(draws, method="mean")
    for name in events:
        # If all draws agree, the error is not zero: half a draw is added to either side.
        effective = size[name] if size[name] > 0 else size["transport_cost"]
        share = (found[name] * effective + 0.5) / (effective + 1)
        errors[name] = np.sqrt(share * (1 - share) / effective)
    return found.assign({f"{name}_mcse": value for name, value in errors.items()})


def _falling(mean, error):
    """Return the probability that normals of given means and errors fall, and its error."""
    step = np.diff(np.eye(len(mean)), axis=0)  # from values to their changes
    scale = max(np.abs(mean).max(), np.finfo(float).tiny)
    cov = step @ np.diag((error / scale) ** 2 + 1e-24) @ step.T

    # nodes of an average over repeated runs, the same in every call
    again = mean + error * np.random.default_rng(0).standard_normal((_REPEATS, len(mean)))
    change = np.concatenate([mean[None], again]) @ step.T / scale
    below = multivariate_normal(cov=cov, seed=np.random.default_rng(1)).cdf(-change)
    return below[0], below[1:].std()


def accuracy_against_cost(
    runs: xr.Dataset | Mapping, key: Array | int, *, resamples: int = 10_000
) -> xr.Dataset:
    """Return the rank correlation of accuracy and transport cost over runs, with its interval.

    Parameters
    ----------
    runs : Dataset or mapping
        With ``accuracy`` (r,) and ``transport_cost`` (r,), one entry per run, such as one per seed.
    key : JAX key, or int
        For the bootstrap over runs.
    resamples : int
        Number of resamples.

    Returns
    -------
    Dataset
        accuracy and transport_cost over run, and without axes: spearman, Spearman's correlation of
        the two, and low and high, the ends of its 89 % bootstrap interval. The attribute
        ``statement`` says in a sentence what follows; from fewer than 20 runs nothing does. All
        three numbers are nan if one of the variables is equal in all runs.

    Raises
    ------
    ValueError
        For missing variables, fewer than three runs, or too few resamples for an interval.
    """
    _checks.instance("runs", runs, xr.Dataset | Mapping, "a Dataset or a mapping")
    key, resamples = _checks.random_key(key), _checks.whole("resamples", resamples)
    missing = [name for name in ("accuracy", "transport_cost") if name not in runs]
    if missing:
        raise ValueError(f"runs has no {missing[0]}; give one entry per run")
    pair = {}
    for name in ("accuracy", "transport_cost"):
        value = runs[name].to_numpy() if isinstance(runs, xr.Dataset) else runs[name]
        pair[name] = _checks.on_64_bits(f"runs[{name!r}]", value, ndim=1)
    a, T = pair.values()
    if len(a) != len(T) or len(a) < 3:
        raise ValueError(
            f"runs has {len(a)} values of accuracy and {len(T)} of transport_cost; give both for "
            "three runs or more"
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = rng.integers(len(a), size=(resamples, len(a)))
    again = _spearman(a[rows], T[rows])
    again = again[np.isfinite(again)]  # without resamples in which all values are equal
    found = float(_spearman(a[None], T[None])[0])
    if np.isfinite(found) and not again.size:
        raise ValueError(
            f"accuracy or transport cost is equal in all {resamples} resamples; raise resamples"
        )
    low, high = np.quantile(again, _INTERVAL) if np.isfinite(found) else (np.nan, np.nan)
    attrs = {"statement": _statement(len(a), found, low, high)}
    arrays = {name: ("run", value) for name, value in pair.items()}
    ends = {"spearman": found, "low": low, "high": high}
    return xr.Dataset(arrays | ends, {"run": np.arange(len(a))}, attrs)


def _spearman(a, b):
    """Return Spearman's correlations of the rows of two arrays; nan where a row is constant."""
    a, b = (rankdata(v, axis=1) for v in (a, b))
    a, b = (v - v.mean(1, keepdims=True) for v in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))


def _statement(count, found, low, high):
    """Return a sentence that says what follows from the correlation of ``count`` runs."""
    if not np.isfinite(found):
        return "accuracy or transport cost is equal in all runs: there is no correlation."
    text = (
        f"Spearman's correlation of {count} runs is {found:.2f}, between {low:.2f} and {high:.2f}"
    )
    if count < _FEW:
        return f"{text} (89 %); nothing follows from fewer than {_FEW} runs."
    if low <= 0 <= high:
        return f"{text} (89 %): the runs do not show that accuracy and transport cost are related."
    return f"{text} (89 %): accuracy {'falls' if found < 0 else 'rises'} with transport cost."
