# SPDX-License-Identifier: Apache-2.0
"""Damaged files, full disks and unusual places of run folders: nothing that is finished is lost."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_resume import ASKED, SIZE, Killed, content, killed_after, run, without_netcdf

from bayesrg import io
from bayesrg.inference import signals
from bayesrg.inference.resume import Job, Recorded
from bayesrg.io import netcdf, writing
from bayesrg.io.run_folder import RunFolder

LONG = SIZE._replace(draws=45)  # five blocks


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of the run of `LONG`, and its folder with all blocks."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(folder, [], LONG, keep_blocks=True), folder


@pytest.fixture
def quick(whole, monkeypatch):
    """Files of pickles in place of netCDF, after the whole run, which has true files."""
    without_netcdf(monkeypatch)


def half_way(folder, blocks=3):
    """Make a folder of the run of `LONG` that ended after some blocks."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, blocks)
        run(folder, [], LONG)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run that is half done, one that is extended, and a job with both as its two fits."""
    home = tmp_path_factory.mktemp("folders")
    half_way(home / "half")
    run(home / "extended", [], SIZE._replace(draws=22))  # its last block has three draws more
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 1)
        run(home / "extended", [], LONG)
    job = RunFolder(home / "job")
    job.path.mkdir()
    Job(job, {"threshold": 0.5}, 45, {"n": 3}).finish(io.open_run(home / "half"))
    for name, source in (("full", "half"), ("coarse", "extended")):
        shutil.copytree(home / source, job.path / name)
    return home


def look(folder):
    """Open a run, and prepare its continuation; return what is found, or the message."""
    found = []
    for door in (io.open_run, prepared):
        try:
            found.append(door(folder))
        except (ValueError, FileExistsError) as error:
            assert str(folder) in str(error), error
            assert any(w in str(error) for w in ("restore", "give", "update", "remove")), error
            found.append(str(error))
    return found


def prepared(folder):
    """What a continuation of the run starts from: the state of its chains."""
    if folder.name == "job":
        with io.claim(folder) as claimed:
            return Job(claimed, {"threshold": 0.5}, 45, {"n": 3}).finished
    with io.claim(folder) as claimed:
        draws = Recorded(claimed, ASKED, LONG, {"a/b": (), "c": ("unit",)}, ())
        return [draws.done, *(leaf.tobytes() for leaf in draws._state.leaves)]


def same(found, reference):
    if isinstance(found, xr.DataTree):
        return found.identical(reference)
    return found == reference


def spoilt(data, positions):
    """Yield the bytes of a file with one bit changed, and cut short, at several positions."""
    for place in np.linspace(0, len(data) - 1, positions).astype(int):
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(place) % 8
        yield bytes(flipped)
        yield data[:place]


def case(name, positions, slow=True):
    return pytest.param(name, positions, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize(
    "name, positions",
    [
        *(case(name, 4, slow=False) for name in ("half", "extended", "job")),
        *(case(name, 60) for name in ("half", "extended", "job", "job/full", "job/coarse")),
    ],
)
def test_every_damage_of_every_file_is_named_or_does_no_harm(folders, name, positions, monkeypatch):
    """Each file is damaged at many places. Only progress and lock change nothing."""
    read, known = netcdf.read, {}

    def remembered(file):
        content = file.read_bytes()
        return (known.get(content) or known.setdefault(content, read(file))).copy()

    monkeypatch.setattr(netcdf, "read", remembered)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    folder = folders / name
    lock = {"host": socket.gethostname(), "pid": 2**22 + 1, "since": "2026"}
    (folder / "lock").write_text(json.dumps(lock))
    reference = look(folder)
    assert not any(isinstance(f, str) for f in reference)
    (folder / "lock").write_text(json.dumps(lock))
    files = [f for f in folder.iterdir() if f.is_file()]
    files += list((folder / "blocks").glob("*")) if (folder / "blocks").is_dir() else []
    assert {f.name for f in files} >= {"run.json", "lock"}
    named = {}
    for file in files:
        before = file.read_bytes()
        lines = folder / "progress.jsonl", folder / "lock"
        kept = {f: f.read_bytes() for f in lines if f.exists()}
        for data in spoilt(before, positions):
            file.write_bytes(data)
            untouched = content(folder)
            for found, right in zip(look(folder), reference, strict=True):
                if isinstance(found, str):
                    named[file.name] = named.get(file.name, 0) + 1
                    assert file.name != "progress.jsonl" and str(file) in found, found
                else:
                    assert same(found, right), (file, "silently changed")
            changed = {f.name for f, c in untouched.items() if f.exists() and c is not None
                       and f.read_bytes() != c}  # fmt: skip
            assert changed <= {"progress.jsonl", "lock"}
            for other, c in kept.items():
                other.write_bytes(c)
        file.write_bytes(before)
    expected = {f.name for f in files} - {"progress.jsonl"}
    if name in ("extended", "job/coarse"):
        expected -= {f"{n:05d}.nc" for n in range(2)}  # their draws are in the result
    assert set(named) >= expected - {"lock"}
    for block in (folder / "blocks").glob("*.nc"):
        assert io.open_run(block)["posterior"].sizes["draw"] in (5, 10)


def test_blocks_states_and_results_of_another_place_are_refused(whole, tmp_path):
    """Two blocks swapped, the state of a run with another key, run.json with another number."""
    half = half_way(tmp_path / "a")
    other = shutil.copytree(half, tmp_path / "b")
    one, two = half / "blocks" / "00001.nc", half / "blocks" / "00002.nc"
    swapped = one.read_bytes(), two.read_bytes()
    two.write_bytes(swapped[0])
    one.write_bytes(swapped[1])
    with pytest.raises(ValueError, match="00001.nc' is damaged or was altered; restore it"):
        run(half, [], LONG)
    one.write_bytes(swapped[0])
    two.write_bytes(swapped[1])

    facts = RunFolder(other).facts
    RunFolder(other).write_facts(facts | {"key": "another"})
    for door in (io.open_run, lambda f: run(f, [], LONG)):
        with pytest.raises(ValueError):
            door(other)
    RunFolder(other).write_facts(facts | {"block": 5})
    with pytest.raises(ValueError, match="state.npz' is damaged.*a run other than that in run.js"):
        io.open_run(other)
    RunFolder(other).write_facts(facts)
    assert run(other, [], LONG).equals(whole[0]) and run(half, [], LONG).equals(whole[0])
    (other / "result.nc").unlink()
    with pytest.raises(ValueError, match="result.nc' is missing; restore it from a copy"):
        run(other, [], LONG)


def test_only_the_draws_of_the_run_are_saved_as_its_result(tmp_path, whole):
    """A run goes on from its result, so draws that were changed would change those that follow."""
    run(tmp_path / "a", [])
    dt = io.open_run(tmp_path / "a")
    for changed in (dt.isel(draw=slice(3, None)), dt.map_over_datasets(lambda d: 2 * d)):
        with pytest.raises(io.SaveError, match="not those of the result .*give a file outside"):
            io.save(changed, tmp_path / "a" / "result.nc")
    with io.claim(tmp_path / "a"), pytest.raises(io.SaveError, match="another run .process"):
        io.save(dt, tmp_path / "a" / "result.nc")
    with pytest.raises(io.SaveError, match="are not those of the result"):
        io.save(dt, half_way(tmp_path / "b") / "result.nc")
    assert run(tmp_path / "a", [], LONG).equals(whole[0])


# ---- full disks


def check_full(folder, whole, error, free):
    """What an error on a full disk must give: draws, the place of the others, a continuation."""
    assert isinstance(error, OSError) and str(folder) in str(error)
    found = None
    if isinstance(error, io.SaveError):
        assert "make room" in str(error) or "raise the limit" in str(error)
        found = error.tree["posterior"] if "posterior" in error.tree.children else None
    stored = io.open_run(folder) if (folder / "run.json").exists() else xr.DataTree()
    done = stored["posterior"].sizes["draw"] if "posterior" in stored.children else 0
    there = 0 if found is None else found.sizes["draw"]
    assert there >= done
    if there:
        assert found.equals(whole["posterior"].isel(draw=slice(there)))
        assert f"{done} draws per chain" in str(error) or "repeat the call" in str(error)
    for block in folder.glob("blocks/*.nc"):
        assert io.open_run(block)["posterior"].sizes["draw"] in (5, 10)
    free()
    calls = []
    assert run(folder, calls, LONG).equals(whole)
    return len(calls), there


def test_a_limit_of_file_sizes_loses_nothing(tmp_path, whole):
    """EFBIG in a block, or in the result alone, since Python ignores the signal SIGXFSZ."""
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
    block = max(f.stat().st_size for f in whole[1].glob("blocks/*"))
    result, seen = (whole[1] / "result.nc").stat().st_size, []
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (block - 1, (block + result) // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
        try:
            with pytest.raises(
                OSError, match="File too large; make room there, or raise"
            ) as caught:
                run(tmp_path / str(limit), [], LONG)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, former)
        seen.append(check_full(tmp_path / str(limit), whole[0], caught.value, lambda: None))
    assert seen[1] == (0, 45) and seen[0][1] < 45


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpyro
numpyro.enable_x64()
import bayesrg as brg
from test_resume import DATA, STEPS, level, two_steps
how = STEPS | {"sampler": two_steps, "draws": 90}
whole = brg.fit(level, DATA, **how)
former = resource.getrlimit(resource.RLIMIT_FSIZE)
how["path"] = sys.argv[2]
for limit in (6000, 30_000):  # reached by the first block with draws, and by the result
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        brg.fit(level, DATA, **how)
    except brg.io.SaveError as error:
        assert how["path"] in str(error) and "File too large" in str(error), error
        draws = error.tree["posterior"].sizes["draw"]
        assert error.tree["posterior"].equals(whole["posterior"].isel(draw=slice(draws)))
        print(draws)
resource.setrlimit(resource.RLIMIT_FSIZE, former)
assert brg.fit(level, DATA, **how).equals(whole)
"""


