# SPDX-License-Identifier: Apache-2.0
"""Functions that turn arrays and results into labelled trees for ArviZ."""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import numpy as np
import xarray as xr

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import Trajectory

SAMPLED = (
    "posterior",
    "sample_stats",
    "log_likelihood",
    "posterior_predictive",
    "predictions",
    "predictive_moments",
    "prior",
    "prior_predictive",
)


def to_datatree(
    groups: Mapping[str, Mapping[str, ArrayLike]],
    dims: Mapping[str, Sequence[str]],
    *,
    attrs: Mapping[str, str | int | float] | None = None,
) -> xr.DataTree:
    """Label the axes of arrays, and return a tree that ArviZ can read.

    Parameters
    ----------
    groups : mapping
        From name of a group to a mapping from variable to array. Arrays of a sampled group
        (posterior, prior, predictions, ...) begin with the axes chain and draw.
    dims : mapping
        From variable to the names of its other axes. An axis without a name is called after its
        variable: ``theta_axis``, ``theta_axis_bis``.
    attrs : mapping, optional
        Attributes of the whole tree.

    Returns
    -------
    DataTree
        Floating-point arrays are in 64 bits, in whatever precision they were sampled.

    Raises
    ------
    ValueError
        If an array has fewer axes than names, or two variables of a group have axes of one name
        but different lengths.
    """
    attrs = {} if attrs is None else attrs
    for given, value in (("groups", groups), ("dims", dims), ("attrs", attrs)):
        _checks.instance(given, value, Mapping, "a mapping from name")
    tree = xr.DataTree(name=None)
    for group, variables in groups.items():
        _checks.instance(f"groups[{group!r}]", variables, Mapping, "a mapping from variable")
        lead = ("chain", "draw") if group in SAMPLED else ()
        arrays = {}
        for name, value in variables.items():
            _checks.sequence(f"dims[{name!r}]", dims.get(name, ()), "names of axes")
            names, name = tuple(map(stored, dims.get(name, ()))), stored(name)
            value = np.asarray(jax.device_get(value))
            if group == "log_likelihood":
                names = names[: value.ndim - len(lead)]
            if value.dtype.kind == "f":  # a large array of NumPy is not copied
                value = value.astype(np.float64, copy=not value.flags.writeable)
            arrays[name] = (lead + _names(name, value.ndim - len(lead), names), value)
        dataset = xr.Dataset(arrays)
        dataset = dataset.assign_coords({d: np.arange(s) for d, s in dataset.sizes.items()})
        dataset.attrs = {"sample_dims": list(lead)} if lead else {}
        tree[group] = xr.DataTree(dataset)
    tree.attrs = dict(attrs)
    return tree


