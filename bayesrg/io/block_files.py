# SPDX-License-Identifier: Apache-2.0
"""Draws of a block of steps as a small netCDF file.

xarray takes about ten times as long to write such a file, which would show in the time of a run.
The low-level functions of h5py halve the time again.
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
        The first two axes of each variable are chain and draw.
    first : int
        Coordinate of the first draw; all other axes count from zero.
    """
    buffer = BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, variables in groups.items():
            group = file.create_group(name)
            sizes, scales = {}, {}
            for axes, value in variables.values():
                sizes |= dict(zip(axes, value.shape, strict=True))
            for axis, size in sizes.items():
                start = first if axis == "draw" else 0
                scales[axis] = group.create_dataset(axis, data=np.arange(start, start + size))
                scales[axis].make_scale(axis)
            for variable, (axes, value) in variables.items():
                stored = _variable(group, variable, value)
                for place, axis in enumerate(axes):
                    h5py.h5ds.attach_scale(stored.id, scales[axis].id, place)
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
    others = (variable.dims[place][0].name for place in range(2, value.ndim))
    axes = ("chain", "draw", *(name.rpartition("/")[2] for name in others))
    truth = value.dtype == np.int8 and variable.attrs.get("dtype") == "bool"
    return axes, value.astype(bool) if truth else value
