# SPDX-License-Identifier: Apache-2.0
"""Processes that jax.distributed joins: they equal one, fail together, and survive no kill."""

import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sampling import two_steps

import bayesrg as brg
from bayesrg.inference import processes, shared
from bayesrg.inference.fit import check_size
from bayesrg.models import gp_regression

# arrays of NumPy: JAX must not start before its processes are joined
DATA = np.arange(5.0), np.array([0.3, 1.2, -0.4, 0.9, 0.1])
X = np.linspace(0.0, 1.0, 8)[:, None]
POINTS = brg.data.Data(X, np.sin(6 * X[:, 0]), X + 0.05, np.sin(6 * X[:, 0] + 0.3))
STEPS = {"draws": 60, "warmup": 40, "chains": 4, "block": 20, "progress": False}
STEPS |= {"sampler": two_steps}
JOB = {"draws": 20, "warmup": 20, "chains": 2, "progress": False}


def model(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand((3,)).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(mean.sum(), scale), obs=y)


# -- what each process does -----------------------------------------------------------------------


def at_block(number, act):
    """Act in this process before the block of this number is written."""
    real = shared._Shared.add

    def add(draws, part, state):
        if draws.done == number:
            shared._Shared.add = real
            act()
        real(draws, part, state)

    shared._Shared.add = add


def full_disk():
    """The next block in this process meets a full disk."""
    from bayesrg.io.run_folder import RunFolder

    real = RunFolder.write_block

    def write(*given):
        RunFolder.write_block = real
        raise OSError(errno.ENOSPC, "No space left on device")

    RunFolder.write_block = write


def works(rank):
    """Run all that can be done without a kill; return the messages of what is refused."""
    found = {}

    @contextlib.contextmanager
    def error(name):
        with pytest.raises(BaseException) as caught:
            yield
        kind = caught.value
        found[name] = [type(kind).__name__, str(kind), getattr(kind, "code", None)]
        found[name].append(list(getattr(getattr(kind, "tree", None), "children", ())))

    dt = brg.fit(model, DATA, key=0, prior=3, **STEPS)
    brg.io.save(dt, f"memory-{rank}.nc")
    at_block(3, lambda: rank == 1 and os.kill(os.getpid(), signal.SIGTERM))
    with error("signal"):
        brg.fit(model, DATA, key=0, prior=3, path="run", **STEPS)
    at_block(4, lambda: rank == 0 and full_disk())
    with error("full"):
        brg.fit(model, DATA, key=0, prior=3, path="run", **STEPS)
    dt = brg.fit(model, DATA, key=0, prior=3, path="run", **STEPS)
    brg.io.save(dt, f"folder-{rank}.nc")
    real = shared._Shared.add
    at_block(0, lambda: sys.exit("a finished run samples again"))
    again = brg.fit(model, DATA, key=0, prior=3, path="run", **STEPS)
    shared._Shared.add = real
    found["again"] = bool(again.identical(brg.io.open_run("run")))

    with error("data"):
        brg.fit(model, (DATA[0], DATA[1] + rank), key=0, **STEPS)
    with error("chains"):
        brg.fit(model, DATA, key=0, **STEPS | {"chains": 3})
    with error("devices"):
        brg.fit(model, DATA, key=0, devices=1, **STEPS)
    with error("file"):
        brg.fit(model, DATA, key=0, path="memory-0.nc", **STEPS)
    with error("changed"):
        brg.fit(model, DATA, key=1, path="run", **STEPS)

    for name in ("first", "second"):
        dt = brg.inference.coarse_grain(gp_regression.model, POINTS, key=0, path="job", **JOB)
        brg.io.save(dt, f"{name}-{rank}.nc")
    return found


def main(port, rank, victim):
    rank = int(rank)
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank, heartbeat_timeout_seconds=20)
    numpyro.enable_x64()
    if victim == "none":
        with open(f"found-{rank}.json", "w") as file:
            json.dump(works(rank), file)
        return
    if rank == int(victim):
        at_block(3, lambda: os.kill(os.getpid(), signal.SIGKILL))
    brg.fit(model, DATA, key=0, prior=3, path="run", **STEPS)


