# SPDX-License-Identifier: Apache-2.0
"""Run folders have one writer, and results are written whole or handed back."""

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import types
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from sampling import from_prior

import bayesrg as brg
from bayesrg import inference, io
from bayesrg.inference import coarse_graining
from bayesrg.inference.convergence import warn_if_poor
from bayesrg.io import writing

ROOT = Path(__file__).parents[1]
TREE = io.to_datatree({"posterior": {"a": np.arange(6.0).reshape(1, 6)}}, {}, attrs={"model": "m"})


def fails(number):
    def function(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return function


def test_a_folder_has_one_writer_until_it_lets_go(tmp_path):
    folder = tmp_path / "runs" / "a"
    with io.claim(folder) as run:
        assert run.path == folder and [f.name for f in folder.iterdir()] == ["lock"]
        me = rf"another run \(process {os.getpid()} on .*, since 20.*\) writes to .*give path"
        with pytest.raises(FileExistsError, match=me):
            with io.claim(folder):
                pass
        with io.claim(folder.parent / "b"):
            pass
    assert not (tmp_path / "runs").exists()  # empty, so nothing is left
    with io.claim(folder) as run:
        io.save(TREE, run.result)
    assert [f.name for f in folder.iterdir()] == ["result.nc"]
    with pytest.raises(FileExistsError, match="exists already .* give path a new folder"):
        with io.claim(folder):
            pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (  # the file alone: the package would take seconds to import
        "import pathlib, runpy, sys, time\n"
        "with runpy.run_path('bayesrg/io/writing.py')['hold'](pathlib.Path(sys.argv[1])):\n"
        "    sys.stdout.write('held'); sys.stdout.flush(); time.sleep(600)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "a"], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.read(4) == b"held"
        held = f"another run .process {holder.pid} on .* writes to"
        with pytest.raises(FileExistsError, match=held):
            with io.claim(tmp_path / "a"):
                pass
        # where the system has no locks, the file alone says that the process lives
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "fcntl", None)
            with pytest.raises(FileExistsError, match="if that process has ended, remove the file"):
                with io.claim(tmp_path / "a"):
                    pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / "a" / "lock").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "fcntl", None)
        with io.claim(tmp_path / "a"):
            pass
    with io.claim(tmp_path / "a"):
        pass


@pytest.mark.parametrize("reason", ["no module", "no locks", "removed meanwhile"])
def test_where_there_are_no_locks_a_folder_is_made_all_the_same(tmp_path, monkeypatch, reason):
    if reason == "no module":
        monkeypatch.setattr(writing, "fcntl", None)
    elif reason == "no locks":
        monkeypatch.setattr(writing.fcntl, "flock", fails(errno.ENOLCK))
    else:
        real, calls = writing.fcntl.flock, []

        def flock(descriptor, operation):  # its last holder removes the folder before the lock
            if not calls:
                (tmp_path / "a").rmdir()
            calls.append(real(descriptor, operation))

        monkeypatch.setattr(writing.fcntl, "flock", flock)
    with io.claim(tmp_path / "a") as run:
        io.save(TREE, run.result)
    assert io.open_run(tmp_path / "a").equals(TREE)


def test_what_cannot_be_a_folder_is_said_at_the_start(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(FileExistsError, match="is a file, or lies in one; give path a folder"):
            with io.claim(path):
                pass
    with pytest.raises(OSError, match="cannot make the folder .*too long; give another path"):
        with io.claim(tmp_path / ("x" * 300)):
            pass
    with pytest.raises(ValueError, match="path must be the name of a file or folder, got 3"):
        with io.claim(3):
            pass
    monkeypatch.setattr(tempfile, "TemporaryFile", fails(errno.EROFS))
    with pytest.raises(OSError, match="cannot write to the folder .*Read-only"):
        with io.claim(tmp_path / "new"):
            pass
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("fault", ["space", "write", "sync", "serialise", "link", "folder"])
def test_a_save_that_fails_hands_the_tree_back_and_leaves_nothing(tmp_path, monkeypatch, fault):
    """A full disk crashed the interpreter when HDF5 wrote to it itself."""
    path, victim = tmp_path / "result.nc", tmp_path / "victim"
    io.save(TREE, path)
    before, left = path.read_bytes(), {"result.nc"}
    match fault:
        case "space":
            usage = types.SimpleNamespace(free=100)
            monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        case "write":
            monkeypatch.setattr(os, "replace", fails(errno.EIO))
        case "sync":
            monkeypatch.setattr(os, "fsync", fails(errno.ENOSPC))
        case "serialise":
            monkeypatch.setattr(xr.DataTree, "to_netcdf", fails(errno.EINVAL))
        case "link":
            monkeypatch.setattr(secrets, "token_hex", lambda n: "0")
            (tmp_path / "result.nc.0.part").symlink_to(victim)
            left.add("result.nc.0.part")
        case "folder":
            path.unlink()
            path.mkdir()
    with pytest.raises(io.SaveError, match="is the attribute tree of this error") as caught:
        io.save(TREE, path)
    assert caught.value.tree is TREE and isinstance(caught.value, OSError)
    assert {f.name for f in tmp_path.iterdir()} == left and not victim.exists()
    assert path.is_dir() or path.read_bytes() == before
    if fault == "space":
        assert "bytes to write and 100 free" in str(caught.value)


def test_a_link_in_place_of_the_result_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "result.nc").symlink_to(victim)
    with pytest.raises(FileExistsError, match="exists already"), io.claim(tmp_path):
        pass
    io.save(TREE, tmp_path / "result.nc")
    assert victim.read_text() == "mine" and io.open_run(tmp_path).equals(TREE)


