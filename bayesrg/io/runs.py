# SPDX-License-Identifier: Apache-2.0
"""Functions that write results to run folders and files, and read them."""

import contextlib
import importlib.util
import os
from pathlib import Path

import xarray as xr

from .. import _checks, _reading
from . import draws, netcdf, writing
from .run_folder import RunFolder, file_digest, place


class SaveError(OSError):
    """A result could not be written; ``tree`` is the result.

    Save it elsewhere: ``bayesrg.io.save(error.tree, "another/result.nc")``.
    """

    def __init__(self, message: str, tree: xr.DataTree | None = None):
        super().__init__(message)
        self.tree = tree


@contextlib.contextmanager
def claim(path):
    """Lock the run folder ``path`` inside a ``with`` block, and return it as a `RunFolder`.

    The folder is made at once. If it is still empty at the end of the block, it is removed. Without
    a path nothing is locked, and None is returned.

    Raises
    ------
    ValueError
        If ``path`` is not a path.
    FileExistsError
        If ``path`` is a file, is a folder of something other than a run, or is locked by another
        writer.
    OSError
        If the folder cannot be made or written to.
    """
    if path is None:
        yield None
        return
    # the program may change its working directory during the run
    folder = RunFolder(place("path", path).absolute())
    with writing.hold(folder.path) as folder.check:
        unknown = folder.unknown()
        if unknown:
            what = f"{str(folder.path / unknown[0])!r} exists already and belongs to no run"
            raise FileExistsError(f"{what}; give path a new folder, or remove what is in this one")
        folder.tidy()
        yield folder


def save(dt: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write the tree ``dt`` to the netCDF file ``path``, and return the path.

    The file is written under a temporary name, so that a file called ``path`` is never incomplete.
    It is not made in memory first. The ``result.nc`` of a run folder can get more groups in this
    way; its draws cannot be replaced, because the run goes on from them.

    Raises
    ------
    SaveError
        If writing fails, for instance because the disk is full, because another process writes to
        the run folder, or because the draws are not those of the run. The attribute ``tree`` of the
        error is ``dt``.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    path = place("path", path)
    with saving(dt, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name == "result.nc" and RunFolder(path.parent).facts is not None:
            with claim(path.parent) as folder:
                facts = folder.facts
                _same_draws(dt, folder, facts)
                save_result(dt, folder, facts)
        else:
            _write(dt, path)
    return path


def _same_draws(dt, folder, facts):
    """Raise unless the draws of a tree are those in the ``result.nc`` of a run folder."""
    before = netcdf.read(folder.result) if draws.in_result(folder, facts) else xr.DataTree()
    for group in draws.SAMPLED:
        one, other = (t[group] if group in t.children else None for t in (before, dt))
        same = one is not None and other is not None and one.equals(other)
        if not same and (one is not None or group == "posterior"):
            raise ValueError(
                f"the draws in group {group!r} are not those of the result in this run folder, and "
                "the run goes on from them; give a file outside of it"
            )


@contextlib.contextmanager
def saving(dt, path):
    """Turn an exception in a ``with`` block, which writes ``dt`` to ``path``, into a SaveError."""
    try:
        yield
    except SaveError:
        raise
    except Exception as error:
        raise SaveError(
            f"the result was not written to {str(path)!r}: {error}; it is the attribute tree of "
            "this error, and bayesrg.io.save can write it elsewhere",
            dt,
        ) from error


def as_netcdf(dt, file):
    """Write the tree ``dt`` as netCDF to a binary file."""
    dt = dt.copy()
    dt.attrs = {k: int(v) if isinstance(v, bool) else v for k, v in dt.attrs.items()}
    dt.to_netcdf(file, engine="h5netcdf")


def _write(dt, path, before=lambda digest: None):
    """Write a tree to a netCDF file, piece by piece, and return the SHA-256 of the file."""
    size = sum(v.nbytes for node in dt.subtree for v in node.variables.values())
    writing.require(path.parent, size)
    return writing.stream(path, lambda file: as_netcdf(dt, file), before)


def save_result(dt: xr.DataTree, folder: RunFolder, facts: dict) -> None:
    """Write the result of a run to its folder and read it back; note its SHA-256 in run.json.

    ``facts`` are the content of run.json, and are updated.
    """
    count = dt["posterior"].sizes["draw"] if "posterior" in dt.children else 0

    def note(digest):
        # run.json knows the old and the new result until the new one is there
        facts["results"] = facts.get("results", {}) | {digest: count}
        folder.write_facts(facts)

    with saving(dt, folder.result):
        digest = _write(dt, folder.result, note)
        if file_digest(folder.result) != digest:
            raise OSError("what was read back differs from what was written")
        facts["results"] = {digest: count}
        folder.write_facts(facts)


def need_zarr(path):
    """Raise ImportError unless zarr is installed."""
    if importlib.util.find_spec("zarr") is None:
        raise ImportError(
            f"{str(path)!r} needs the package zarr; install bayesrg[zarr], or use a .nc file"
        )


def open_run(path: str | os.PathLike) -> xr.DataTree:
    """Read the result at ``path``, and return it as a tree in memory.

    ``path`` is a run folder, a netCDF file, or a folder that ends in ``.zarr``.

    Of a run that is not finished, the draws of its finished blocks are returned, in the groups
    posterior and sample_stats. Then the attribute ``finished`` is False, ``draws_done`` and
    ``steps_done`` say how far the run is, and ``draws`` says how many draws it is to have. If no
    block has draws yet, the tree has no groups.

    Raises
    ------
    FileNotFoundError
        If there is no result.
    PermissionError
        If a file may not be read.
    ImportError
        For a Zarr folder, if zarr is not installed.
    ValueError
        If the file is not a result, is damaged, points to other files, or declares far more bytes
        than it stores. This is checked before the file is loaded. Also if a file of the run is
        missing or was altered.
    """
    path = place("path", path)
    try:
        return _open(path)
    except PermissionError as error:
        if "; ask" in str(error):
            raise
        text = f"{error.strerror}; ask its owner for the right to read it"
        raise PermissionError(error.errno, text, error.filename or str(path)) from error


def _open(path):
    """Read the result at a path, see `open_run`."""
    if path.is_dir() and path.suffix == ".zarr" and not (path / "run.json").exists():
        need_zarr(path)
        with _reading.reading(path, "a result"):
            with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
                return tree.load()
    if path.is_dir():
        folder = RunFolder(path)
        while (facts := folder.facts) is not None:
            try:
                return draws.of_folder(folder, facts)
            except ValueError:
                if folder.facts == facts:
                    raise  # else a run has replaced the result meanwhile
        path = folder.result
    if not path.is_file():
        raise FileNotFoundError(
            f"no result at {str(path)!r}; give a run folder that holds result.nc, or a netCDF file"
        )
    return netcdf.read(path)