def pair(folder, victim="none"):
    """Start two processes with one device each; return their codes, outputs and ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "programs")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    files = [open(folder / f"output-{rank}", "w") for rank in (0, 1)]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(port), str(rank), str(victim)],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        for rank, file in enumerate(files)
    ]
    ends, until = {}, time.monotonic() + 600
    while len(ends) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        for rank, process in enumerate(started):
            if process.poll() is not None:
                ends.setdefault(rank, time.monotonic())
    for process, file in zip(started, files, strict=True):
        process.kill()  # a process that has ended is left alone
        process.wait()
        file.close()
    texts = [(folder / f"output-{rank}").read_text() for rank in (0, 1)]
    assert len(ends) == 2, texts
    return [process.returncode for process in started], texts, ends


def equal(one, two):
    """Assert that all variables of two trees have the same bits."""
    assert list(one.children) == list(two.children)
    for group, node in one.children.items():
        for name, value in node.to_dataset().data_vars.items():
            np.testing.assert_array_equal(value, two[group][name], f"{group} {name}")


@pytest.mark.slow
def test_two_processes_equal_one_and_fail_together(tmp_path):
    codes, texts, _ = pair(tmp_path)
    assert codes == [0, 0], texts
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    one = brg.fit(model, DATA, key=0, prior=3, **STEPS)  # two devices
    assert one.attrs["devices"] == 2
    for name in ("memory", "folder"):
        for rank in (0, 1):
            equal(brg.open_run(tmp_path / f"{name}-{rank}.nc"), one)
    assert found[0]["again"] and found[1]["again"]

    stopped = "stopped by SIGTERM after block 4 of 5, which is in '.*run'; the same call goes on"
    for own, name, kinds, text in (
        (1, "signal", {"Interrupted"}, stopped),
        (0, "full", {"SaveError", "OSError"}, ".*No space left on device"),
        (0, "file", {"FileExistsError"}, "'.*memory-0.nc' is a file"),
        (0, "changed", {"ValueError"}, "'.*run' holds another run: key was"),
    ):
        for rank in (0, 1):
            kind, message, *_ = found[rank][name]
            before = "" if rank == own else f"process {own} of 2: "
            assert kind in kinds and re.match(before + text, message), (kind, message)
    assert [found[rank]["signal"][2] for rank in (0, 1)] == [143, 143]
    assert found[0]["full"][3] == ["log_likelihood", "posterior", "sample_stats"]
    for rank in (0, 1):
        assert "y is float64[5]" in found[rank]["data"][1]
        assert found[rank]["data"][1].endswith("in process 1; give both the same")
        assert "chains must divide among the 2 processes, got 3" in found[rank]["chains"][1]
        assert "be a multiple of 2, the processes, got 1" in found[rank]["devices"][1]

    job = brg.inference.coarse_grain(gp_regression.model, POINTS, key=0, **JOB)
    for name in ("first-0", "first-1", "second-0", "second-1"):
        equal(brg.open_run(tmp_path / f"{name}.nc"), job)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_in_under_a_minute(victim, tmp_path):
    codes, texts, ends = pair(tmp_path, victim)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] != 0
    ours = f"process {1 - victim} of 2 has lost another one"
    jaxs = "Terminating process because the JAX distributed service detected fatal errors"
    assert ours in texts[1 - victim] or (victim == 0 and jaxs in texts[1 - victim])
    took = ends[1 - victim] - ends[victim]
    print(f"the survivor ended after {took:.1f} s")
    assert took < 60
    # one process goes on from the folder
    with pytest.raises(ValueError, match="devices 'processes' was 2 and is now 1"):
        brg.fit(model, DATA, key=0, prior=3, path=tmp_path / "run", **STEPS)
    how = {"path": tmp_path / "run", "accept": "devices"}
    one = brg.fit(model, DATA, key=0, prior=3, **how, **STEPS)
    equal(one, brg.fit(model, DATA, key=0, prior=3, **STEPS))


# -- default ---------------------------------------------------------------------------------------


def test_sizes_that_do_not_divide_among_processes_are_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    assert check_size(10, 0, 4).devices == 4
    assert check_size(10, 0, 6).devices == 2
    for devices, chains, message in (
        (None, 3, "chains must divide among the 2 processes, got 3; give a multiple of 2"),
        (1, 4, "at most 4, .* here, and be a multiple of 2, the processes, got 1"),
        (8, 8, "devices must divide the 8 chains and be at most 4, .* got 8"),
    ):
        with pytest.raises(ValueError, match=message):
            check_size(10, 0, chains, devices)
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(ValueError, match="but this one of 2 has 2 of 3; start each with the same"):
        check_size(10, 0, 4)


def test_exceptions_of_one_process_are_raised_in_all(monkeypatch):
    """The exchange is replaced by one in which the other process sends what it had."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)

    class Own(OSError):
        def __init__(self, number, text):
            super().__init__(number, text)

    for error, kind, code in (
        (ValueError("wrong"), ValueError, None),
        (Own(28, "full"), OSError, None),
        (processes.Interrupted("stopped", 143), processes.Interrupted, 143),
        (UnicodeDecodeError("utf-8", b"a", 0, 1, "bad"), RuntimeError, None),
    ):
        sent = processes._described(error)
        monkeypatch.setattr(processes, "exchange", lambda value, sent=sent: [sent, value])
        for call in (processes.together(None), processes.together(lambda: None)):
            with pytest.raises(kind, match="^process 0 of 2: ") as caught:
                call()
            assert getattr(caught.value, "code", None) == code and str(error) in str(caught.value)
        monkeypatch.setattr(processes, "exchange", lambda value, sent=sent: [(0, sent), value])
        with pytest.raises(kind, match="^process 0 of 2: "):
            processes.first(lambda: pytest.fail("process 0 alone does this"))
    monkeypatch.setattr(processes, "exchange", lambda value: [None, value])
    with pytest.raises(KeyError, match="mine"):
        processes.together(lambda: {}["mine"])()


def test_a_lost_process_is_an_error_with_a_remedy(monkeypatch):
    def lost(value):
        raise ValueError("UNKNOWN: Gloo AllGather failed\nmore")

    monkeypatch.setattr(processes.multihost_utils, "process_allgather", lost)
    with pytest.raises(RuntimeError, match="has lost another one .*AllGather failed.; look in the"):
        processes.exchange(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
