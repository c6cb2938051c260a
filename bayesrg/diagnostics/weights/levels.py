# SPDX-License-Identifier: Apache-2.0
"""Levels of weight matrices: squared singular values, spacings, ratios, groups."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import xarray as xr

from ... import _checks
from ..._checks import ArrayLike

_UNDERFLOW = 1e-70  # its fourth power is about the smallest float of 64 bits
KINDS = ("gram", "singular", "symmetric")
_LEAD = {0: (), 1: ("draw",), 2: ("chain", "draw")}


def spectra(
    W,
    kind: str = "gram",
    *,
    var_name: str | None = None,
    dims: Sequence[str] | None = None,
    degeneracies: Sequence[int] | None = None,
    drop_zero: bool = False,
) -> xr.Dataset:
    """Return the levels of weight matrices, with their spacings and ratios of spacings.

    Parameters
    ----------
    W : array (..., M, N), pytree of arrays, or DataTree
        One matrix, or more along leading axes draw, or chain and draw. Every array of a pytree,
        such as ``Trained.snapshots``, is one layer. Complex weights are refused.
    kind : str
        - "gram": eigenvalues of W^T W, and of W W^T where M < N;
        - "singular": singular values of W;
        - "symmetric": eigenvalues of a symmetric W.
    var_name : str, optional
        Variable of the group posterior that holds the weights; needed for a DataTree.
    dims : sequence of str, optional
        Names of the leading axes if they are others, for instance ``("step",)`` for snapshots.
    degeneracies : sequence of int, optional
        Known sizes of the groups of levels, largest levels first; see `groups`.
    drop_zero : bool
        Whether to replace levels that are zero up to rounding by nan.

    Returns
    -------
    Dataset
        For a group ``weight_spectrum``:

        - levels (..., layer, level), the largest first; spacings (..., layer, spacing); ratios
          (..., layer, ratio), nan where two spacings are zero
        - edge (..., layer) of the law of Marchenko and Pastur for independent entries of the same
          standard deviation, for "symmetric" of the semicircle law
        - group (layer, level), from `groups`; n_zero (layer), number of levels of W^T W that are
          zero; rows and columns (layer)

        Layers with fewer levels are padded with nan.

    Raises
    ------
    ValueError
        For weights that are not finite, with the layer, chain and draw; for arrays that are no
        matrices, or zero; for two or more levels that are zero, unless these are dropped.

    References
    ----------
    arXiv 2407.16427.
    """
    kind = _checks.choice("kind", kind, KINDS)
    drop_zero = _checks.flag("drop_zero", drop_zero)
    if isinstance(W, xr.DataTree):
        W, dims = _variable(W, var_name)
    layers = {n: _of_layer(n, A, kind, dims, drop_zero) for n, A in named_arrays(W).items()}
    sizes = {layer["levels"].shape[:-1] for layer in layers.values()}
    if len(sizes) > 1:
        raise ValueError(f"layers have the leading axes {sorted(sizes)}; give them equal ones")
    lead = next(iter(layers.values()))["dims"]
    widest = max(layer["levels"].shape[-1] for layer in layers.values())

    def over_layers(name, axis=(), width=None):
        rows = [_padded(layer[name], width) for layer in layers.values()]
        return (*lead, "layer", *axis), np.stack(rows, len(lead))

    levels = over_layers("levels", ("level",), widest)
    gaps = -np.diff(levels[1], axis=-1)
    found = xr.Dataset({"levels": levels, "spacings": ((*levels[0][:-1], "spacing"), gaps)})
    if widest > 2:
        with np.errstate(invalid="ignore"):
            ratios = np.minimum(gaps[..., 1:], gaps[..., :-1]) / np.maximum(
                gaps[..., 1:], gaps[..., :-1]
            )
        found["ratios"] = (*levels[0][:-1], "ratio"), ratios
    found["edge"] = over_layers("edge")
    for name in ("n_zero", "rows", "columns"):
        found[name] = "layer", [layer[name] for layer in layers.values()]
    found = found.assign_coords({d: np.arange(n) for d, n in found.sizes.items()})
    found = found.assign_coords(layer=list(layers))
    found["group"] = (
        ("layer", "level"),
        [
            groups(found["levels"].isel(layer=i).to_numpy(), degeneracies)
            for i in range(len(layers))
        ],
    )
    return found.assign_attrs(kind=kind)


def named_arrays(W):
    """Return the arrays of a pytree by name; a single array is called W."""
    numbers = isinstance(W, list | tuple) and not any(map(np.ndim, jax.tree.leaves(W)))
    if hasattr(W, "shape") or numbers:
        return {"W": W}
    if W and isinstance(W, Mapping) and all(hasattr(v, "shape") for v in W.values()):
        return dict(W)  # in the order of the mapping
    leaves = jax.tree.leaves_with_path(W)
    if not leaves:
        raise ValueError("W holds no arrays; give weight matrices")
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "W": v for path, v in leaves}


def _variable(dt, name):
    """Return the array and the leading axes of a variable of the group posterior."""
    posterior = dt["posterior"] if "posterior" in dt.children else {}
    if name is None or name not in posterior:
        raise ValueError(f"var_name must be one of {sorted(posterior)}, got {name!r}")
    if posterior[name].ndim < 4:
        raise ValueError(
            f"{name} has the axes {posterior[name].dims}; give matrices, (chain, draw, M, N)"
        )
    return posterior[name].to_numpy(), posterior[name].dims[:-2]


def real_matrices(name, W, dims=None):
    """Return weights (..., M, N) as a NumPy array of floats, and the names of the leading axes."""
    W = np.asarray(_checks.numbers(name, W))
    W = W if W.dtype in (np.float32, np.float64) else W.astype(float)
    if W.ndim < 2 or not W.size:
        raise ValueError(f"{name} has shape {W.shape}; give matrices W with entries, (..., M, N)")
    dims = _LEAD.get(W.ndim - 2, ()) if dims is None else tuple(_checks.sequence("dims", dims))
    if not all(isinstance(dim, str) for dim in dims):
        raise ValueError(f"dims must be names, got {dims}; give one per axis before (M, N)")
    if len(dims) != W.ndim - 2:
        raise ValueError(
            f"{name} has shape {W.shape}; name the axes before (M, N) by dims, got {dims}"
        )
    bad = np.argwhere(~np.isfinite(W))
    if bad.size:
        at = ", ".join(f"{d} {i}" for d, i in zip(dims, bad[0].tolist(), strict=False))
        raise ValueError(
            f"{name}: weights contain {len(bad)} non-finite values{' at ' * bool(at)}{at}: "
            "training diverged?"
        )
    largest = float(np.abs(W).max())
    if largest and not _UNDERFLOW < largest < 1 / _UNDERFLOW:
        raise ValueError(
            f"{name}: the largest entry is {largest:.3g}, and its square overflows or underflows; "
            "rescale the weights"
        )
    return W, dims


def _of_layer(name, W, kind, dims, drop_zero):
    """Return the levels of the matrices of one layer, and what is known of them."""
    W, dims = real_matrices(name, W, dims)
    rows, columns = W.shape[-2:]
    if not (W != 0).any((-2, -1)).all():
        raise ValueError(f"{name} has a matrix of zeros, which has no levels")
    if kind == "symmetric":
        levels, edge, zero = *_symmetric(name, W), 0
    else:
        levels = np.linalg.svd(W.astype(float), compute_uv=False)
        with np.errstate(over="ignore"):
            edge = W.std((-2, -1), dtype=float) * (np.sqrt(rows) + np.sqrt(columns))
        zero = levels <= max(rows, columns) * np.finfo(W.dtype).eps * levels[..., :1]
        if kind == "gram":
            with np.errstate(over="ignore"):
                levels, edge = levels**2, edge**2
        if not ((levels[..., 0] > 0) & np.isfinite(levels[..., 0])).all():
            raise ValueError(f"{name} has entries whose squares overflow or vanish; rescale them")
        levels = _without_zeros(name, levels, zero, drop_zero)
        zero = int(zero.sum(-1).max()) + max(columns - rows, 0)
    return {
        "levels": levels,
        "edge": edge,
        "n_zero": zero,
        "rows": rows,
        "columns": columns,
        "dims": dims,
    }


def _symmetric(name, W):
    """Return the eigenvalues of symmetric matrices, largest first, and the semicircle's edge."""
    matrices = W.reshape(-1, *W.shape[-2:])
    n = W.shape[-1]
    W = np.stack([np.asarray(_checks.symmetric(name, A)) for A in matrices]).reshape(W.shape)
    levels = np.linalg.eigvalsh(W)[..., ::-1]
    spread = ((levels - levels.mean(-1, keepdims=True)) ** 2).mean(-1)  # sigma^2 (n + 1) / 2
    return levels, levels.mean(-1) + np.sqrt(4 * n * spread / (n + 1))


