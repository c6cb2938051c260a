# SPDX-License-Identifier: Apache-2.0
"""The draws of a run in a folder that process 0 writes for several processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import xarray as xr

from .driver import Draws, Size
from .processes import first, gather, raw, typed
from .resume import Recorded


def recorded(make: Callable[[], Recorded], size: Size, kept: Any) -> Draws:
    """Return ``make()``; if there are several processes, process 0 alone calls it, for them all."""
    return make() if jax.process_count() == 1 else _Shared(make, size, kept)


class _Shared(Draws):
    """The draws of a run in a folder, whose files process 0 reads and writes.

    The methods are those of `Recorded`. All processes call them together.
    """

    def __init__(self, make: Callable[[], Recorded], size: Size, kept: Any):
        super().__init__(size, kept)
        self._own = None  # the `Recorded`, in process 0

        def begin():
            self._own = made = make()
            return made.done, made.finished, made.path, made.meter

        self.done, self.finished, self._path, self.meter = first(begin)

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self._path

    def restore(self, state: Any) -> Any:
        """Return the stored state of the chains, in the structure of the state of a new run."""
        if self.done == 0:
            return state
        return typed(first(lambda: raw(self._own.restore(state))), state)

    def add(self, part: tuple[dict, ...] | None, state: Any) -> None:
        """Write the draws of the next block, and then the state after it."""
        state = gather(state)
        first(lambda: self._own.add(part, state))
        self.done += 1

    def all(self) -> tuple[dict, ...]:
        """Read the draws of the run from its folder; return the groups as `Draws` does."""
        return first(lambda: self._own.all())

    def withdraw(self) -> None:
        """Remove run.json if no block is finished; processes that do not wait for each other."""
        if self._own is not None:
            self._own.withdraw()

    def attrs(self) -> dict:
        """Attributes of the result that only a run in a folder has."""
        return first(lambda: self._own.attrs())

    def result(self) -> xr.DataTree:
        """Read the result of a finished run, and return it."""
        return first(lambda: self._own.result())

    def finish(self, dt: xr.DataTree, keep_blocks: bool) -> None:
        """Write the result, and remove the blocks once it has been read back."""
        first(lambda: self._own.finish(dt, keep_blocks))

    def clean(self, keep_blocks: bool) -> None:
        """Remove the blocks whose draws are in the result, unless ``keep_blocks``."""
        first(lambda: self._own.clean(keep_blocks))