@pytest.mark.slow
def test_a_fit_in_a_process_with_a_limit_of_file_sizes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, Path(__file__).parent, tmp_path / "run"],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.split() == ["5", "90"], done.stderr


@contextlib.contextmanager
def small_disk(size):
    """Mount a disk in memory, where that is allowed."""
    home = Path(tempfile.mkdtemp(prefix="bayesrg-disk-"))
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", home], capture_output=True
    )
    try:
        if not mounted or mounted.returncode:
            pytest.skip("no tmpfs can be mounted here, which needs root")
        yield home
    finally:
        subprocess.run(["umount", "-l", home], capture_output=True)
        home.rmdir()


@pytest.mark.parametrize("trust", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_small_disk_that_is_full_loses_nothing(whole, monkeypatch, trust):
    """The disk is full at each of the files in turn, by its free bytes and by the write itself."""
    if not trust:  # a quota does not show in the free bytes
        monkeypatch.setattr(writing, "require", lambda folder, size: None)
    total = sum(f.stat().st_size for f in whole[1].rglob("*") if f.is_file())
    outcomes = set()
    with small_disk(4 * total) as disk:
        for left in np.linspace(4096, total, 4 if trust else 30).astype(int):
            ballast, folder = disk / "ballast", disk / "run"
            free = shutil.disk_usage(disk).free
            ballast.write_bytes(b"\0" * max(0, free - left))
            try:
                run(folder, [], LONG)
            except OSError as error:
                outcomes.add(type(error).__name__)
                check_full(folder, whole[0], error, ballast.unlink)
            else:
                ballast.unlink()
            shutil.rmtree(folder)
    assert "SaveError" in outcomes


# ---- places


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["a b's", "größe-模型", "a.zarr", "x" * 200])
def test_a_folder_may_have_any_name(tmp_path, whole, name):
    half = half_way(tmp_path / name)
    assert io.open_run(half).attrs["finished"] is False
    assert run(half, [], LONG).equals(whole[0]) and io.open_run(str(half)).equals(whole[0])


