# SPDX-License-Identifier: Apache-2.0
"""Readers of arrays in files from untrusted sources. No content of a file is executed.

The size that a header declares is compared with the length of the file before memory is allocated.
Compressed content is decompressed block by block, up to the declared size. Every error is one line
that names the file.
"""

import gzip
import math
import re
import struct
import zipfile
from contextlib import contextmanager

import numpy as np

_BLOCK = 1 << 20
# A file may hold 16 MiB, plus 32 times its size on disk: images and draws compress less than that.
_FREE, _RATIO = 16 << 20, 32
_DIRECTORY = 1 << 16  # bytes of an archive's table of contents: about a thousand names
# The header that numpy writes for numbers; objects, records and anything else do not match.
_NPY = re.compile(
    r"\{'descr': '([<>|=]?[biuf]\d)', 'fortran_order': (True|False), "
    r"'shape': \((\d{1,12}(?:, ?\d{1,12}){0,7}),?\),? *\}\s*"
)


@contextmanager
def reading(path, what):
    """Turn any exception raised while ``path`` is read into one line that names it.

    ``what`` names the kind of file in the message.
    """
    try:
        yield
    except Exception as error:  # libraries that parse files raise exceptions of any class
        text, from_system = str(error), getattr(error, "errno", None) is not None
        if (isinstance(error, ValueError) or from_system) and str(path) in text:
            raise
        reason = " ".join(text.split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be read as {what} ({reason}); fetch it again") from error


def plausible(path, size, stored):
    """Raise ValueError if a file of ``stored`` bytes declares an implausible ``size`` in bytes."""
    if size > _FREE + _RATIO * stored:
        raise ValueError(
            f"{path} declares {size:,} bytes but has {stored:,} on disk; it is damaged or made to "
            "fill the memory: fetch it again"
        )


def idx(path, rank):
    """Read an IDX file of bytes, plain or .gz, and return an array of bytes with ``rank`` axes.

    The file contains two zeros, the type 8, the rank, the lengths of the axes, and the data.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with reading(path, "an IDX file"), opened(path, "rb") as stream:
        head = stream.read(4 + 4 * rank)
        if head[:4] != bytes([0, 0, 8, rank]) or len(head) != 4 + 4 * rank:
            raise ValueError(f"{path} is not an IDX file of bytes with {rank} axes; fetch it again")
        shape = struct.unpack(f">{rank}I", head[4:])
        return _fill(path, stream, np.dtype(np.uint8), shape, path.stat().st_size)


def records(path, size):
    """Read a file of records of ``size`` bytes each, and return them as rows, (N, size)."""
    stored = path.stat().st_size
    if stored == 0 or stored % size:
        raise ValueError(
            f"{path} has {stored} bytes, not a multiple of a record's {size}; fetch it again"
        )
    with reading(path, "records of bytes"):
        return np.fromfile(path, np.uint8).reshape(-1, size)


def npz(path, names):
    """Read an npz file, and return the list of its arrays called ``names``."""
    with reading(path, "an npz file"):
        _short_directory(path)
        with zipfile.ZipFile(path) as archive:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = sorted(set(names) - set(there))
            if missing:
                found = ", ".join(sorted(there)[:5]) or "none"
                given = ", ".join(f"{name}=..." for name in names)
                raise ValueError(
                    f"{path} has no array {' or '.join(missing)}, only {found}; save it with "
                    f"np.savez(path, {given})"
                )
            return [_member(path, archive, there[name]) for name in names]


def npz_names(path):
    """Return the names of the arrays in an npz file, in their order."""
    with reading(path, "an npz file"):
        _short_directory(path)
        with zipfile.ZipFile(path) as archive:
            return [info.filename.removesuffix(".npy") for info in archive.infolist()]


def _short_directory(path):
    """Raise unless a zip archive ends with a short table of contents, as numpy writes it."""
    # The end record has 22 bytes. Bytes 12 to 15 are the size of the table, and the last two are
    # the length of a comment, here zero. In a zip64 file a locator of 20 bytes comes before it.
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - 42, 0))
        tail = stream.read()
    if tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise ValueError(f"{path} is not an npz file, or only the start of one; fetch it again")
    if tail[-42:-38] == b"PK\x06\x07" or struct.unpack("<I", tail[-10:-6])[0] > _DIRECTORY:
        raise ValueError(f"{path} holds too many arrays, over a thousand; save fewer in one file")


def _member(path, archive, info):
    """Read one array of an npz file and return it.

    It contains a magic string, the version, the length of the header, the header, and numbers.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{path} is compressed in an unknown way; save it with np.savez")
    with archive.open(info) as stream:
        start = stream.read(8)
        # versions 2 and 3 have 4 bytes for the length of the header
        wide = start[6:7] in (b"\2", b"\3")
        length = stream.read(4 if wide else 2)
        if start[:6] != b"\x93NUMPY" or len(length) != (4 if wide else 2):
            raise ValueError(f"{path}: {info.filename} is not an array; save it with np.savez")
        length = int.from_bytes(length, "little")
        header = stream.read(min(length, 1000)).decode("latin1")
        found = _NPY.fullmatch(header) if len(header) == length else None
        if found is None:
            raise ValueError(
                f"{path}: {info.filename} is not an array of numbers, header {header[:80]!r}; save "
                "arrays of integers or floating-point numbers with np.savez"
            )
        dtype, shape = np.dtype(found[1]), tuple(int(m) for m in re.findall(r"\d+", found[3]))
        order = "F" if found[2] == "True" else "C"
        array = _fill(path, stream, dtype, shape, path.stat().st_size, order)
        return array.astype(dtype.newbyteorder("="), copy=False)


def _fill(path, stream, dtype, shape, stored, order="C"):
    """Read an array of ``shape`` from the rest of ``stream``, which must have exactly its size."""
    size = math.prod(shape) * dtype.itemsize
    plausible(path, size, stored)
    if size == 0:
        raise ValueError(f"{path} holds an empty array of shape {shape}; fetch it again")
    flat, got = np.empty(size, np.uint8), 0
    while got < size and (block := stream.read(min(_BLOCK, size - got))):
        flat[got : got + len(block)] = np.frombuffer(block, np.uint8)
        got += len(block)
    if got < size or stream.read(1):  # the last read also compares the checksum
        more = "" if got < size else "more than "
        raise ValueError(f"{path} holds {more}{got} bytes for shape {shape}; fetch it again")
    return flat.view(dtype).reshape(shape, order=order)