def read_group(
    dt: xr.DataTree, group: str, *variables: str, remedy: str = "give what fit returns"
) -> xr.Dataset:
    """Return a group of a tree as a Dataset; raise if the group or one of the variables is missing.

    The message lists the groups, or variables, that exist, and ends with ``remedy``.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    if not isinstance(group, str) or group not in dt.children:
        names = ", ".join(map(repr, dt.children)) or "none"
        raise ValueError(f"the tree has no group {_checks.shown(group)}, only {names}; {remedy}")
    dataset = dt[group].to_dataset()
    for name in variables:
        if name not in dataset:
            names = ", ".join(map(repr, dataset.data_vars)) or "nothing"
            raise ValueError(f"group {group!r} has no variable {name!r}, only {names}; {remedy}")
    return dataset


def stored(name: str) -> str:
    """Return the name that a site or axis has in a tree, where a slash would name a node."""
    return name.replace("/", ".")


def _names(variable, axes, names):
    if axes < len(names):
        raise ValueError(
            f"{variable!r} has {axes} axes but the names {names}; give one name per axis"
        )
    extra = range(axes - len(names))
    return names + tuple(f"{variable}_axis{'_bis' * i}" for i in extra)


def _hints(annotated):
    """Return the annotations of a class and of its base classes, base classes first."""
    return {
        name: hint
        for base in reversed(annotated.__mro__)
        for name, hint in base.__dict__.get("__annotations__", {}).items()
    }


def _axes(hint, ndim, stars):
    """Return the names of axes in the part of an annotation that fits ``ndim`` axes.

    ``stars`` holds the number of axes that each variadic name (``*batch``) stands for. A name seen
    for the first time is added to it.
    """
    options = getattr(hint, "__args__", (hint,))
    options = [o.dim_str.split() for o in options if hasattr(o, "dim_str")] or [[]]

    def fits(axes):
        size = sum(stars.get(axis, 0) if axis.startswith("*") else 1 for axis in axes)
        return size == ndim

    axes = next(filter(fits, options), options[0])
    for axis in axes:
        if axis.startswith("*"):
            stars.setdefault(axis, ndim - len(axes) + 1)
    return axes


def label(**groups: eqx.Module | tuple | xr.Dataset) -> xr.DataTree:
    """Label results of this package, and return a tree that ArviZ can read.

    Parameters
    ----------
    **groups
        From name of a group to a result: an `equinox.Module` or named tuple whose fields are
        annotated arrays, or a Dataset, which is copied. ``dt.update(label(...).children)`` adds
        the groups to the result of a fit.

    Returns
    -------
    DataTree
        Axes are named by the annotations of the fields. A variadic axis that an array does not
        have gets length one, so that a group has equal axes for one entry and for many.

        The coordinate of an axis is the field called like the axis, or like its part before the
        underscore (``n`` for ``n_train``). If there is no such field, a tuple called like the
        plural of the axis gives names. Otherwise the coordinate counts from 0; that of ``high``
        continues where ``low`` ends. Scalars become attributes.

    Raises
    ------
    ValueError
        For a group that is neither a result nor a Dataset, or a run with chains, which
        `trajectory` labels.
    """
    tree = {}
    for name, value in groups.items():
        if isinstance(value, Trajectory) and np.ndim(value.status):
            raise ValueError(
                f"group {name!r} is a run with chains, whose axes only io.trajectory can name; "
                "call that in place of io.label"
            )
        if isinstance(value, xr.Dataset):
            tree[name] = value.map(lambda v: v.copy(data=np.asarray(v.data)), keep_attrs=True)
        elif isinstance(value, eqx.Module) or hasattr(value, "_fields"):
            tree[name] = group_of(value)
        else:
            raise ValueError(
                f"group {name!r} is a {type(value).__name__}; give a result of bayesrg (an "
                "equinox.Module), or an xarray.Dataset"
            )
    return xr.DataTree.from_dict(tree)


def group_of(module, skip: Sequence[str] = ()) -> xr.Dataset:
    """Return a Dataset of the array fields of ``module``, except those in ``skip``.

    Axes and coordinates are named as `label` describes.
    """
    arrays, coordinates, attrs, stars = {}, {}, {}, {}
    for name, hint, value in _fields(module):
        axes = _axes(hint, np.ndim(value), stars)

        if name in skip or isinstance(value, eqx.Module) or callable(value):
            continue
        if isinstance(value, str) or (np.ndim(value) == 0 and not axes and value is not None):
            value = value if isinstance(value, str) else np.asarray(value).item()
            attrs[name] = int(value) if isinstance(value, bool) else value  # netCDF has no bool
        elif hasattr(value, "shape"):
            value = np.asarray(value)
            names, value = _variadic(name, axes, value)
            if len(axes) == 1 == len(names) and name in (names[0], names[0].partition("_")[0]):
                coordinates[names[0]] = value
            else:
                arrays[name] = (names, value)
        elif isinstance(value, tuple) and name.endswith("s"):
            coordinates[name.removesuffix("s")] = list(value)

    dataset = xr.Dataset(arrays, attrs=attrs)
    for axis, size in dataset.sizes.items():
        first = dataset.sizes.get("low", 0) if axis == "high" else 0
        index = coordinates.get(axis, np.arange(first, first + size))
        dataset = dataset.assign_coords({axis: index})
    return dataset


def _fields(module):
    """Yield name, annotation and value of every field; entries of a mapping count as fields."""
    for name, hint in _hints(type(module)).items():
        value, leaf = getattr(module, name, None), getattr(hint, "leaftype", hint)
        if isinstance(value, Mapping):
            yield from ((str(key), leaf, entry) for key, entry in value.items())
        else:
            yield name, leaf, value


def _variadic(name, axes, value):
    """Return names of the axes of ``value``, and the value.

    A variadic name that stands for no axis gets one of length one.
    """
    names = []
    for position, axis in enumerate(axes):
        if axis.startswith("*"):
            count = value.ndim - len(axes) + 1
            if count == 0:
                value, count = np.expand_dims(value, position), 1
            names += [axis[1:] + "_bis" * i for i in range(count)]
        else:
            names.append(axis)
    return _names(name, value.ndim, tuple(names)), value


def flow_to_datatree(flow) -> xr.DataTree:
    """Label the axes of ``flow``, a `bayesrg.rg.Flow`, and return a tree that ArviZ can read.

    Returns
    -------
    DataTree
        The group ``flow`` has ridges and evidence over the coordinate cutoff. The group
        ``spectrum`` has values and running learnability over mode. Attributes are n, ridge, stop,
        rule and threshold.
    """
    if not {"cutoff", "universal", "values", "learnability"} <= set(dir(flow)):
        raise ValueError(f"flow must be an rg.Flow, got {_checks.shown(flow)}; see rg.flow")
    values = ("values", "learnability")
    ridges, spectrum = group_of(flow, skip=values), group_of(flow)[list(values)]
    at_stop = np.interp(flow.stop, np.asarray(flow.cutoff), np.asarray(flow.universal))
    spectrum.attrs = ridges.attrs | {"ridge_at_stop": float(at_stop)}
    return xr.DataTree.from_dict({"flow": ridges, "spectrum": spectrum})
