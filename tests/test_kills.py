# SPDX-License-Identifier: Apache-2.0
"""Processes that are killed, or stopped by a signal, at random moments of a run; it goes on."""

import itertools
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.slow
MODEL = '''
"""A mean."""
import jax.numpy as jnp, numpyro, numpyro.distributions as dist

def model(X, y=None):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0).expand((3,)).to_event(1))
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(m.sum(), s), obs=y)

def demo(key):
    return jnp.arange(5.0), jnp.array([0.3, 1.2, -0.4, 0.9, 0.1])
'''
STEPS = {"draws": 130, "warmup": 200, "chains": 2, "block": 50}  # seven blocks, four of warm-up


def child(folder, slow, arguments):
    """Run the model in a process of its own; blocks and writing take some time if ``slow``."""
    os.chdir(folder.parent)
    sys.stderr = open(folder.parent / "errors", "a", buffering=1)
    sys.stdout = open(folder.parent / "output", "a", buffering=1)
    import jax
    import numpyro

    numpyro.enable_x64()
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    from bayesrg import cli
    from bayesrg.inference import fit, resume
    from bayesrg.io import writing

    real_add, real_write = resume.Recorded.add, writing._write_all

    def add(draws, part, state):
        with open(folder.parent / "log", "a") as log:
            log.write(f"{draws.done}\n")
        time.sleep(0.1 * slow)
        real_add(draws, part, state)

    def write(descriptor, content):
        half = len(content) // 2
        real_write(descriptor, bytes(content)[:half])
        time.sleep(0.05 * slow)
        real_write(descriptor, bytes(content)[half:])

    resume.Recorded.add, writing._write_all = add, write
    if arguments:
        sys.argv = ["bayesrg", *arguments]
        cli.main()
        return
    model = cli.models.load_model("mine.py")
    fit(model.model, model.demo(None), key=0, path=folder, progress=False, devices=1, **STEPS)


@pytest.fixture(scope="module")
def processes():
    """A server that has loaded all modules, and forks before JAX starts a backend."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bayesrg.inference", "bayesrg.cli", "test_kills"])
    return context


@pytest.fixture(scope="module")
def home(tmp_path_factory, processes):
    """A folder with the model and with the result of a run that nothing interrupted."""
    import bayesrg as brg

    home = tmp_path_factory.mktemp("kills")
    (home / "mine.py").write_text(MODEL)
    whole = processes.Process(target=child, args=(home / "whole", False, ()))
    whole.start()
    whole.join()
    assert whole.exitcode == 0, (home / "errors").read_text()
    return home, brg.open_run(home / "whole")


def phase(folder):
    """Return where a stopped run stands: in a file that is being written, or else in its steps."""
    from bayesrg.io.run_folder import RunFolder

    if list(folder.rglob("*.part")):
        return "writing"
    facts = RunFolder(folder).facts
    state = None if facts is None else RunFolder(folder).read_state(facts)
    done = 0 if state is None else state.done
    return "warm-up" if done < 4 else "sampling"


def test_twenty_kills_change_no_bit(home, processes):
    """Each is followed by the same call; at most one block is made again for each."""
    import bayesrg as brg

    home, whole = home
    seed = int(os.environ.get("BAYESRG_SEED", time.time_ns() % 100_000))
    print(f"seed {seed}")
    draw, phases, run, again = random.Random(seed), [], 0, 0

    def enough():
        return len(phases) >= 20 and min(map(phases.count, ("warm-up", "sampling", "writing"))) > 2

    while not enough():
        run += 1
        folder, log = home / f"run{run}", home / "log"
        log.write_text("")
        kills = 0
        while True:
            process = processes.Process(target=child, args=(folder, True, ()))
            before = [int(n) for n in log.read_text().split()]
            begun = len(before)
            process.start()
            while process.is_alive() and len(log.read_text().splitlines()) == begun:
                time.sleep(0.005)  # the process starts and compiles
            process.join(None if enough() else draw.uniform(0.0, 0.6))  # one or two blocks
            if process.is_alive():
                os.kill(process.pid, signal.SIGSTOP)
                phases.append(phase(folder))
                kills += 1
                process.kill()
            process.join()
            after = [int(n) for n in log.read_text().split()][begun:]
            # at most the last block of the killed process is made again
            assert not (before and after) or after[0] in (before[-1], before[-1] + 1), seed
            assert all(b == a + 1 for a, b in itertools.pairwise(after)), seed
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL, (home / "errors").read_text()
        assert brg.open_run(folder).identical(whole), seed
        blocks = [int(n) for n in log.read_text().split()]
        assert set(blocks) == set(range(7)) and len(blocks) <= 7 + kills, seed
        again += len(blocks) - 7
        assert len(phases) < 100
    print({name: phases.count(name) for name in set(phases)}, "kills in", run, "runs,", again,
          "blocks made again")  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_after_a_block_and_resume_goes_on(home, processes, number):
    import bayesrg as brg

    home, _ = home
    folder, log = home / f"job{int(number)}", home / "log"
    (home / "errors").write_text("")
    log.write_text("")
    size = ["--draws", "130", "--warmup", "100", "--chains", "2"]
    start = ["run", "mine.py", *size, "--out", folder.name]
    process = processes.Process(target=child, args=(folder, True, start))
    process.start()
    while process.is_alive() and not log.read_text():
        time.sleep(0.005)
    os.kill(process.pid, number)
    process.join(120)
    assert process.exitcode == 128 + number
    last = (home / "errors").read_text().splitlines()[-1]
    assert re.fullmatch(
        f"bayesrg: stopped by {number.name} after block . of 3, which is in .*full'; the same call "
        f"goes on from there; continue with: bayesrg resume {folder.name}",
        last,
    )
    assert brg.open_run(folder).attrs["finished"] is False
    process = processes.Process(target=child, args=(folder, False, ["show", folder.name]))
    process.start()
    process.join()
    assert "finished   no, " in (home / "output").read_text()
    (home / "output").write_text("")
    process = processes.Process(
        target=child, args=(folder, False, ["resume", folder.name, "--json"])
    )
    process.start()
    process.join()
    assert process.exitcode == 0, (home / "errors").read_text()
    text = (home / "output").read_text()
    assert json.loads(text[text.index("{") :])["draws"] == 130
    assert brg.open_run(folder)["posterior"].sizes["draw"] == 130


def test_a_second_signal_ends_at_once(home, processes):
    home, whole = home
    folder, log = home / "twice", home / "log"
    log.write_text("")
    process = processes.Process(target=child, args=(folder, 30, ()))  # three seconds a block
    process.start()
    while process.is_alive() and not log.read_text():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 128 + signal.SIGTERM and time.monotonic() - begun < 1.5
