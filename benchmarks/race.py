# SPDX-License-Identifier: Apache-2.0
"""One protocol for all timings: contenders agree first, then they run in turns.

This file needs only NumPy, so that it also runs in the environments of other packages.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

ROLES = "ours", "peer", "floor", "other"


class Call:
    """A contender in this process: a function that ends when its work has ended.

    Parameters
    ----------
    function : callable
    *args
        Its arguments.
    role : "ours", "peer" (we want to be faster), "floor" (nobody can be), or "other"
    before : callable without arguments that returns ``args``, called outside of the timed part
    answer : callable from the result to numbers that contenders must agree on, optional
    reserved : bytes that the compiled program takes beside arguments and results, optional
    least : seconds that one round takes at least; short calls are repeated
    """

    def __init__(
        self, function, *args, role="peer", before=None, answer=None, reserved=None, least=0.2
    ):
        self.function, self.role, self.reserved, self.least = function, role, reserved, least
        self.before = before or (lambda: args)
        self.answer = answer

    def first(self):
        """Call once, which compiles, and return what does not change from round to round."""
        result = self.function(*self.before())
        found = {"role": self.role, "reserved": self.reserved}
        if self.answer is not None:
            found["answer"] = np.ravel(self.answer(result)).astype(float).tolist()
        del result
        return found | {"peak": self._peak()}

    def _peak(self):
        """Return the most bytes that a second call adds to the process, or None."""
        args = self.before()
        try:
            ctypes.CDLL(None).malloc_trim(0)  # else the call could use memory that was held for it
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
            held = status("VmRSS")
        except (OSError, AttributeError):  # not Linux
            return None
        self.function(*args)
        return max(0, status("VmHWM") - held)

    def round(self):
        """Return seconds per call, of the clock and of the processor."""
        wall = cpu = calls = 0
        while wall < self.least or not calls:
            args = self.before()
            start, busy = time.perf_counter(), time.process_time()
            self.function(*args)
            wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - busy
            calls += 1
        return {"seconds": wall / calls, "cpu": cpu / calls}


class Worker:
    """Contenders in another process, which calls `serve`; one line of JSON per answer."""

    def __init__(self, *command, environment=None):
        self.command, self.environment = [str(part) for part in command], environment

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | (self.environment or {})
        self.process = subprocess.Popen(self.command, env=environment, **pipes)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _read(self):
        while True:
            line = self.process.stdout.readline()
            if line.startswith("{"):  # other lines are words that a package prints
                return json.loads(line)
            if not line:
                raise RuntimeError(f"{' '.join(self.command)} stopped; its message stands above")

    def first(self):
        return self._read()

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()


def serve(contenders):
    """Answer a `Worker`: what does not change, then one round for each line that is read."""
    print(json.dumps({name: c.first() for name, c in contenders.items()}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: c.round() for name, c in contenders.items()}), flush=True)


def race(
    title, contenders, rounds, *, workers=(), tolerance=1e-8, absolute=0.0, rough=1e-6, notes=()
):
    """Let contenders agree, then time them in turns; return all numbers as a dict for JSON.

    Parameters
    ----------
    title : what is computed
    contenders : dict from names to `Call`, or to anything with its methods ``first`` and ``round``
    rounds : number of rounds; each calls every contender once or for a short time
    workers : `Worker` objects, each with contenders of its own
    tolerance, absolute : relative and absolute error of the first number of all answers
    rough : of the other numbers, relative to the largest of them
    notes : lines of text
    """
    print(f"\n{title}", flush=True)
    with ExitStack() as stack:
        running = [stack.enter_context(worker) for worker in workers]
        rows = {name: c.first() for name, c in contenders.items()}
        for worker in running:
            rows |= worker.first()
        agree(rows, tolerance, absolute, rough)
        busy = others_busy()
        for _ in range(rounds):
            found = {name: c.round() for name, c in contenders.items()}
            for worker in running:
                found |= worker.round()
            for name, numbers in found.items():
                for key, value in numbers.items():
                    rows[name].setdefault(key, []).append(value)
    record = {"title": title, "rows": rows, "notes": list(notes), "busy": busy, **when()}
    print("\n".join(table(record)), flush=True)
    return record


def when():
    """Return date and threads, which every figure records."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or "not set"
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "OPENBLAS_NUM_THREADS": threads}


def agree(rows, tolerance, absolute, rough):
    """Assert that the answers of all contenders that have one are equal, and drop them."""
    answers = {name: np.array(row.pop("answer")) for name, row in rows.items() if "answer" in row}
    if not answers:
        return
    ours, *_ = answers.values()
    for name, answer in answers.items():
        np.testing.assert_allclose(
            answer[0], ours[0], rtol=0 if absolute else tolerance, atol=absolute, err_msg=name
        )
        scale = np.abs(ours[1:]).max(initial=0.0)
        np.testing.assert_allclose(answer[1:], ours[1:], rtol=0, atol=rough * scale, err_msg=name)


def middle(row, key="seconds"):
    """Return the median over rounds of a number of a contender."""
    return median(row[key])


def best(record, role, key="seconds"):
    """Return the smallest median of all contenders of a role, or None if there are none."""
    found = [middle(row, key) for row in record["rows"].values() if row["role"] == role]
    return min(found, default=None)


def table(record):
    """Return the lines of a table: medians, spread, ratios and memory of all contenders."""
    heads = ("ms", "spread", "CPU, ms", "to best peer", "to floor", "peak, MiB", "reserved, MiB")
    lines = ["| contender | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    peer, floor = best(record, "peer"), best(record, "floor")
    for name, row in record["rows"].items():
        spent = middle(row)
        cells = [f"{1e3 * spent:.4g}", f"{(max(row['seconds']) - min(row['seconds'])) / spent:.0%}"]
        cells.append(f"{1e3 * middle(row, 'cpu'):.4g}" if "cpu" in row else "")
        cells += ["" if other is None else f"{spent / other:.3g}" for other in (peer, floor)]
        cells += [mebibytes(row.get(key)) for key in ("peak", "reserved")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        more = {k: v for k, v in row.items() if isinstance(v, list) and k not in ("seconds", "cpu")}
        if more:
            text = ", ".join(f"{key} {median(values):.4g}" for key, values in more.items())
            lines[-1] = lines[-1].replace(name, f"{name} ({text})", 1)
    return lines + [f"\n{note}" for note in record["notes"]]


def mebibytes(number):
    return "" if number is None else f"{number / 2**20:.1f}"


def status(name):
    """Return bytes of this process, resident (VmRSS) or the peak of it (VmHWM). Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def others_busy(seconds=0.5):
    """Return how many cores other processes keep busy, while this one sleeps; None if unknown."""

    def ticks():
        return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:8]]

    try:
        before, _ = ticks(), time.sleep(seconds)
        spent = np.subtract(ticks(), before)
    except OSError:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    total = spent.sum() or 1
    return round(float((total - spent[3] - spent[4]) / total) * (os.cpu_count() or 1), 2)