@pytest.mark.usefixtures("quick")
def test_a_program_may_change_its_folder_and_use_its_home(tmp_path, whole, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    class Calls(list):
        def append(self, value):
            os.chdir(tmp_path / "elsewhere")
            super().append(value)

    assert run("relative", Calls(), LONG).equals(whole[0])
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert run("~/homely", [], LONG).equals(whole[0])
    assert io.open_run("~/homely").equals(whole[0]) and (tmp_path / "homely").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(FileExistsError, match="link' is a file, or lies in one"):
        run(tmp_path / "link", [], LONG)
    half_way(tmp_path / "real")
    with io.claim(tmp_path / "real"), pytest.raises(FileExistsError, match="another run"):
        run(tmp_path / "link", [], LONG)
    assert run(tmp_path / "link", [], LONG).equals(whole[0])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_during_a_run_gives_the_draws_there_are(tmp_path, whole, replaced):
    """A run in its place, by another process, is not written to."""
    folder = tmp_path / "a"

    class Calls(list):
        def append(self, value):
            super().append(value)
            if len(self) == 3:
                shutil.rmtree(folder)
                if replaced:
                    shutil.copytree(other, folder)

    other = half_way(tmp_path / "other", 1)
    before = content(other)
    with pytest.raises(io.SaveError, match="was removed or replaced during the run") as caught:
        run(folder, Calls(), LONG)
    assert "15 draws per chain before it cannot be read" in str(caught.value)
    block = caught.value.tree["posterior"]
    np.testing.assert_array_equal(block["draw"], np.arange(15, 25))
    assert block.equals(whole[0]["posterior"].isel(draw=slice(15, 25)))
    assert not replaced or [f.name for f in content(folder)] == [f.name for f in before]


@pytest.mark.usefixtures("quick")
def test_only_files_of_runs_are_removed_or_overwritten(tmp_path, whole):
    """What a killed run left behind goes; a download, or the lock of another program, stays."""
    half = half_way(tmp_path / "a")
    old = [half / "state.npz.0123abcd.part", half / "blocks" / "00003.nc.0123abcd.part"]
    mine = half / "film.mkv.part"
    for file in (*old, mine):
        file.write_text("mine")
    assert run(half, [], LONG).equals(whole[0])
    assert mine.read_text() == "mine" and not any(f.exists() for f in old)
    for name in ("film.mkv.part", "lock", ".notes"):
        folder = tmp_path / f"of {name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(
            FileExistsError, match=f"{name}' (exists already|is damaged, or is not)"
        ):
            run(folder, [], LONG)
        assert content(folder) == {folder / name: b"mine"}


