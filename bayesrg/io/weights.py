# SPDX-License-Identifier: Apache-2.0
"""Weights of networks trained elsewhere, read from files that hold numbers only.

No file is unpickled. Tensors are read one at a time, so memory holds the largest of them.
"""

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .. import _checks, _reading

# what to run, where the file was made, for formats that can hold programs
_CONVERT = {
    "pickle": 'np.savez("weights.npz", **{name: np.asarray(w) for name, w in weights.items()})',
    "torch": 'safetensors.torch.save_file({k: v.contiguous() for k, v in torch.load("FILE", '
    'weights_only=True).items()}, "weights.safetensors")',
    "keras": 'np.savez("weights.npz", **{w.path.replace("/", "."): w.numpy() for w in '
    'keras.models.load_model("FILE").weights})',
}
_REFUSED = {
    ".pt": "torch",
    ".pth": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".pkl": "pickle",
    ".pickle": "pickle",
    ".npy": "pickle",
    ".h5": "keras",
    ".hdf5": "keras",
    ".keras": "keras",
}


def load_weights(
    path: str | os.PathLike, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Read the weights in a file, and return a dictionary of arrays by name.

    Parameters
    ----------
    path : path
        An ``.npz`` file, a ``.safetensors`` file, or a folder of ``.safetensors`` files into which
        one network was split. The latter need the package safetensors (extra ``weights``).
    names : sequence of str, optional
        Tensors to read, in this order; by default all, in the order of the file.

    Returns
    -------
    dict of arrays
        Floats of 16 bits become floats of 32 bits; other numbers stay as they are.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For another format, with a line that converts it; for a file that is damaged, holds
        objects, or declares more bytes than it has; for a name that it does not have.
    """
    return dict(tensors(path, names))


def tensors(
    path: str | os.PathLike, names: Sequence[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Read the weights in a file one at a time: pairs of name and array; see `load_weights`."""
    path = Path(_checks.instance("path", path, str | os.PathLike, "the name of a file or folder"))
    if names is not None:
        names = list(_checks.sequence("names", names, "names of tensors"))
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"names must be names of tensors, got {names}")
    if not path.exists():
        raise FileNotFoundError(
            f"path {str(path)!r} does not exist; give an .npz or .safetensors file"
        )
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    kind = path.suffix.lower()
    if kind in _REFUSED:
        line = _CONVERT[_REFUSED[kind]].replace("FILE", path.name)
        raise ValueError(
            f"{path} may hold programs and is not read; convert it where it was made: {line}"
        )
    if not files or not path.is_dir() and kind not in (".npz", ".safetensors"):
        raise ValueError(f"{path} holds no weights that can be read; give .npz or .safetensors")

    where = {}
    for file in files:
        for name in _names(file):
            if name in where:
                raise ValueError(
                    f"{name!r} stands in {where[name].name} and in {file.name}; keep one"
                )
            where[name] = file
    if not where:
        raise ValueError(f"{path} holds no tensors; save the weights again")
    for name in where if names is None else names:
        if name not in where:
            near = difflib.get_close_matches(name, where, 3, 0.4) or list(where)[:5]
            raise ValueError(f"{path} has no tensor {name!r}; it has {', '.join(near)}, ...")
    return ((n, _read(where[n], n)) for n in (where if names is None else names))


def _names(file):
    """Return the names of the tensors in a file, in their order."""
    if file.suffix.lower() == ".npz":
        return _reading.npz_names(file)
    safe_open = _safetensors(file)
    with _reading.reading(file, "a safetensors file"), safe_open(file, "numpy") as stored:
        return stored.offset_keys()


def _read(file, name):
    """Read one tensor."""
    if file.suffix.lower() == ".npz":
        value = _reading.npz(file, [name])[0]
    else:
        safe_open = _safetensors(file)
        with _reading.reading(file, "a safetensors file"), safe_open(file, "numpy") as stored:
            value = stored.get_tensor(name)
    narrow = value.dtype.itemsize < 4 and value.dtype.kind not in "biu"
    return value.astype(np.float32) if narrow else value


def _safetensors(file):
    """Return the function that opens a safetensors file."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise ImportError(
            f"{file} needs the package safetensors; install bayesrg[weights], or save as .npz"
        ) from None
    return safe_open
