# SPDX-License-Identifier: Apache-2.0
"""The models are importable from a checkout, an editable install, a wheel and an sdist."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USE = """
import pkgutil, sys
import bayesrg
from bayesrg.models import gp_modes, gp_regression
names = sorted({m.name for m in pkgutil.iter_modules(bayesrg.models.__path__)})
assert "gp_modes" in names and "gp_regression" in names
assert gp_modes.gp_regression is gp_regression
print(gp_regression.__file__)
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and sdist of this tree, the wheel built from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder]
    subprocess.run(run, cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    run = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(run, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel, sdist, source


def where(python, cwd, **environment):
    """Use the models in a fresh process; return the file that they came from."""
    done = subprocess.run(
        [python, "-c", USE], cwd=cwd, capture_output=True, text=True,
        env={"PATH": "", "HOME": str(cwd), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def install(target, folder):
    """Install without dependencies into an environment that sees this one's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    ours = next(p for p in map(Path, sys.path) if (p / "numpyro").is_dir())
    (site,) = (folder / "lib").glob("python*/site-packages")
    for entry in ours.iterdir():  # all but this package itself
        if "bayesrg" not in entry.name:
            (site / entry.name).symlink_to(entry)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, *target]
    subprocess.run(command, check=True)
    return python, site


def test_checkout(tmp_path):
    file = where(sys.executable, tmp_path, PYTHONPATH=str(ROOT))
    assert file == ROOT / "models" / "gp_regression.py"


def test_editable(tmp_path):
    python, _ = install(["--editable", ROOT], tmp_path / "env")
    assert where(python, tmp_path) == ROOT / "models" / "gp_regression.py"


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_wheel_and_sdist(built, tmp_path, kind):
    wheel, sdist, _ = built
    python, site = install([wheel if kind == "wheel" else sdist], tmp_path / "env")
    assert where(python, tmp_path) == site / "bayesrg" / "models" / "gp_regression.py"
    assert not (site / "models").exists()  # nothing so called lands beside other packages


def test_contents(built):
    wheel, _, source = built
    names = zipfile.ZipFile(wheel).namelist()
    assert "bayesrg/models/gp_regression.py" in names and "bayesrg/py.typed" in names
    assert not [n for n in names if n.startswith(("models/", "tests/"))]
    for part in ("bayesrg", "models", "tests", "examples", "docs", "CITATION.cff", "LICENSE"):
        assert (source / part).exists(), part
    assert not list(source.rglob("uv.lock")) and not list(source.rglob("_build"))
