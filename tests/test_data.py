# SPDX-License-Identifier: Apache-2.0
import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from bayesrg.data import load


def test_digits_are_centred_scaled_and_split():
    data = load("digits", n=200)
    assert data.X.shape == (200, 64) and data.y.shape == (200,)
    parts = [np.asarray(part) for part in (data.X, data.X_test, data.X_ref)]
    assert sum(map(len, parts)) == 1797 and abs(len(parts[1]) - len(parts[2])) <= 1
    for part in parts:
        np.testing.assert_allclose((part**2).sum(1), 64, rtol=1e-12)
    # the file itself holds no repeated image, so the parts share no row
    assert len({row.tobytes() for row in np.concatenate(parts)}) == 1797
    assert set(np.unique(data.y)) == {-1.0, 1.0}


def test_the_whole_file_is_centred_before_it_is_scaled():
    from sklearn.datasets import load_digits

    images = load_digits().data
    centred = images - images.mean(0)
    rows = {tuple(r) for r in np.round(centred * 8 / np.linalg.norm(centred, axis=1)[:, None], 9)}
    data = load("digits", n=10, key=3)
    assert all(tuple(r) in rows for r in np.round(np.asarray(data.X), 9))


def test_tasks_and_keys():
    assert len(load("digits", n=5, task=(3, 8)).X_test) < 200
    even, low = load("digits", n=500), load("digits", n=500, task="low_high")
    assert 0.3 < (even.y == low.y).mean() < 0.7
    np.testing.assert_array_equal(load("digits", n=5).X, load("digits", n=5, key=0).X)
    assert (load("digits", n=5).X != load("digits", n=5, key=1).X).any()
    assert len(load("digits").X) == 599


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(tmp_path, monkeypatch, packed):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 4, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 20).astype(np.uint8)
    for stem, array in (("t10k-images-idx3-ubyte", images), ("t10k-labels-idx1-ubyte", labels)):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
        content = head + array.tobytes()
        path = tmp_path / (stem + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setenv("BAYESRG_DATA", str(tmp_path))
    data = load("mnist", n=6)
    assert data.X.shape == (6, 12) and len(data.X_test) == len(data.X_ref) == 7


@pytest.mark.skipif(
    not Path(os.environ.get("BAYESRG_DATA", "/"), "t10k-images-idx3-ubyte.gz").is_file(),
    reason="needs MNIST's IDX files in $BAYESRG_DATA",
)
def test_real_mnist():
    data = load("mnist", n=100)
    assert data.X.shape == (100, 784) and len(data.X_test) + len(data.X_ref) == 9900


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "digit"}, "name must be one of 'digits', 'mnist', got 'digit'"),
        ({"name": "digits", "n": 1796}, "n must be an integer from 1 to 1795"),
        ({"name": "digits", "n": 0}, "n must be an integer from 1 to 1795"),
        ({"name": "digits", "task": "odd"}, 'task must be "even_odd"'),
        ({"name": "digits", "task": (3, 11)}, "two different classes of the file"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_a_missing_file_says_what_to_put_where(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESRG_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte.*BAYESRG_DATA"):
        load("mnist")
