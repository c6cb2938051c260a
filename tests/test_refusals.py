# SPDX-License-Identifier: Apache-2.0
"""Bad input to runs is refused with its name, its value and a remedy; no file changes."""

import hashlib
import inspect
import shutil
import sys
from io import StringIO

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro.infer import NUTS
from sampling import from_prior

import bayesrg as brg
from bayesrg import cli, io
from bayesrg.io.run_folder import RunFolder


def level(X, y=None, *, width=1.0):
    mean = numpyro.sample("mean", dist.Normal(0.0, width))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def none_latent(X, y=None, *, width=1.0):
    numpyro.sample("y", dist.Normal(0.0, width).expand((len(X),)).to_event(1), obs=y)


def raises(X, y=None, *, width=1.0):
    raise RuntimeError("the model is wrong")


X, y = np.arange(4.0), np.ones(4)
STEPS = {"draws": 30, "warmup": 10, "chains": 2, "block": 40, "progress": False, "devices": 1}
STEPS |= {"key": 0, "sampler": from_prior}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a finished run, a second one with another key, a file, and a job."""
    home = tmp_path_factory.mktemp("home")
    brg.fit(level, (X, y), path=home / "run", **STEPS)
    brg.fit(level, (X, y), path=home / "other", **(STEPS | {"key": 1}))
    (home / "file").write_text("mine")
    (home / "notes").mkdir()
    (home / "notes" / "a.txt").write_text("mine")
    (home / "job").mkdir()
    options = "model data n task draws warmup chains thin max_bytes threshold seed devices"
    origin = dict.fromkeys(options.split())
    facts = {"kind": "job", "draws": 30, "threshold": 0.5, "X_test": None, "y_test": None}
    RunFolder(home / "job").write_facts(
        facts | {"origin": {"program": "bayesrg run"} | origin | {"model": "gone.py"}}
    )
    (home / "short").mkdir()
    RunFolder(home / "short").write_facts(facts | {"origin": {"program": "bayesrg run"}})
    return home


# The functions are unwrapped, because the type hook of the tests would answer in their place.
def fit(home, model=level, data=(X, y), **change):
    change = {"path": home / "run"} | change
    return inspect.unwrap(brg.fit)(model, data, **(STEPS | change))


def predict(home, **change):
    dt = brg.open_run(home / "run")
    given = {"dt": dt, "model": level, "X_new": X, "key": 0} | change
    return inspect.unwrap(brg.predict)(**given)


def opened(home, path):
    return inspect.unwrap(brg.open_run)(home / path if isinstance(path, str) else path)


def resume(home, *arguments):
    command(home, "resume", *arguments)


def command(home, *arguments):
    """Run the command line; raise what it reports in one line."""
    told = StringIO()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["bayesrg", *map(str, arguments)])
        patch.setattr(sys, "stderr", told)
        cli.main()
    assert exit.value.code == 2 and told.getvalue().count("\n") == 1
    raise ValueError(told.getvalue())


def join(home, *names, **more):
    join_chains = inspect.unwrap(io.join_chains)
    return join_chains([home / n if isinstance(n, str) else n for n in names], **more)


def export(home, path, dt=None):
    return inspect.unwrap(io.export)(brg.open_run(home / "run") if dt is None else dt, path)


BAD = {  # door, what it is given, and what the message must have
    "no draws": (fit, {"draws": 0}, "draws must be a positive integer, got 0"),
    "half a draw": (fit, {"draws": 2.5}, "draws must be .*got 2.5"),
    "draws in words": (fit, {"draws": "many"}, "draws must be .*got 'many'"),
    "too many draws": (fit, {"draws": 10**30}, "draws must be .*got 10"),
    "fewer draws": (fit, {"draws": 20}, "draws was 30 and is now 20; give the stored value"),
    "negative warm-up": (fit, {"warmup": -1}, "warmup must be .*got -1"),
    "another warm-up": (fit, {"warmup": 11}, "warmup was 10 and is now 11; give the stored value"),
    "no chains": (fit, {"chains": 0}, "chains must be a positive integer, got 0"),
    "a truth for chains": (fit, {"chains": True}, "chains must be .*got True"),
    "other chains": (fit, {"chains": 4}, "chains was 2 and is now 4; give the stored value"),
    "no block": (fit, {"block": 0}, "block must be a positive integer, got 0"),
    "another block": (fit, {"block": 20}, "block was 40 and is now 20; give the stored value"),
    "no devices": (fit, {"devices": 0}, "devices must be a positive integer, got 0"),
    "too many devices": (fit, {"devices": 64}, "devices must divide the 2 chains .*got 64"),
    "three devices": (fit, {"devices": 3}, "devices must divide the 2 chains .*got 3"),
    "a key in words": (fit, {"key": "seed"}, "key must be an integer .*got 'seed'"),
    "a long key": (fit, {"key": 2**70}, "key must be an integer .*got"),
    "two keys": (fit, {"key": jax.random.split(jax.random.key(0))}, "key holds keys .*; give one"),
    "another key": (fit, {"key": 7}, r"key was .* \[0, 0\] and is now .*; give the stored value"),
    "prior below zero": (fit, {"prior": -1}, "prior must be .*got -1"),
    "another prior": (fit, {"prior": 2}, "prior was 0 and is now 2; give the stored value"),
    "keep_blocks in words": (fit, {"keep_blocks": "yes"}, "keep_blocks must be True or F.*'yes'"),
    "progress as number": (fit, {"progress": 1}, "progress must be True or False, got 1"),
    "accept something": (fit, {"accept": ("keys",)}, "accept must hold .* got 'keys'; leave"),
    "accept a number": (fit, {"accept": 3}, "accept must be a list of .*got 3"),
    "accept a set": (fit, {"accept": {"versions"}}, "accept must be a list of .*got"),
    "unknown hyper": (fit, {"widht": 2.0}, "widht.*width"),
    "another hyper": (fit, {"width": 2.0}, "hyper 'width' was not given and is now 2.0; give the"),
    "another sampler": (fit, {"sampler": NUTS}, "sampler 'class' was Sampler and is now NUTS; gi"),
    "sampler of nothing": (fit, {"sampler": lambda m: 3}, "sampler must be .*got 3"),
    "no latent site": (fit, {"model": none_latent}, "model has no latent site.*; add one"),
    "a model that raises": (fit, {"model": raises, "path": None}, "the model is wrong"),
    "data alone": (fit, {"data": X}, r"data must be a Data or a pair \(X, y\), got"),
    "data of words": (fit, {"data": (["a"], y)}, "X holds text; give numbers"),
    "data with nan": (fit, {"data": (X, y * np.nan)}, "y .*(nan|finite)"),
    "data of other length": (fit, {"data": (X, y[:3])}, r"y .*(3|shape)"),
    "data in three axes": (fit, {"data": (X[:, None, None], y)}, "X .*(shape|dimension|axes)"),
    "other data": (fit, {"data": (X + 1.0, y)}, "X was .* and is now .*; give the stored value"),
    "another model": (fit, {"model": level, "width": 3}, "width.* and is now 3"),
    "path a number": (fit, {"path": 3}, "path must be the name of a file or folder, got 3"),
    "path of nothing": (fit, {"path": ""}, "path must be the name of a file or folder, got ''"),
    "path with a zero": (fit, {"path": "a\0b"}, "path must be the name of a file .*got"),
    "path in bytes": (fit, {"path": b"run"}, "path must be the name of a file or folder, got b'r"),
    "path of half a letter": (fit, {"path": "a\ud800"}, "path must be the name of a file .*got"),
    "path of nobody": (fit, {"path": "~nobody-here/a"}, "path must be the name .*got '~nobody"),
    "path a file": (lambda h: fit(h, path=h / "file"), {}, "file' is a file.*; give path a folder"),
    "path in a file": (lambda h: fit(h, path=h / "file/a"), {}, "or lies in one; give path a f"),
    "path of notes": (lambda h: fit(h, path=h / "notes"), {}, "a.txt' exists already .*; give"),
    "path of a job": (lambda h: fit(h, path=h / "job"), {}, "a run of inference.coarse_grain.*; g"),
    "predict from nothing": (predict, {"dt": xr.DataTree()}, "no group .*; give what fit returns"),
    "predict at words": (predict, {"X_new": "here"}, "X_new must .*got 'here'"),
    "predict at nan": (predict, {"X_new": X * np.nan}, "X_new .*(nan|finite)"),
    "predict at other columns": (predict, {"X_new": np.ones((2, 3))}, "X_new .*(3|shape|ax)"),
    "predict without key": (predict, {"key": None}, "key must be an integer .*got None"),
    "predict another site": (predict, {"site": "z"}, "site must be one of 'y', got 'z'"),
    "predict with hyper": (predict, {"width": 2.0}, "width"),
    "open a number": (opened, {"path": 3}, "path must be the name of a file or folder, got 3"),
    "open nothing": (opened, {"path": "nowhere"}, "no result at .*nowhere.*; give a run folder"),
    "open text": (opened, {"path": "file"}, "file cannot be read as a result .*; fetch it again"),
    "open notes": (opened, {"path": "notes"}, "no result at .*result.nc.*; give a run folder"),
    "join one": (join, ("run",), "paths must hold at least two run folders, got 1; add one"),
    "join a run twice": (join, ("run", "run"), "have one key, .*; leave one out"),
    "join a file": (join, ("run", "file"), "no run at .*file'; give folders that fit made"),
    "join numbers": (join, ("run", 3), "paths must be the paths of run folders, got 3"),
    "join text": (
        lambda h: inspect.unwrap(io.join_chains)("ab"),
        {},
        "paths must be a list of .*got 'ab'",
    ),
    "join a job": (join, ("run", "job"), "no run at .*full'; give folders that fit made"),
    "export to csv": (export, {"path": "a.csv"}, "path must end in .nc or .zarr, got 'a.csv'; gi"),
    "export text": (export, {"path": "a.nc", "dt": "run"}, "dt must be a DataTree.*got 'run'"),
    "resume nothing": (resume, ("nowhere",), "no run at 'nowhere'; give the folder of a run"),
    "resume a file": (resume, ("file",), "no run at 'file'; give the folder of a run"),
    "resume a run of Python": (resume, ("run",), r"from Python \(test_refusals.level\); continue"),
    "resume a lost model": (resume, ("job",), "no model file at 'gone.py'; give .*--out job"),
    "resume without options": (resume, ("short",), "does not say which chains .*; continue with"),
}


def hashes(folder):
    return {
        f.relative_to(folder): hashlib.sha256(f.read_bytes()).digest() if f.is_file() else None
        for f in folder.rglob("*")
    }


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_changes_no_file(home, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    door, given, message = BAD[name]
    before = hashes(home)
    with pytest.raises((ValueError, OSError, RuntimeError), match=message) as caught:
        door(home, **given) if isinstance(given, dict) else door(home, *given)
    assert hashes(home) == before and list(tmp_path.iterdir()) == [], str(caught.value)


def test_there_are_fifty_kinds_of_bad_input():
    assert len(BAD) >= 50 and {door for door, _, _ in BAD.values()} >= {
        fit, predict, opened, resume, join
    }  # fmt: skip


def test_runs_with_other_groups_are_not_joined(home, tmp_path):
    other = shutil.copytree(home / "other", tmp_path / "other")
    dt = brg.open_run(other)
    dt["extra"] = xr.DataTree(xr.Dataset({"z": 1.0}))
    io.save(dt, other / "result.nc")
    with pytest.raises(ValueError, match="only one has 'extra'; add it to all of them, or leave"):
        io.join_chains([home / "run", other])


def test_a_model_without_a_start_may_be_mended(tmp_path):
    """A run with no finished block is not there, so the next call may differ."""

    def never(X, y=None):
        numpyro.factor("never", -np.inf * numpyro.sample("a", dist.Normal(0.0, 1.0)) ** 2)
        level(X, y)

    with pytest.raises((ValueError, RuntimeError), match="valid initial parameters"):
        brg.fit(never, (X, y), path=tmp_path / "a", **(STEPS | {"sampler": None}))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "origin, message",
    [
        ({"when": np.datetime64("now")}, r"origin\['when'\] must be a text or a number, got"),
        ({3: "a"}, "origin must be a mapping from name to text or number, got 3"),
        ("text", "origin must be a mapping from name to text or number, got 'text'"),
    ],
)
def test_what_json_cannot_hold_is_no_origin(tmp_path, origin, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(brg.inference.coarse_grain)(
            level, (X, y), key=0, draws=1, path=tmp_path / "a", origin=origin
        )
    assert list(tmp_path.iterdir()) == []
