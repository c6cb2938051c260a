# SPDX-License-Identifier: Apache-2.0
"""Runs that are interrupted go on with the same bits, whatever the moment; files are checked."""

import contextlib
import errno
import json
import os
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import NUTS
from sampling import from_prior, two_steps

import bayesrg as brg
from bayesrg import io
from bayesrg.inference.driver import Size, run_blocks
from bayesrg.inference.resume import Recorded
from bayesrg.io import block_files, netcdf, runs
from bayesrg.io.run_folder import RunFolder

SIZE = Size(draws=25, warmup=5, chains=2, block=10, devices=1)
ASKED = dict.fromkeys(("hyper", "X", "y", "key", "prior", "sampler", "precision", "versions"))
ASKED |= dict.fromkeys(("devices", "program", "source", "model"))
ASKED |= {"warmup": 5, "chains": 2, "block": 10}


class Killed(BaseException):
    """The process is gone: nothing that it would do later happens."""


def advance(state, calls):
    """Ten steps of a map, in place of a compiled block; keys and numbers of two precisions."""
    calls[0].append(None)
    x, key, old = state["x"], state["key"], state["old"]
    xs, number = [], np.asarray(jax.random.key_data(key))[-1]
    for _ in range(10):
        x = np.cos(3 * x + number)
        xs.append(x)
    new = {"x": x, "key": key, "old": old + np.float32(0.1), "empty": state["empty"]}
    return new, ({"a/b": np.stack(xs), "c": np.ones((10, 2, 3))}, {"diverging": np.stack(xs) > 0.9})


def start():
    return {
        "x": np.array([0.1, 0.2]), "old": np.float32(1.0), "key": jax.random.key(5),
        "empty": np.zeros((2, 0)),
    }  # fmt: skip


def run(path, calls, size=SIZE, keep_blocks=False):
    """A run as `fit` makes it, of a map in place of a sampler."""
    with io.claim(path) as folder:
        draws = Recorded(folder, ASKED, size, {"a/b": (), "c": ("unit",)}, ())
        if draws.finished:
            draws.clean(keep_blocks)
            return draws.result()
        run_blocks(advance, draws.restore(start()), (calls,), draws, lambda facts: None)
        groups = dict(zip(("posterior", "sample_stats"), draws.all(), strict=True))
        dt = io.to_datatree(groups, {"c": ("unit",)})
        draws.finish(dt, keep_blocks)
        return dt


class Faults:
    """Counts the operations on files, and ends the process, or fails, at one of them."""

    names = ("open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir")

    def __init__(self, monkeypatch):
        self.patch, self.at, self.real = monkeypatch, None, {n: getattr(os, n) for n in self.names}

    @contextlib.contextmanager
    def injected(self, at, when, kill):
        self.at, self.when, self.kill, self.count, self.fired = at, when, kill, 0, False
        with self.patch.context() as patch:
            for name in self.names:
                patch.setattr(os, name, self.wrapped(name))
            yield

    def wrapped(self, name):
        def operation(*args, **kwargs):
            if self.fired and self.kill:
                raise Killed
            here, self.count = self.count == self.at, self.count + 1
            if here and self.when == "before":
                self.fail()
            try:
                result = self.real[name](*args, **kwargs)
            except OSError:
                if here:
                    self.fail()
                raise
            if here:
                if name == "open" and not self.kill:
                    os.close(result)
                self.fail()
            return result

        return operation

    def fail(self):
        self.fired = True
        raise Killed if self.kill else OSError(errno.EIO, "Input/output error")


def without_netcdf(monkeypatch):
    """Write pickles, and do not wait for the disk: netCDF would take most of the time."""

    def as_bytes(dt, file):
        file.write(pickle.dumps(dt.to_dict()))

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(runs, "as_netcdf", as_bytes)
    monkeypatch.setattr(
        netcdf, "read", lambda f: xr.DataTree.from_dict(pickle.loads(f.read_bytes()))
    )
    monkeypatch.setattr(block_files, "content", lambda *given: pickle.dumps(given))
    monkeypatch.setattr(block_files, "read", lambda content: pickle.loads(content)[0])


