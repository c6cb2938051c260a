# SPDX-License-Identifier: Apache-2.0
"""The draws that a run folder holds: those of its result, followed by those of its blocks."""

import numpy as np
import xarray as xr

from . import netcdf
from .run_folder import RunFolder, State, file_digest

SAMPLED = ("posterior", "sample_stats", "log_likelihood")


def steps_done(facts: dict, state: State | None) -> int:
    """Return the number of steps per chain that are finished, warm-up included."""
    return 0 if state is None else state.done * facts["block"]


def draws_done(facts: dict, state: State | None) -> int:
    """Return the number of draws per chain in finished blocks."""
    return max(0, steps_done(facts, state) - facts["warmup"]) // facts.get("thin", 1)


def first_draw(facts: dict, number: int) -> int:
    """Return the first draw in the block file with a number."""
    # the file 0 belongs to the first block that has draws, where the warm-up may end in its middle
    steps = (number + facts["warmup"] // facts["block"]) * facts["block"]
    return max(0, steps - facts["warmup"]) // facts.get("thin", 1)


def in_result(folder: RunFolder, facts: dict) -> int:
    """Return the number of draws in ``result.nc``, zero if there is no result.

    Raises
    ------
    ValueError
        If the file is not one that the run wrote.
    """
    if not facts.get("results") or not folder.result.is_file():
        return 0
    found = file_digest(folder.result)
    if found not in facts["results"]:
        raise ValueError(
            f"{str(folder.result)!r} is damaged, or was altered after the run wrote it (its "
            "SHA-256 is not in run.json); restore it from a copy, or read it as it is by giving "
            "open_run the file in place of the folder"
        )
    return facts["results"][found]


def there(folder: RunFolder) -> int:
    """Return the number of draws per chain that a run folder holds; zero if it is not of a fit."""
    facts = folder.facts
    if facts is None or facts["kind"] != "fit":
        return 0
    return max(in_result(folder, facts), draws_done(facts, folder.read_state(facts)))


def finished(folder: RunFolder, facts: dict) -> bool:
    """Return whether ``result.nc`` has all draws of the run."""
    return in_result(folder, facts) >= facts["draws"]


def of_folder(folder: RunFolder, facts: dict) -> xr.DataTree:
    """Return the result in a run folder, or the draws that are finished so far."""
    if in_result(folder, facts) >= (facts["draws"] if facts["kind"] == "fit" else 1):
        return netcdf.read(folder.result)
    if facts["kind"] != "fit":  # the main job: the full model has a run folder of its own
        inner = RunFolder(folder.path / "full")
        tree = xr.DataTree() if inner.facts is None else of_folder(inner, inner.facts)
        tree.attrs["finished"] = False
        return tree
    return unfinished(folder, facts)


def unfinished(folder: RunFolder, facts: dict) -> xr.DataTree:
    """Return the draws that are finished so far; the attribute ``finished`` is False."""
    state = folder.read_state(facts)
    count = max(in_result(folder, facts), draws_done(facts, state))
    tree = labelled(joined(folder, facts, state, min(count, facts["draws"])))
    return _with_facts(tree, facts, state)


def joined(folder: RunFolder, facts: dict, state: State | None, count: int) -> dict:
    """Return the first ``count`` draws: axes and values by the name of their group and variable.

    Raises
    ------
    ValueError
        If a block is missing, or a file was altered.
    """
    have, found = min(in_result(folder, facts), count), {}
    if not have and count and facts.get("results") and not folder.block(0).exists():
        raise ValueError(
            f"{str(folder.result)!r} is missing; restore it from a copy, or sample again in "
            "another folder"
        )
    if have:
        tree = netcdf.read(folder.result)
        groups = {g: _arrays(tree[g].to_dataset()) for g in SAMPLED if g in tree.children}
        _put(found, groups, count, 0, have)
    for number in range(0 if state is None else len(state.checksums)):
        start, stop = first_draw(facts, number), min(first_draw(facts, number + 1), count)
        if have < stop:
            block = folder.read_block(number, state.checksums)
            late = {
                group: {name: (axes, v[:, have - start :]) for name, (axes, v) in of.items()}
                for group, of in block.items()
            }
            _put(found, late, count, have, stop)
            have = stop
    if have < count:
        raise ValueError(
            f"{str(folder.path)!r} has {have} of its {count} finished draws; restore the files of "
            "the run from a copy, or sample again in another folder"
        )
    return found


def _put(found, groups, count, start, stop):
    """Write draws to their place in ``found``, whose arrays for ``count`` draws are made first."""
    for group, variables in groups.items():
        kept = found.setdefault(group, {})
        for name, (axes, value) in variables.items():
            if name not in kept:
                dtype = np.float64 if value.dtype.kind == "f" else value.dtype  # as in the result
                kept[name] = axes, np.empty((len(value), count, *value.shape[2:]), dtype)
            kept[name][1][:, start:stop] = value[:, : stop - start]


def _arrays(dataset):
    return {name: (v.dims, v.to_numpy()) for name, v in dataset.data_vars.items()}


def labelled(groups: dict, first: int = 0) -> xr.DataTree:
    """Return a tree of groups as `joined` gives them, whose draws count from ``first``."""
    datasets = {}
    for group, variables in groups.items():
        wide = {
            n: (axes, v.astype(np.float64, copy=False) if v.dtype.kind == "f" else v)
            for n, (axes, v) in variables.items()
        }
        data = xr.Dataset(wide, attrs={"sample_dims": ["chain", "draw"]})
        start = {"draw": first}
        indices = {d: start.get(d, 0) + np.arange(size) for d, size in data.sizes.items()}
        datasets[group] = data.assign_coords(indices)
    return xr.DataTree.from_dict(datasets)


def _with_facts(tree, facts, state):
    """Return the tree with attributes that say what the run is and how far it is."""
    names = ("model", "draws", "warmup", "chains", "block", "thin", "precision", "device_kind")
    tree.attrs = {name: facts[name] for name in names if facts.get(name) is not None}
    tree.attrs |= {"finished": False, "steps_done": steps_done(facts, state)}
    tree.attrs["draws_done"] = (
        tree["posterior"].sizes["draw"] if "posterior" in tree.children else 0
    )
    return tree
