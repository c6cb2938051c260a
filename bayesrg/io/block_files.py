# SPDX-License-Identifier: Apache-2.0
"""Draws of a block of steps as a small netCDF file.

xarray takes about ten times as long to write such a file, which would show in the time of a run.
"""

from collections.abc import Mapping
from io import BytesIO

import h5py
import numpy as np

Groups = Mapping[str, Mapping[str, tuple[tuple[str, ...], np.ndarray]]]


def content(groups: Groups, first: int) -> bytes:
    """Return a netCDF file of labelled arrays as bytes.

    Parameters
    ----------
    groups : mapping
        From the name of a group to a mapping from variable to the pair of names of axes and values.
    first : int
        Coordinate of the first draw; all other axes count from zero.
    """
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, variables in groups.items():
            group = file.create_group(name)
            sizes = {}
            for axes, value in variables.values():
                sizes |= dict(zip(axes, value.shape, strict=True))
            for axis, size in sizes.items():
                start = first if axis == "draw" else 0
                group.create_dataset(axis, data=np.arange(start, start + size)).make_scale(axis)
            for variable, (axes, value) in variables.items():
                stored = _variable(group, variable, value)
                for place, axis in enumerate(axes):
                    stored.dims[place].attach_scale(group[axis])
    return buffer.getvalue()


def _variable(group, name, value):
    """Write one array, and return its HDF5 dataset."""
    if value.dtype.kind != "b":
        return group.create_dataset(name, data=value)
    stored = group.create_dataset(name, data=value.astype(np.int8))  # netCDF has no bool
    stored.attrs["dtype"] = "bool"  # xarray reads it as such
    return stored


def read(content: bytes) -> Groups:
    """Read what `content` made; return the groups, with axes and values of each variable."""
    with h5py.File(BytesIO(content), "r") as file:
        return {
            group: {name: _labelled(v) for name, v in file[group].items() if not v.is_scale}
            for group in file
        }


def _labelled(variable):
    """Return names of axes and values of an HDF5 dataset."""
    value = variable[()]
    axes = tuple(dim[0].name.rpartition("/")[2] for dim in variable.dims)
    return axes, value.astype(bool) if variable.attrs.get("dtype") == "bool" else value
