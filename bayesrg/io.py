# SPDX-License-Identifier: Apache-2.0
"""The one hand-over to ArviZ, and files of results."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import arviz as az
import jax
import numpy as np
import xarray as xr

from ._checks import ArrayLike

__all__ = ["flow_to_datatree", "open_run", "save", "to_datatree"]

SAMPLED = (
    "posterior", "sample_stats", "log_likelihood", "posterior_predictive", "predictions",
    "predictive_moments", "prior", "prior_predictive",
)  # fmt: skip


def to_datatree(
    groups: Mapping[str, Mapping[str, ArrayLike]],
    dims: Mapping[str, Sequence[str]],
    *,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.DataTree:
    """Label arrays and gather them as ArviZ reads them.

    Parameters
    ----------
    groups : mapping
        From group name to mapping from variable to array. Arrays of a sampled group (posterior,
        prior, predictions, ...) begin with the axes chain and draw.
    dims : mapping
        From variable to the names of its other axes. An axis without a name is called after its
        variable: ``theta_axis``, ``theta_axis_bis``.
    attrs : mapping, optional
        Attributes of the whole tree.

    Returns
    -------
    DataTree
        Floating-point arrays in 64 bits, whatever they were sampled in.

    Raises
    ------
    ValueError
        If an array has fewer axes than names, or two variables give one name two lengths.
    """
    tree = xr.DataTree(name=None)
    for group, variables in groups.items():
        lead = ("chain", "draw") if group in SAMPLED else ()
        arrays = {}
        for name, value in variables.items():
            names = tuple(n.replace("/", ".") for n in dims.get(name, ()))
            name = name.replace("/", ".")  # a slash would name a node of the tree
            value = np.asarray(jax.device_get(value))
            if group == "log_likelihood":
                names = names[: value.ndim - len(lead)]
            if value.dtype.kind == "f":
                value = value.astype(np.float64)
            arrays[name] = (lead + _names(name, value.ndim - len(lead), names), value)
        dataset = xr.Dataset(arrays)
        dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
        dataset.attrs = {"sample_dims": list(lead)} if lead else {}
        tree[group] = xr.DataTree(dataset)
    tree.attrs = dict(attrs or {})
    return tree


def _names(variable, axes, names):
    if axes < len(names):
        raise ValueError(
            f"{variable!r} has {axes} axes but the names {names}; give one name an axis"
        )
    extra = axes - len(names)
    if extra == 0:
        return names
    if not names and axes == 1:
        return (f"{variable}_axis",)
    return names + tuple(f"{variable}_axis{'_bis' * i}" for i in range(extra))


def dims_of(annotated: type, field: str) -> tuple[str, ...]:
    """Read the names of an axis each from the annotation of ``field`` in the class ``annotated``.

    Returns
    -------
    tuple of str
    """
    hint = annotated.__annotations__[field]
    options = getattr(hint, "__args__", (hint,))
    return tuple(next(o.dim_str for o in options if hasattr(o, "dim_str")).split())


def group_of(module, skip: Sequence[str] = ()) -> xr.Dataset:
    """Turn the array fields of ``module``, an `equinox.Module`, into a Dataset.

    Axes are named by the fields' annotations; a field whose name is an axis is its coordinate;
    scalars become attributes; fields named in ``skip`` are left out.

    Returns
    -------
    Dataset
    """
    arrays, attrs = {}, {}
    for name, hint in type(module).__annotations__.items():
        value = getattr(module, name)
        if value is None or name in skip:
            continue
        annotated = any(hasattr(o, "dim_str") for o in getattr(hint, "__args__", (hint,)))
        if annotated and np.ndim(value):
            arrays[name] = (dims_of(type(module), name), np.asarray(value))
        elif np.ndim(value) == 0 and not isinstance(value, tuple):
            attrs[name] = value if isinstance(value, str) else np.asarray(value).item()
    return xr.Dataset(arrays, attrs=attrs)


def claim(path: str | os.PathLike) -> Path:
    """Return the result file of the run folder ``path``, refusing one that exists.

    Raises
    ------
    FileExistsError
    """
    file = Path(path) / "result.nc"
    if file.exists():
        raise FileExistsError(
            f"{str(file)!r} exists already; give path a new folder, or remove that one"
        )
    return file


def save(dt: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write the tree ``dt`` to the netCDF file ``path`` and return it.

    A temporary name comes first, so that no half-written file ever has the right one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    dt.to_netcdf(temporary, engine="h5netcdf")
    os.replace(temporary, path)
    return path


def open_run(path: str | os.PathLike) -> xr.DataTree:
    """Read the result of the run folder ``path``, or one netCDF file, whole into memory.

    Returns
    -------
    DataTree

    Raises
    ------
    FileNotFoundError
        If there is no result.
    """
    path = Path(path)
    file = path / "result.nc" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"no result at {str(file)!r}; give a run folder that holds result.nc, or a netCDF file"
        )
    with az.from_netcdf(file, engine="h5netcdf") as tree:
        return tree.load()


def flow_to_datatree(flow) -> xr.DataTree:
    """Label ``flow``, a `bayesrg.rg.Flow`.

    Returns
    -------
    DataTree
        Group ``flow``: ridges and evidence over the coordinate cutoff. Group ``spectrum``:
        values and running learnability over mode. Attributes: n, ridge, stop, rule, threshold.
    """
    values = ("values", "learnability")
    ridges = group_of(flow, skip=values)
    if "evidence" in ridges:
        ridges = ridges.assign_coords(rule=list(flow.rules))
    spectrum = xr.Dataset({name: ("mode", np.asarray(getattr(flow, name))) for name in values})
    spectrum = spectrum.assign_coords(mode=np.arange(spectrum.sizes["mode"]))
    at_stop = np.interp(flow.stop, np.asarray(flow.cutoff), np.asarray(flow.universal))
    spectrum.attrs = ridges.attrs | {"ridge_at_stop": float(at_stop)}
    return xr.DataTree.from_dict({"flow": ridges, "spectrum": spectrum})
