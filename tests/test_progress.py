# SPDX-License-Identifier: Apache-2.0
"""Facts after each block: what they say, who is told, where they are shown, and what they cost."""

import io
import json
import sys
import time
import types

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import NUTS
from sampling import from_prior, two_steps

import bayesrg as brg
from bayesrg import inference
from bayesrg.inference import driver
from bayesrg.inference.display import display, text
from bayesrg.inference.driver import Draws, Size, run_blocks
from bayesrg.inference.fit import check_after_block
from bayesrg.inference.progress import Meter

SIZE = Size(draws=200, warmup=30, chains=4, block=20, devices=1)
rng = np.random.default_rng(3)


def draws_of(size, **shapes):
    """Draws of all steps of a run by site: walks, so that R-hat is not one."""
    steps = size.blocks * size.block
    return {
        name: rng.standard_normal((size.chains, steps, *shape)).cumsum(axis=1) + 1e3
        for name, shape in shapes.items()
    }


def measured(size, samples, stats=None, meter=None, first=0):
    """Count the blocks of these draws, from the block ``first`` on; return the facts of each."""
    meter, facts = Meter(size) if meter is None else meter, []
    for number in range(first, size.blocks):
        start, stop = number * size.block, (number + 1) * size.block
        skip = max(start, size.warmup)
        part = jax.tree.map(lambda v: v[:, skip:stop], (samples, stats or {}))  # noqa: B023
        step_size = None if stats is None else stats["step_size"][:, start:stop].T
        meter.after_block(part if skip < stop else None, step_size)
        facts.append(meter.facts)
    return facts


def of_arviz(values, first, draws):
    """Largest split R-hat of the numbers in ``values`` (chain, step, ...), as ArviZ computes it."""
    values = values.reshape(*values.shape[:2], -1)[:, first : first + draws]
    return max(float(az.rhat(v, method="split")) for v in np.moveaxis(values, -1, 0))


def test_r_hat_is_that_of_arviz_for_draws_that_blocks_halve():
    size = SIZE._replace(warmup=20, draws=160)
    samples = draws_of(size, a=(), b=(2, 3))
    facts = measured(size, samples)
    assert facts[0].r_hat is None and len(facts) == 9
    for done in (2, 4, 8):
        expected = max(of_arviz(v, 20, 20 * done) for v in samples.values())
        np.testing.assert_allclose(facts[done].r_hat, expected, rtol=1e-11)


def test_at_most_fifty_numbers_are_taken_evenly_from_all_sites():
    size = SIZE._replace(warmup=0, draws=80)
    samples = draws_of(size, long=(5000,), a=(), pair=(2,)) | {"flag": np.zeros((4, 80), bool)}
    samples["long"][:, :, 1:100] += 1e6 * np.arange(4)[:, None, None]  # not among the fifty
    some = [samples["a"][..., None], samples["pair"], samples["long"][:, :, ::109]]
    assert sum(v.shape[-1] for v in some) <= 49 and some[2].shape[2] == 46
    expected = max(of_arviz(v, 0, 80) for v in some)
    np.testing.assert_allclose(measured(size, samples)[-1].r_hat, expected, rtol=1e-11)
    many = {f"s{i:03d}": v for i, v in enumerate(np.moveaxis(samples["long"], -1, 0)[-80:])}
    expected = max(of_arviz(many[f"s{i:03d}"], 0, 80) for i in range(50))
    np.testing.assert_allclose(measured(size, many)[-1].r_hat, expected, rtol=1e-11)


def test_many_blocks_keep_few_sums():
    size = Size(draws=3000, warmup=0, chains=2, block=5, devices=1)
    meter, samples = Meter(size), draws_of(size, a=(3,))
    found = measured(size, samples, meter=meter)[-1].r_hat
    # every sixteenth end is kept, so one lies within eight blocks of the middle
    at = min((end[0] for end in meter._r_hat._ends), key=lambda n: abs(n - 1500))
    assert len(meter._r_hat._ends) <= 64 and abs(at - 1500) <= 40
    np.testing.assert_allclose(found, of_arviz(samples["a"], 0, 3000), rtol=0.03)


def test_facts_take_less_than_a_fiftieth_of_a_block_of_a_tenth_of_a_second():
    size = Size(draws=2000, warmup=0, chains=4, block=100, devices=1)
    part = {"long": rng.standard_normal((100, 4, 5000)).swapaxes(0, 1), "a": np.ones((4, 100))}
    meter, times = Meter(size), []
    for _ in range(20):
        start = time.process_time()
        meter.after_block((part, {}), np.ones((100, 4)))
        text(meter.facts)
        times.append(time.process_time() - start)
    assert np.median(times) < 0.002  # 0.0003 on an idle machine


