# SPDX-License-Identifier: Apache-2.0
"""Files that mislead: each is refused in one line that names it, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import crafted
import pytest

READ = """
import json, os, sys
from pathlib import Path
import numpyro
numpyro.enable_x64()
import bayesrg as brg
from bayesrg.data import load

def memory(what):
    status = Path("/proc/self/status").read_text().split()
    return 1024 * int(status[status.index(what + ":") + 1])

for folder, door in json.load(sys.stdin):  # the first of each kind is sound: libraries are loaded
    os.environ["BAYESRG_DATA"] = folder
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before = memory("VmRSS")
    try:
        brg.open_run(folder) if door == "run" else load(door)
        said = None
    except (ValueError, OSError) as error:
        said = str(error)
    print(json.dumps([said, memory("VmHWM") - before]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads memory as Linux does")
def test_crafted_files_are_refused_in_one_line_and_little_memory(tmp_path):
    sound = [
        ("sound run", "run", {"result.nc": crafted.hdf5(lambda group: None)}),
        ("sound gzip", "mnist", crafted.mnist()),
        ("sound images", "cifar10", crafted.folder(crafted.picture(form="JPEG"), "a/0.jpg")),
        ("sound npz", "cifar10", {"c.npz": b"", "cifar10.npz": crafted.good()}),
    ]
    cases = []
    for number, (name, door, content) in enumerate([*sound, *crafted.files()]):
        folder = tmp_path / str(number)
        for path, data in content.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        cases.append((name, door, folder, sum(map(len, content.values()))))
    assert len(cases) >= 60 + len(sound) and len({case[0] for case in cases}) == len(cases)
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=tmp_path, capture_output=True, text=True,
        input=json.dumps([(str(folder), door) for _, door, folder, _ in cases]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, _, folder, size), (said, taken) in zip(cases, lines, strict=True):
        if name.startswith("sound"):
            assert said is None, (name, said)
            continue
        assert said is not None, f"{name} is read"
        assert str(folder) in said and "\n" not in said and len(said) < 1200, (name, said)
        print(f"{name:30s} {taken / 1e6:6.1f} MB")
        assert taken < 2 * size + 50e6, f"{name} takes {taken / 1e6:.0f} MB"
    assert not list(tmp_path.rglob("harm"))
