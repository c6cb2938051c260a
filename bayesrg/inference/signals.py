# SPDX-License-Identifier: Apache-2.0
"""Signals that end a run after its running block: SIGINT and SIGTERM."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended a run after a block; ``code`` is the status with which a program exits.

    A program that does not catch it shows its message as one line, and exits with ``code``: 130
    after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code
        if sys.excepthook is not _leave:
            _former.append(sys.excepthook)
            sys.excepthook = _leave


_former: list[Callable] = []  # hooks for other exceptions


def _leave(kind, error, traceback):
    """Show an exception that a program did not catch; end without traceback after a signal."""
    if not isinstance(error, Interrupted):
        _former[-1](kind, error, traceback)
        return
    # Python shows a traceback after a KeyboardInterrupt, and its status is that of SIGINT
    if sys.stderr is not None:
        sys.stderr.write(f"{error}\n")
    raise SystemExit(error.code)


@contextlib.contextmanager
def after_block(path: Any) -> Iterator[Callable[[int, int], None]]:
    """Give a function that raises `Interrupted` if a signal has arrived, for use after each block.

    It takes the number of blocks done and the number of all. A second signal ends the process at
    once. Outside of the main thread no signal is caught.

    Parameters
    ----------
    path : folder of the run, for the message
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda done, blocks: None
        return
    arrived, last = [], []

    def handler(number, frame):
        if arrived:
            raise Interrupted(f"stopped by {signal.Signals(number).name}", 128 + number)
        arrived.append(number)

    def check(done, blocks):
        last[:] = done, blocks
        if arrived:
            name, code = signal.Signals(arrived[0]).name, 128 + arrived[0]
            raise Interrupted(
                f"stopped by {name} after block {done} of {blocks}, which is in {str(path)!r}; "
                "the same call goes on from there",
                code,
            )

    former = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        with _second_ends_at_once():
            yield check
            if last:
                check(*last)  # a signal that came after the last block
    finally:
        for number, old in former.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)


@contextlib.contextmanager
def _second_ends_at_once():
    """End the process at the second signal, also while a compiled program runs.

    Handlers in Python wait until that program returns. So the interpreter writes each signal to a
    pipe, which a thread reads. In a notebook or at a prompt nothing is ended.
    """
    if hasattr(sys, "ps1") or "ipykernel" in sys.modules:
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:  # somebody else watches signals in this way
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
        yield
        return

    def watch():
        arrived = 0
        while number := os.read(read, 1)[0]:
            arrived += number in _SIGNALS
            if arrived == 2:
                os._exit(128 + number)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(write, b"\0")
        thread.join()
        os.close(read)
        os.close(write)
