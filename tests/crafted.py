# SPDX-License-Identifier: Apache-2.0
"""Files made to mislead, to fill the memory or to run code, each with the door that reads it."""

import gzip
import io
import os
import pickle
import struct
import zipfile
import zlib

import h5py
import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 32, 32), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 10
ZEROS = bytes(1 << 25)  # 32 MiB, which pack into 32 kB
MNIST = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
BATCH, BINARY = "cifar-10-batches-py/data_batch_1", "cifar-10-batches-bin/data_batch_1.bin"


class Harmful:
    def __init__(self, what, *arguments):
        self.call = what, arguments

    def __reduce__(self):
        return self.call


def idx(array, shape=None, kind=8):
    shape = array.shape if shape is None else shape
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(array)


def mnist(images=None, labels=None, packed=False):
    """The two files; images and labels are given as bytes."""
    images = idx(IMAGES) if images is None else images
    labels = idx(LABELS) if labels is None else labels
    end = ".gz" if packed else ""
    return {MNIST[0] + end: images, MNIST[1] + end: labels}


def npz(packed=False, **arrays):
    stream = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(stream, **arrays)
    return stream.getvalue()


def good():
    return npz(images=IMAGES, labels=LABELS)


def npy(header, data=b"", version=1, length=None):
    text = header if isinstance(header, bytes) else repr(header).encode() + b"\n"
    form = "<H" if version == 1 else "<I"
    size = struct.pack(form, len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


def head(shape, descr="|u1"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


def archive(method=zipfile.ZIP_DEFLATED, **members):
    stream = io.BytesIO()
    labels = npy(head(LABELS.shape), bytes(LABELS))
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in ({"labels": labels} | members).items():
            file.writestr(name + ".npy", content)
    return stream.getvalue()


def swap(content, old, new):
    assert old in content
    return content.replace(old, new)


def picture(array=IMAGES[0], form="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data, *more, bits=8):
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    rest = b"".join(more) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + start + rest


def notes(count):
    """Notes of a megabyte each under names of their own."""
    packed = zlib.compress(ZEROS[: 1 << 20])
    keys = (bytes([97 + i % 25, 97 + i // 25]) for i in range(count))
    return [chunk(b"zTXt", key + b"\0\0" + packed) for key in keys]


def folder(content, name="a/0.png"):
    sound = {f"cifar10/{'ab'[i % 2]}/{i + 1}.png": picture(IMAGES[i]) for i in range(4)}
    return sound | {f"cifar10/{name}": content}


def hdf5(make):
    """A run whose only unsound part is what ``make`` adds to the group posterior."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        group = file.create_group("posterior")
        for name, value in ("chain", [0]), ("draw", [0, 1]), ("a", np.zeros((1, 2))):
            group[name] = value
        for axis, name in enumerate(("chain", "draw")):
            group[name].make_scale(name)
            group["a"].dims[axis].attach_scale(group[name])
        make(group)
    return stream.getvalue()


def lying_chunk(group):
    variable = group.create_dataset("b", (8,), chunks=(8,), compression="gzip", dtype="f8")
    variable.id.write_direct_chunk((0,), zlib.compress(ZEROS))


def outside(group):
    """Numbers from another file."""
    space, plan = h5py.h5s.create_simple((8,)), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_external(b"/etc/passwd", 0, 8)
    h5py.h5d.create(group.id, b"b", h5py.h5t.NATIVE_UINT8, space, dcpl=plan)


def virtual(group):
    layout = h5py.VirtualLayout((8,), "f8")
    layout[:] = h5py.VirtualSource("/other.nc", "b", (8,))
    group.create_virtual_dataset("b", layout)


def nested(group):
    for _ in range(100):
        group = group.create_group("g")


def dated(group):
    group["t"] = np.arange(2.0)
    group["t"].attrs["units"] = "days since\nthe flood"


def many_names(group):
    group.create_dataset("b", (100_000,), h5py.string_dtype())


def named(group, name, value):
    group[name] = value


def unaligned(group):
    """A dimension of another length in a group within the group."""
    child = group.create_group("child")
    child["draw"] = np.arange(3)
    child["draw"].make_scale("draw")


def shared_names(group):
    """Attributes of ten thousand entries which all point to one long string."""
    group.attrs.create("b", ["x" * 1000] * 2000, (2000,), h5py.string_dtype())


def endless(run):
    """A heap of names with a step of no length, at which HDF5 2.0 stays for ever."""
    heap = run.index(b"GCOL")
    return run[: heap + 16] + bytes(16) + run[heap + 32 :]


def long_name(run):
    """A name of three gigabytes, in a heap of a few bytes."""
    entry = struct.pack("<IQ", len("some name"), run.index(b"GCOL"))
    return swap(run, entry, struct.pack("<I", 3 << 30) + entry[4:])


def files():
    """Yield name, door and content, by relative path, of each crafted case."""
    whole, run = good(), hdf5(lambda group: None)
    batch = pickle.dumps({b"data": bytes(3072), b"labels": [1]})
    cases = {
        "batch": {BATCH: batch},
        "batch that makes a folder": {BATCH: pickle.dumps(Harmful(os.mkdir, "harm"))},
        "batch of raw memory": {BATCH: pickle.dumps(Harmful(np.ndarray, (1 << 20,), "u1"))},
        "batch with a bad type": {BATCH: pickle.dumps(Harmful(np.dtype, "V2147483647"))},
        "batch, empty": {BATCH: b""},
        "pickle as records": {BINARY: batch},
        "records, one short": {BINARY: bytes(3 * 3073 - 1)},
        "records, empty": {BINARY: b""},
        "records of class 77": {BINARY: b"\x4d" * 3 * 3073},
        "records of zeros": {BINARY: bytes(5 * 3073)},
        "no zip": {"cifar10.npz": b"PK" + bytes(100)},
        "pickle as npz": {"cifar10.npz": batch},
        "npz, empty": {"cifar10.npz": b""},
        "npz, half": {"cifar10.npz": whole[: len(whole) // 2]},
        "npz with a changed pixel": {"cifar10.npz": swap(whole, bytes(IMAGES[3]), bytes(1024))},
        "npz of zeros": {"cifar10.npz": archive(images=npy(head((1 << 15, 1024)), ZEROS))},
        "npz with more than it says": {"cifar10.npz": archive(images=npy(head((12, 2)), ZEROS))},
        "npz with a long header": {"cifar10.npz": archive(images=npy(ZEROS, version=2))},
        "npz that promises": {"cifar10.npz": archive(images=npy(head((10**11, 1024)), b"1"))},
        "npz of shape -1": {"cifar10.npz": archive(images=npy(head((-1, 1024)), b"1"))},
        "npz of no images": {"cifar10.npz": npz(images=IMAGES[:0], labels=LABELS[:0])},
        "npz of objects": {"cifar10.npz": npz(images=IMAGES, labels=LABELS.astype(object))},
        "npz of text": {"cifar10.npz": npz(images=IMAGES, labels=LABELS.astype(str))},
        "npz of complex": {"cifar10.npz": npz(images=IMAGES * 1j, labels=LABELS)},
        "npz of code": {"cifar10.npz": archive(images=npy(b"__import__('os').mkdir('harm')\n"))},
        "npz of brackets": {"cifar10.npz": archive(images=npy(b"(" * 900))},
        "npz, by lzma": {"cifar10.npz": archive(zipfile.ZIP_LZMA, images=npy(head((2,)), b"12"))},
        "npz of 3000 names": {"cifar10.npz": archive(**{f"x{i}": b"" for i in range(3000)})},
        "npz without images": {"cifar10.npz": npz(image=IMAGES, labels=LABELS)},
        "npz of one number": {"cifar10.npz": npz(images=np.array(1.0), labels=LABELS)},
        "npz, labels short": {"cifar10.npz": npz(images=IMAGES, labels=LABELS[:-1])},
        "npz with half a label": {"cifar10.npz": npz(images=IMAGES, labels=LABELS + 0.5)},
        "npz with nan labels": {"cifar10.npz": npz(images=IMAGES, labels=LABELS * np.nan)},
        "npz with nan pixels": {"cifar10.npz": npz(images=IMAGES * np.nan, labels=LABELS)},
        "npz with inf pixels": {"cifar10.npz": npz(images=IMAGES + np.inf, labels=LABELS)},
        "npz of one class": {"cifar10.npz": npz(images=IMAGES, labels=LABELS * 2)},
        "npz of blank images": {"cifar10.npz": npz(images=IMAGES * 0, labels=LABELS)},
        "npz of one image": {"cifar10.npz": npz(images=IMAGES[:1].repeat(12, 0), labels=LABELS)},
        "EPS as PNG": folder(picture(form="EPS")),
        "GIF as PNG": folder(picture(form="GIF")),
        "TIFF as JPEG": folder(picture(form="TIFF"), "a/0.jpg"),
        "PNG, half": folder(picture()[:300]),
        "PNG, empty": folder(b""),
        "PNG of junk": folder(RNG.bytes(500)),
        "PNG that promises": folder(png(30000, 30000, b"1")),
        "PNG that promises less": folder(png(9000, 9000, b"1")),
        "PNG of zeros": folder(png(8191, 4095, ZEROS)),
        "PNG of 16 bits": folder(png(32, 32, bytes(65 * 32), bits=16)),
        "PNG with notes": folder(png(32, 32, bytes(33 * 32), *notes(60))),
        "PNG of another size": folder(picture(IMAGES[0, :31])),
        "JPEG, half": folder(picture(form="JPEG")[:400], "a/0.jpg"),
        "pickle as PNG": folder(batch),
    }  # fmt: skip
    yield from ((name, "cifar10", content) for name, content in cases.items())
    packed = gzip.compress(idx(IMAGES))
    cases = {
        "IDX, empty": mnist(b""),
        "IDX, one short": mnist(idx(IMAGES)[:-1]),
        "IDX, one more": mnist(idx(IMAGES) + b"1"),
        "IDX of text": mnist(b"<html>"),
        "IDX of floats": mnist(idx(IMAGES, kind=13)),
        "IDX of 200 axes": mnist(idx(IMAGES, (1,) * 200)),
        "IDX that promises": mnist(idx(IMAGES, (2**32 - 1,) * 3)),
        "IDX of no pixels": mnist(idx(b"", (12, 0, 0))),
        "IDX, labels short": mnist(labels=idx(LABELS[:-1])),
        "IDX of blank images": mnist(idx(IMAGES * 0)),
        "pickle as IDX": mnist(batch),
        "gzip, empty": mnist(b"", packed=True),
        "gzip of text": mnist(b"<html>", packed=True),
        "gzip, half": mnist(packed[: len(packed) // 2], gzip.compress(idx(LABELS)), packed=True),
        "gzip with a wrong sum": mnist(packed[:-8] + bytes(4) + packed[-4:], packed=True),
        "gzip and more": mnist(packed + b"more", packed=True),
        "gzip twice": mnist(gzip.compress(packed), packed=True),
        "gzip of zeros": mnist(gzip.compress(idx(ZEROS, (1 << 15, 32, 32))), packed=True),
        "gzip with more than it says": mnist(gzip.compress(idx(ZEROS, (2, 2, 2))), packed=True),
        "gzip that promises": mnist(gzip.compress(idx(b"1", (2**31,) * 3)), packed=True),
        "gzip of many labels": mnist(packed, gzip.compress(idx(ZEROS, (1 << 25,))), packed=True),
    }
    yield from ((name, "mnist", content) for name, content in cases.items())
    pair = np.dtype([("x", "f8"), ("y", "i4")])
    cases = {
        "run of junk": RNG.bytes(1000),
        "run, empty": b"",
        "run, half": run[: len(run) // 2],
        "run of text": b"<html>",
        "pickle as run": batch,
        "npz as run": whole,
        "netCDF 3": b"CDF\x01" + bytes(28),
        "run without end": endless(hdf5(lambda g: named(g, "b", "some name"))),
        "run with a long name": long_name(hdf5(lambda g: named(g, "b", "some name"))),
        "run without groups": hdf5(lambda g: g.parent.pop("posterior")),
        "run of zeros": hdf5(
            lambda g: g.create_dataset("b", data=np.frombuffer(ZEROS), compression="gzip")),
        "run with a lying chunk": hdf5(lying_chunk),
        "run that promises": hdf5(lambda g: g.create_dataset("b", (10**6, 10**6), "f8")),
        "run that promises chunks": hdf5(
            lambda g: g.create_dataset("b", (10**9, 8), "f8", chunks=(100, 8))),
        "run with a huge chunk": hdf5(
            lambda g: g.create_dataset("b", (1,), "f8", chunks=(1 << 27,), maxshape=(None,))),
        "run of pairs": hdf5(lambda g: g.create_dataset("b", (3,), pair)),
        "run of references": hdf5(lambda g: g.create_dataset("b", (3,), h5py.ref_dtype)),
        "run of lists": hdf5(lambda g: g.create_dataset("b", (3,), h5py.vlen_dtype("i4"))),
        "run of bytes": hdf5(lambda g: named(g, "b", np.void(b"123"))),
        "run of a type": hdf5(lambda g: named(g, "b", np.dtype("f8"))),
        "run of nothing": hdf5(lambda g: named(g, "b", h5py.Empty("f8"))),
        "run with a link out": hdf5(lambda g: named(g, "b", h5py.ExternalLink("/other.nc", "/"))),
        "run with a loose link": hdf5(lambda g: named(g, "b", h5py.SoftLink("/nowhere"))),
        "run in itself": hdf5(lambda g: named(g, "b", g)),
        "run of outside bytes": hdf5(outside),
        "run of outside numbers": hdf5(virtual),
        "run a hundred deep": hdf5(nested),
        "run of 2100 groups": hdf5(lambda g: [g.create_group(f"g{i}") for i in range(2100)]),
        "run by lzf": hdf5(lambda g: g.create_dataset("b", data=np.zeros(99), compression="lzf")),
        "run of odd dates": hdf5(dated),
        "run of many names": hdf5(many_names),
        "run with shared names": hdf5(shared_names),
        "run with two lengths": hdf5(unaligned),
    }  # fmt: skip
    yield from ((name, "run", {"result.nc": content}) for name, content in cases.items())