@pytest.mark.usefixtures("quick")
def test_a_place_without_rights_is_named_before_any_work(tmp_path, whole):
    """Files of another user, and a disk that can only be read; root may do more than others."""
    home = Path(tempfile.mkdtemp(prefix="bayesrg-rights-"))
    try:
        folder = shutil.copytree(half_way(tmp_path / "a"), home / "a")
        home.chmod(0o755)
        former = os.geteuid()
        for mode, door, message in (
            (0o555, lambda f: run(f, [], LONG), "cannot write to the folder .*; give another path"),
            (0o555, lambda f: run(f / "b", [], LONG), "cannot make the folder .*; give another"),
            (0o000, lambda f: run(f, [], LONG), "cannot open the folder .*; give another path"),
            (0o000, io.open_run, "Permission denied; ask its owner"),
        ):
            os.chmod(folder, mode)
            if former == 0:
                os.seteuid(65534)
            try:
                with pytest.raises((OSError, ValueError), match=message) as caught:
                    door(folder)
                assert str(folder) in str(caught.value)
            finally:
                if former == 0:
                    os.seteuid(former)
                os.chmod(folder, 0o755)
        assert run(folder, [], LONG).equals(whole[0])
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO, errno.EDQUOT])
def test_a_flush_that_fails_is_an_error_unless_the_disk_has_none(
    tmp_path, whole, monkeypatch, number
):
    """A network drive reports a failed write when the file is flushed."""
    real, count = os.fsync, []

    def fsync(descriptor):
        count.append(None)
        if len(count) > 12 or number == errno.EINVAL:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        if number == errno.EINVAL:
            assert run(tmp_path / "a", [], LONG).equals(whole[0])
            return
        with pytest.raises(io.SaveError, match="(check the disk|make room there)") as caught:
            run(tmp_path / "a", [], LONG)
    check_full(tmp_path / "a", whole[0], caught.value, lambda: None)


