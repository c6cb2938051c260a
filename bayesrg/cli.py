# SPDX-License-Identifier: Apache-2.0
"""The command line: ``bayesrg models | run | show``."""

import difflib
import pkgutil
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Bayesian renormalisation of Gaussian processes and deep networks.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
)  # fmt: skip


def _model_names():
    from . import models

    return sorted({m.name for m in pkgutil.iter_modules(models.__path__)})


def _load_model(name):
    """Import a model by its name in the package, or a file by its path."""
    import importlib
    import importlib.util

    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise ValueError(f"no model file at {name!r}; give a path to a .py file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ValueError(f"{name!r} does not load: {type(error).__name__}: {error}") from error
    elif name in _model_names():
        module = importlib.import_module(f"bayesrg.models.{name}")
    else:
        near = difflib.get_close_matches(name, _model_names(), 3, 0.4) or _model_names()
        raise ValueError(
            f"no model is called {name!r}; did you mean {', '.join(near)}? A file of your own is "
            "given by its path, ending in .py"
        )
    if not hasattr(module, "model"):
        raise ValueError(f"{name!r} defines no function model(X, y=None, ...); add one")
    return module


@app.command()
def models():
    """List the models of the package."""
    for name in _model_names():
        doc = (_load_model(name).__doc__ or "").strip().splitlines()
        typer.echo(f"{name:16s} {doc[0] if doc else ''}")


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="Name of a model, or path of a model file.")],
    data: Annotated[str | None, typer.Option(help="Data set, else the model's own demo.")] = None,
    n: Annotated[int | None, typer.Option(help="Training points of --data.")] = None,
    task: Annotated[
        str | None, typer.Option(help="even_odd, low_high, or two classes: 3,8")
    ] = None,
    draws: Annotated[int, typer.Option(help="Kept draws a chain.")] = 500,
    warmup: Annotated[int, typer.Option(help="Warm-up steps a chain.")] = 300,
    chains: Annotated[int, typer.Option(help="Chains.")] = 4,
    threshold: Annotated[float, typer.Option(help="Learnability that stops the flow.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Decides data split and sampling.")] = 0,
    devices: Annotated[int | None, typer.Option(help="Devices to share the chains.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder, else runs/MODEL.")] = None,
):
    """Sample a model, find where its data stop the flow, coarse-grain, and compare."""
    import numpyro

    numpyro.enable_x64()
    import jax

    from . import job
    from .data import load

    module = _load_model(model)
    data_key, key = jax.random.split(jax.random.key(seed))
    if data is not None:
        classes = tuple(int(c) for c in task.split(",")) if task and "," in task else task
        points = load(data, n=200 if n is None else n, task=classes, key=data_key)
    elif n is not None or task is not None:
        raise ValueError("--n and --task belong to --data; name a data set, e.g. --data digits")
    elif hasattr(module, "demo"):
        points = module.demo(data_key)
    else:
        raise ValueError(f"{model!r} has no demo data; name a data set, e.g. --data digits")
    folder = _free_folder(Path(model).stem) if out is None else out
    report = job.run(
        module, points, key=key, draws=draws, warmup=warmup, chains=chains, devices=devices,
        threshold=threshold, out=folder, say=lambda text: typer.echo(text, err=True),
    )  # fmt: skip
    _print_report(model, report, folder)


def _free_folder(stem):
    folder, k = Path("runs") / stem, 1
    while (folder / "result.nc").exists():
        k += 1
        folder = Path("runs") / f"{stem}-{k}"
    return folder


def _print_report(name, report, folder):
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=name, show_header=False, title_justify="left")
    for row in report.summary:
        table.add_row(*row)
    console.print(table)
    if report.rules:
        rules = Table("rule", title="at the posterior medians", title_justify="left")
        rules.add_column("log evidence", justify="right")
        rules.add_column("test MSE", justify="right")
        for rule, evidence, error in report.rules:
            rules.add_row(rule, f"{evidence:.2f}", f"{error:.4f}")
        console.print(rules)
    console.print(f"run folder: {folder}")


@app.command()
def show(run: Annotated[Path, typer.Argument(help="Run folder, or a result file.")]):
    """Summarise a result."""
    import arviz as az

    from .io import open_run

    dt = open_run(run)
    for name in ("model", "draws", "warmup", "chains", "precision", "bayesrg"):
        if name in dt.attrs:
            typer.echo(f"{name:10s} {dt.attrs[name]}")
    typer.echo(f"{'groups':10s} {', '.join(dt.children)}")
    typer.echo(az.summary(dt).to_string())


def main():
    """Run the command line; a mistake of the user ends in one line, not a traceback."""
    try:
        app()
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        typer.echo(f"bayesrg: {error}", err=True)
        sys.exit(2)
