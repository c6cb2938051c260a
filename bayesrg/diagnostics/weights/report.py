# SPDX-License-Identifier: Apache-2.0
"""Report on weights of a trained network: each matrix against those of independent entries."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
import xarray as xr
from jax import Array

from ... import _checks
from ...ensembles import marchenko_pastur, marchenko_pastur_null
from .bulk import bulk, hill
from .levels import named_arrays, real_matrices

_TAIL = [5.0, 95.0]
_HILL = 15  # levels of the tail, or a tenth of all if that is fewer


def matrices(
    weights: Mapping | Iterator, *, transpose: bool = False, convolutions: bool = True
) -> Iterator[tuple[str, np.ndarray | None, str]]:
    """Yield every tensor as a matrix (out, in): its name, the matrix or None, and what was done.

    Parameters
    ----------
    weights : mapping or pytree of arrays, or iterator of pairs of name and array
    transpose : bool
        True for matrices (in, out), as of Flax and Keras. PyTorch has (out, in).
    convolutions : bool
        Whether tensors with three or more axes become (out, in times the size of the filter). With
        ``transpose`` the last axis is ``out``, else the first.
    """
    pairs = weights if isinstance(weights, Iterator) else named_arrays(weights).items()
    for name, value in pairs:
        value = value if hasattr(value, "shape") else _checks.numbers(name, value)
        axes = np.ndim(value)
        if axes < 2:
            yield name, None, "scalar" if axes == 0 else "vector"
        elif axes > 2 and not convolutions:
            yield name, None, "convolution"
        else:
            W, _ = real_matrices(name, value, [""] * (axes - 2))
            W = np.moveaxis(W, -1, 0) if transpose else W
            yield name, W.reshape(len(W), -1), "convolution" if axes > 2 else "matrix"


def report(
    weights: Mapping | Iterator,
    *,
    key: Array | int,
    initial: Mapping | None = None,
    draws: int = 200,
    transpose: bool = False,
    convolutions: bool = True,
) -> xr.Dataset:
    """Compare every weight matrix of a network with matrices of independent entries.

    Parameters
    ----------
    weights : mapping or pytree of arrays, or iterator of pairs of name and array
        For instance from `bayesrg.io.load_weights`. An iterator is read one array at a time.
    key : JAX key, or int
        For the nulls and the bootstrap.
    initial : mapping, optional
        Weights before training, by the same names; adds how far each matrix moved.
    draws : int
        White matrices per shape, which are the null of all matrices of this shape.
    transpose, convolutions : bool
        See `matrices`.

    Returns
    -------
    Dataset
        One entry of the axis layer per matrix with at least three levels. Variables with a suffix
        ``_null`` hold the 5th and 95th percentile of the null on the axis ``tail``.

        - rows, columns: shape of the matrix (out, in); s: standard deviation of its entries
        - ratio, ratio_null: largest level over the edge of the law of Marchenko and Pastur for s
        - above, beyond: number of levels above this edge, and above the 95th percentile of the
          largest level of the null
        - distance, distance_null: largest difference of distribution functions to that law
        - r, r_null: mean ratio of neighbouring spacings; .531 for large matrices of independent
          entries, .386 for independent levels, nan if three levels are equal; levels that are
          zero do not count
        - bulk_s: s refitted to the levels below the edge, see `bulk`
        - hill, hill_low, hill_high: exponent of the tail and its 89 % interval, see `hill`
        - levels (layer, level): the levels, largest first, padded with nan
        - change: norm of the change from ``initial`` over the norm of ``initial``

        Attributes: ``skipped`` says which tensors were left out, and why; ``convolutions`` which
        were reshaped.

        Of matrices that do have independent entries, 5 % exceed the 95th percentile of the null by
        chance, in each quantity. So some of many matrices will.

    Raises
    ------
    ValueError
        For weights that are complex, not finite or zero, or if no matrix has three levels.

    References
    ----------
    arXiv 2411.13512.
    """
    key, draws = _checks.random_key(key), _checks.whole("draws", draws)
    transpose = _checks.flag("transpose", transpose)
    convolutions = _checks.flag("convolutions", convolutions)
    if initial is not None:
        initial = named_arrays(_checks.instance("initial", initial, Mapping, "a mapping"))
    nulls, rows, skipped, reshaped = {}, {}, [], []
    for name, W, what in matrices(weights, transpose=transpose, convolutions=convolutions):
        if W is None or min(W.shape) < 3:
            skipped.append(f"{name} ({what if W is None else 'fewer than three levels'})")
            continue
        reshaped += [name] * (what == "convolution")
        shape = tuple(sorted(W.shape, reverse=True))
        if shape not in nulls:
            nulls[shape] = _Null(shape, draws, jax.random.fold_in(key, len(nulls)))
        rows[name] = _row(name, W, nulls[shape], jax.random.fold_in(key, 10**6 + len(rows)))
        if initial is not None:
            rows[name]["change"] = _change(name, W, initial, transpose)
    if not rows:
        raise ValueError(
            f"no matrix with three levels among {len(skipped)} tensors; nothing to report"
        )

    names = list(next(iter(rows.values())))
    data = {n: [row[n] for row in rows.values()] for n in names}
    levels = data.pop("levels")
    widest = max(map(len, levels))
    padded = [np.pad(v, (0, widest - len(v)), constant_values=np.nan) for v in levels]
    found = xr.Dataset(
        {
            n: (("layer", "tail") if np.ndim(v[0]) else "layer", np.array(v))
            for n, v in data.items()
        },
        coords={"layer": list(rows), "tail": _TAIL},
    )
    found["levels"] = ("layer", "level"), np.stack(padded)
    return found.assign_attrs(skipped=", ".join(skipped), convolutions=", ".join(reshaped))


class _Null:
    """Statistics of white matrices of one shape: all values, sorted, and their percentiles."""

    def __init__(self, shape, draws, key):
        self.levels = np.asarray(marchenko_pastur_null(*shape, draws, key))
        found = [_statistics(x, shape, np.sqrt(x.mean() / shape[0])) for x in self.levels]
        self.tails = {n: np.percentile([f[n] for f in found], _TAIL) for n in found[0]}


def _statistics(levels, shape, s, eps=0.0):
    """Return what is compared with the null, of ascending levels of a matrix with entries of s."""
    scaled = levels / s**2
    edge = (np.sqrt(shape[0]) + np.sqrt(shape[1])) ** 2
    law = np.asarray(marchenko_pastur.cdf(scaled, *shape))
    steps = np.arange(len(levels) + 1) / len(levels)
    gaps = np.diff(levels[levels > eps * levels[-1]])
    gaps[gaps <= eps * levels[-1]] = 0.0  # rounding errors
    with np.errstate(invalid="ignore"):
        ratios = np.minimum(gaps[1:], gaps[:-1]) / np.maximum(gaps[1:], gaps[:-1])
    return {
        "ratio": scaled[-1] / edge,
        "distance": np.maximum(law - steps[:-1], steps[1:] - law).max(),
        "r": ratios.mean() if len(ratios) else np.nan,
    }


def _row(name, W, null, key):
    """Return the statistics of one matrix beside those of its null."""
    s = W.std(dtype=float)
    singular = np.linalg.svd(W, compute_uv=False).astype(float)[::-1]
    if not singular[-1] > 0 or s == 0:
        raise ValueError(f"{name} is a matrix of zeros, or of one number; it has no spectrum")
    levels = singular**2
    eps = max(W.shape) * np.finfo(W.dtype).eps
    found = _statistics(levels, sorted(W.shape, reverse=True), s, eps)
    largest = null.tails["ratio"][1] / found["ratio"] * levels[-1]
    fitted = bulk(levels[levels > 0], W.shape)
    tail = hill(levels[levels > 0], max(1, min(_HILL, len(levels) // 10)), key=key)
    row = {"levels": levels[::-1], "rows": W.shape[0], "columns": W.shape[1], "s": s}
    for n, value in found.items():
        row |= {n: value, f"{n}_null": null.tails[n]}
    edge = s**2 * (np.sqrt(W.shape[0]) + np.sqrt(W.shape[1])) ** 2
    return row | {
        "above": int((levels > edge).sum()),
        "beyond": int((levels > largest).sum()),
        "bulk_s": fitted.s,
        "hill": tail.exponent,
        "hill_low": tail.interval[0],
        "hill_high": tail.interval[1],
    }


def _change(name, W, initial, transpose):
    """Return the norm of the change of a matrix over the norm that it had."""
    if name not in initial:
        raise ValueError(
            f"initial has no {name!r}; give the weights of the same network before training"
        )
    pairs = iter([(name, initial[name])])
    start = next(matrices(pairs, transpose=transpose))[1]
    if start is None or start.shape != W.shape:
        raise ValueError(f"{name} has another shape in initial; give weights of the same network")
    if not start.any():
        raise ValueError(f"{name} is zero in initial; its change has no relative size")
    return float(np.linalg.norm(W - start) / np.linalg.norm(start))


def statements(found: xr.Dataset) -> list[str]:
    """Put a `report` into words, one sentence per matrix: what independent entries would do or not.

    Some deviations are chance. Of matrices that do have independent entries, 5 % have a level above
    the largest of 95 % of nulls, 5 % have levels that are not distributed as of independent
    entries, and 10 % have spacings that are less or more regular.

    Parameters
    ----------
    found : Dataset, from `report`

    Returns
    -------
    list of str
    """
    _checks.instance("found", found, xr.Dataset, "a Dataset from weights.report")
    return [_statement(name, found.sel(layer=name)) for name in found["layer"].to_numpy()]


def _statement(name, row):
    low, high = row["r_null"].to_numpy()
    if not np.isfinite(row["r"]):
        spacing = "too few different levels for a ratio of spacings"
    elif low <= row["r"] <= high:
        spacing = "spacings as of independent entries"
    else:
        spacing = (
            f"spacings {'less' if row['r'] < low else 'more'} regular than of independent entries"
        )
    beyond = int(row["beyond"])
    levels = f"{beyond or 'no'} level{'s' * (beyond != 1)} above the largest of 95 % of nulls"
    far = float(row["distance"]) > float(row["distance_null"][-1])
    bulk = f"levels {'not distributed' if far else 'distributed'} as of independent entries"
    return f"{name}: {spacing}; {levels}; {bulk}"
