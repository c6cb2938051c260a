# SPDX-License-Identifier: Apache-2.0
import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayesrg.data import load, readers


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


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return head + array.tobytes()


def images_and_labels(size, *shape, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
    return images, np.arange(size, dtype=np.uint8) % 10


def write_idx(folder, stem, seed, packed=False):
    """Files of 20 images; all files have one size, for which `load` compiles its shuffle."""
    folder.mkdir(exist_ok=True)
    names = ("images-idx3", "labels-idx1")
    for what, array in zip(names, images_and_labels(20, 4, 3, seed=seed), strict=True):
        path = folder / (f"{stem}-{what}-ubyte" + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))


def assert_reads(data, images, labels):
    """The three parts together are the images, centred and scaled, with their labels' targets."""
    X = images.reshape(len(images), -1).astype(float)
    X = X - X.mean(0)
    X = X * np.sqrt(X.shape[1]) / np.linalg.norm(X, axis=1, keepdims=True)
    got = np.concatenate([data.X, data.X_test, data.X_ref])
    assert got.shape == X.shape
    nearest = ((got[:, None] - X[None]) ** 2).sum(-1).argmin(1)
    np.testing.assert_allclose(got, X[nearest], rtol=0, atol=1e-12)
    assert sorted(nearest) == list(range(len(X)))
    y = np.where(np.asarray(labels) % 2 == 0, 1.0, -1.0)[nearest]
    np.testing.assert_array_equal(np.concatenate([data.y, data.y_test]), y[: -len(data.X_ref)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESRG_DATA", str(tmp_path))
    monkeypatch.setattr(readers, "_DEBIAN", tmp_path / "debian")
    return tmp_path


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files(folder, packed):
    write_idx(folder, "t10k", 20, packed)
    data = load("mnist", n=6)
    assert data.X.shape == (6, 12) and len(data.X_test) == len(data.X_ref) == 7
    assert_reads(data, *images_and_labels(20, 4, 3, seed=20))


def test_which_idx_files_are_taken(folder):
    write_idx(folder, "train", 21)
    assert_reads(load("mnist"), *images_and_labels(20, 4, 3, seed=21))
    write_idx(folder, "t10k", 22)
    assert_reads(load("mnist"), *images_and_labels(20, 4, 3, seed=22))
    write_idx(folder / "mnist", "t10k", 23)
    assert_reads(load("mnist"), *images_and_labels(20, 4, 3, seed=23))
    (folder / "mnist" / "t10k-labels-idx1-ubyte").unlink()  # half a pair is none
    assert_reads(load("mnist"), *images_and_labels(20, 4, 3, seed=22))
    write_idx(folder / "debian", "t10k", 24, packed=True)
    assert_reads(load("fashion_mnist"), *images_and_labels(20, 4, 3, seed=24))
    write_idx(folder / "fashion-mnist", "t10k", 25)
    assert_reads(load("fashion_mnist"), *images_and_labels(20, 4, 3, seed=25))
    write_idx(folder / "fashion_mnist", "t10k", 26)
    assert_reads(load("fashion_mnist"), *images_and_labels(20, 4, 3, seed=26))


def write_batch(path, images, labels):
    path.parent.mkdir(exist_ok=True)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    path.write_bytes(np.concatenate([labels[:, None], planes], 1).tobytes())


def test_cifar10_batches(folder):
    images, labels = images_and_labels(30, 32, 32, 3)
    batches = folder / "cifar-10-batches-bin"
    np.savez(folder / "cifar10.npz", images=images[:5], labels=labels[:5])
    write_batch(batches / "test_batch.bin", images[10:], labels[10:])
    assert_reads(load("cifar10", n=10), images[10:], labels[10:])
    write_batch(batches / "data_batch_1.bin", images[:16], labels[:16])
    write_batch(batches / "data_batch_2.bin", images[16:], labels[16:])
    assert_reads(load("cifar10", n=10), images, labels)


def test_a_pickle_is_refused_and_the_message_converts_it(folder):
    images, labels = images_and_labels(10, 32, 32, 3)
    path = folder / "cifar-10-batches-py" / "data_batch_1"
    path.parent.mkdir()
    planes = images.transpose(0, 3, 1, 2).reshape(10, 3072)
    path.write_bytes(pickle.dumps({b"data": planes, b"labels": labels.tolist()}, protocol=2))
    with pytest.raises(
        ValueError, match="data_batch_1 is a pickle, which can run any code"
    ) as told:
        load("cifar10")
    exec(str(told.value).partition("convert them once: ")[2], {})
    assert_reads(load("cifar10", n=3), images, labels)


IMAGES, LABELS = images_and_labels(12, 4, 4)


def spoilt(array, row, value):
    array = array.astype(float)
    array[row] = value
    return array


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (spoilt(IMAGES, 5, np.nan), LABELS, "1 of 12 images hold pixels that are nan.*: rows 5;"),
        (spoilt(IMAGES, 5, -np.inf), LABELS, "1 of 12 images hold pixels .*infinite.*: rows 5;"),
        (spoilt(IMAGES, 5, 1e200), LABELS, r"1 of 12 images hold pixels .*beyond 1e\+100: rows 5;"),
        (spoilt(IMAGES, 5, IMAGES[np.arange(12) != 5].mean(0)), LABELS,
         "1 of 12 images equal the mean of all images and cannot be scaled: rows 5;"),
        (IMAGES * 0, LABELS, "12 of 12 images equal the mean .*: rows 0, 1, 2, 3, 4, ...;"),
        (IMAGES * 0 + 0.1, LABELS, "12 of 12 images equal the mean"),
        (IMAGES, spoilt(LABELS, 3, 0.5), "1 of 12 images have labels .*such as 0.5: rows 3;"),
        (IMAGES, spoilt(LABELS, 3, np.nan), "1 of 12 images have labels .*such as nan: rows 3;"),
        (IMAGES, spoilt(LABELS, 3, 1e300), "1 of 12 images have labels .*such as 1e.300: rows 3;"),
        (IMAGES, LABELS * 2, r"only the labels \[0, 2, 4, 6, 8\], one class of .*'even_odd'"),
        (IMAGES, LABELS[:, None], r"labels of shape \(12, 1\); give one label per image"),
        (IMAGES[0, 0, :2], LABELS[:2], "give one label per image"),
        (IMAGES[:2], LABELS[:2], "has 2 images for this task; give three or more"),
    ],
)  # fmt: skip
def test_images_that_are_no_data_are_refused_by_row(folder, images, labels, message):
    np.savez(folder / "cifar10.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match="cifar10.npz.*" + message):
        load("cifar10")


@pytest.mark.parametrize("kind", ["?", ">f4", "<f2", ">i8", "u2", "f8"])
def test_any_kind_of_number_is_read(folder, kind):
    """Also column by column in the file, packed, and with one image that is blank."""
    images = np.asfortranarray(spoilt(IMAGES > 99, 5, 0).astype(kind))
    np.savez_compressed(folder / "cifar10.npz", images=images, labels=LABELS.astype(">f8"))
    assert_reads(load("cifar10", n=3), images, LABELS)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 3)])
