# SPDX-License-Identifier: Apache-2.0
"""Check of a netCDF file before it is loaded: an HDF5 file of plain numbers and names.

An HDF5 file can point to other files, to itself and to nothing. It can declare, or decompress to,
far more bytes than it stores. The tables inside the file show this before a library loads the data.
"""

import math
import mmap
import struct
import zlib
from itertools import chain

import arviz as az
import h5py
import numpy as np
import xarray as xr

from .._reading import plausible, reading

_DEPTH, _OBJECTS, _STRINGS = 20, 2000, 1 << 16  # at most: nested groups, objects, names of a table
_DEFLATE, _FLETCHER = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_FLETCHER32
_FILTERS = (_DEFLATE, _FLETCHER, h5py.h5z.FILTER_SHUFFLE)


def read(file) -> xr.DataTree:
    """Check a netCDF file and read it; return the tree, in memory.

    Raises
    ------
    ValueError
        If the file is not a result or is damaged; see `check`.
    """
    with reading(file, "a result"):
        check(file)
        with az.from_netcdf(file, engine="h5netcdf") as tree:
            if not tree.children:
                raise ValueError(f"{file} has no groups; give a file that bayesrg or ArviZ wrote")
            return tree.load()


def check(path):
    """Raise unless the netCDF file ``path`` can be loaded into memory in proportion to its size.

    Raises
    ------
    ValueError
        For links, types and filters that results do not have, and for declared sizes that are
        implausible for the length of the file.
    OSError
        If it is not an HDF5 file.
    """
    stored, total, seen = path.stat().st_size, 0, set()
    with h5py.File(path, "r") as file:
        _heaps(path)
        left = [(file, 0)]
        while left:
            node, depth = left.pop()
            place = h5py.h5o.get_info(node.id).addr
            if place in seen or depth > _DEPTH or len(seen) == _OBJECTS:
                raise ValueError(
                    f"{path} has groups that contain themselves, or too many groups; it is not a "
                    "result"
                )
            seen.add(place)
            group = isinstance(node, h5py.Group)
            sizes = () if group else _sizes(path, node, stored)
            for size in chain(_attributes(path, node, stored), sizes):
                total += size
                plausible(path, total, stored)
            if group:
                left += [(_child(path, node, name), depth + 1) for name in node]


def _heaps(path):
    """Raise if a heap of names has an entry of length zero, with which HDF5 would loop for ever.

    A heap begins with GCOL and its version; its size is at byte 8 and its entries begin at byte
    16. An entry has a head of 16 bytes (index first, size last) and content in steps of 8 bytes.
    Index 0 is free space, whose size includes the head.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as file:
        heap = -1
        while (heap := file.find(b"GCOL\x01", heap + 1)) >= 0:
            end = heap + int.from_bytes(file[heap + 8 : heap + 16], "little")
            place = heap + 16
            while place + 16 <= end <= len(file):
                index, _, _, size = struct.unpack("<HHIQ", file[place : place + 16])
                step = (16 + (size + 7) % 2**64 // 8 * 8) % 2**64 if index else size
                if step == 0:
                    raise ValueError(f"{path} is damaged at byte {place}; copy it again")
                place += step


def _child(path, group, name):
    """Return the group or variable called ``name``; raise if it is not in this file."""
    link = group.get(name, getlink=True)
    node = group[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(node, h5py.Group | h5py.Dataset):
        raise ValueError(f"{path}: {name!r} is not a group or variable in this file; remove it")
    return node


def _attributes(path, node, stored):
    """Yield the bytes of names in each attribute, after a check that they can be read."""
    for name in node.attrs:
        space = node.attrs.get_id(name)
        kind = space.get_type()

        # Names of variable length may all point to the same bytes, at worst to the whole file.
        if kind.detect_class(h5py.h5t.VLEN) or kind.detect_class(h5py.h5t.STRING):
            plausible(path, math.prod(space.shape) * stored, stored)
        value = np.ravel(np.asarray(node.attrs[name], dtype=object))
        yield sum(len(v) for v in value if isinstance(v, str | bytes))


def _sizes(path, variable, stored):
    """Yield the bytes that a variable takes, after a check that it holds numbers or names."""
    name, dtype, shape = variable.name, variable.dtype, variable.shape
    strings = h5py.check_string_dtype(dtype)
    if shape is None or (dtype.kind not in "biufS" and strings is None):
        raise ValueError(f"{path}: {name!r} holds {dtype}, not numbers or names; remove it")
    if variable.is_virtual or variable.external:
        raise ValueError(f"{path}: {name!r} reads numbers from other files; load it and save it")

    count = math.prod(shape)
    yield count * dtype.itemsize
    if variable.chunks is not None:
        chunk = math.prod(variable.chunks) * dtype.itemsize
        yield chunk
        _chunks(path, variable, chunk, stored)

    if strings is not None and strings.length is None:
        if count > _STRINGS:
            raise ValueError(f"{path}: {name!r} has {count} names, more than {_STRINGS}; drop it")
        place = variable.id.get_offset()

        # An entry of the table has 16 bytes: a length and a place in a heap. HDF5 allocates this
        # length without a check. So add up the lengths first, then read the names one by one.
        if place is not None:
            with path.open("rb") as stream:
                table = np.fromfile(stream, "<u4", 4 * count, offset=place)
            plausible(path, int(table[::4].sum(dtype=np.int64)), stored)
        yield from (len(variable[index]) for index in np.ndindex(shape))


def _chunks(path, variable, size, stored):
    """Raise unless each compressed chunk has exactly the declared ``size`` when decompressed."""
    plan = variable.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if not set(filters) <= {*_FILTERS} or len(filters) > len(set(filters)):
        raise ValueError(
            f"{path}: {variable.name!r} is compressed by filters {filters}; save it with no "
            "filters other than shuffle, deflate and fletcher32"
        )

    found, packed = [], filters.index(_DEFLATE) if _DEFLATE in filters else None
    inner = size + 4 * (_FLETCHER in filters[:packed])  # the checksum may be compressed too
    variable.id.chunk_iter(lambda info: found.append((info.chunk_offset, info.size)))
    for offset, length in found:
        sound = length <= min(stored, 2 * size + 1024)
        if sound and packed is not None:  # decompress at most one byte more than declared
            mask, raw = variable.id.read_direct_chunk(offset)
            if not mask & 1 << packed:  # a bit in the mask: this chunk skips that filter
                sound = len(zlib.decompressobj().decompress(raw, inner + 1)) == inner
        if not sound:
            raise ValueError(f"{path}: {variable.name!r} is damaged at {offset}; copy it again")
