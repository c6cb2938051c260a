# SPDX-License-Identifier: Apache-2.0
"""The files of a run that can be continued: what it is, its finished blocks, and its state.

``run.json`` says what is sampled and which result is there. ``blocks/00000.nc``, ... hold draws,
``state.npz`` holds the state of the chains after the last block and the checksums of all blocks,
``progress.jsonl`` has one line per block, and ``result.nc`` is the result. A block is written
before the state that follows it. So the folder can be continued whenever the process is killed.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import _checks, _reading
from . import block_files, writing
from .facts import COMPARED, checksum

FORMAT = 1
_STATE = ("done", "bytes", "lengths", "checksums", "run", "checksum")
# names of files that are being written, see `writing.write`
_PART = re.compile(r"(lock|run\.json|state\.npz|progress\.jsonl|\w+\.nc)\.[0-9a-f]{8}\.part")


def place(name: str, path: Any, what: str = "the name of a file or folder") -> Path:
    """Return a path, in which ~ stands for the home folder; raise if it cannot be one.

    ``name`` is what a message calls the argument, and ``what`` describes it.
    """
    _checks.instance(name, path, str | os.PathLike, what)
    try:
        text = os.fspath(path)
        if not isinstance(text, str) or not text or b"\0" in os.fsencode(text):
            raise ValueError
        return Path(text).expanduser()
    except (ValueError, RuntimeError, TypeError):  # no such user, or no name of a file at all
        raise ValueError(f"{name} must be {what}, got {_checks.shown(path)}") from None


class State(NamedTuple):
    """The state of the chains after ``done`` blocks, as one array of bytes per leaf.

    ``checksums`` has one SHA-256 per block file, (blocks, 32).
    """

    done: int
    leaves: list[np.ndarray]
    checksums: np.ndarray


class RunFolder:
    """The folder of one run; its writer holds the lock of the folder.

    ``check`` is called before each write. It raises OSError if the folder is gone.
    """

    def __init__(self, path: Path):
        self.path, self.check = path, lambda: None
        self.result = path / "result.nc"
        self._facts, self._state = path / "run.json", path / "state.npz"
        self._progress, self._blocks = path / "progress.jsonl", path / "blocks"

    def __reduce__(self):
        return RunFolder, (self.path,)  # for another process, which does not hold the lock

    @property
    def facts(self) -> dict | None:
        """Content of ``run.json``, a dict; None if there is none.

        Raises
        ------
        ValueError
            If the file is damaged or was edited, or was written in a newer format.
        PermissionError
            If the file may not be read.
        """
        file = self._facts
        try:
            found = json.loads(file.read_text("utf-8"))
            number = found["format"]
            if type(number) is not int:
                raise TypeError(f"format is {_checks.shown(number)}")
            if number <= FORMAT:
                stored = found.pop("checksum", None)
                if stored != checksum(found).hex():
                    raise ValueError("it was edited or damaged: its checksum is wrong")
                _check_facts(found)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            text = f"{error.strerror}; ask its owner for the right to read it"
            raise PermissionError(error.errno, text, str(file)) from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{str(file)!r} cannot be read ({type(error).__name__}: {error}); restore the file "
                "from a copy, or give another path: the files in blocks/ can still be opened"
            ) from error
        if number > FORMAT:
            raise ValueError(
                f"{str(file)!r} has format {number}, newer than {FORMAT}, which this version of "
                "bayesrg writes; update bayesrg"
            )
        return found

    def write_facts(self, facts: dict) -> None:
        """Write ``run.json``, complete or not at all."""
        facts = {"format": FORMAT} | facts
        facts["checksum"] = checksum(facts).hex()
        self._write(self._facts, json.dumps(facts, indent=1).encode())

    def _write(self, file, content):
        self.check()
        writing.write(file, content)

    def remove_facts(self) -> None:
        """Remove ``run.json``."""
        writing.remove(self._facts)

    def block(self, number: int) -> Path:
        """Path of the file of a block, which may not exist."""
        return self._blocks / f"{number:05d}.nc"

    def blocks(self) -> list[int]:
        """Numbers of the blocks whose files exist, in order."""
        return sorted(int(f.stem) for f in self._blocks.glob("[0-9]*.nc") if f.stem.isdecimal())

    def write_block(self, number: int, groups: block_files.Groups, first: int) -> np.ndarray:
        """Write the draws of a block, from the draw ``first`` on; return the SHA-256, (32,)."""
        self.check()
        self._blocks.mkdir(exist_ok=True)
        content = block_files.content(groups, first)
        self._write(self.block(number), content)
        return _digest(content)

    def read_block(self, number: int, checksums: np.ndarray) -> block_files.Groups:
        """Read the draws of a block: axes and values by the name of their group and variable.

        Raises
        ------
        ValueError
            If the file is missing, or is not the one whose SHA-256 is in ``checksums``.
        """
        file = self.block(number)
        remedy = (
            "restore it from a copy, or sample again in another folder; the other blocks can be "
            "read one by one with open_run"
        )
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"the block {str(file)!r} is missing; {remedy}") from None
        except OSError as error:
            raise ValueError(
                f"the block {str(file)!r} cannot be read ({error.strerror}); {remedy}"
            ) from error
        if not np.array_equal(_digest(content), checksums[number]):
            raise ValueError(f"the block {str(file)!r} is damaged or was altered; {remedy}")
        return block_files.read(content)

    def write_state(self, state: State, facts: dict) -> None:
        """Write ``state.npz`` of the run with these facts, complete or not at all."""
        lengths = np.array([leaf.size for leaf in state.leaves], np.int64)
        # one row of zeros first, so that no array is empty
        checksums = np.concatenate([np.zeros((1, 32), np.uint8), state.checksums])
        parts = [np.array([state.done]), np.concatenate(state.leaves), lengths, checksums]
        parts.append(_run(facts))
        parts.append(_digest(b"".join(part.tobytes() for part in parts)))
        with BytesIO() as buffer:
            np.savez(buffer, **dict(zip(_STATE, parts, strict=True)))
            self._write(self._state, buffer.getvalue())

    def read_state(self, facts: dict) -> State | None:
        """Read ``state.npz`` of the run with these facts; return None if no block is finished.

        Raises
        ------
        ValueError
            If the file is damaged, is that of another run, or is missing.
        """
        if not os.path.lexists(self._state):
            if facts.get("results") or len(self.blocks()) > 1:
                raise ValueError(
                    f"{str(self._state)!r} is missing, so the run cannot be continued; restore it "
                    "from a copy, or sample again in another folder; finished blocks can be read "
                    "one by one with open_run"
                )
            return None
        try:
            *parts, check = _reading.npz(self._state, _STATE)
            if not np.array_equal(check, _digest(b"".join(part.tobytes() for part in parts))):
                raise ValueError("its checksum is wrong")
            done, content, lengths, checksums, run = parts
            if not np.array_equal(run, _run(facts)):
                raise ValueError("it is the state of a run other than that in run.json")
            leaves = np.split(content, np.cumsum(lengths)[:-1])
        except (ValueError, OSError, TypeError) as error:
            raise ValueError(
                f"{str(self._state)!r} is damaged, so the run cannot be continued ({error}); "
                "restore it from a copy, or sample again in another folder; finished blocks can be "
                "read one by one with open_run"
            ) from error
        return State(int(done[0]), leaves, checksums[1:])

    def write_progress(self, facts: dict) -> None:
        """Add one line to ``progress.jsonl``. No run needs it, so it is left out if this fails."""
        with contextlib.suppress(OSError):
            writing.append(self._progress, json.dumps(facts).encode() + b"\n")

    def progress(self) -> list[dict]:
        """Lines of ``progress.jsonl``, as dicts; lines that a crash cut short are left out."""
        found = []
        for line in self._lines().splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("block"), int):
                found.append(entry)
        return found

    def _lines(self):
        try:
            return self._progress.read_bytes()
        except OSError:
            return b""

    def rewind_progress(self, done: int) -> None:
        """Remove the lines of blocks that will be made again: those after the first ``done``."""
        lines = self._lines()
        kept = [entry for entry in self.progress() if entry["block"] <= done]
        content = b"".join(json.dumps(entry).encode() + b"\n" for entry in kept)
        if content != lines:
            with contextlib.suppress(OSError):
                self._write(self._progress, content)

    def remove_blocks(self, numbers: Sequence[int]) -> None:
        """Remove files of blocks, the earliest first."""
        for number in numbers:
            writing.remove(self.block(number))

    def tidy(self) -> None:
        """Remove temporary files that a killed process left behind."""
        for folder in (self.path, self._blocks):
            for file in folder.glob("*.part"):
                if _PART.fullmatch(file.name):
                    writing.remove(file)

    def unknown(self) -> list[str]:
        """Names of entries that no run has; none of them if ``run.json`` exists."""
        names = os.listdir(self.path)
        if self._facts.name in names:
            return []
        return sorted(n for n in names if n != "lock" and not _PART.fullmatch(n))


def _check_facts(found):
    """Raise if fields of ``run.json`` that say where the draws are have wrong values."""
    least = {"draws": 1, "chains": 1, "block": 1, "warmup": 0}
    if found["kind"] != "fit":
        least = {"draws": 1}
        if found["kind"] != "job":
            raise ValueError(f"kind is {_checks.shown(found['kind'])}")
    if "thin" in found:
        least["thin"] = 1
    for name, value in least.items():
        if type(found[name]) is not int or found[name] < value:
            raise ValueError(f"{name} is {_checks.shown(found[name])}")
    results = found.get("results", {})
    if not isinstance(results, dict) or any(type(v) is not int for v in results.values()):
        raise ValueError(f"results is {_checks.shown(results)}")


def _run(facts):
    """Return the SHA-256 of what identifies a run, as an array (32,)."""
    return np.frombuffer(checksum(facts, COMPARED), np.uint8)


def _digest(content):
    """Return the SHA-256 of bytes as an array (32,)."""
    return np.frombuffer(hashlib.sha256(content).digest(), np.uint8)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file as text; the file is read piece by piece."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