def test_cifar10_npz_and_folders_of_images(folder, shape):
    images, labels = images_and_labels(30, *shape)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "cifar10" / "abcdefghij"[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / "cifar10" / "readme.txt").write_text("not a class")
    assert_reads(load("cifar10", n=10), images, labels)
    np.savez(folder / "cifar10-some.npz", images=images[:20], labels=labels[:20])
    assert_reads(load("cifar10", n=10), images[:20], labels[:20])
    np.savez(folder / "cifar10.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match="several files cifar10.*cifar10-some.npz, cifar10.npz"):
        load("cifar10")


def test_damaged_files_are_named(folder):
    write_idx(folder, "t10k", 20)
    path = folder / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte holds 239 bytes for shape"):
        load("mnist")
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte is not an IDX file"):
        load("mnist")
    path.write_bytes(idx(images_and_labels(19, 4, 3)[0]))
    with pytest.raises(ValueError, match=r"shape \(19, 4, 3\) but labels of shape \(20,\)"):
        load("mnist")
    np.savez(folder / "cifar10.npz", image=np.zeros(3))
    with pytest.raises(ValueError, match="has no array images or labels, only image"):
        load("cifar10")
    (folder / "cifar10.npz").unlink()
    (folder / "cifar10" / "cat").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no PNG or JPEG images in"):
        load("cifar10")
    for i, size in enumerate((32, 31)):
        Image.fromarray(np.zeros((size, 32), np.uint8)).save(
            folder / "cifar10" / "cat" / f"{i}.png"
        )
    with pytest.raises(ValueError, match=r"1.png has shape \(31, 32\) but the first image"):
        load("cifar10")


REAL = Path(os.environ.get("BAYESRG_DATA", "/nowhere"))


@pytest.mark.skipif(
    not (REAL / "t10k-images-idx3-ubyte.gz").is_file(),
    reason="needs MNIST's IDX files in $BAYESRG_DATA",
)
def test_real_mnist():
    data = load("mnist", n=100)
    assert data.X.shape == (100, 784) and len(data.X_test) + len(data.X_ref) == 9900
    y = np.concatenate([data.y, data.y_test])
    assert len(y) == 5050 and 0.47 < (y > 0).mean() < 0.515  # 4926 of the 10,000 are even


@pytest.mark.skipif(
    not list(REAL.glob("cifar10*.npz")), reason="needs a file cifar10*.npz in $BAYESRG_DATA"
)
def test_real_cifar10():
    data = load("cifar10", n=100, task=(3, 5))
    assert data.X.shape[0] == 100 and data.X.shape[1] in (1024, 3072)
    np.testing.assert_allclose((data.X**2).sum(1), data.X.shape[1], rtol=1e-12)
    assert set(np.unique(data.y)) == {-1.0, 1.0}


@pytest.mark.skipif(
    not readers._DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_real_fashion_mnist(monkeypatch):
    monkeypatch.delenv("BAYESRG_DATA", raising=False)
    data = load("fashion_mnist", n=100)
    assert data.X.shape == (100, 784) and len(data.X_test) + len(data.X_ref) == 9900


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"name": "digit"},
            "name must be one of 'digits', 'mnist', .*'cifar10', got 'digit'",
        ),
        ({"name": "digits", "n": 1796}, "n must be an integer from 1 to 1795"),
        ({"name": "digits", "n": 0}, "n must be an integer from 1 to 1795"),
        ({"name": "digits", "task": "odd"}, 'task must be "even_odd"'),
        ({"name": "digits", "task": (3, 11)}, "two different classes of the file"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mnist", r"t10k-images-idx3-ubyte.*mnist or .*BAYESRG_DATA.*bayesrg\[data\]"),
        ("fashion_mnist", "t10k-images-idx3-ubyte.*fashion_mnist.*dataset-fashion-mnist"),
        ("cifar10", "cifar-10-batches-bin.*cifar10.npz.*folder cifar10.*BAYESRG_DATA"),
    ],
)
def test_a_missing_file_says_what_to_put_where(folder, name, message):
    with pytest.raises(FileNotFoundError, match=message):
        load(name)