@pytest.mark.parametrize(
    "when, kill",
    [
        ("before", True),
        ("after", True),
        pytest.param("before", False, marks=pytest.mark.slow),
        pytest.param("after", False, marks=pytest.mark.slow),
    ],
)
def test_a_fault_at_any_operation_on_a_file_changes_no_bit(tmp_path, monkeypatch, when, kill):
    """Each operation of a run of three blocks fails once; the same call then ends the run."""
    without_netcdf(monkeypatch)
    faults, at, ran = Faults(monkeypatch), 0, []
    reference = run(tmp_path / "reference", [])
    files = {f.name for f in (tmp_path / "reference").rglob("*")}
    while True:
        folder, calls = tmp_path / str(at), []
        with faults.injected(at, when, kill):
            try:
                run(folder, calls)
            except (Killed, OSError):
                pass
        if not faults.fired:
            break
        shown = io.open_run(folder) if kill and (folder / "run.json").exists() else None
        if shown is not None and "posterior" in shown.children:
            draws = shown["posterior"]["c"].sizes["draw"]
            assert shown["posterior"].equals(reference["posterior"].isel(draw=slice(draws)))
        assert run(folder, calls).equals(reference), at
        assert len(calls) <= 4 and {f.name for f in folder.rglob("*")} == files, at
        ran.append(len(calls))
        shutil.rmtree(folder)
        at += 1
    assert at > 60 and ran.count(4) < len(ran) / 2


def test_a_run_is_extended_and_its_files_are_what_they_say(tmp_path):
    calls = []
    short, longer = run(tmp_path / "a", calls), SIZE._replace(draws=40)
    assert {f.name for f in (tmp_path / "a").rglob("*")} == {
        "run.json", "state.npz", "progress.jsonl", "result.nc", "blocks",
    }  # fmt: skip
    assert run(tmp_path / "a", calls).equals(short) and len(calls) == 3
    whole = run(tmp_path / "b", [], longer, keep_blocks=True)
    assert run(tmp_path / "a", calls, longer).identical(whole) and len(calls) == 5
    block = io.open_run(tmp_path / "b" / "blocks" / "00001.nc")
    np.testing.assert_array_equal(block["posterior"]["draw"], np.arange(5, 15))
    np.testing.assert_array_equal(block["posterior"]["a.b"], whole["posterior"]["a.b"][:, 5:15])
    assert block["sample_stats"]["diverging"].dtype == bool
    assert block["posterior"]["c"].dims == ("chain", "draw", "unit")
    lines = [json.loads(line) for line in (tmp_path / "b/progress.jsonl").read_text().splitlines()]
    assert [line["block"] for line in lines] == [1, 2, 3, 4, 5] and lines[0]["blocks"] == 5
    # 45 draws end with the last block, of which 40 are wanted: its surplus stays
    assert [f.name for f in (tmp_path / "a" / "blocks").iterdir()] == ["00004.nc"]
    assert run(tmp_path / "a", calls, SIZE._replace(draws=45)).equals(
        run(tmp_path / "c", [], SIZE._replace(draws=45))
    )
    assert len(calls) == 5


def level(X, y=None, *, width=1.0, shift=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, width).expand((2,)).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.deterministic("a/twice", 2.0 * mean)
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean.sum() + X, scale), obs=y)


DATA = jnp.arange(4.0), jnp.array([0.3, 1.2, -0.4, 0.9])
STEPS = {"key": 0, "warmup": 35, "chains": 2, "block": 20, "progress": False, "devices": 1}


def killed_after(monkeypatch, blocks, what="write_progress"):
    """End the process after this number of blocks of the next call of `fit`."""
    real, done = getattr(RunFolder, what), []

    def counted(folder, *given):
        real(folder, *given)
        done.append(None)
        if len(done) == blocks:
            monkeypatch.setattr(RunFolder, what, real)
            raise Killed

    monkeypatch.setattr(RunFolder, what, counted)


