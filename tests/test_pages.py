# SPDX-License-Identifier: Apache-2.0
"""The code of pages runs: all blocks of a page in order, in an empty folder.

Blocks of Python share one namespace. Blocks of bash run with stand-ins for the commands of Slurm. A
block whose first comment is a file name (``# fit.py``) is written to this file. A block of text
after a block of Python is what this prints.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["howto/long_runs.md", "howto/devices.md", "howto/cluster.md", "explanation/resume.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:#!.*\n)?# (\S+\.(?:py|sh))\n")
COMMANDS = {
    "python": f'exec {sys.executable} "$@"',
    "bayesrg": f'exec {sys.executable} -c "from bayesrg.cli import main; main()" "$@"',
    "srun": 'while [[ $1 == --* ]]; do shift; done\n"$@"',
    "scontrol": 'echo "scontrol $*" >> scontrol.log',
    # the jobs of an array one after the other
    "sbatch": """
last=$(sed -n 's/^#SBATCH --array=0-//p' "$1")
for job in $(seq 0 ${last:-0}); do
    SLURM_JOB_ID=1$job SLURM_ARRAY_TASK_ID=$job bash "$1" || exit
done""",
}
# Runs one block after the other, in a process of its own, and says what it printed.
RUNNER = """
import contextlib, io, json, sys
import matplotlib
matplotlib.use("Agg")
space = {"__name__": "__main__"}
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = json.loads(line)
        exec(compile(code["text"], code["name"], "exec"), space)
    print(json.dumps(printed.getvalue()), flush=True)
"""


def blocks(page):
    """Return language, text and line of each fenced block of a page."""
    text = (DOCS / page).read_text("utf-8")
    return [
        (found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(text)
    ]


@pytest.fixture
def place(tmp_path):
    """An empty folder, and an environment with the stand-ins first in its path."""
    commands, home = tmp_path / "commands", tmp_path / "home"
    commands.mkdir()
    home.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": f"{DOCS.parent}:{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return home, environment


def bash(text, home, environment):
    """Run a block of bash, which must end well; return what it printed."""
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def write(text, home):
    """Write a block that is a file; return whether it is one."""
    name = FILE.match(text)
    if name is not None:
        (home / name[1]).write_text(text)
    return name is not None


@pytest.mark.parametrize("page", PAGES)
def test_code_of_a_page_runs(page, place):
    home, environment = place
    python = subprocess.Popen(
        [sys.executable, "-c", RUNNER],
        cwd=home,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with python:
        printed, found = None, blocks(page)
        assert found or page == "explanation/resume.md"
        for language, text, line in found:
            if language == "text":
                if printed is not None:
                    assert text.split() == printed.split(), f"{page}:{line}"
                printed = None
            elif language == "bash":
                printed = None
                if not write(text, home):
                    bash(text, home, environment)
            elif language == "python":
                printed = None
                if not write(text, home):
                    code = "\n" * (line - 1) + text
                    python.stdin.write(json.dumps({"text": code, "name": page}) + "\n")
                    python.stdin.flush()
                    answer = python.stdout.readline()
                    assert answer, python.stderr.read()
                    printed = json.loads(answer)
            else:
                pytest.fail(f"{page}:{line}: a block of {language}")
        python.stdin.close()
        python.wait()


def test_the_job_of_a_cluster_starts_again_after_its_time_limit(place):
    """A signal stops the job after a block; Slurm starts it again; the chains are those of one."""
    import bayesrg as brg

    home, environment = place
    for language, text, _ in blocks("howto/cluster.md"):
        if language in ("python", "bash"):
            write(text, home)
    job = environment | {"SLURM_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0"}
    # the stand-in of srun sends the signal of the time limit once there is a block
    limit = home / "limit"
    limit.mkdir()
    (limit / "srun").write_text(
        '#!/bin/bash\n"$@" &\n'
        "until [ -s runs/0/progress.jsonl ]; do sleep 0.05; done\n"
        "kill -TERM $!; wait $!\n"
    )
    (limit / "srun").chmod(0o755)
    stopped = job | {"PATH": f"{limit}:{job['PATH']}"}
    run = [["bash", "job.sh"], {"cwd": home, "capture_output": True, "text": True, "timeout": 300}]
    done = subprocess.run(*run[:1], **run[1], env=stopped)
    assert done.returncode == 143, done.stderr
    assert "stopped by SIGTERM after block" in done.stderr
    assert (home / "scontrol.log").read_text() == "scontrol requeue 17\n"
    dt = brg.open_run(home / "runs" / "0")
    assert not dt.attrs["finished"]
    done = subprocess.run(*run[:1], **run[1], env=job)
    assert done.returncode == 0, done.stderr
    whole = subprocess.run(
        [sys.executable, "fit.py", "whole", "0"], cwd=home, env=environment, timeout=300
    )
    assert whole.returncode == 0
    one, other = brg.open_run(home / "runs" / "0"), brg.open_run(home / "whole")
    assert one["posterior"].equals(other["posterior"])
