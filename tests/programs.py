# SPDX-License-Identifier: Apache-2.0
"""Count the programs that XLA compiles: most of the time of the tests is theirs.

`conftest.py` loads this as a plugin. Each run ends with one line, and the fixture `compilations`
lets a test state how many programs a block of code compiles.
"""

from collections import Counter
from contextlib import contextmanager

import jax
import pytest

COMPILED = "/jax/core/compile/backend_compile_duration"

programs, seconds = Counter(), Counter()  # one entry per test file
_file = ["(collection)"]


@jax.monitoring.register_event_duration_secs_listener
def _count(event, duration, **_):
    if event == COMPILED:
        programs[_file[0]] += 1
        seconds[_file[0]] += duration


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _file[0] = item.path.stem
    return (yield)


@pytest.fixture
def compilations():
    """Counter of compiled programs: ``with compilations() as count: ...``, then ``count()``."""

    @contextmanager
    def counting():
        before = programs.total()
        yield lambda: programs.total() - before

    return counting


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist
        session.config.workeroutput["programs"] = [dict(programs), dict(seconds)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    counts, times = getattr(node, "workeroutput", {}).get("programs", ({}, {}))
    programs.update(counts)
    seconds.update(times)


def pytest_terminal_summary(terminalreporter):
    most = ", ".join(f"{file} {count}" for file, count in programs.most_common(10))
    terminalreporter.write_line(
        f"{programs.total()} programs compiled in {seconds.total():.0f} s; most in {most}"
    )