# ---- sizes


SIZES = [
    {"draws": 1, "warmup": 0},
    {"warmup": 10, "draws": 10},
    {"draws": 3, "warmup": 2},  # less than a block
    *(
        pytest.param(size, marks=pytest.mark.slow)
        for size in ({"draws": 1}, {"warmup": 0}, {"warmup": 9}, {"draws": 11})
    ),
]


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_extended_step_by_step_with_the_same_bits(tmp_path, size):
    """Extended twice, once with its blocks kept, and stopped during both extensions."""
    size = SIZE._replace(**size)
    asked = {"warmup": size.warmup, "block": size.block}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("test_resume.ASKED", ASKED | asked)
        without_netcdf(patch)
        longest = size._replace(draws=size.draws + 24)
        reference = run(tmp_path / "whole", [], longest)
        calls = []
        for more, keep in ((0, False), (1, True), (13, False), (14, True), (24, True)):
            now = size._replace(draws=size.draws + more)
            with pytest.MonkeyPatch.context() as inner, contextlib.suppress(Killed):
                killed_after(inner, 1)
                run(tmp_path / "a", calls, now, keep)
            dt = run(tmp_path / "a", calls, now, keep)
            assert dt.equals(reference.isel(draw=slice(now.draws))), more
            assert io.open_run(tmp_path / "a").equals(dt)
        assert len(calls) == longest.blocks


# ---- locks


@pytest.mark.usefixtures("quick")
def test_locks_of_others_are_respected_or_taken_over(tmp_path, whole, monkeypatch):
    """With locks of the system only a living process counts; without them the file alone."""
    half = half_way(tmp_path / "a")
    lock = half / "lock"
    here = {"host": socket.gethostname(), "pid": 2**22 + 1, "since": "2026"}
    for text in (b"", b"\xff\xfe", b"[1]", b"[" * 10**5, b'{"host": 1}'):
        lock.write_bytes(text)
        with pytest.raises(FileExistsError, match="lock' is damaged, .* remove it if no other"):
            run(half, [], LONG)
        assert lock.read_bytes() == text
    with monkeypatch.context() as patch:
        patch.setattr(writing, "fcntl", None)
        for other in (here | {"host": "elsewhere"}, here | {"pid": os.getpid()}):
            lock.write_text(json.dumps(other))
            with pytest.raises(FileExistsError, match="if that process has ended, remove the file"):
                run(half, [], LONG)
        lock.write_text(json.dumps(here | {"pid": "text"}))
        with io.claim(half):  # of a process that cannot be
            pass

        def late(file):  # the other writer makes its file after this one has looked
            lock.write_text(json.dumps(here | {"host": "elsewhere"}))

        lock.unlink(missing_ok=True)
        patch.setattr(writing, "_alive", late)
        patch.setattr(os, "unlink", lambda file: None)
        with pytest.raises(FileExistsError, match="on elsewhere, since 2026. writes to"):
            with io.claim(half):
                pass
    lock.write_text(json.dumps(here | {"host": "elsewhere"}))
    assert run(half, [], LONG).equals(whole[0]) and not lock.exists()


SCRIPT = """
import os, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from bayesrg.inference import signals
with signals.after_block(sys.argv[2]) as check:
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    check(3, 7)
"""


def test_a_signal_that_nobody_catches_shows_one_line(capsys, monkeypatch):
    others = []
    monkeypatch.setattr(sys, "excepthook", lambda *given: others.append(given))
    error = signals.Interrupted("stopped by SIGTERM", 143)
    with pytest.raises(SystemExit) as exit:
        sys.excepthook(type(error), error, None)
    assert exit.value.code == 143 and capsys.readouterr().err == "stopped by SIGTERM\n"
    sys.excepthook(ValueError, ValueError("no"), None)
    assert len(others) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_script_that_catches_nothing_ends_in_one_line(tmp_path, name, code):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, Path(__file__).parent, "my run", name],
        capture_output=True, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    line = f"stopped by {name} after block 3 of 7, which is in 'my run'; the same call goes on"
    assert done.returncode == code and done.stderr == f"{line} from there\n"