def _without_zeros(name, levels, zero, drop):
    """Replace levels that are zero by nan, and cut those that are zero in all matrices."""
    most = int(zero.sum(-1).max())
    if most > 1 and not drop:
        raise ValueError(
            f"{name}: X has {most} structural zero eigenvalues; pass drop_zero=True to drop them"
        )
    if not drop:
        return levels
    kept = (~zero).sum(-1).max()
    return np.where(zero, np.nan, levels)[..., :kept]


def _padded(values, width):
    """Return values (..., n) with nan up to ``width``; None leaves them."""
    missing = 0 if width is None else width - values.shape[-1]
    return (
        np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=np.nan)
        if missing
        else values
    )


def groups(
    levels: ArrayLike, degeneracies: Sequence[int] | None = None, *, gap: ArrayLike = 6.0
) -> np.ndarray:
    """Return the number of the group of each level, (n,), counted from the largest level.

    Levels whose eigenvalues in the target are equal repel each other; levels of different groups
    hardly do. Group first, and compare spacings inside groups.

    Parameters
    ----------
    levels : (..., n), largest first
        Draws along the leading axes.
    degeneracies : sequence of int, optional
        Known sizes of the groups, largest levels first, with sum n.
    gap : float
        Without ``degeneracies``: a new group begins where the mean levels are further apart than
        this number of standard deviations, pooled over the two levels. Needs draws.

    Returns
    -------
    (n,) of int; -1 for levels that are nan

    Raises
    ------
    ValueError
        If the sizes do not add up to n.

    References
    ----------
    arXiv 2407.16427.
    """
    levels = np.asarray(_checks.numbers("levels", levels), float)
    gap = _checks.number("gap", gap, above=0.0)
    with np.errstate(invalid="ignore"):
        bad = not levels.size or not levels.ndim or np.isinf(levels).any()
        if bad or (np.diff(levels, axis=-1) > 0).any():
            raise ValueError("levels must be finite and descend; flip them: levels[..., ::-1]")
    levels = levels.reshape(-1, levels.shape[-1])
    there = np.isfinite(levels).any(0)
    n = int(there.sum())
    if degeneracies is not None:
        sizes = _checks.whole_numbers("degeneracies", degeneracies)
        if sum(sizes) != n:
            raise ValueError(
                f"degeneracies {sizes} add up to {sum(sizes)} for {n} levels; mend them"
            )
        found = np.repeat(np.arange(len(sizes)), sizes)
    elif len(levels) < 2:
        found = np.zeros(n, int)  # one draw: nothing tells a gap from a spacing
    else:
        mean, spread = np.nanmean(levels[:, there], 0), np.nanvar(levels[:, there], 0)
        pooled = np.sqrt((spread[1:] + spread[:-1]) / 2)
        found = np.r_[0, np.cumsum(mean[:-1] - mean[1:] > gap * pooled)]
    result = np.full(levels.shape[-1], -1)
    result[there] = found
    return result
