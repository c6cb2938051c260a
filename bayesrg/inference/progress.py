# SPDX-License-Identifier: Apache-2.0
"""How far a fit is: the facts after each block, counted on the host."""

import itertools
import math
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..io.labels import stored

_NUMBERS = 50  # of which R-hat is computed
_ENDS = 64  # blocks at whose ends sums are kept


class Progress(NamedTuple):
    """How far a fit is after a block of steps; `fit` hands it to ``after_block``.

    Attributes
    ----------
    fit : "fit"; in `coarse_grain` "full" for the first of its two fits and "coarse" for the second
    block, blocks : number of blocks that are done, and number of all
    phase : "warm-up" until its last step is done, then "sampling"
    warmup_done, warmup : steps of the warm-up per chain, those done and all
    draws_done, draws : draws per chain, those done and all
    step_size : mean over chains after the last step; None if the sampler has no step size
    divergences : number of draws of all chains that diverged; None if the sampler does not say
    r_hat : largest split R-hat of at most 50 numbers, taken from all sites. It is computed from
        means and variances without ranks, and the draws are split where a block ends. None for one
        chain, and as long as there are too few draws.
    seconds_left : estimate from the last blocks; None after the first block of a call, which
        includes compilation
    path : folder of the run, None if it has none
    """

    fit: str
    block: int
    blocks: int
    phase: str
    warmup_done: int
    warmup: int
    draws_done: int
    draws: int
    step_size: float | None
    divergences: int | None
    r_hat: float | None
    seconds_left: float | None
    path: Path | None


def as_line(facts: Progress) -> dict:
    """Return what ``progress.jsonl`` stores after a block; numbers that are not finite are None."""
    line = {name: value for name, value in facts._asdict().items() if name != "path"}
    for name, value in line.items():
        if isinstance(value, float) and not math.isfinite(value):
            line[name] = None
    return line | {"time": time.strftime("%F %T")}


class Meter:
    """Counts what the blocks of a fit have done; ``facts`` is the `Progress` after the last.

    Parameters
    ----------
    size : Size of the fit
    fit : name of the fit
    path : folder of the run, or None
    """

    def __init__(self, size: Any, fit: str = "fit", path: Path | None = None):
        self._size, self._names = size, (fit, path)
        self._done = self._draws = 0
        self._divergences = self._step_size = None
        self._r_hat = _RHat()
        # the mean over five blocks: steps of the warm-up take longer than those after it
        self._ends = deque(maxlen=6)
        self.facts = self._facts()

    def go_on(self, done: int, samples: dict, stats: dict) -> None:
        """Count the ``done`` blocks of a run that is continued, with their draws by name.

        ``samples`` and ``stats`` are dicts of arrays (chain, draw, ...).
        """
        size, self._done = self._size, done
        count = _length(samples, stats)
        steps = (max(0, number * size.block - size.warmup) for number in range(done + 1))
        ends = sorted({min(count, step // size.thin) for step in steps})
        for start, stop in itertools.pairwise(ends):  # so the sums are those of one long run
            self._count(*({n: v[:, start:stop] for n, v in of.items()} for of in (samples, stats)))
        self.facts = self._facts()

    def after_block(self, part: tuple[dict, dict] | None, step_size: np.ndarray | None) -> None:
        """Count one more block.

        Parameters
        ----------
        part : its samples and statistics, dicts of arrays (chain, draw, ...); None if it has none
        step_size : step sizes of the block, (step, ...), or None
        """
        self._done += 1
        if part is not None and _length(*part):
            left = self._size.draws - self._draws  # the last block may have surplus draws
            if _length(*part) > left:
                part = ({n: v[:, :left] for n, v in of.items()} for of in part)
            self._count(*part)
        self._step_size = None if step_size is None else float(np.mean(step_size[-1]))
        self._ends.append(time.perf_counter())
        self.facts = self._facts()

    def _count(self, samples, stats):
        self._draws += _length(samples, stats)
        if "diverging" in stats:
            diverged = int(np.count_nonzero(stats["diverging"]))
            self._divergences = (self._divergences or 0) + diverged
        if self._size.chains > 1:
            self._r_hat.add(_some(samples))

    def _facts(self):
        size, (fit, path) = self._size, self._names
        warmup = min(size.warmup, self._done * size.block)
        left = None
        if len(self._ends) > 1:
            each = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
            left = each * (size.blocks - self._done)
        return Progress(
            fit=fit,
            block=self._done,
            blocks=size.blocks,
            phase="warm-up" if warmup < size.warmup else "sampling",
            warmup_done=warmup,
            warmup=size.warmup,
            draws_done=self._draws,
            draws=size.draws,
            step_size=self._step_size,
            divergences=self._divergences,
            r_hat=self._r_hat.worst(),
            seconds_left=left,
            path=path,
        )


def _length(samples, stats):
    """Return the number of draws per chain."""
    return next((v.shape[1] for v in (samples | stats).values()), 0)


def _some(samples):
    """Return at most 50 numbers of each draw, evenly spaced in their sites: (chain, draw, 50)."""
    # those of small sites first; by name, since a run that is read back has another order
    order = sorted(samples.items(), key=lambda item: (item[1][0, :1].size, stored(item[0])))
    found, left = [], _NUMBERS
    for behind, (_, value) in zip(range(len(order), 0, -1), order, strict=True):
        if left and value.dtype.kind in "fiub":
            flat = value.reshape(*value.shape[:2], -1)
            share = max(1, left // behind)
            found.append(flat[:, :, :: max(1, -(-flat.shape[2] // share))].astype(float))
            left -= found[-1].shape[2]
    return np.concatenate(found, axis=2) if found else None


class _RHat:
    """R-hat of some numbers, computed from their sums up to the ends of blocks."""

    def __init__(self):
        self._origin, self._last = None, (0, 0.0, 0.0)  # draws, sums, sums of squares
        self._ends, self._apart, self._blocks = [self._last], 1, 0  # every so many blocks

    def add(self, x):
        """Add the draws of a block, (chain, draw, number), or None."""
        if x is None or x.size == 0:
            return
        if self._origin is None:  # squares of differences keep the digits of the variance
            self._origin = np.where(np.isfinite(x[0, 0]), x[0, 0], 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            x = x - self._origin
            count, total, squares = self._last
            total, squares = total + x.sum(1), squares + np.einsum("cdn,cdn->cn", x, x)
        self._last, self._blocks = (count + x.shape[1], total, squares), self._blocks + 1
        if self._blocks % self._apart == 0:
            self._ends.append(self._last)
        if len(self._ends) > _ENDS:
            self._ends, self._apart = self._ends[::2], 2 * self._apart

    def worst(self):
        """Return the largest R-hat; None if there are too few draws, or none of it is defined."""
        whole = self._last
        first = min(self._ends, key=lambda end: abs(whole[0] - 2 * end[0]))
        second = tuple(all_ - part for all_, part in zip(whole, first, strict=True))
        parts = [part for part in (first, second) if part[0]]  # without an end between not split
        if not parts or min(part[0] for part in parts) < 2:
            return None
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            means = np.concatenate([total / n for n, total, _ in parts])
            within = np.concatenate([(sq - total**2 / n) / (n - 1) for n, total, sq in parts])
            within, between = within.mean(0).clip(0.0), means.var(0, ddof=1)
            length = whole[0] / len(parts)
            r_hat = np.sqrt((length - 1) / length + between / within)
        r_hat = r_hat[~np.isnan(r_hat)]  # a constant has no R-hat
        return float(r_hat.max()) if r_hat.size else None
