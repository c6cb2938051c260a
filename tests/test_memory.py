# SPDX-License-Identifier: Apache-2.0
"""What a run keeps, in memory and on disk; and what it says beforehand of memory and time."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sampling import from_prior
from scipy.stats import norm
from test_resume import ASKED, Killed, killed_after

import bayesrg as brg
from bayesrg import io
from bayesrg.inference.driver import Draws, Size, run_blocks
from bayesrg.inference.kept import as_text, check_store
from bayesrg.inference.resume import Recorded

HERE = Path(__file__).parent


def counted(block):
    """A block whose draws are the numbers of their steps, from one on, in place of a sampler."""

    def advance(state, args):
        steps = state + 1.0 + np.arange(block)[:, None] + np.zeros(2)
        return state + block, ({"t": steps}, {"diverging": steps % 2 == 0})

    return advance


def drawn(path, draws, warmup, block, thin):
    size = Size(draws, warmup, 2, block, 1, thin)
    asked = ASKED | {"warmup": warmup, "block": block, "thin": thin}
    with io.claim(path) as folder:
        run = Draws(size) if path is None else Recorded(folder, asked, size, {"t": ()}, ())
        start = np.zeros(()) if path is None else run.restore(np.zeros(()))
        run_blocks(counted(block), np.asarray(start), (), run, lambda *done: None)
        samples, stats = run.all()
        if path is not None:
            groups = dict(zip(("posterior", "sample_stats"), (samples, stats), strict=True))
            run.finish(io.to_datatree(groups, {}), keep_blocks=False)
    assert stats["diverging"].dtype == bool
    np.testing.assert_array_equal(stats["diverging"], samples["t"] % 2 == 0)
    return samples["t"]


@pytest.mark.parametrize("warmup, block, thin", [(5, 10, 3), (0, 4, 4), (7, 3, 7), (12, 5, 1)])
def test_every_kth_draw_is_kept_whatever_the_blocks(tmp_path, warmup, block, thin):
    """In memory, in a folder, and in a folder that is extended; some blocks have no draw at all."""
    expected = np.broadcast_to(warmup + thin * np.arange(1.0, 16.0), (2, 15))
    np.testing.assert_array_equal(drawn(None, 15, warmup, block, thin), expected)
    np.testing.assert_array_equal(drawn(tmp_path / "a", 6, warmup, block, thin), expected[:, :6])
    np.testing.assert_array_equal(drawn(tmp_path / "a", 15, warmup, block, thin), expected)


def line(X, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    with numpyro.plate("unit", 3):
        numpyro.sample("layer/weight", dist.Normal(0.0, 1.0))
    numpyro.deterministic("twice", 2.0 * slope)
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(slope * X, 0.5), obs=y)


X, Y = np.array([0.0, 0.5, 1.0, 1.5]), np.array([0.2, 1.0, 1.3, 2.9])
HOW = {"key": 0, "warmup": 7, "chains": 2, "block": 20, "devices": 1, "progress": False}
HOW |= {"sampler": from_prior}


@pytest.fixture(scope="module")
def whole():
    return brg.fit(line, (X, Y), draws=90, prior=3, **HOW)


def test_a_run_keeps_what_it_is_asked_for(whole, tmp_path, monkeypatch):
    """Two sites and every third draw, killed, continued and extended: the same bits."""
    how = HOW | {"thin": 3, "store": ("twice", "layer*"), "prior": 3}
    reference = brg.fit(line, (X, Y), draws=30, **how)
    every = {"draw": slice(2, None, 3)}
    for name in ("twice", "layer.weight"):
        found, expected = reference["posterior"][name], whole["posterior"][name].isel(every)
        np.testing.assert_array_equal(found, expected)
        assert found.dims == expected.dims
    assert set(reference["posterior"].data_vars) == {"twice", "layer.weight"}
    assert set(reference["prior"].data_vars) == {"twice", "layer.weight"}
    assert reference.attrs["left_out"] == "slope" and reference.attrs["thin"] == 3
    slope = whole["posterior"]["slope"].isel(every).to_numpy()[..., None]
    densities = reference["log_likelihood"]["y"]
    np.testing.assert_allclose(densities, norm.logpdf(Y, slope * X, 0.5), rtol=1e-12)
    assert densities.dims == ("chain", "draw", "point")

    how["path"] = tmp_path / "run"
    for _ in range(2):
        killed_after(monkeypatch, 1)
        with pytest.raises(Killed):
            brg.fit(line, (X, Y), draws=15, **how)
    block = io.open_run(how["path"] / "blocks" / "00001.nc")
    assert block["posterior"].sizes == {"chain": 2, "draw": 7, "unit": 3}
    assert "slope" not in block["posterior"]
    np.testing.assert_array_equal(block["log_likelihood"]["y"], densities[:, 4:11])
    brg.fit(line, (X, Y), draws=15, **how)
    assert brg.fit(line, (X, Y), draws=30, **how).identical(reference)
    for change, message in (
        ({"thin": 2}, "thin was 3 and is now 2"),
        ({"store": "twice"}, r"store was \['layer/weight', 'twice'\] and is now \['twice'\]"),
        ({"log_likelihood": False}, "log_likelihood was True and is now False"),
    ):
        with pytest.raises(ValueError, match=message):
            brg.fit(line, (X, Y), draws=30, **(how | change))

    with pytest.raises(ValueError, match="did not keep the latent site 'slope'.*store="):
        brg.predict(reference, line, X, key=0)


def test_densities_are_left_out_if_they_are_not_wanted():
    """Then a model that cannot be called without observations can be sampled."""

    def needs_y(X, y):
        line(X, y + 0.0)

    dt = brg.fit(needs_y, (X, Y), draws=5, log_likelihood=False, **HOW)
    assert "log_likelihood" not in dt.children and "slope" in dt["posterior"]
    with pytest.raises(ValueError, match="accept None.*or give log_likelihood=False"):
        brg.fit(needs_y, (X, Y), draws=5, **HOW)


NAMES = ["slope", "layer1/weight", "layer1/bias", "layer2/weight"]


@pytest.mark.parametrize(
    "store, sites",
    [
        (None, NAMES),
        ("slope", NAMES[:1]),
        ("layer1.weight", NAMES[1:2]),
        (["*weight", "slope", "slope"], [NAMES[0], NAMES[1], NAMES[3]]),
        (("layer[12]/bias",), NAMES[2:3]),
    ],
)
def test_store_takes_names_and_patterns(store, sites):
    assert list(check_store(store, NAMES)) == sites


@pytest.mark.parametrize(
    "store, message",
    [
        (["slop"], "store: no site matches 'slop'; did you mean 'slope'?"),
        ("layer3/weight", "no site matches 'layer3/weight'; did you mean 'layer2/weight' or"),
        (["slope", "zz*"], r"no site matches 'zz\*'; the model has 'slope', 'layer1/weight', "),
        ([3], "store: no site matches 3; the model has"),
        ([], "store is empty, so no draw would be kept; name at least one site"),
        ({"slope"}, "store must be a list of names of sites, or patterns"),
    ],
)
def test_an_unknown_site_is_refused_with_names_like_it(store, message):
    with pytest.raises(ValueError, match=message):
        check_store(store, NAMES)


def test_too_many_bytes_are_refused_with_the_largest_sites(tmp_path):
    """Before anything is sampled or compiled for it; the folder is gone again."""
    # 2 chains of 1000 draws: slope 1, weight 3, twice 1, y 4 numbers of 8 bytes
    message = (
        r"the result would have 144000 bytes \(141 KiB\), and max_bytes is 143999; the largest "
        r"sites are log_likelihood 'y' 62.5 KiB, posterior 'layer.weight' 46.9 KiB, "
        r"posterior 'slope' 15.6 KiB; take fewer draws.*log_likelihood=False"
    )
    how = HOW | {"draws": 1000, "max_bytes": 143_999, "path": tmp_path / "run"}
    with pytest.raises(ValueError, match=message):
        brg.fit(line, (X, Y), **how)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="a block of draws would have .* take a smaller block"):
        brg.fit(line, (X, Y), **(how | {"draws": 1, "block": 10_000}))
    assert as_text(1023) == "1023 bytes" and as_text(3 << 29) == "1.5 GiB"


def test_an_estimate_has_the_sizes_that_the_result_has(whole):
    found = brg.inference.estimate(
        line, (X, Y), draws=90, prior=3, **{n: HOW[n] for n in ("warmup", "chains", "block")}
    )
    for entry in found.entries:
        variable = whole[entry.group][entry.name]
        assert (variable.dims, variable.shape) == (entry.dims, entry.shape), entry
        assert variable.nbytes == entry.bytes
    groups = ("posterior", "log_likelihood", "prior", "prior_predictive")
    assert len(found.entries) == sum(len(whole[group].data_vars) for group in groups)
    assert found.bytes == sum(entry.bytes for entry in found.entries)
    assert (found.blocks, found.steps) == (5, 97)
    assert 0 < found.gradient_seconds < 1
    for gradients in (1, 31, 1023):
        expected = 97 * gradients * found.gradient_seconds
        assert found.seconds[gradients] == pytest.approx(expected)
    text = repr(found)
    assert "layer.weight" in text and "(chain: 2, draw: 90, unit: 3)" in text
    assert "5 blocks, 97 steps per chain" in text and "if a step takes 31 gradients" in text
    assert json.loads(json.dumps(found.as_dict()))["bytes"] == found.bytes


def test_the_time_of_a_gradient_does_not_hold_its_compilation(monkeypatch, compilations):
    """However many are timed, one program is compiled."""
    from bayesrg.inference import estimate

    monkeypatch.setattr(sys.modules[estimate.__module__], "_SECONDS", 1e-9)
    with compilations() as count:
        estimate(line, (X[:3], Y[:3]), log_likelihood=False)
    few = count()
    monkeypatch.setattr(sys.modules[estimate.__module__], "_SECONDS", 0.01)
    with compilations() as count:
        estimate(line, (X[:3], Y[:3]), log_likelihood=False)
    assert count() <= few


def test_a_model_without_gradients_has_no_time():
    def coin(X, y=None):
        numpyro.sample("side", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(X, 1.0).to_event(1), obs=y)

    found = brg.inference.estimate(coin, (X, Y), log_likelihood=False)
    assert found.gradient_seconds is None and found.seconds == {} and "gradient" not in repr(found)


WIDE = '''
"""A wide site."""
import sys
from pathlib import Path
import numpy as np, numpyro, numpyro.distributions as dist

def model(X, y=None):
    with numpyro.plate("unit", 5000):
        f = numpyro.sample("f", dist.Normal(0.0, 1.0))
    with numpyro.plate("point", len(X)):
        numpyro.sample("y", dist.Normal(f[:1000], 1.0), obs=y)

def demo(key):
    return np.zeros(1000), np.ones(1000)

if __name__ == "__main__":
    numpyro.enable_x64()
    import bayesrg as brg
    from sampling import two_steps

    how = {"key": 0, "warmup": 50, "block": 50, "progress": False, "devices": 1}
    dt = brg.fit(model, demo(None), draws=int(sys.argv[1]), sampler=two_steps,
                 path=sys.argv[2] if len(sys.argv) > 2 else None, **how)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    size = sum(v.nbytes for node in dt.subtree for v in node.data_vars.values())
    print(peak, size)
'''


def test_a_dry_run_prints_the_estimate_and_writes_nothing(tmp_path, monkeypatch, capsys):
    from bayesrg import cli

    (tmp_path / "wide.py").write_text(WIDE)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    command = ["bayesrg", "run", "wide.py", "--dry-run", "--draws", "1000", "--json"]
    monkeypatch.setattr(sys, "argv", [*command, "--max-bytes", "1000000", "--thin", "2"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert not ended.value.code and found["bytes"] == 8 * 4 * 1000 * 6000
    assert found["steps"] == 300 + 2000 and "more than --max-bytes 1000000" in err
    assert {f for f in tmp_path.rglob("*") if "__pycache__" not in str(f)} == before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says the peak")
@pytest.mark.parametrize("folder", [False, True], ids=["memory", "folder"])
def test_peak_memory_is_that_of_the_result(tmp_path, folder):
    """4 chains of 5000 numbers and 1000 densities: the peak grows with the result, and no more."""
    (tmp_path / "wide.py").write_text(WIDE)
    env = {"PYTHONPATH": f"{HERE.parent}:{HERE}", "OPENBLAS_NUM_THREADS": "1", "PATH": ""}
    peaks, sizes = {}, {}
    for draws in (1000, 4000):
        path = [tmp_path / f"run{draws}"] if folder else []
        command = [sys.executable, tmp_path / "wide.py", str(draws), *path]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        peaks[draws], sizes[draws] = map(int, done.stdout.split())
    print({n: as_text(v) for n, v in peaks.items()}, {n: as_text(v) for n, v in sizes.items()})
    assert sizes[1000] == pytest.approx(8 * 4 * 1000 * 6000, rel=0.01)
    assert peaks[1000] < 2 << 30
    assert peaks[4000] - peaks[1000] < 1.3 * (sizes[4000] - sizes[1000])
