# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: contenders agree first, ratios are those of medians, the page fits its numbers."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch):
    """Import a file of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


class Fixed:
    """A contender whose seconds are known."""

    def __init__(self, role, seconds, answer=(1.0, 2.0)):
        self.role, self.seconds, self.answer = role, list(seconds), list(answer)

    def first(self):
        row = {"role": self.role, "reserved": 48 * 100, "peak": None}
        return row | ({"answer": self.answer} if self.answer else {})

    def round(self):
        return {"seconds": self.seconds.pop(0)}


def contest():
    return {
        "bayesrg": Fixed("ours", [2.0, 9.0, 1.0]),
        "slow": Fixed("peer", [40.0, 60.0, 50.0]),
        "quick": Fixed("peer", [4.0, 5.0, 3.0]),
        "least": Fixed("floor", [1.0, 1.0, 1.0], answer=()),
    }


def test_ratios_are_those_of_medians_over_rounds(bench, capsys):
    race, goals = bench("race"), bench("goals")
    record = race.race("work", contest(), 3, notes=["a note"])
    assert race.best(record, "peer") == 4.0 and race.best(record, "floor") == 1.0
    row = next(line for line in race.table(record) if line.startswith("| bayesrg"))
    assert [cell.strip() for cell in row.split("|")][2:7] == ["2000", "400%", "", "0.5", "2"]
    figures = {"file: work": record}

    def ratio(over, **more):
        return goals.Goal("a", "file: work", over, **more).ratio(figures)

    assert ratio("peer") == 0.5 and ratio("floor") == 2.0 and ratio("slow") == 0.04
    assert ratio("10", key="reserved") == 6.0  # arrays of 10 x 10
    assert ratio("nobody") is None and goals.Goal("a", "other", "peer").ratio(figures) is None
    at_most, at_least = (goals.Goal("a", "b", "peer", 1.0, least=least) for least in (False, True))
    assert [at_most.reached(v) for v in (0.9, 1.1, None)] == ["yes", "no", ""]
    assert [at_least.reached(v) for v in (0.9, 1.1, None)] == ["no", "yes", ""]


@pytest.mark.parametrize("answer", [(1.0 + 1e-6, 2.0), (1.0, 2.0 + 1e-4), (1.0, np.nan)])
def test_contenders_that_disagree_are_not_timed(bench, answer):
    other = {"wrong": Fixed("peer", [], answer)}
    with pytest.raises(AssertionError, match="wrong"):
        bench("race").race("work", contest() | other, 3)


def test_a_call_is_timed_without_what_is_made_before_it(bench):
    calls = []
    call = bench("race").Call(
        lambda x: calls.append(x), before=lambda: ([len(calls)],), answer=lambda _: [3.0], least=0.0
    )
    assert call.first()["answer"] == [3.0] and calls == [[0], [1]]  # the second one for its memory
    assert set(call.round()) == {"seconds", "cpu"} and calls[-1] == [2]


def test_the_peak_of_a_call_is_seen(bench):
    call = bench("race").Call(lambda: np.ones(2**22).sum())
    found = call.first()["peak"]
    assert found is None or 0.9 < found / 2**25 < 1.5  # None where the system does not tell


def test_a_peer_that_does_not_install_is_a_reason(bench, monkeypatch, tmp_path):
    peers = bench("peers")
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    monkeypatch.setitem(peers.PEERS, "none", ("2.0", []))
    assert peers.python_of("none") == (None, "no Python 2.0")
    monkeypatch.setattr(peers, "interpreter", lambda version: "/nowhere/python")
    python, reason = peers.python_of("none")
    assert python is None and "/nowhere/python" in reason


def test_the_page_is_that_of_the_numbers():
    """RESULTS.md is written by `python -m benchmarks --no-run`."""
    code = "import sys, json; sys.path.insert(0, 'benchmarks'); import results; "
    code += "print(results.page(**json.load(open('benchmarks/results.json'))), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    assert done.stdout.decode() == (ROOT / "benchmarks" / "RESULTS.md").read_text()


@pytest.mark.slow
def test_a_quick_run_writes_numbers_and_page(tmp_path):
    files = ["--json", tmp_path / "a.json", "--results", tmp_path / "a.md"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "evidence", *files]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    record = json.loads((tmp_path / "a.json").read_text())["figures"]["evidence: RBF 60"]
    assert {row["role"] for row in record["rows"].values()} == {"ours", "peer", "other", "floor"}
    assert "## Goals" in (tmp_path / "a.md").read_text()
