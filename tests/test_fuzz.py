# SPDX-License-Identifier: Apache-2.0
"""No argument of a public function meets a raw message, a silent nan or a hang."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from test_house import OBJECTS

HERE = Path(__file__).parent
RECORDS = """
    data.Data deep_linear.Exact deep_linear.Saddle dynamics.Algorithm dynamics.DIVERGED
    dynamics.GO dynamics.Info dynamics.Paths dynamics.REACHED dynamics.State dynamics.Trajectory
    gp.LinearPosterior gp.Posterior inference.Progress inference.Sampler inference.SamplingWarning
    io.SaveError kernels.Stationary networks.Network rg.Flow rg.Root spectrum.Functionals
    spectrum.Levels spectrum.Spectrum theory.Curve theory.Equivalent theory.Hermite
    theory.LayerMoments theory.Moments
""".split()  # what the package itself makes, and bases


def test_every_public_name_has_a_problem():
    """Names stand in the registry as strings; those of plots are taken from the package."""
    words = set()
    for file in ("fuzz_problems.py", "fuzz_weights.py", "fuzz_upper.py"):
        tree = ast.parse((HERE / file).read_text())
        texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        words |= texts | {text.split(".")[-1] for text in texts}
        words |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    for name, value in OBJECTS.items():
        home, last = name.split(".")[0], name.split(".")[-1]
        takes_nothing = inspect.isfunction(value) and not inspect.signature(value).parameters
        if takes_nothing or home == "plots" or name in RECORDS:
            continue
        assert last in words, (
            f"give {name} its smallest problem in fuzz_problems, fuzz_weights or fuzz_upper"
        )
    assert set(RECORDS) <= set(OBJECTS)


@pytest.mark.slow
def test_no_argument_meets_a_raw_message():
    """In processes of their own: the type hook of this one would answer in the package's place."""
    started = [
        subprocess.Popen([sys.executable, HERE / "fuzz.py", half], stdout=-1, text=True, cwd=HERE)
        for half in ("1/2", "2/2")
    ]
    outputs = [process.communicate()[0] for process in started]
    print(*outputs, sep="\n")
    assert all(process.returncode == 0 for process in started), "\n".join(outputs)