@pytest.mark.parametrize(
    "sampler, devices",
    [
        (two_steps, 1),
        pytest.param(two_steps, 2, marks=pytest.mark.slow),
        pytest.param(NUTS, 1, marks=pytest.mark.slow),
    ],
)
def test_a_fit_goes_on_in_warm_up_and_sampling_with_the_same_bits(
    tmp_path, monkeypatch, compilations, sampler, devices
):
    """The state with its adaptation, draws, statistics and densities, also when extended."""
    how = STEPS | {"sampler": sampler, "devices": devices}
    with compilations() as fresh:
        reference = brg.fit(level, DATA, draws=90, **how)
    how["path"] = tmp_path / "a"
    for blocks in (1, 2):  # five in all, the first in warm-up alone
        killed_after(monkeypatch, blocks)
        with pytest.raises(Killed):
            brg.fit(level, DATA, draws=50, **how)
        found = io.open_run(tmp_path / "a")
        assert found.attrs["finished"] is False and found.attrs["draws"] == 50
        assert found.attrs["steps_done"] == (20 if blocks == 1 else 60)
    groups = reference["posterior"].to_dataset(), reference["sample_stats"].to_dataset()
    assert found["posterior"].to_dataset().equals(groups[0].isel(draw=slice(25)))
    with compilations() as resumed:
        dt = brg.fit(level, DATA, draws=50, **how)
    assert resumed() <= fresh()
    for group, whole in zip(("posterior", "sample_stats"), groups, strict=True):
        assert dt[group].to_dataset().equals(whole.isel(draw=slice(50)))
    assert brg.fit(level, DATA, draws=90, **how).identical(reference)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    how = STEPS | {"draws": 30, "sampler": from_prior, "path": folder, "width": 2.0}
    brg.fit(level, DATA, shift=np.ones(2), **how)
    return how


def content(folder):
    return {f: f.read_bytes() if f.is_file() else None for f in folder.rglob("*")}


def wider(X, y=None, *, width=1.0, shift=None):
    level(X, y, width=1.5 * width)


def commented(X, y=None, *, width=1.0, shift=None):
    # another text of the same model
    level(X, y, width=width, shift=shift)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 3.0}, "hyper 'width' was 2.0 and is now 3.0; give the stored value"),
        ({"shift": np.zeros(2)}, "hyper 'shift' was [0-9a-f]+ and is now"),
        ({"key": 1}, r"key was threefry2x32 \[0, 0\] and is now threefry2x32 \[0, 1\]"),
        ({"warmup": 36}, "warmup was 35 and is now 36"),
        ({"chains": 4}, "chains was 2 and is now 4"),
        ({"block": 10}, "block was 20 and is now 10"),
        ({"prior": 1}, "prior was 0 and is now 1"),
        ({"draws": 20}, "draws was 30 and is now 20"),
        ({"sampler": NUTS}, "sampler 'class' was Sampler and is now NUTS"),
        ({"data": (DATA[0] + 1.0, DATA[1])}, r"X was float64\[4\] SHA-256 .* and is now"),
        ({"data": (DATA[0], DATA[1] + 1.0)}, r"y was float64\[4\] SHA-256 .* and is now"),
        ({"model": wider}, r"what the model computes has changed \(program was"),
        ({"devices": 2}, r"devices 'chain_method' was vectorized .* accept=\("),
        ({"accept": ("version",)}, "accept must hold names from .* got 'version'"),
    ],
)
def test_another_run_is_refused_with_the_field_and_both_values(finished, change, message):
    how = {"model": level, "data": DATA, "shift": np.ones(2)} | finished | change
    before = content(finished["path"])
    with pytest.raises(ValueError, match=message) as caught:
        brg.fit(how.pop("model"), how.pop("data"), **how)
    assert content(finished["path"]) == before
    assert "accept" in message or "keep" in message or str(finished["path"]) in str(caught.value)