@pytest.mark.parametrize("seen", [1, 2, 6])
def test_a_run_that_is_continued_has_the_facts_of_one_that_was_not(seen):
    samples = draws_of(SIZE, **{"a/b": (), "a.a": (), "c": (60,)})
    steps = SIZE.blocks * SIZE.block
    stats = {
        "diverging": rng.random((4, steps)) < 0.1,
        "step_size": rng.random((4, steps)),
    }
    whole = measured(SIZE, samples, stats)
    there = seen * SIZE.block - SIZE.warmup
    stored = {k.replace("/", "."): v[:, 30 : 30 + there] for k, v in sorted(samples.items())}
    meter = Meter(SIZE)
    groups = stored, {k: v[:, 30 : 30 + there] for k, v in stats.items()}
    meter.go_on(seen, *(groups if there > 0 else ({}, {})))
    assert meter.facts._replace(step_size=None) == whole[seen - 1]._replace(
        step_size=None, seconds_left=None
    )
    rest = measured(SIZE, samples, stats, meter, seen)
    assert [f._replace(seconds_left=0) for f in rest] == [
        f._replace(seconds_left=0) for f in whole[seen:]
    ]
    last = whole[-1]
    assert (last.draws_done, last.warmup_done, last.phase) == (200, 30, "sampling")
    assert last.divergences == stats["diverging"][:, 30:230].sum()  # 240 steps, 10 of them surplus
    assert last.step_size == stats["step_size"][:, -1].mean()


@pytest.mark.parametrize(
    "change", [{"chains": 1}, {"warmup": 0}, {"draws": 3}, {"draws": 1, "warmup": 0}]
)
def test_short_runs_nan_and_constants_have_facts(change):
    size = SIZE._replace(**change)
    samples = draws_of(size, a=(), constant=(), lost=(2,))
    samples["constant"][:] = 0.1
    samples["lost"][:, 0] = np.nan
    facts = measured(size, samples)[-1]
    assert facts.block == facts.blocks and facts.draws_done == size.draws
    if size.chains == 1 or size.draws == 1:
        assert facts.r_hat is None
    else:
        assert 0.5 < facts.r_hat < 1e3
    apart = np.broadcast_to(np.arange(4.0)[:, None], (4, 240))  # chains that never move
    stuck = measured(SIZE, {"a": apart})[-1]
    assert stuck.r_hat > 1e6
    assert all(isinstance(text(f), str) and "nan" not in text(f) for f in (facts, stuck))


