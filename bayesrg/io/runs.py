# SPDX-License-Identifier: Apache-2.0
"""Functions that write results to run folders and files, and read them."""

import contextlib
import os
from io import BytesIO
from pathlib import Path

import arviz as az
import xarray as xr

from .. import _checks, _reading
from . import netcdf, writing


def _path(path):
    return Path(_checks.instance("path", path, str | os.PathLike, "the name of a file or folder"))


class SaveError(OSError):
    """A result could not be written; ``tree`` is the result.

    Save it elsewhere: ``bayesrg.io.save(error.tree, "another/result.nc")``.
    """

    def __init__(self, message: str, tree: xr.DataTree | None = None):
        super().__init__(message)
        self.tree = tree


@contextlib.contextmanager
def claim(path):
    """Lock the run folder ``path`` inside a ``with`` block, and return the path of its result file.

    The folder is made at once. If it is still empty at the end of the block, it is removed. Without
    a path nothing is locked, and None is returned.

    Raises
    ------
    ValueError
        If ``path`` is not a path.
    FileExistsError
        If ``path`` has a result already, is a file, or is locked by another writer.
    OSError
        If the folder cannot be made or written to.
    """
    if path is None:
        yield None
        return
    file = _path(path) / "result.nc"
    with writing.hold(file.parent):
        if os.path.lexists(file):
            raise FileExistsError(
                f"{str(file)!r} exists already; give path a new folder, or remove that one"
            )
        yield file


def save(dt: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write the tree ``dt`` to the netCDF file ``path``, and return the path.

    The content is made in memory and written under a temporary name, so that a file called
    ``path`` is never incomplete.

    Raises
    ------
    SaveError
        If writing fails, for instance because the disk is full. The attribute ``tree`` of the
        error is ``dt``.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    path = _path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with BytesIO() as buffer:  # HDF5 crashes the interpreter if it meets a full disk
            dt.to_netcdf(buffer, engine="h5netcdf")
            with buffer.getbuffer() as content:
                writing.write(path, content)
    except Exception as error:
        raise SaveError(
            f"the result was not written to {str(path)!r}: {error}; it is the attribute tree of "
            "this error, and bayesrg.io.save can write it elsewhere",
            dt,
        ) from error
    return path


def open_run(path: str | os.PathLike) -> xr.DataTree:
    """Read the result in the run folder ``path``, or in a netCDF file, and return it in memory.

    Raises
    ------
    FileNotFoundError
        If there is no result.
    ValueError
        If the file is not a result, is damaged, points to other files, or declares far more bytes
        than it stores. This is checked before the file is loaded.
    """
    path = _path(path)
    file = path / "result.nc" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"no result at {str(file)!r}; give a run folder that holds result.nc, or a netCDF file"
        )
    with _reading.reading(file, "a result"):
        netcdf.check(file)
        with az.from_netcdf(file, engine="h5netcdf") as tree:
            if not tree.children:
                raise ValueError(f"{file} has no groups; give a file that bayesrg or ArviZ wrote")
            return tree.load()
