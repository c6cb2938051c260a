# SPDX-License-Identifier: Apache-2.0
"""Environments of other packages, each in a folder of its own, from wheels alone.

A package that does not install is a line with the reason, not an error.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# name: (version of Python or None for this one, requirements). PyTorch is pinned to a version of
# which builds for the CPU alone exist; pip also takes it from a local folder of wheels.
PEERS = {
    "gpytorch": ("3.11", ["torch==2.13.0", "gpytorch>=1.15", "scikit-learn>=1.6"]),
    "gpjax": (None, ["gpjax>=1.0"]),
    "gpboost": (None, ["gpboost>=1.8"]),
    "neural-tangents": (
        "3.10",
        ["jax[cpu]==0.4.23", "numpy<2", "scipy<1.12", "neural-tangents==0.6.5"],
    ),
    "weightwatcher": (None, ["weightwatcher==0.7.7", "torch"]),
}


def python_of(name):
    """Return the Python of a peer's environment and "", or None and the reason.

    The environment is made in ``.venv-NAME`` at the first call, with pip. The Python comes from the
    one that runs here, from pyenv or from the path.
    """
    version, requirements = PEERS[name]
    folder = ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python, ""
    base = sys.executable if version is None else interpreter(version)
    if base is None:
        return None, f"no Python {version}"
    make = [base, "-m", "venv", "--clear", folder]
    fill = [python, "-m", "pip", "install", "-qq", "--only-binary", ":all:", *requirements]
    for command in (make, fill):
        print(f"installing {name} in {folder}", file=sys.stderr, flush=True)
        try:
            subprocess.run(command, check=True, timeout=900, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as error:
            return None, str(error).replace(str(ROOT), ".")
    (folder / "complete").touch()
    return python, ""


def interpreter(version):
    """Return a Python of this version (such as "3.10") from pyenv or the path, or None."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(folder.glob(f"{version}.*/bin/python"))
    return found[-1] if found else shutil.which(f"python{version}")


def versions():
    """Return the versions in all environments that exist: a text for each, by name."""
    names = "*(f'{p} {m.version(p)}' for p in sys.argv[1:])"
    code = f"import sys, importlib.metadata as m; print({names})"
    found = {}
    for name, (_, requirements) in PEERS.items():
        if (ROOT / f".venv-{name}" / "complete").exists():
            packages = [re.split(r"[\[<=>]", text)[0] for text in requirements]
            command = [ROOT / f".venv-{name}" / "bin" / "python", "-c", code, *packages]
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout
            found[name] = out.strip() or "missing"
    return found
