# SPDX-License-Identifier: Apache-2.0
"""Time this package and its peers side by side, and write RESULTS.md.

Each name is a file of this folder, and runs in a process of its own. Numbers that were measured
before and are not measured now stay in the JSON file.
"""

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from peers import versions
from race import others_busy, when
from results import write

HERE = Path(__file__).resolve().parent
NAMES = (
    "evidence",
    "gp_evidence",
    "search",
    "neural_kernels",
    "rg_flow",
    "least_action",
    "weight_dynamics",
    "first_draw",
    "threads",
    "long_runs",
)
PACKAGES = ("jax", "jaxlib", "numpyro", "numpy", "scipy", "scikit-learn", "tinygp", "arviz")
IDLE = 0.1  # cores that other processes may use


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = [name for name in NAMES if (HERE / f"{name}.py").exists()]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="numbers; updated, not replaced")
    parser.add_argument("--results", type=Path, metavar="FILE", help="page written from them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="none that need an environment"
    )
    parser.add_argument("--weightwatcher", action="store_true", help="install it too, 5 GB")
    parser.add_argument("--require-idle", action="store_true", help="end if the machine is busy")
    parser.add_argument("--no-run", action="store_true", help="only write the page")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.peers = 1, False
    elif not options.alone:
        options.json = options.json or HERE / "results.json"
        options.results = options.results or HERE / "RESULTS.md"

    if options.require_idle and (others_busy(3.0) or 0.0) > IDLE:
        sys.exit(f"other processes keep more than {IDLE} of a core busy; end them and try again")
    kept = {"figures": {}}
    if options.json and options.json.exists() and options.json.stat().st_size:
        kept = json.loads(options.json.read_text())
    kept["facts"] = facts() if not (options.no_run and "facts" in kept) else kept["facts"]
    failed = []
    if not options.no_run:
        for name in options.only:
            run = measured if options.quick or options.alone else in_a_process
            found, fault = run(name, options)
            kept["figures"] |= {f"{name}: {key}": record for key, record in found.items()}
            failed += [f"{name}: {fault}"] if fault else []
            save(kept, options)  # now, so that a run that is stopped keeps what it has measured
    save(kept, options)
    if failed:
        sys.exit("\n".join(failed))


def save(kept, options):
    """Write the numbers and the page that is made of them, where they are asked for."""
    if options.json:
        options.json.write_text(json.dumps(kept, indent=1) + "\n")
    if options.results:
        write(kept, options.results)


def measured(name, options):
    """Return the figures of a file by name, and its error as text or None."""
    import numpyro

    numpyro.enable_x64()
    found = {}
    try:
        module = importlib.import_module(name)
        if not hasattr(module, "figures"):  # it prints tables of its own
            command = [sys.executable, HERE / f"{name}.py", *["--quick"] * options.quick]
            subprocess.run(command, check=True)
            return found, None
        for key, record in module.figures(options):
            found[key] = record
    except Exception as error:  # the others still run, and figures that were measured are kept
        traceback.print_exc()
        return found, f"{type(error).__name__}: {error}"
    return found, None


def in_a_process(name, options):
    """Do as `measured` in a fresh process, whose memory and compiled programs are its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks", "--alone", "--only", name, "--json", file]
        command += [f"--rounds={options.rounds}", *([] if options.peers else ["--no-peers"])]
        command += ["--weightwatcher"] * options.weightwatcher
        done = subprocess.run(command, cwd=HERE.parent)
        figures = json.loads(file.read_text())["figures"] if file.exists() else {}
    found = {key.partition(": ")[2]: record for key, record in figures.items()}
    return found, f"exit status {done.returncode}" if done.returncode else None


def facts():
    """Return machine, cores, threads, versions, load and date."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return {
        "machine": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "versions": found,
        "peers": versions(),
        "busy": others_busy(),
        **when(),
    }


def processor():
    """Return the name of the processor, or of its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
