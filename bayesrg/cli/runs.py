# SPDX-License-Identifier: Apache-2.0
"""The commands ``run``, ``resume``, ``show`` and ``join``."""

import shlex
import time
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .models import check_name, line, load_model, said
from .report import as_json, print_report, save_plots

Accept = Annotated[
    list[str] | None,
    typer.Option(help="Differences that are allowed on continuing: versions, devices."),
]
# options of ``run`` that run.json stores
_ASKED = tuple(
    "model data n task draws warmup chains thin max_bytes threshold seed devices".split()
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and no table.")]


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.")],
    data: Annotated[
        str | None, typer.Option(help="Data set, e.g. digits. Default: the model's demo data.")
    ] = None,
    n: Annotated[int | None, typer.Option(help="Number of training points of --data.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Labels: even_odd, low_high, or two classes such as 3,8.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws kept per chain.")] = 500,
    warmup: Annotated[int, typer.Option(help="Warm-up steps per chain.")] = 300,
    chains: Annotated[int, typer.Option(help="Number of chains.")] = 4,
    thin: Annotated[int, typer.Option(help="Steps from one draw to the next.")] = 1,
    max_bytes: Annotated[
        int, typer.Option(help="Largest size of the result of a fit, in bytes.")
    ] = 2 << 30,
    threshold: Annotated[
        float, typer.Option(help="Modes with a learnability below this are marginalised.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Random seed of data split and sampling.")] = 0,
    devices: Annotated[
        int | None, typer.Option(help="Number of devices that share the chains.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results; that of a run that was stopped continues it. "
            "Default: a new one, runs/MODEL."
        ),
    ] = None,
    accept: Accept = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the memory and time that the full model takes; write nothing."
        ),
    ] = False,
    json: Json = False,
):
    """Sample a model, find how many modes its data determine, coarse-grain it, and compare."""
    check_name(model)
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"--seed must fit into 64 bits, got {seed}; give a smaller number")
    if data is None and (n is not None or task is not None):
        raise ValueError("--n and --task belong to --data; name a data set, e.g. --data digits")
    _classes(task)
    asked = {
        "model": str(Path(model).resolve()) if Path(model).suffix == ".py" else model,
        "data": data,
        "n": n,
        "task": task,
        "draws": draws,
        "warmup": warmup,
        "chains": chains,
        "thin": thin,
        "max_bytes": max_bytes,
        "threshold": threshold,
        "seed": seed,
        "devices": devices,
    }
    _job(asked, out, accept, json, model, dry_run)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of a run that `bayesrg run` started.")],
    draws: Annotated[
        int | None, typer.Option(help="Draws per chain, if more than at the start.")
    ] = None,
    accept: Accept = None,
    json: Json = False,
):
    """Continue a run that was stopped, or extend a finished one."""
    from ..io.run_folder import RunFolder

    facts = RunFolder(run).facts
    if facts is None:
        raise FileNotFoundError(f"no run at {str(run)!r}; give the folder of a run")
    asked = facts.get("origin")
    if not isinstance(asked, dict) or asked.get("program") != "bayesrg run":
        raise ValueError(
            f"the run at {str(run)!r} was started from Python ({facts.get('model', 'the job')}); "
            f"continue it there, by the same call with path={str(run)!r}"
        )
    missing = sorted({*_ASKED} - {*asked})
    if missing:
        raise ValueError(
            f"run.json in {str(run)!r} does not say which {missing[0]} the run has; continue with "
            f"bayesrg run and all its options, and --out {shlex.quote(str(run))}"
        )
    asked = {name: asked[name] for name in _ASKED}
    inner = RunFolder(run / "full").facts  # a run that was being extended is extended further
    stored = max(f["draws"] for f in (facts, inner or facts))
    asked["draws"] = stored if draws is None else draws
    try:
        check_name(asked["model"])
    except ValueError as error:
        raise ValueError(
            f"{error}. If the model of this run has moved, continue with bayesrg run, its new "
            f"path, the former options, and --out {shlex.quote(str(run))}"
        ) from error
    _job(asked, run, accept, json, asked["model"])


