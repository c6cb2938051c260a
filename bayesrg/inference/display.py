# SPDX-License-Identifier: Apache-2.0
"""The display of a run: a bar on a terminal or in a notebook, or a line each tenth of the run."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

import jax

from .progress import Progress

_PER_SECOND = 2  # how often a display is drawn at most


@contextlib.contextmanager
def display(wanted: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Give a function that shows the `Progress` of one or several fits, or None.

    All is written to stderr, or below the cell of a notebook. The function is called before the
    first block of a fit and after each block. Without ``wanted``, without stderr, and in all but
    the first of several processes it is None.
    """
    if not wanted or sys.stderr is None or jax.process_index() != 0:
        yield None
        return
    show = _kind()(_Lasting(sys.stderr))
    try:
        yield show
    finally:
        show.close()


def watch(
    show: Callable[[Progress], None] | None, after_block: Callable[[Progress], None] | None
) -> Callable[[Progress], None] | None:
    """Return a function that shows the facts of a block and then calls the user's function.

    Without either of the two, None is returned.
    """
    if show is None and after_block is None:
        return None

    def watched(facts):
        if show is not None:
            show(facts)
        if after_block is None:
            return
        try:
            after_block(facts)
        except Exception as error:
            how = (
                "no path was given, so its draws are lost"
                if facts.path is None
                else f"the same call goes on from there, in {str(facts.path)!r}"
            )
            what = "the fit" if facts.fit == "fit" else f"the {facts.fit} fit"
            error.add_note(
                f"raised by after_block, which ended {what} after block {facts.block} of "
                f"{facts.blocks}; {how}"
            )
            raise

    return watched


def text(facts: Progress) -> str:
    """Return the facts of a block in one line."""
    if facts.phase == "warm-up":
        parts = [f"warm-up {facts.warmup_done}/{facts.warmup}"]
    else:
        parts = [f"sampling {facts.draws_done}/{facts.draws}"]
    if facts.seconds_left is not None and facts.block < facts.blocks:
        parts.append(f"{_clock(facts.seconds_left)} left")
    if facts.step_size is not None:
        parts.append(f"step {facts.step_size:.2g}")
    if facts.divergences is not None:
        parts.append(f"{facts.divergences} diverged")
    if facts.r_hat is not None:
        parts.append(f"R-hat {facts.r_hat:.3f}")
    return ", ".join(parts)


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _kind():
    """Return the class of the display that fits the place where the program runs."""
    if "IPython" in sys.modules:
        from IPython import get_ipython

        if hasattr(get_ipython(), "kernel"):
            return _Notebook
    try:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        terminal = False
    return _Terminal if terminal else _Lines


class _Lasting:
    """A stream that ignores errors of writing, so that a run outlives its terminal."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, content):
        with contextlib.suppress(OSError, ValueError):
            return self._stream.write(content)

    def flush(self):
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name):
        return getattr(self._stream, name)


class _Terminal:
    """One bar per fit, drawn in place; other output to the terminal appears above."""

    def __init__(self, stream):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        console = Console(file=stream, force_terminal=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(min(20, max(5, console.width - 75)), table_column=Column(no_wrap=True)),
            SpinnerColumn(table_column=Column(no_wrap=True)),  # a block may take minutes
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=_PER_SECOND,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        self._tasks = {}

    def __call__(self, facts):
        given = {"total": facts.blocks, "completed": facts.block}
        if facts.fit in self._tasks:
            self._bars.update(self._tasks[facts.fit], text=text(facts), **given)
            return
        self._tasks[facts.fit] = self._bars.add_task(facts.fit, text="compiling", **given)
        self._bars.start()
        # a second signal ends the process at once, which must not leave a terminal without cursor
        self._bars.console.show_cursor(True)

    def close(self):
        if self._tasks:
            self._bars.stop()


class _Notebook:
    """One line per fit below the cell, which needs no widgets."""

    def __init__(self, stream):
        self._lines, self._handle, self._next = {}, None, 0.0

    def __call__(self, facts):
        from IPython.display import display

        begun, now = facts.fit in self._lines, time.perf_counter()
        full = 20 * facts.block // facts.blocks
        bar = "\u2588" * full + "\u2591" * (20 - full)
        self._lines[facts.fit] = f"{facts.fit} {bar} {text(facts) if begun else 'compiling'}"
        if begun and now < self._next and facts.block < facts.blocks:
            return
        self._next = now + 1 / _PER_SECOND
        content = {"text/plain": "\n".join(self._lines.values())}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def close(self):
        pass


class _Lines:
    """One line for each tenth of a fit, for files and other places that are no terminal."""

    def __init__(self, stream):
        self._stream, self._tenths = stream, {}

    def __call__(self, facts):
        tenth = 10 * facts.block // facts.blocks
        if tenth > self._tenths.setdefault(facts.fit, tenth):
            self._tenths[facts.fit] = tenth
            share = 100 * facts.block // facts.blocks
            self._stream.write(f"{facts.fit}, {share} %: {text(facts)}\n")
            self._stream.flush()

    def close(self):
        pass
