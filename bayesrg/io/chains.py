# SPDX-License-Identifier: Apache-2.0
"""Chains of several runs as one result, and results in other formats."""

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from .. import _checks
from . import draws
from .facts import first_difference
from .run_folder import RunFolder, place
from .runs import need_zarr, save, saving


def join_chains(paths: Sequence[str | os.PathLike]) -> xr.DataTree:
    """Join the chains of finished runs that differ in their key alone; return them as one tree.

    Parameters
    ----------
    paths : sequence of paths
        Run folders of `bayesrg.fit`, for instance those of the jobs of an array job. Of a folder of
        `bayesrg.inference.coarse_grain` the full model is taken.

    Returns
    -------
    DataTree
        The tree of the first run, in which every group with the axis chain has the chains of all
        runs. The attribute ``joined`` is the number of runs.

    Raises
    ------
    ValueError
        If two runs have one key, if runs differ in more than the key, or if one is not finished.
        The message has the field and both values.
    """
    paths = _checks.sequence("paths", paths, "the paths of run folders")
    folders = [_folder(path) for path in paths]
    if len(folders) < 2:
        raise ValueError(f"paths must hold at least two run folders, got {len(folders)}; add one")
    first = folders[0]
    facts = [folder.facts for folder in folders]
    keys = {}
    for folder, found in zip(folders, facts, strict=True):
        differs = first_difference(facts[0], found, but="key")
        if differs is not None:
            field, one, other = differs
            raise ValueError(
                f"runs that are joined may differ in key alone: {field} is {one} in "
                f"{str(first.path)!r} and {other} in {str(folder.path)!r}; leave one out"
            )
        if found["key"] in keys:
            raise ValueError(
                f"{str(keys[found['key']])!r} and {str(folder.path)!r} have one key, "
                f"{found['key']}, so their draws are the same; leave one out"
            )
        keys[found["key"]] = folder.path
        if not draws.finished(folder, found):
            raise ValueError(
                f"the run at {str(folder.path)!r} is not finished; continue it, or leave it out"
            )

    trees = [draws.of_folder(*pair) for pair in zip(folders, facts, strict=True)]
    joined = {}
    for folder, tree in zip(folders, trees, strict=True):
        lone = sorted(set(trees[0].children) ^ set(tree.children))
        if lone:
            raise ValueError(
                f"{str(first.path)!r} and {str(folder.path)!r} have not the same groups: only one "
                f"has {lone[0]!r}; add it to all of them, or leave one out"
            )
    for group, node in trees[0].children.items():
        parts = [tree[group].to_dataset() for tree in trees]
        if "chain" in node.sizes:
            whole = xr.concat(parts, "chain", data_vars="minimal", join="override")
            joined[group] = whole.assign_coords(chain=np.arange(whole.sizes["chain"]))
        else:
            joined[group] = parts[0]
    tree = xr.DataTree.from_dict(joined)
    tree.attrs = trees[0].attrs | {"chains": sum(f["chains"] for f in facts), "joined": len(facts)}
    return tree


def _folder(path):
    """Return the run folder of a fit at ``path``, or that of the full model of a job."""
    path = place("paths", path, "the paths of run folders")
    folder = RunFolder(path)
    facts = folder.facts
    if facts is not None and facts.get("kind") == "job":
        folder = RunFolder(path / "full")
        facts = folder.facts
    if facts is None:
        raise FileNotFoundError(
            f"no run at {str(folder.path)!r}; give folders that fit made, called with path="
        )
    return folder


def export(dt: xr.DataTree, path: str | os.PathLike) -> Path:
    """Write the tree ``dt`` to a netCDF file or a Zarr folder, and return its path.

    Parameters
    ----------
    dt : DataTree
    path : path
        It ends in ``.nc`` or ``.zarr``. Zarr needs the package zarr (extra ``zarr``).
        `bayesrg.open_run` reads both.

    Raises
    ------
    ValueError
        For another suffix.
    FileExistsError
        If a Zarr folder of that name exists.
    ImportError
        If zarr is not installed.
    SaveError
        If writing fails; the attribute ``tree`` of the error is ``dt``.
    """
    _checks.instance("dt", dt, xr.DataTree, _checks.TREE)
    path = place("path", path)
    if path.suffix == ".nc":
        return save(dt, path)
    if path.suffix != ".zarr":
        raise ValueError(f"path must end in .nc or .zarr, got {str(path)!r}; give one of these")
    need_zarr(path)
    if path.exists():
        raise FileExistsError(f"{str(path)!r} exists already; give another path, or remove it")
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with saving(dt, path):
        try:
            # consolidated metadata are not yet part of the format
            dt.to_zarr(part, mode="w", consolidated=False)
            os.rename(part, path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return path