def level(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


DATA = np.arange(4.0), np.ones(4)
TINY = {"key": 0, "draws": 30, "warmup": 10, "chains": 1, "block": 40, "progress": False}
TINY |= {"sampler": from_prior}


def test_threads_wait_and_a_full_disk_keeps_the_draws(tmp_path, monkeypatch):
    """One thread has the disk full; both get the draws that one thread alone gets."""
    real, found = os.replace, {}

    def full(source, target):
        if target.name == "result.nc":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)

    def run(name, path):
        try:
            found[name] = brg.fit(level, DATA, path=path, **TINY)
        except Exception as error:
            found[name] = error

    threads = [threading.Thread(target=run, args=a) for a in (("a", None), ("b", tmp_path / "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert isinstance(found["b"], io.SaveError) and "No space left" in str(found["b"])
    part = io.open_run(tmp_path / "b")
    assert part["posterior"].equals(found["b"].tree["posterior"]) and not part.attrs["finished"]
    assert found["a"]["posterior"].equals(found["b"].tree["posterior"])


def test_the_job_checks_before_it_prepares_and_saves_before_it_compares(tmp_path, monkeypatch):
    """`prepare` and the sampler are not reached by a wrong number or a taken folder."""

    def reached(*args, **kwargs):
        raise AssertionError

    numbers = {"key": 0, "draws": 5, "warmup": 5, "chains": 2}
    (tmp_path / "file").write_text("")
    for change, message in (
        ({"draws": 0}, "draws must be"), ({"devices": 7}, "devices must divide"),
        ({"threshold": 2.0}, "threshold must"), ({"path": tmp_path / "file"}, "is a file"),
    ):  # fmt: skip
        with pytest.raises((ValueError, OSError), match=message):
            inference.coarse_grain(level, DATA, prepare=reached, **(numbers | change))

    def sampled(*args, folder, **kwargs):
        return io.open_run(io.save(TREE, folder.result))

    monkeypatch.setattr(coarse_graining, "sample", sampled)
    monkeypatch.setattr(coarse_graining, "warn_if_poor", lambda dt: None)
    monkeypatch.setattr(coarse_graining, "_cut", reached)
    said = []
    with pytest.raises(AssertionError):
        out = tmp_path / "out"
        inference.coarse_grain(level, DATA, path=out, say=said.append, **numbers)
    assert io.open_run(out / "full").equals(TREE) and "draws of the full model are in" in said[-1]


def checked(diverging=0, shift=0.0, draws=1000, chains=4, constant=False, lag=1):
    """Independent normal draws, one chain shifted, each repeated ``lag`` times, checked."""
    rng = np.random.default_rng(0)
    a = np.repeat(rng.standard_normal((chains, draws // lag, 3)), lag, 1)
    a[0, :, 2] += shift
    posterior = {"good": a[..., 0], "bad": np.ones_like(a) if constant else a}
    bad = np.zeros((chains, draws), bool)
    bad.reshape(-1)[:diverging] = True
    dt = io.to_datatree({"posterior": posterior, "sample_stats": {"diverging": bad}}, {})
    warn_if_poor(dt)


def test_draws_that_agree_are_not_warned_of():
    checked()
    checked(constant=True)
    checked(chains=1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"diverging": 48, "draws": 50, "chains": 1}, "48 of 50 diverged .*target_accept_prob"),
        ({"shift": 1.0}, r"R-hat of 'bad' is 1\.\d+, above 1\.01"),
        ({"lag": 20}, "effective sample size of '.*' is .*, below 100 for each of 4 chains"),
        ({"draws": 50, "chains": 1}, "below 100 for each of 1 chain "),
        ({"draws": 3}, "3 draws per chain are too few for these checks"),
    ],
)
def test_one_warning_says_what_is_wrong_with_the_draws(arguments, message):
    with pytest.warns(inference.SamplingWarning, match=message) as caught:
        checked(**arguments)
    assert len(caught) == 1 and str(caught[0].message).startswith("draws may not be trusted: ")