def _job(asked, out, accept, json, name, dry_run=False):
    """Make model and data from what ``run`` was asked for, do the main job, and print the report.

    ``asked`` are the options of ``run`` by name. They are stored in run.json for ``resume``. A dry
    run ends before the main job, and prints an estimate of memory and time.
    """
    # imported here, so that the checks before and the other commands start quickly
    import numpyro

    numpyro.enable_x64()
    import jax

    from .. import inference
    from ..data import load

    model, data = asked["model"], asked["data"]
    module = load_model(model)
    folder = _free_folder(Path(model).stem) if out is None else out
    try:
        data_key, key = jax.random.split(jax.random.key(asked["seed"]))
        if data is not None:
            n = 200 if asked["n"] is None else asked["n"]
            points = load(data, n=n, task=_classes(asked["task"]), key=data_key)
        elif hasattr(module, "demo"):
            points = module.demo(data_key)
        else:
            raise ValueError(f"{name!r} has no demo data; name a data set, e.g. --data digits")

        prepare = getattr(module, "prepare", None)
        if dry_run:
            _print_estimate(module.model, points, prepare, asked, json)
            return
        start = time.perf_counter()
        steps = ("draws", "warmup", "chains", "thin", "max_bytes", "devices", "threshold")
        dt = inference.coarse_grain(
            module.model,
            points,
            key=key,
            **{name: asked[name] for name in steps},
            prepare=prepare,
            path=folder,
            accept=tuple(accept or ()),
            origin={"program": "bayesrg run"} | asked,
            say=lambda text: typer.echo(text, err=True),
        )
    except KeyboardInterrupt as error:
        again = f"bayesrg resume {shlex.quote(str(folder))}"
        error.args = (f"{error or 'stopped'}; continue with: {again}",)
        raise
    except (Exception, SystemExit) as error:
        where = line(error, module.__file__)
        if where and Path(model).suffix == ".py":
            raise ValueError(f"{name}, {where}{said(error)}") from error
        raise

    if "flow" in dt.children:
        save_plots(dt, folder)
    if json:
        typer.echo(as_json(dt, folder=str(folder)))
        return
    print_report(name, dt, time.perf_counter() - start)
    typer.echo(f"run folder: {folder}")


def _print_estimate(model, points, prepare, asked, json):
    """Print what the full model takes of memory and time, as a table or as one JSON object."""
    from .. import inference

    made = {} if prepare is None else prepare(points)
    steps = ("draws", "warmup", "chains", "thin", "devices")
    found = inference.estimate(model, points, **{name: asked[name] for name in steps}, **made)
    typer.echo(dumps(found.as_dict(), indent=1) if json else found)
    if found.bytes > asked["max_bytes"]:
        typer.echo(f"the result has more than --max-bytes {asked['max_bytes']}", err=True)


def _classes(task):
    """Return two classes (3, 8) for a text such as "3,8"; return any other text unchanged."""
    if task is None or "," not in task:
        return task
    try:
        return tuple(int(c) for c in task.split(","))
    except ValueError:
        raise ValueError(
            f"--task must be even_odd, low_high or two classes such as 3,8, got {task!r}"
        ) from None


def _free_folder(stem):
    """Return a folder under runs/ that does not exist yet: STEM, STEM-2, STEM-3, ..."""
    folder, k = Path("runs") / stem, 1
    while folder.exists():  # even without a result: another run may be about to write to it
        k += 1
        folder = Path("runs") / f"{stem}-{k}"
    return folder


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="Run folder, or a result file.")], json: Json = False
):
    """Print a summary of a result: settings, groups, and a table of the posterior."""
    import arviz as az

    from ..io import open_run

    try:
        dt = open_run(run)
        if json:
            typer.echo(as_json(dt))
            return
        table = az.summary(dt).to_string() if "posterior" in dt.children else "no posterior"
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:
        raise ValueError(
            f"{str(run)!r} cannot be read as a result ({said(error)}); give a run folder, or a "
            "netCDF file that bayesrg wrote"
        ) from error
    for name in ("model", "draws", "warmup", "chains", "precision", "bayesrg"):
        if name in dt.attrs:
            typer.echo(f"{name:10s} {dt.attrs[name]}")
    if "finished" in dt.attrs:
        done = dt.attrs.get("draws_done", 0)
        typer.echo(f"{'finished':10s} no, {done} of {dt.attrs.get('draws', '?')} draws per chain")
    typer.echo(f"{'groups':10s} {', '.join(dt.children)}")
    typer.echo(table)


@app.command()
def join(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    out: Annotated[Path, typer.Option(help="File for the result, ending in .nc or .zarr.")],
    json: Json = False,
):
    """Join the chains of runs that differ in their key alone, and write them as one result."""
    from ..io import export, join_chains

    dt = join_chains(runs)
    file = export(dt, out)
    if json:
        typer.echo(as_json(dt, file=str(file)))
    else:
        typer.echo(f"{dt.attrs['chains']} chains of {len(runs)} runs: {file}")