def test_another_text_or_accepted_versions_are_the_same_run(finished, tmp_path, monkeypatch):
    stored = io.open_run(finished["path"])
    again = brg.fit(commented, DATA, shift=np.ones(2), **finished)
    assert again.equals(stored)
    how = finished | {"path": shutil.copytree(finished["path"], tmp_path / "copy")}
    from bayesrg.inference import identity

    monkeypatch.setattr(identity.jaxlib, "__version__", "0.0.1")
    with pytest.raises(ValueError, match="versions 'jaxlib' was .* and is now 0.0.1; go back, or"):
        brg.fit(level, DATA, shift=np.ones(2), **how)
    longer = brg.fit(level, DATA, shift=np.ones(2), **(how | {"accept": "versions", "draws": 40}))
    assert "versions 'jaxlib'" in longer.attrs["accepted"] and longer.attrs["draws"] == 40
    assert RunFolder(how["path"]).facts["versions"]["jaxlib"] == "0.0.1"
    with pytest.raises(ValueError, match=r"text of the model has changed \(source was"):
        monkeypatch.setattr(identity.jaxlib, "__version__", "0.0.2")
        brg.fit(commented, DATA, shift=np.ones(2), **(how | {"accept": "versions", "draws": 40}))


SPOILT = {  # file, what is done to it, message; finished blocks stay readable
    "truncated state": ("state.npz", lambda b: b[:200], "state.npz' is damaged, so the run cannot"),
    "flipped state": ("state.npz", None, "state.npz' is damaged, so the run cannot"),
    "no state": ("state.npz", "remove", "state.npz' is missing, so the run cannot be continued"),
    "truncated block": ("blocks/00001.nc", lambda b: b[:99], "00001.nc' is damaged or was altered"),
    "flipped block": ("blocks/00001.nc", None, "00001.nc' is damaged or was altered; restore it"),
    "no block": ("blocks/00001.nc", "remove", "00001.nc' is missing; restore it from a copy"),
    "no JSON": ("run.json", lambda b: b[:50], "run.json' cannot be read"),
    "a list": ("run.json", lambda b: b"[1]", "run.json' cannot be read"),
    "no draws": (
        "run.json",
        lambda b: b.replace(b'"draws"', b'"draw"'),
        "run.json' cannot be read",
    ),
    "no number": (
        "run.json",
        lambda b: b.replace(b'"block": 10', b'"block": 0'),
        "run.json' cannot be read .* edited or damaged: its checksum is wrong",
    ),
    "newer": ("run.json", lambda b: b.replace(b'"format": 1', b'"format": 2'), "update bayesrg"),
}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of a map that ended after three blocks of five."""
    folder = tmp_path_factory.mktemp("half") / "run"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 3)
        run(folder, [], SIZE._replace(draws=45))
    return folder


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_is_named_and_whole_blocks_stay_readable(half, tmp_path, name):
    file, change, message = SPOILT[name]
    folder = shutil.copytree(half, tmp_path / "run")
    (folder / "lock").unlink(missing_ok=True)
    victim, whole = folder / file, folder / "blocks" / "00002.nc"
    if change == "remove":
        victim.unlink()
    elif change is None:
        data = bytearray(victim.read_bytes())
        data[data.rfind(b"bytes.npy" if "state" in file else b"\x00" * 64) // 2 + 400] ^= 1
        victim.write_bytes(data)
    else:
        victim.write_bytes(change(victim.read_bytes()))
    before, calls = content(folder), []
    with pytest.raises(ValueError, match=message) as caught:
        run(folder, calls, SIZE._replace(draws=45))
    assert str(folder) in str(caught.value) and content(folder) == before and not calls
    with pytest.raises(ValueError, match=message):
        io.open_run(folder)
    assert io.open_run(whole)["posterior"].sizes["draw"] == 10


def test_a_folder_of_something_else_is_refused(tmp_path, half):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="notes.txt' exists already and belongs to no run"):
        run(tmp_path, [])
    assert [f.name for f in tmp_path.iterdir()] == ["notes.txt"]


def test_an_altered_result_is_named_and_one_with_groups_added_is_not(tmp_path):
    run(tmp_path / "a", [])
    dt = io.open_run(tmp_path / "a")
    dt["extra"] = xr.DataTree(xr.Dataset({"z": 1.0}))
    io.save(dt, tmp_path / "a" / "result.nc")
    assert "extra" in run(tmp_path / "a", []).children
    file = tmp_path / "a" / "result.nc"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for door in (io.open_run, lambda path: run(path, [])):
        with pytest.raises(ValueError, match="result.nc' is damaged, or was altered after the run"):
            door(tmp_path / "a")


def test_a_disk_that_fills_up_hands_all_draws_back_and_the_run_goes_on(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", [])
    real = os.replace

    def full(source, target):
        if str(target).endswith("00001.nc"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(io.SaveError) as caught:
        patch.setattr(os, "replace", full)
        run(tmp_path / "a", [])
    assert "No space left" in str(caught.value) and "make room and repeat" in str(caught.value)
    tree = caught.value.tree
    assert tree["posterior"].equals(whole["posterior"].isel(draw=slice(15)))
    assert io.open_run(tmp_path / "a")["posterior"].sizes["draw"] == 5
    calls = []
    assert run(tmp_path / "a", calls).equals(whole) and len(calls) == 2
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space: .*another disk"):
        patch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 500))
        brg.fit(level, DATA, draws=10, path=tmp_path / "b", **STEPS)
    assert not (tmp_path / "b").exists()


def smooth(X, y=None):
    noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    spectrum = scale * brg.spectrum.fourier(lambda j: (1.0 + j) ** -2, 9)
    numpyro.sample("y", brg.gp.marginal(spectrum, X, noise**2), obs=y)


@pytest.mark.slow
def test_the_main_job_goes_on_in_the_fit_where_it_stood(tmp_path, monkeypatch):
    """Two blocks per fit: it is killed after the first of each, and ends with the same bits."""
    x = np.linspace(0, 1, 24, endpoint=False)[:, None]
    rng = np.random.default_rng(0)
    data = brg.Data(x, np.sin(6 * x[:, 0]) + 0.3 * rng.standard_normal(24), x + 0.01, 0 * x[:, 0])
    how = {"key": 3, "draws": 60, "warmup": 60, "chains": 2, "progress": False, "devices": 1}
    said = []
    reference = brg.inference.coarse_grain(smooth, data, path=tmp_path / "whole", **how)
    how |= {"path": tmp_path / "a", "say": said.append}
    killed_after(monkeypatch, 1)
    with pytest.raises(Killed):
        brg.inference.coarse_grain(smooth, data, **how)
    assert {f.name for f in (tmp_path / "a").iterdir()} == {"run.json", "full"}
    assert io.open_run(tmp_path / "a").attrs["steps_done"] == 100
    killed_after(monkeypatch, 2)
    with pytest.raises(Killed):
        brg.inference.coarse_grain(smooth, data, **how)
    assert io.open_run(tmp_path / "a").attrs["finished"] is False
    assert io.open_run(tmp_path / "a" / "coarse").attrs["steps_done"] == 100
    assert brg.inference.coarse_grain(smooth, data, **how).equals(reference)
    assert io.open_run(tmp_path / "a").equals(reference) and "coarse_posterior" in reference

    said.clear()
    assert brg.inference.coarse_grain(smooth, data, **how).equals(reference)
    assert said == ["sampling the full model"]  # which is there
    with pytest.raises(ValueError, match="holds another run: threshold was 0.5 and is now 0.4"):
        brg.inference.coarse_grain(smooth, data, threshold=0.4, **how)
    longer = brg.inference.coarse_grain(smooth, data, **(how | {"draws": 100}))
    whole = {"draws": 100, "path": tmp_path / "longer"}
    assert longer.equals(brg.inference.coarse_grain(smooth, data, **(how | whole)))
