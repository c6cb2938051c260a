# SPDX-License-Identifier: Apache-2.0
"""Chains of several runs become one result, which is written in two formats."""

import importlib.util
import json
import shutil

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from sampling import from_prior
from typer.testing import CliRunner

import bayesrg as brg
from bayesrg import cli, io
from bayesrg.io.run_folder import RunFolder


def level(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


DATA = jnp.arange(4.0), jnp.ones(4)
STEPS = {"draws": 30, "warmup": 10, "chains": 2, "block": 40, "progress": False, "devices": 1}
STEPS |= {"sampler": from_prior}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    trees = [brg.fit(level, DATA, key=k, path=folder / str(k), prior=3, **STEPS) for k in range(3)]
    return folder, trees


def test_chains_of_runs_with_other_keys_are_joined(runs, tmp_path):
    folder, trees = runs
    dt = io.join_chains([folder / str(k) for k in range(3)])
    for group in ("posterior", "log_likelihood"):
        for name, value in dt[group].data_vars.items():
            parts = [tree[group][name].to_numpy() for tree in trees]
            np.testing.assert_array_equal(value, np.concatenate(parts))
    assert dt["posterior"].sizes == {"chain": 6, "draw": 30} and dt["prior"].sizes["chain"] == 3
    np.testing.assert_array_equal(dt["posterior"]["chain"], np.arange(6))
    assert dt["observed_data"].equals(trees[0]["observed_data"])
    assert dt.attrs["chains"] == 6 and dt.attrs["joined"] == 3
    out = tmp_path / "joined.nc"
    names = [str(folder / str(k)) for k in range(3)]
    done = CliRunner().invoke(cli.app, ["join", *names, "--out", str(out), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["file"] == str(out)
    assert io.open_run(out).equals(dt)


def test_what_is_not_chains_of_one_model_is_not_joined(runs, tmp_path):
    folder, _ = runs
    first, second = folder / "0", folder / "1"
    for paths, message in (
        ([first], "paths must hold at least two run folders, got 1"),
        ([first, first], "have one key, threefry2x32 .*; leave one out"),
        ([first, tmp_path], "no run at .*; give folders that fit made"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            io.join_chains(paths)
    other = shutil.copytree(second, tmp_path / "other")
    facts = RunFolder(other).facts
    for field, value, message in (
        ("warmup", 11, "warmup is 10 in '.*0' and 11 in '.*other'; leave one out"),
        ("hyper", {"width": 2}, "hyper 'width' is not given in .* and 2 in"),
        ("draws", 40, "draws is 30 in .* and 40 in"),
        ("versions", facts["versions"] | {"jax": "0"}, "versions 'jax' is .* and 0 in"),
        ("program", "0", "program is .* and 0 in"),
        ("results", {}, "other' is not finished; continue it, or leave it out"),
    ):
        RunFolder(other).write_facts(facts | {field: value})
        with pytest.raises(ValueError, match=message):
            io.join_chains([first, other])


def test_export_knows_two_formats(runs, tmp_path, monkeypatch):
    dt = runs[1][0]
    assert io.open_run(io.export(dt, tmp_path / "a.nc")).equals(dt)
    with pytest.raises(ValueError, match="path must end in .nc or .zarr, got '.*a.csv'; give one"):
        io.export(dt, tmp_path / "a.csv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "old.zarr").mkdir()
    for door in (lambda path: io.export(dt, path), io.open_run):
        with pytest.raises(ImportError, match=r"needs the package zarr; install bayesrg\[zarr\]"):
            door(tmp_path / "old.zarr")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)

    def full(self, store, **kwargs):
        store.mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_zarr", full)
    with pytest.raises(io.SaveError, match="No space left") as caught:
        io.export(dt, tmp_path / "b.zarr")
    assert caught.value.tree is dt and [f.name for f in tmp_path.glob("*b*")] == []


def test_a_zarr_folder_holds_the_tree_and_its_damage_is_named(runs, tmp_path):
    """zarr belongs to the test dependencies, so this runs wherever all of them are installed."""
    pytest.importorskip("zarr")
    dt = runs[1][0].copy()
    dt["extra"] = xr.DataTree(xr.Dataset({"e": ("rule", [True, False])}, {"rule": ["a", "b"]}))
    out = io.export(dt, tmp_path / "a.zarr")
    assert io.open_run(out).identical(dt) and [f.name for f in tmp_path.iterdir()] == ["a.zarr"]
    with pytest.raises(FileExistsError, match="exists already; give another path"):
        io.export(dt, out)
    chunk = next(f for f in (out / "posterior" / "mean" / "c").rglob("*") if f.is_file())
    for file in (out / "zarr.json", out / "posterior" / "mean" / "zarr.json", chunk):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="a.zarr cannot be read as a result"):
            io.open_run(out)
        file.write_bytes(content)
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises((ValueError, OSError), match="b.zarr"):
        io.open_run(tmp_path / "b.zarr")
