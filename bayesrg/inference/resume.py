# SPDX-License-Identifier: Apache-2.0
"""Runs in a folder: compare a call with the stored run, and go on from its last block."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import _checks
from ..io import SaveError, writing
from ..io import draws as stored_draws
from ..io.facts import ACCEPTED, COMPARED, difference
from ..io.labels import stored
from ..io.run_folder import RunFolder, State
from ..io.runs import save_result
from . import signals
from .driver import Draws, Size, sample_in_blocks
from .identity import of_array
from .kept import Kept
from .progress import Meter, Progress, as_line
from .samplers import Sampler

_REMEDY = "give the stored value, or another path for another run"


def check_accept(accept: Any) -> tuple[str, ...]:
    """Return the names of differences that a call accepts, "versions" and "devices", checked."""
    accept = (accept,) if isinstance(accept, str) else accept
    accept = tuple(_checks.sequence("accept", accept, "names of differences"))
    for name in accept:
        if name not in ACCEPTED:
            raise ValueError(
                f"accept must hold names from {ACCEPTED}, got {_checks.shown(name)}; leave the "
                "others out"
            )
    return accept


def require_space(folder: RunFolder, size: Size, kept: Kept) -> None:
    """Raise OSError if the disk has too little space for further blocks and the result of a run.

    ``kept`` says what both hold.
    """
    statistics = 80 * size.chains * size.draws  # about ten numbers per draw
    there = stored_draws.there(folder)
    if there >= size.draws and folder.result.exists():
        return
    left = 1 - min(there, size.draws) / size.draws
    try:  # in a block and in the result
        writing.require(folder.path, int((kept.bytes + statistics) * (1 + left)))
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; give path a folder on another disk, or fewer draws",
            str(folder.path),
        ) from error


def agree(path: Any, facts: dict, asked: dict, accept: tuple[str, ...]) -> dict:
    """Compare a stored run with a call; return what to store: the facts of the run, updated.

    Parameters
    ----------
    path : folder of the run
    facts : content of its run.json
    asked : what identifies the call, see `identity`, and its number of draws
    accept : "versions", "devices": differences that are allowed

    Raises
    ------
    ValueError
        If the call is another run. The message has the field and both values.
    """
    place = f"{str(path)!r} holds another run"
    for name in (*COMPARED, "draws"):
        found = difference(name, facts.get(name), asked.get(name))
        if found is not None and (name != "draws" or found[2] < found[1]):
            field, before, now = found
            raise ValueError(f"{place}: {field} was {before} and is now {now}; {_REMEDY}")

    new, others = dict(facts), set()
    for name in ACCEPTED:
        found = difference(name, facts.get(name), asked[name])
        if found is None:
            continue
        field, before, now = found
        if name not in accept:
            raise ValueError(
                f"{place}: {field} was {before} and is now {now}; go back, or give "
                f'accept=("{name}",): then the draws that follow are of the same law, but not '
                "those of a run that was not interrupted"
            )
        others.add(name)
        new["accepted"] = [*new.get("accepted", []), f"{field}: {before}, then {now}"]
        new[name] = asked[name]

    # other versions trace other programs; then the text of the model is compared
    field = "source" if "versions" in others else "program"
    if facts.get(field) != asked[field] and None not in (facts.get(field), asked[field]):
        what = "the text of the model" if field == "source" else "what the model computes"
        raise ValueError(
            f"{place}: {what} has changed ({field} was {_short(facts[field])} and is now "
            f"{_short(asked[field])}, SHA-256); {_REMEDY}"
        )
    return new | {name: asked[name] for name in ("model", "source", "program", "draws")}


def _short(digest):
    return str(digest)[:12]


class Recorded(Draws):
    """The draws of a run in a folder, which is written block by block.

    Parameters
    ----------
    folder : RunFolder, locked by the caller
    asked : what identifies the call
    size : Size
    dims : names of the axes of each site after chain and draw
    accept : differences that are allowed
    kept : what is kept of the draws, see `Draws`
    fit : name of the fit
    """

    def __init__(
        self,
        folder: RunFolder,
        asked: dict,
        size: Size,
        dims: dict,
        accept: tuple[str, ...],
        kept: Kept | None = None,
        fit: str = "fit",
    ):
        super().__init__(size, kept, fit)
        self.meter = Meter(size, fit, folder.path)
        asked = asked | {"draws": size.draws}
        facts = folder.facts
        if facts is None:
            self.facts, self._state = {"kind": "fit"} | asked, None
        else:
            if facts.get("kind") != "fit":
                raise ValueError(
                    f"{str(folder.path)!r} holds a run of inference.coarse_grain, not of fit; give "
                    "another path"
                )
            self.facts, self._state = agree(folder.path, facts, asked, accept), None
        self._folder, self._dims, self._part = folder, dims, None
        self.finished = facts is not None and stored_draws.finished(folder, self.facts)
        if self.finished:
            return
        if facts is not None:
            self._go_on()
        if self.facts != facts:
            folder.write_facts(self.facts)

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self._folder.path

    def _go_on(self):
        """Read the state of the chains, and check that all draws before it can be read."""
        folder, state = self._folder, self._folder.read_state(self.facts)
        self._state = state
        self.done = 0 if state is None else min(state.done, self.size.blocks)
        found = stored_draws.joined(folder, self.facts, state, self._count())
        groups = (found.get(group, {}) for group in stored_draws.SAMPLED[:2])
        self.meter.go_on(self.done, *({n: v for n, (_, v) in of.items()} for of in groups))
        folder.rewind_progress(0 if state is None else state.done)

    def _count(self):
        """Return the number of draws in finished blocks that the result will have."""
        return min(stored_draws.draws_done(self.facts, self._state), self.size.draws)

    def restore(self, state: Any) -> Any:
        """Return the stored state of the chains, in the structure of the state of a new run."""
        if self._state is None:
            return state
        leaves, structure = jax.tree.flatten(state)
        if [_bytes(leaf).size for leaf in leaves] != [leaf.size for leaf in self._state.leaves]:
            raise ValueError(
                f"the state of the chains in {str(self._folder.path)!r} does not fit the sampler; "
                "give the sampler with which the run began, or another path"
            )
        new = [_from_bytes(*pair) for pair in zip(self._state.leaves, leaves, strict=True)]
        return structure.unflatten(new)

    def add(self, part: tuple[dict, ...] | None, state: Any) -> None:
        """Write the draws of the next block, and then the state after it.

        Raises
        ------
        SaveError
            If a file cannot be written.
        """
        self._part = part
        try:
            self._write(part, state)
        except OSError as error:
            raise self.lost(error) from error

    def _write(self, part, state):
        checksums = np.zeros((0, 32), np.uint8) if self._state is None else self._state.checksums
        leaves = [_bytes(leaf) for leaf in jax.tree.leaves(state)]
        if part is not None:
            number = self.done - self.facts["warmup"] // self.facts["block"]
            first = stored_draws.first_draw(self.facts, number)
            digest = self._folder.write_block(number, self._groups(part), first)
            checksums = np.concatenate([checksums[:number], digest[None]])
        after = State(self.done + 1, leaves, checksums)
        self._folder.write_state(after, self.facts)
        self._state, self._part, self.done = after, None, self.done + 1
        self._folder.write_progress(as_line(self.meter.facts))

    def _groups(self, part):
        """Return the draws of a block by group and variable, with the names of their axes."""
        return {
            group: {stored(n): _labelled(n, self._dims.get(n, ()), v) for n, v in of.items()}
            for group, of in zip(stored_draws.SAMPLED, part, strict=False)
        }

    def all(self) -> tuple[dict, ...]:
        """Read the draws of the run from its folder; return the groups as `Draws` does."""
        found = stored_draws.joined(self._folder, self.facts, self._state, self.size.draws)
        names = {stored(name): name for name in self._dims}
        return tuple(
            {names.get(name, name): value for name, (_, value) in found[group].items()}
            for group in stored_draws.SAMPLED
            if group in found
        )

    def lost(self, error: OSError) -> SaveError:
        """Return the error of a block that could not be written, with the draws there are."""
        count, first = self._count(), 0
        where = (
            f"the {count} draws per chain that are finished lie there and open_run reads them; "
            "make room and repeat the call, which goes on from there. All draws are the attribute "
            "tree of this error"
        )
        try:
            groups = stored_draws.joined(self._folder, self.facts, self._state, count)
        except (ValueError, OSError) as damage:  # for instance, the folder was removed
            groups, first = {}, count
            where = (
                f"the {count} draws per chain before it cannot be read any more ({damage}); those "
                "of this block are the attribute tree of this error"
            )
        if self._part is not None:
            for group, variables in self._groups(self._part).items():
                for name, (axes, value) in variables.items():
                    before = groups.get(group, {}).get(name, (axes, value[:, :0]))[1]
                    groups.setdefault(group, {})[name] = axes, np.concatenate([before, value], 1)
        tree = stored_draws.labelled(groups, first)
        tree.attrs = {"finished": False}
        return SaveError(
            f"a block was not written to {str(self._folder.path)!r}: {error}; {where}", tree
        )

    def attrs(self) -> dict:
        """Attributes of the result that only a run in a folder has."""
        accepted = self.facts.get("accepted")
        return {"accepted": "; ".join(accepted)} if accepted else {}

    def result(self) -> xr.DataTree:
        """Read the result of a finished run, and return it."""
        return stored_draws.of_folder(self._folder, self.facts)

    def finish(self, dt: xr.DataTree, keep_blocks: bool) -> None:
        """Write the result, and remove the blocks once it has been read back.

        The last block stays, if it has more draws than were asked for, so that the run can be
        extended.
        """
        try:
            save_result(dt, self._folder, self.facts)
        except SaveError as error:
            raise SaveError(
                f"{error}. The draws lie in {str(self._folder.path)!r} too: repeat the call, which "
                "samples nothing and writes the result again",
                dt,
            ) from error
        self.clean(keep_blocks)

    def clean(self, keep_blocks: bool) -> None:
        """Remove the blocks whose draws are in the result, unless ``keep_blocks``.

        A block that cannot be removed does no harm, and the same call tries it again.
        """
        if not keep_blocks:
            done, facts = self.size.draws, self.facts
            late = [
                n for n in self._folder.blocks() if stored_draws.first_draw(facts, n + 1) > done
            ]
            with contextlib.suppress(OSError):
                self._folder.remove_blocks([n for n in self._folder.blocks() if n not in late])

    def withdraw(self) -> None:
        """Remove run.json if no block is finished, so that the call can be changed."""
        if self._state is None:
            with contextlib.suppress(OSError):
                self._folder.remove_facts()


def _labelled(name, axes, value):
    """Return the names of all axes of the draws of a site or statistic, and the draws."""
    axes = axes[: value.ndim - 2]  # a density may have fewer axes than its site
    axes += tuple(f"{name}_axis{'_bis' * i}" for i in range(value.ndim - 2 - len(axes)))
    return ("chain", "draw", *map(stored, axes)), value


def record(
    sampler: Sampler,
    key: jax.Array,
    args: tuple,
    draws: Recorded,
    after_block: Callable[[Progress], None] | None,
) -> None:
    """Sample into a folder as `sample_in_blocks` does; end after a block if a signal arrives.

    Raises
    ------
    SaveError
        If a block cannot be written.
    KeyboardInterrupt
        If SIGINT or SIGTERM arrived.
    """
    with signals.after_block(draws.path) as check:

        def after(facts):
            if after_block is not None:
                after_block(facts)
            check(facts.block, facts.blocks)

        try:
            sample_in_blocks(sampler, key, args, draws, after)
        except SaveError:
            raise
        except Exception:  # for instance, the model has no valid start
            draws.withdraw()
            raise


def tested(data: Any) -> dict:
    """Return what identifies the test points of a `Data`, by name."""
    return {
        name: None if value is None else of_array(value)
        for name, value in (("X_test", data.X_test), ("y_test", data.y_test))
    }


class Job:
    """The folder of `coarse_grain`, in which its two fits have run folders of their own.

    Parameters
    ----------
    folder : RunFolder, locked by the caller
    asked : what identifies the job beside its two fits
    draws : number of draws of each fit
    origin : texts and numbers that say how model and data were made, or None
    """

    def __init__(self, folder: RunFolder, asked: dict, draws: int, origin: Any):
        facts, self._folder = folder.facts, folder
        self._new = facts is None
        if facts is None:
            facts = {"kind": "job", "draws": draws} | asked
            facts["origin"] = None if origin is None else dict(origin)
            folder.write_facts(facts)
        elif facts.get("kind") != "job":
            raise ValueError(
                f"{str(folder.path)!r} holds a run of fit, not of inference.coarse_grain; give "
                "another path"
            )
        for name, now in asked.items():
            found = difference(name, facts.get(name), now)
            if found is not None:
                field, before, now = found
                raise ValueError(
                    f"{str(folder.path)!r} holds another run: {field} was {before} and is now "
                    f"{now}; {_REMEDY}"
                )
        self._facts, self._draws = facts, draws

    def withdraw(self) -> None:
        """Remove run.json if the first fit did not begin, for instance because the model fails."""
        if self._new and not (self._folder.path / "full" / "run.json").exists():
            self._folder.remove_facts()

    @property
    def finished(self) -> bool:
        """Whether the folder has a result with all draws of the call."""
        return stored_draws.in_result(self._folder, self._facts) >= self._draws

    def result(self) -> xr.DataTree:
        """Read the result, and return it."""
        return stored_draws.of_folder(self._folder, self._facts)

    def finish(self, dt: xr.DataTree) -> None:
        """Write the result."""
        self._facts["draws"] = self._draws
        save_result(dt, self._folder, self._facts)

    def coarse(self, cutoff: int) -> None:
        """Note the cutoff. If more draws have moved it, remove the run with the former one."""
        before = self._facts.get("cutoff")
        if before is not None and before != cutoff:
            shutil.rmtree(self._folder.path / "coarse", ignore_errors=True)
        if before != cutoff or self._facts["draws"] != self._draws:
            self._facts |= {"cutoff": cutoff, "draws": self._draws}
            self._folder.write_facts(self._facts)


def _bytes(leaf):
    """Return an array, or random keys, as an array of bytes."""
    if jax.dtypes.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.frombuffer(np.asarray(leaf).tobytes(), np.uint8)


def _from_bytes(content, like):
    """Return the array, or the random keys, of the kind of ``like`` with these bytes."""
    if jax.dtypes.issubdtype(jnp.result_type(like), jax.dtypes.prng_key):
        inner = _from_bytes(content, jax.random.key_data(like))
        return jax.random.wrap_key_data(inner, impl=jax.random.key_impl(like))
    like = np.asarray(like)
    return jnp.asarray(np.frombuffer(content.tobytes(), like.dtype).reshape(like.shape))