def test_time_left_is_that_of_the_last_five_blocks(monkeypatch):
    clock = iter(np.cumsum([50.0, 9.0, 9.0, 9.0, 9.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    facts = measured(SIZE, draws_of(SIZE, a=()))
    assert [f.seconds_left for f in facts[:2]] == [None, 90.0]  # the first block was compiled
    assert facts[9].seconds_left == 4.0 and facts[-1].seconds_left == 0.0
    assert ", 1:30 left" in text(facts[1]) and "left" not in text(facts[-1])
    assert "1:00:01 left" in text(facts[1]._replace(seconds_left=3601.2))


def level(X, y=None):
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean + X, 1.0).to_event(1), obs=y)


def stepping(model):
    """Draws of the prior, with statistics."""

    def stats(key):
        number = jax.random.uniform(key)
        return {"diverging": number < 0.2, "step_size": 1.0 + number}

    return from_prior(model)._replace(stats=stats)


DATA = jnp.arange(4.0), jnp.array([0.3, 1.2, -0.4, 0.9])
HOW = {"key": 0, "draws": 60, "warmup": 30, "chains": 2, "block": 10, "devices": 1}
HOW |= {"sampler": stepping}


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run in a folder, its facts, and what was written to stderr and stdout."""
    folder, facts = tmp_path_factory.mktemp("runs") / "run", []

    def look(found):
        assert brg.open_run(found.path).attrs["draws_done"] == found.draws_done
        facts.append(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", io.StringIO())
        patch.setattr(sys, "stdout", io.StringIO())
        dt = brg.fit(level, DATA, path=folder, after_block=look, **HOW)
        shown = sys.stderr.getvalue(), sys.stdout.getvalue()
    return folder, dt, facts, shown


def test_fit_tells_a_function_and_a_file_the_same_facts(watched):
    folder, dt, facts, _ = watched
    assert [f.block for f in facts] == list(range(1, 10)) and facts[0].blocks == 9
    assert [f.phase for f in facts] == ["warm-up"] * 2 + ["sampling"] * 7
    assert [f.warmup_done for f in facts] == [10, 20] + [30] * 7
    assert [f.draws_done for f in facts] == [0, 0, 0, 10, 20, 30, 40, 50, 60]
    assert all(type(f) is inference.Progress and f.fit == "fit" for f in facts)
    last, stats = facts[-1], dt["sample_stats"]
    assert last.divergences == int(stats["diverging"].sum()) > 0 and last.path == folder
    np.testing.assert_allclose(last.step_size, stats["step_size"][:, -1].mean(), rtol=1e-15)
    expected = of_arviz(dt["posterior"]["mean"].to_numpy(), 0, 60)
    np.testing.assert_allclose(last.r_hat, expected, rtol=1e-12)
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    for line, found in zip(lines, facts, strict=True):
        del line["time"]
        assert line == {k: v for k, v in found._asdict().items() if k != "path"}


def weak(model):
    """A sampler whose first state has a Python number, which the next has not."""
    sampler = from_prior(model)
    return sampler._replace(
        init=lambda key, warmup, args: (key, 1.0),
        step=lambda state, args: (sampler.step(state[0], args), jnp.ones(()) * state[1]),
        draw=lambda state: state[0],
        stats=lambda state: {},
    )


@pytest.mark.parametrize(
    "sampler, chains, devices",
    [
        (stepping, 2, 1),
        (weak, 1, 1),
        (two_steps, 2, 1),
        pytest.param(NUTS, 2, 1, marks=pytest.mark.slow),
        pytest.param(two_steps, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_one_program_runs_all_blocks(monkeypatch, sampler, chains, devices):
    """HMC counts its steps with a Python number, whose dtype is weak after a block only."""
    from programs import programs

    seen, counts = [], []

    def run(advance, *given):
        seen.append(advance)
        run_blocks(advance, *given)

    monkeypatch.setattr(driver, "run_blocks", run)
    how = HOW | {"sampler": sampler, "chains": chains, "devices": devices, "progress": False}
    brg.fit(level, DATA, after_block=lambda facts: counts.append(programs.total()), **how)
    assert len(seen) == 1 and seen[0]._cache_size() == 1
    # blocks 4 to 9 have draws, and the first of these compiles densities that are new
    assert counts == [counts[0]] * 3 + [counts[3]] * 6 and counts[3] - counts[0] in (0, 1)


def test_a_file_gets_one_line_each_tenth_and_stdout_nothing(watched):
    err, out = watched[-1]
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 9 and lines[0].startswith("fit, 11 %: warm-up 10/30, step 1.")
    assert lines[-1].startswith("fit, 100 %: sampling 60/60, step 1.")
    assert " diverged, R-hat " in lines[-1] and "left" in lines[1]


class Stop(Exception):
    pass


def stops(at, error):
    def after_block(facts):
        if facts.block == at:
            raise error

    return after_block


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 5, 9])
def test_an_exception_of_after_block_ends_the_run_after_this_block(watched, tmp_path, at):
    """The bar, the file and the facts of the next call start at what is done."""
    error, facts, folder = Stop("enough"), [], tmp_path / "run"
    how = HOW | {"path": folder, "progress": False}
    with pytest.raises(Stop, match="enough") as caught:
        brg.fit(level, DATA, after_block=stops(at, error), **how)
    assert f"after block {at} of 9; the same call goes on" in caught.value.__notes__[0]
    assert str(folder) in caught.value.__notes__[0]
    assert brg.open_run(folder).attrs["steps_done"] == 10 * at
    again = brg.fit(level, DATA, after_block=facts.append, **how)
    assert again.equals(watched[1])
    expected = [f._replace(seconds_left=0, path=folder) for f in watched[2][at:]]
    assert [f._replace(seconds_left=0) for f in facts] == expected
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    assert [line["block"] for line in lines] == list(range(1, 10))
    brg.fit(level, DATA, after_block=stops(9, error), **how)  # is finished: no block, no call


def test_an_error_of_after_block_is_not_taken_for_one_of_the_disk(tmp_path):
    error, how = OSError("no network"), HOW | {"draws": 10, "warmup": 0, "progress": False}
    for path in (tmp_path / "run", None):
        with pytest.raises(OSError, match="no network") as caught:
            brg.fit(level, DATA, path=path, after_block=stops(1, error), **how)
        assert caught.value is error
    assert "no path was given, so its draws are lost" in error.__notes__[1]


def test_after_block_must_be_a_function():
    message = "after_block must be a function of an inference.Progress, got 'yes'; give a callable"
    with pytest.raises(ValueError, match=message):  # both doors call this check
        check_after_block("yes")


class Terminal(io.StringIO):
    def isatty(self):
        return True


FACTS = measured(SIZE._replace(draws=30), draws_of(SIZE._replace(draws=30), a=()))


def both_fits(show):
    for fit in ("full", "coarse"):
        meter = Meter(SIZE._replace(draws=30), fit)
        show(meter.facts)
        for facts in FACTS:
            show(facts._replace(fit=fit))


def test_two_fits_share_one_display_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    err, out = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdout", out)
    with display(True) as show:
        both_fits(show)
        sys.stdout.write("what the user prints\n")
    assert out.getvalue() == "what the user prints\n"  # a pipe: it is not moved to the terminal
    frames = err.getvalue()
    last = frames[frames.rindex("full") :]
    assert "compiling" not in last and last.count("sampling 30/30") == 2 and "coarse" in last
    assert frames.rindex("\x1b[?25h") > frames.rindex("\x1b[?25l")  # the cursor is shown again


def test_two_fits_share_one_text_in_a_notebook(monkeypatch, capsys):
    texts = []

    class Handle:
        def update(self, content, raw):
            texts.append(content["text/plain"])

    def shown(content, raw, display_id):
        texts.append(content["text/plain"])
        return Handle()

    shell = types.SimpleNamespace(kernel=True)
    names = {"get_ipython": lambda: shell, "display": types.SimpleNamespace(display=shown)}
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(**names))
    monkeypatch.setitem(sys.modules, "IPython.display", names["display"])
    with display(True) as show:
        both_fits(show)
    assert texts[0].endswith("compiling") and 4 <= len(texts) <= 6  # not one for each block
    full, coarse = texts[-1].splitlines()
    assert full.startswith("full " + 20 * "\u2588") and coarse.startswith("coarse ")
    assert "sampling 30/30" in full and "sampling 30/30" in coarse
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("gone", ["closed", "broken", "none", "dumb"])
def test_a_terminal_that_is_gone_ends_no_run(monkeypatch, gone):
    err = Terminal()
    if gone == "closed":
        err.close()
    if gone == "broken":
        err.write = lambda content: (_ for _ in ()).throw(BrokenPipeError(32, "Broken pipe"))
    if gone == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stderr", None if gone == "none" else err)
    with display(True) as show:
        if gone != "none":
            both_fits(show)
    if gone == "dumb":
        assert len(err.getvalue().splitlines()) == 2 * len(FACTS) and "\x1b" not in err.getvalue()


def test_nothing_is_shown_unless_asked(capsys):
    with display(False) as show:
        assert show is None
    brg.fit(level, DATA, progress=False, **(HOW | {"draws": 10, "warmup": 0, "chains": 1}))
    assert capsys.readouterr() == ("", "")


def test_a_map_in_place_of_a_sampler_has_facts_too():
    """One chain has no axis for chains in what a block returns, and no step size here."""
    size, facts = Size(draws=25, warmup=5, chains=1, block=10, devices=1), []

    def advance(state, args):
        return state, ({"x": np.full((10, 2), np.nan)}, {"diverging": np.ones(10, bool)})

    draws = Draws(size)
    run_blocks(advance, (), (), draws, facts.append)
    assert [f.draws_done for f in facts] == [5, 15, 25] and facts[-1].divergences == 25
    assert facts[-1].step_size is None and facts[-1].r_hat is None
    assert "step " not in text(facts[-1]) and "25 diverged" in text(facts[-1])


def smooth(X, y=None):
    noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    spectrum = scale * brg.spectrum.fourier(lambda j: (1.0 + j) ** -2, 9)
    numpyro.sample("y", brg.gp.marginal(spectrum, X, noise**2), obs=y)


@pytest.mark.slow
def test_both_fits_of_the_main_job_are_told_and_shown(tmp_path, capsys):
    x = np.linspace(0, 1, 24, endpoint=False)[:, None]
    y = np.sin(6 * x[:, 0]) + 0.3 * np.random.default_rng(0).standard_normal(24)
    how = {"key": 3, "draws": 60, "warmup": 60, "chains": 2, "devices": 1, "path": tmp_path / "a"}
    told = []

    def stops_in_the_second(facts):
        told.append((facts.fit, facts.block, facts.path.name))
        if facts.fit == "coarse":
            raise Stop("enough")

    with pytest.raises(Stop) as caught:
        inference.coarse_grain(smooth, (x, y), after_block=stops_in_the_second, **how)
    assert told == [("full", 1, "full"), ("full", 2, "full"), ("coarse", 1, "coarse")]
    assert "ended the coarse fit after block 1 of 2; the same call" in caught.value.__notes__[0]
    out, err = capsys.readouterr()
    assert out == "" and [line.split(":")[0] for line in err.splitlines()] == [
        "full, 50 %", "full, 100 %", "coarse, 50 %",
    ]  # fmt: skip
    told.clear()
    dt = inference.coarse_grain(smooth, (x, y), after_block=told.append, **how)
    assert [(facts.fit, facts.block) for facts in told] == [("coarse", 2)]
    assert "coarse_posterior" in dt
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("coarse, 100 %: sampling 60/60")
