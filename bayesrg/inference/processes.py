# SPDX-License-Identifier: Apache-2.0
"""Runs of several processes that `jax.distributed` has joined: what they do together.

All processes make the same calls. Chains are divided among the devices of all processes; files are
written by process 0 alone. What process 0 reads, and every exception, is sent to the others, so
that no process waits for one that has left the run.
"""

import contextlib
import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from .. import io
from ..io.facts import first_difference
from ..io.run_folder import RunFolder
from .signals import Interrupted

_PIECE = 2**24  # bytes that are sent at once


class ProcessLost(RuntimeError):
    """Another process of the run has ended, or cannot be reached."""


def share_of(devices: int) -> list:
    """Return ``devices`` devices, the same number of each process, in the order of processes."""
    each = devices // jax.process_count()
    return [d for p in range(jax.process_count()) for d in jax.local_devices(p)[:each]]


def spread(tree: Any, mesh: Mesh, spec: jax.P) -> Any:
    """Return a tree, which all processes have, as arrays over the devices of all processes."""
    place = NamedSharding(mesh, spec)
    if jax.process_count() == 1:
        return jax.device_put(tree, place)

    def put(leaf):
        return jax.make_array_from_callback(leaf.shape, place, lambda index: leaf[index])

    return typed(jax.tree.map(put, raw(tree)), tree)


def gather(tree: Any) -> Any:
    """Return arrays of `spread`, or results of them, as NumPy arrays, whole in every process.

    With several processes, random keys are returned as their numbers.
    """
    if jax.process_count() == 1:
        return jax.device_get(tree)
    if not jax.tree.leaves(tree):
        return tree
    with _connected():
        everywhere = NamedSharding(jax.tree.leaves(tree)[0].sharding.mesh, jax.P())
        whole = jax.jit(_numbers, out_shardings=everywhere)(tree)
        return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), whole)


def _numbers(tree):
    return jax.tree.map(_number, tree)


def _number(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf):
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def raw(tree: Any) -> Any:
    """Return a tree with NumPy arrays as leaves; random keys become their numbers."""
    return jax.tree.map(lambda leaf: np.asarray(_number(leaf)), tree)


def typed(tree: Any, like: Any) -> Any:
    """Return a tree in which the numbers of random keys are keys again, as they are in ``like``."""

    def as_key(leaf, of):
        if _is_key(of):
            return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(of))
        return leaf

    return jax.tree.map(as_key, tree, like)


def exchange(value: Any) -> list:
    """Return the small values of all processes, in their order."""
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    with _connected():
        lengths = multihost_utils.process_allgather(np.array(content.size)).tolist()
        padded = np.zeros(1 << max(lengths).bit_length(), np.uint8)  # few shapes, few programs
        padded[: content.size] = content
        rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:n].tobytes()) for row, n in zip(rows, lengths, strict=True)]


def first(work: Callable[[], Any]) -> Any:
    """Let process 0 do ``work``, and return its result, or raise its exception, in all processes.

    Exceptions reach other processes as the nearest built-in class, with the message.
    """
    if jax.process_count() == 1:
        return work()
    mine, value, content = jax.process_index() == 0, None, b""
    error = None
    if mine:
        try:
            value = work()
            content = pickle.dumps(value)
        except BaseException as raised:
            error = raised
    size, failure = exchange((len(content), _described(error)))[0]
    if error is not None:
        raise error
    if failure is not None:
        raise _again(failure, 0)

    found = bytearray()
    for start in range(0, size, _PIECE):
        piece = np.zeros(min(_PIECE, 1 << (size - start).bit_length()), np.uint8)
        part = np.frombuffer(content[start : start + _PIECE], np.uint8)
        piece[: part.size] = part
        with _connected():
            found += multihost_utils.broadcast_one_to_all(piece).tobytes()
    return value if mine else pickle.loads(found[:size])


def together(function: Callable | None) -> Callable | None:
    """Return a function whose exceptions, also those of signals, are raised in all processes.

    All processes call it the same number of times.
    """
    if jax.process_count() == 1:
        return function

    def call(*given):
        error = None
        try:
            if function is not None:
                function(*given)
        except BaseException as raised:
            error = raised
        failures = exchange(_described(error))
        if error is not None:
            raise error
        for number, failure in enumerate(failures):
            if failure is not None:
                raise _again(failure, number)

    return call


@contextlib.contextmanager
def claim(path: Any):
    """Lock a run folder in process 0, as `bayesrg.io.claim` does; give it in all processes."""
    if path is None or jax.process_count() == 1:
        with io.claim(path) as folder:
            yield folder
        return
    with contextlib.ExitStack() as stack:
        place = first(lambda: stack.enter_context(io.claim(path)).path)
        yield RunFolder(place)


def require_same(facts: dict) -> None:
    """Raise ValueError if what identifies the run, see `identity`, differs between processes."""
    if jax.process_count() == 1:
        return
    facts_of = exchange(facts)
    for number, other in enumerate(facts_of):
        differs = first_difference(facts_of[0], other)
        if differs is not None:
            field, one, two = differs
            raise ValueError(
                f"all processes must make the same call: {field} is {one} in process 0 and {two} "
                f"in process {number}; give both the same"
            )


def _described(error):
    """Return the name of the nearest built-in class, message and exit code of an exception."""
    if error is None:
        return None
    kind = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
    return kind, str(error), getattr(error, "code", None)


def _again(failure, number):
    """Return the exception of another process as one of this process."""
    kind, message, code = failure
    message = f"process {number} of {jax.process_count()}: {message}"
    if kind is KeyboardInterrupt and code is not None:
        return Interrupted(message, code)
    try:
        return kind(message)
    except TypeError:  # a class with arguments of its own
        return RuntimeError(message)


@contextlib.contextmanager
def _connected():
    """Say what to do if a transfer between processes fails."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise ProcessLost(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one "
            f"({str(error).splitlines()[0]}); look in the output of the others for the cause, and "
            "start all of them again: with path the same call goes on after the last block"
        ) from error
