# SPDX-License-Identifier: Apache-2.0
"""What the command line sets before JAX is loaded: threads, and the folder of programs."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bayesrg import cli
from bayesrg.cli import start

FOLDER, THREADS = "JAX_COMPILATION_CACHE_DIR", "OPENBLAS_NUM_THREADS"


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A process that has loaded nothing and whose user has set nothing; its cache folder."""
    for name in ("jax", "numpy", "scipy"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)})
    return tmp_path / "bayesrg" / "programs"


def test_programs_are_kept_in_the_users_cache(fresh):
    start.keep_programs()
    assert os.environ[FOLDER] == str(fresh) and fresh.is_dir()
    assert fresh.stat().st_mode & 0o777 == 0o700 and not list(fresh.iterdir())
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


def test_what_the_user_has_set_stays(fresh):
    os.environ |= {FOLDER: "mine", THREADS: "7"}
    start.keep_programs(), start.one_thread()
    assert os.environ[FOLDER] == "mine" and os.environ[THREADS] == "7" and not fresh.exists()
    del os.environ[THREADS]
    os.environ["OMP_NUM_THREADS"] = "3"  # OpenBLAS reads this one if the other is not set
    start.one_thread()
    assert THREADS not in os.environ


def test_nothing_is_set_once_jax_is_loaded(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    start.keep_programs(), start.one_thread()
    assert FOLDER not in os.environ and THREADS not in os.environ and not fresh.exists()


@pytest.mark.parametrize("cache", ["file", "file/below", 300 * "x"])
def test_a_folder_that_cannot_be_made_is_no_error(fresh, tmp_path, cache):
    (tmp_path / "file").write_text("")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / cache)
    start.keep_programs()
    assert FOLDER not in os.environ


def test_the_folder_of_each_platform(fresh, tmp_path, monkeypatch):
    assert start.user_cache() == tmp_path
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    os.environ["XDG_CACHE_HOME"] = "relative"  # the standard says to ignore it
    os.environ["LOCALAPPDATA"] = "/local"
    for platform, folder in {
        "linux": "/home/me/.cache",
        "darwin": "/home/me/Library/Caches",
        "win32": "/local",
    }.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert start.user_cache() == Path(folder)


def test_the_oldest_programs_go_first(tmp_path):
    for age, name in enumerate("dcba"):
        (tmp_path / name).write_bytes(b"0" * 10)
        os.utime(tmp_path / name, (1000.0 - age, 1000.0 - age))
    (tmp_path / "folder").mkdir()
    start.make_room(tmp_path, 40)
    assert len(list(tmp_path.iterdir())) == 5
    start.make_room(tmp_path, 25)
    assert {f.name for f in tmp_path.iterdir()} == {"d", "c", "folder"}


@pytest.mark.parametrize(
    "arguments, kept",
    [
        (["models"], True),
        (["--no-compile-cache", "models"], False),
        (["models", "--no-compile-cache"], False),
        (["models", "--", "--no-compile-cache"], True),  # an argument, which models lacks
    ],
)
def test_the_option_may_stand_after_the_command(monkeypatch, arguments, kept):
    calls = []
    module = importlib.import_module("bayesrg.cli.app")
    monkeypatch.setattr(module, "keep_programs", lambda: calls.append("kept"))
    monkeypatch.setattr(module, "one_thread", lambda: calls.append("thread"))
    result = CliRunner().invoke(cli.app, arguments)
    assert calls == ["thread"] + ["kept"] * kept
    assert result.exit_code == (2 if "--" in arguments else 0), result.output


MODEL = '''
"""A mean."""
import numpyro, numpyro.distributions as dist
import numpy as np

def model(X, y=None):
    m = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("point", X.shape[0]):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)

def demo(key):
    return np.zeros((5, 1)), np.arange(5.0)
'''


@pytest.mark.slow
def test_a_second_run_finds_all_programs_and_broken_ones_are_no_error(tmp_path):
    """Programs that cannot be read are compiled again, without a word."""
    (tmp_path / "mean.py").write_text(MODEL)
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])

    def run(out):
        code = "import bayesrg.cli as c; c.main()"
        steps = ["--draws", "4", "--warmup", "4", "--chains", "1", "--out", out]
        command = [sys.executable, "-c", code, "run", "mean.py", *steps]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        files = sorted((tmp_path / "bayesrg" / "programs").glob("*-cache"))
        return done.stderr, files

    _, first = run("first")
    assert len(first) > 10
    for file in first[::3]:
        file.write_bytes(file.read_bytes()[:50])
    words, second = run("second")
    assert second == first
    assert "persistent" not in words and "Error" not in words
